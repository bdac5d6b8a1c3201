//! Inner products of int8 rows, compared with limits on the way: a sixteenth of the memory and a quarter of the
//! work of f32, and exact, since they are sums of integers.
//!
//! The instruction is VNNI's `vpdpbusd`: sixteen sums of four products each, of an unsigned byte (the rows on the
//! right, stored with 128 added) and a signed one (the left operand). What 128 adds to a sum, `128·Σ_c left_c`, is
//! subtracted beforehand: sums start at `-128·Σ_c left_c`.

/// Rows on the right that are compared together, a tile: two registers of sixteen.
pub(crate) const TILE: usize = 32;

/// 32-bit numbers in a vector register.
const LANES: usize = 16;

/// Bytes in a word. A vector instruction multiplies whole words.
pub(crate) const WORD: usize = 4;

/// Number of left rows whose sums are in registers at the same time.
const ROWS: usize = 8;

/// Most bytes of a row for which no 32-bit sum overflows: `d·255·127 < 2^31`.
pub(crate) const LONGEST: usize = 65_536;

/// A left row, except its bytes.
#[derive(Clone, Copy)]
pub(crate) struct LeftRow {
    /// Start of its sums: `-128·Σ_c left_c`.
    pub(crate) start: i32,
    /// Factor that its products are multiplied by.
    pub(crate) factor: f32,
    /// Limit that the row's values are compared with.
    pub(crate) limit: f32,
}

/// Thirty-two rows of the right operand.
pub(crate) struct Tile {
    /// For each word of a row: that word of all rows.
    pub(crate) words: Vec<[u32; TILE]>,
    /// Factor of each row's products.
    pub(crate) scale: [f32; TILE],
    /// Term from which each row's products are subtracted.
    pub(crate) norm: [f32; TILE],
}

impl Tile {
    /// Returns a tile for rows of this many words. Its rows are not within any limit, until they are set.
    pub(crate) fn new(words: usize) -> Self {
        Self { words: vec![[0; TILE]; words], scale: [0.0; TILE], norm: [f32::INFINITY; TILE] }
    }
}

/// The value that is compared with the limit: `norm - factor·(scale·product)`, the last two operations fused.
fn value(left: &LeftRow, tile: &Tile, lane: usize, product: i32) -> f32 {
    (-left.factor).mul_add(tile.scale[lane] * product as f32, tile.norm[lane])
}

/// Scalar version of [`super::int8_masks`], for processors without VNNI. Writes the same bits.
pub(super) fn plain(lefts: &[LeftRow], words: &[u32], tile: &Tile, masks: &mut [u32]) {
    for ((left, words), mask) in lefts.iter().zip(words.chunks_exact(tile.words.len())).zip(masks) {
        let mut sums = [left.start; TILE];
        for (&word, others) in words.iter().zip(&tile.words) {
            for (sum, other) in sums.iter_mut().zip(others) {
                let pairs = word.to_le_bytes().into_iter().zip(other.to_le_bytes());
                *sum += pairs.map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b)).sum::<i32>();
            }
        }
        let is_within = |lane: &usize| {
            let value = value(left, tile, *lane, sums[*lane]);
            value <= left.limit || value.is_nan() || left.limit.is_nan()
        };
        *mask = (0..TILE).filter(is_within).fold(0, |mask, lane| mask | 1 << lane);
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod vnni {
    //! The version with vector instructions. Every intrinsic here takes values, none a pointer, so all of it is safe
    //! on a processor that has the instructions.

    use std::arch::x86_64::{
        __m512, __m512i, _CMP_NGT_UQ, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
        _mm512_fnmadd_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    };

    use super::{LANES, LeftRow, ROWS, TILE, Tile};

    /// Vector version of [`super::plain`]. Writes the same bits.
    #[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
    pub(in super::super) fn vectors(lefts: &[LeftRow], words: &[u32], tile: &Tile, masks: &mut [u32]) {
        let width = tile.words.len();
        let (blocks, rest) = lefts.as_chunks::<ROWS>();
        let (mask_blocks, mask_rest) = masks.as_chunks_mut::<ROWS>();
        let (word_blocks, word_rest) = words.split_at(blocks.len() * ROWS * width);
        let word_blocks = word_blocks.chunks_exact(ROWS * width);
        for ((lefts, words), masks) in blocks.iter().zip(word_blocks).zip(mask_blocks) {
            rows(lefts, words, tile, masks);
        }
        for ((left, words), mask) in rest.iter().zip(word_rest.chunks_exact(width)).zip(mask_rest) {
            rows(&[*left], words, tile, std::array::from_mut(mask));
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
    fn rows<const N: usize>(lefts: &[LeftRow; N], words: &[u32], tile: &Tile, masks: &mut [u32; N]) {
        let width = tile.words.len();
        let mut sums = [[_mm512_set1_epi32(0); 2]; N];
        for (sums, left) in sums.iter_mut().zip(lefts) {
            *sums = [_mm512_set1_epi32(left.start); 2];
        }
        let rows: [&[u32]; N] = std::array::from_fn(|row| &words[row * width..][..width]);
        for (word, others) in tile.words.iter().enumerate() {
            let (low, high) = halves(others);
            for (sums, row) in sums.iter_mut().zip(rows) {
                let left = _mm512_set1_epi32(row[word].cast_signed());
                sums[0] = _mm512_dpbusd_epi32(sums[0], low, left);
                sums[1] = _mm512_dpbusd_epi32(sums[1], high, left);
            }
        }
        for ((mask, left), sums) in masks.iter_mut().zip(lefts).zip(sums) {
            *mask = within(left, tile, 0, sums[0]) | within(left, tile, 1, sums[1]) << LANES;
        }
    }

    #[target_feature(enable = "avx512f")]
    fn within(left: &LeftRow, tile: &Tile, half: usize, sums: __m512i) -> u32 {
        let of = |numbers: &[f32; TILE]| -> __m512 { pulp::cast(numbers.as_chunks::<LANES>().0[half]) };
        let products = _mm512_mul_ps(of(&tile.scale), _mm512_cvtepi32_ps(sums));
        let values = _mm512_fnmadd_ps(_mm512_set1_ps(left.factor), products, of(&tile.norm));
        // Not greater, so that NaN is within.
        u32::from(_mm512_cmp_ps_mask::<_CMP_NGT_UQ>(values, _mm512_set1_ps(left.limit)))
    }

    #[target_feature(enable = "avx512f")]
    fn halves(words: &[u32; TILE]) -> (__m512i, __m512i) {
        let [low, high] = *words.as_chunks::<LANES>().0 else { unreachable!("thirty-two are twice sixteen") };
        (pulp::cast(low), pulp::cast(high))
    }
}
