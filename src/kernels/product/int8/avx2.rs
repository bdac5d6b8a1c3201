//! Products with AVX2. Every intrinsic here takes values, none a pointer, so all of it is safe on a processor that has the
//! instructions.
//!
//! `vpmaddubsw` multiplies unsigned bytes (right) and signed ones (left) and adds pairs of neighbours in 16 bits, **with
//! saturation**. Two of its results are added in 16 bits before `vpmaddwd` by ones adds pairs of those in 32. So a 16-bit
//! number holds four products. With a right byte in `0..=127` and a left one in `-64..=64` their sum is within `4·127·64 =
//! 32,512 < 2^15`, so nothing saturates or wraps: the 32-bit sums are exact.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_NGT_UQ, _mm256_add_epi16, _mm256_add_epi32, _mm256_cmp_ps, _mm256_cvtepi32_ps,
    _mm256_fnmadd_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
};

use super::{LeftRow, TILE, Tile};

/// 32-bit numbers in a vector register.
const LANES: usize = 8;

/// Registers of a tile.
const REGISTERS: usize = TILE / LANES;

/// Number of left rows whose sums are in registers at the same time: with one right register and the left words, they
/// fill the sixteen that there are.
const ROWS: usize = 2;

/// Vector version of [`super::plain`]. Writes the same bits.
#[target_feature(enable = "avx2,fma")]
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

#[target_feature(enable = "avx2,fma")]
fn rows<const N: usize>(lefts: &[LeftRow; N], words: &[u32], tile: &Tile, masks: &mut [u32; N]) {
    for ((mask, left), sums) in masks.iter_mut().zip(lefts).zip(sums_of(lefts, words, tile)) {
        *mask = 0;
        for (register, sums) in sums.into_iter().enumerate() {
            *mask |= within(left, tile, register, sums) << (register * LANES);
        }
    }
}

/// Vector version of [`super::plain_values`]. Writes the same bits.
#[target_feature(enable = "avx2,fma")]
pub(in crate::kernels::product) fn values(left: &LeftRow, words: &[u32], tile: &Tile, out: &mut [f32; TILE]) {
    let [sums] = sums_of(&[*left], words, tile);
    for (register, (sums, out)) in sums.into_iter().zip(out.as_chunks_mut::<LANES>().0).enumerate() {
        *out = pulp::cast(values_of(left, tile, register, sums));
    }
}

/// Returns the sums of some left rows with all rows of the tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sums_of<const N: usize>(lefts: &[LeftRow; N], words: &[u32], tile: &Tile) -> [[__m256i; REGISTERS]; N] {
    let width = tile.words.len();
    let mut sums = [[_mm256_set1_epi32(0); REGISTERS]; N];
    for (sums, left) in sums.iter_mut().zip(lefts) {
        *sums = [_mm256_set1_epi32(left.start); REGISTERS];
    }
    let rows: [&[u32]; N] = std::array::from_fn(|row| &words[row * width..][..width]);
    let ones = _mm256_set1_epi16(1);
    let (pairs, last) = tile.words.as_chunks::<2>();
    for (pair, [first, second]) in pairs.iter().enumerate() {
        let mut lefts = [[ones; 2]; N];
        for (left, row) in lefts.iter_mut().zip(rows) {
            *left = [broadcast(row[2 * pair]), broadcast(row[2 * pair + 1])];
        }
        for register in 0..REGISTERS {
            let (first, second) = (part(first, register), part(second, register));
            for (sums, [left_first, left_second]) in sums.iter_mut().zip(lefts) {
                let products = _mm256_add_epi16(
                    _mm256_maddubs_epi16(first, left_first),
                    _mm256_maddubs_epi16(second, left_second),
                );
                sums[register] = _mm256_add_epi32(sums[register], _mm256_madd_epi16(products, ones));
            }
        }
    }
    for others in last {
        for (sums, row) in sums.iter_mut().zip(rows) {
            let left = broadcast(row[width - 1]);
            for (register, sum) in sums.iter_mut().enumerate() {
                let products = _mm256_maddubs_epi16(part(others, register), left);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
            }
        }
    }
    sums
}

#[target_feature(enable = "avx2,fma")]
fn within(left: &LeftRow, tile: &Tile, register: usize, sums: __m256i) -> u32 {
    let values = values_of(left, tile, register, sums);
    // Not greater, so that NaN is within.
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NGT_UQ>(values, _mm256_set1_ps(left.limit))) as u32
}

#[target_feature(enable = "avx2,fma")]
fn values_of(left: &LeftRow, tile: &Tile, register: usize, sums: __m256i) -> __m256 {
    let of = |numbers: &[f32; TILE]| -> __m256 { pulp::cast(numbers.as_chunks::<LANES>().0[register]) };
    let products = _mm256_mul_ps(of(&tile.scale), _mm256_cvtepi32_ps(sums));
    _mm256_fnmadd_ps(_mm256_set1_ps(left.factor), products, of(&tile.norm))
}

#[target_feature(enable = "avx2")]
fn broadcast(word: u32) -> __m256i {
    _mm256_set1_epi32(word.cast_signed())
}

#[target_feature(enable = "avx2")]
fn part(words: &[u32; TILE], register: usize) -> __m256i {
    pulp::cast(words.as_chunks::<LANES>().0[register])
}
