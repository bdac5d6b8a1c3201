//! Products with VNNI of AVX-512. Every intrinsic here takes values, none a pointer, so all of it is safe on a processor
//! that has the instructions.
//!
//! `vpdpbusd` makes sixteen 32-bit sums of four products each.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_NGT_UQ, _mm512_cmp_ps_mask, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32,
    _mm512_fnmadd_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
};

use super::{LeftRow, TILE, Tile};

/// 32-bit numbers in a vector register.
const LANES: usize = 16;

/// Number of left rows whose sums are in registers at the same time.
const ROWS: usize = 8;

/// Vector version of [`super::plain`]. Writes the same bits.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
pub(in crate::kernels::product) fn vectors(lefts: &[LeftRow], words: &[u32], tile: &Tile, masks: &mut [u32]) {
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
    for ((mask, left), sums) in masks.iter_mut().zip(lefts).zip(sums_of(lefts, words, tile)) {
        *mask = within(left, tile, 0, sums[0]) | within(left, tile, 1, sums[1]) << LANES;
    }
}

/// Vector version of [`super::plain_values`]. Writes the same bits.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
pub(in crate::kernels::product) fn values(left: &LeftRow, words: &[u32], tile: &Tile, out: &mut [f32; TILE]) {
    let [sums] = sums_of(&[*left], words, tile);
    for (half, (sums, out)) in sums.into_iter().zip(out.as_chunks_mut::<LANES>().0).enumerate() {
        *out = pulp::cast(values_of(left, tile, half, sums));
    }
}

/// Returns the sums of some left rows with both halves of the tile.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512vnni")]
fn sums_of<const N: usize>(lefts: &[LeftRow; N], words: &[u32], tile: &Tile) -> [[__m512i; 2]; N] {
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
    sums
}

#[target_feature(enable = "avx512f")]
fn within(left: &LeftRow, tile: &Tile, half: usize, sums: __m512i) -> u32 {
    let values = values_of(left, tile, half, sums);
    // Not greater, so that NaN is within.
    u32::from(_mm512_cmp_ps_mask::<_CMP_NGT_UQ>(values, _mm512_set1_ps(left.limit)))
}

#[target_feature(enable = "avx512f")]
fn values_of(left: &LeftRow, tile: &Tile, half: usize, sums: __m512i) -> __m512 {
    let of = |numbers: &[f32; TILE]| -> __m512 { pulp::cast(numbers.as_chunks::<LANES>().0[half]) };
    let products = _mm512_mul_ps(of(&tile.scale), _mm512_cvtepi32_ps(sums));
    _mm512_fnmadd_ps(_mm512_set1_ps(left.factor), products, of(&tile.norm))
}

#[target_feature(enable = "avx512f")]
fn halves(words: &[u32; TILE]) -> (__m512i, __m512i) {
    let [low, high] = *words.as_chunks::<LANES>().0 else { unreachable!("thirty-two are twice sixteen") };
    (pulp::cast(low), pulp::cast(high))
}
