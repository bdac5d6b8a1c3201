//! Inner products of rows of bytes, compared with limits on the way: a sixteenth of the memory and a
//! quarter of the work of f32, and exact, since they are sums of integers.
//!
//! The instruction is VNNI's `vpdpbusd`: sixteen sums of four products, of a byte without sign (the rows on
//! the right, stored with 128 added) and one with sign (those on the left). What 128 adds to a sum,
//! `128·Σ_c left_c`, is taken off beforehand: sums start at `-128·Σ_c left_c`.

/// Rows on the right that are compared together: two registers of sixteen.
pub(crate) const STRIP: usize = 32;

/// Numbers in a register.
const LANES: usize = 16;

/// Bytes in a word, the unit of one product.
pub(crate) const WORD: usize = 4;

/// Rows on the left whose sums are kept in registers at the same time.
const ROWS: usize = 8;

/// Most bytes of a row for which no sum of 32 bits overflows: `d·255·127 < 2^31`.
pub(crate) const LONGEST: usize = 65_536;

/// A row on the left, beside its words.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    /// `-128·Σ_c left_c`.
    pub(crate) start: i32,
    /// What a product is multiplied by.
    pub(crate) factor: f32,
    /// The limit that its values are compared with.
    pub(crate) limit: f32,
}

/// Thirty-two rows on the right.
pub(crate) struct Strip {
    /// For each word of a row: that word of all rows.
    pub(crate) words: Vec<[u32; STRIP]>,
    /// What each row's products are multiplied by.
    pub(crate) scale: [f32; STRIP],
    /// What a product is taken off.
    pub(crate) norm: [f32; STRIP],
}

impl Strip {
    /// A strip of rows that are below no limit, for rows of so many words.
    pub(crate) fn new(words: usize) -> Self {
        Self { words: vec![[0; STRIP]; words], scale: [0.0; STRIP], norm: [f32::INFINITY; STRIP] }
    }
}

/// The value of a pair: `norm - factor·(scale·product)`, the last two operations fused.
fn value(left: &Left, strip: &Strip, lane: usize, product: i32) -> f32 {
    (-left.factor).mul_add(strip.scale[lane] * product as f32, strip.norm[lane])
}

/// The masks of [`super::byte_pairs_within`], in plain words.
pub(super) fn plain(lefts: &[Left], words: &[u32], strip: &Strip, masks: &mut [u32]) {
    for ((left, words), mask) in lefts.iter().zip(words.chunks_exact(strip.words.len())).zip(masks) {
        let mut sums = [left.start; STRIP];
        for (&word, others) in words.iter().zip(&strip.words) {
            for (sum, other) in sums.iter_mut().zip(others) {
                let pairs = word.to_le_bytes().into_iter().zip(other.to_le_bytes());
                *sum += pairs.map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b)).sum::<i32>();
            }
        }
        let is_within = |lane: &usize| {
            let value = value(left, strip, *lane, sums[*lane]);
            value <= left.limit || value.is_nan() || left.limit.is_nan()
        };
        *mask = (0..STRIP).filter(is_within).fold(0, |mask, lane| mask | 1 << lane);
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod vnni {
    //! The same with vectors. Every intrinsic here takes values, none a pointer, so that all of it is safe
    //! where the processor has the instructions.

    use std::arch::x86_64::{
        __m512, __m512i, _CMP_NGT_UQ, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
        _mm512_fnmadd_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    };

    use super::{LANES, Left, ROWS, STRIP, Strip};

    /// As [`super::plain`], bit for bit.
    #[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
    pub(in super::super) fn vectors(lefts: &[Left], words: &[u32], strip: &Strip, masks: &mut [u32]) {
        let width = strip.words.len();
        let (blocks, rest) = lefts.as_chunks::<ROWS>();
        let (mask_blocks, mask_rest) = masks.as_chunks_mut::<ROWS>();
        let (word_blocks, word_rest) = words.split_at(blocks.len() * ROWS * width);
        let word_blocks = word_blocks.chunks_exact(ROWS * width);
        for ((lefts, words), masks) in blocks.iter().zip(word_blocks).zip(mask_blocks) {
            rows(lefts, words, strip, masks);
        }
        for ((left, words), mask) in rest.iter().zip(word_rest.chunks_exact(width)).zip(mask_rest) {
            rows(&[*left], words, strip, std::array::from_mut(mask));
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
    fn rows<const N: usize>(lefts: &[Left; N], words: &[u32], strip: &Strip, masks: &mut [u32; N]) {
        let width = strip.words.len();
        let mut sums = [[_mm512_set1_epi32(0); 2]; N];
        for (sums, left) in sums.iter_mut().zip(lefts) {
            *sums = [_mm512_set1_epi32(left.start); 2];
        }
        let rows: [&[u32]; N] = std::array::from_fn(|row| &words[row * width..][..width]);
        for (place, others) in strip.words.iter().enumerate() {
            let (low, high) = halves(others);
            for (sums, row) in sums.iter_mut().zip(rows) {
                let word = _mm512_set1_epi32(row[place].cast_signed());
                sums[0] = _mm512_dpbusd_epi32(sums[0], low, word);
                sums[1] = _mm512_dpbusd_epi32(sums[1], high, word);
            }
        }
        for ((mask, left), sums) in masks.iter_mut().zip(lefts).zip(sums) {
            *mask = within(left, strip, 0, sums[0]) | within(left, strip, 1, sums[1]) << LANES;
        }
    }

    #[target_feature(enable = "avx512f")]
    fn within(left: &Left, strip: &Strip, half: usize, sums: __m512i) -> u32 {
        let of = |numbers: &[f32; STRIP]| -> __m512 { pulp::cast(numbers.as_chunks::<LANES>().0[half]) };
        let products = _mm512_mul_ps(of(&strip.scale), _mm512_cvtepi32_ps(sums));
        let values = _mm512_fnmadd_ps(_mm512_set1_ps(left.factor), products, of(&strip.norm));
        // Not greater, so that NaN is within.
        u32::from(_mm512_cmp_ps_mask::<_CMP_NGT_UQ>(values, _mm512_set1_ps(left.limit)))
    }

    #[target_feature(enable = "avx512f")]
    fn halves(words: &[u32; STRIP]) -> (__m512i, __m512i) {
        let [low, high] = *words.as_chunks::<LANES>().0 else { unreachable!("thirty-two are twice sixteen") };
        (pulp::cast(low), pulp::cast(high))
    }
}
