//! Products of rows with panels of a matrix, in one order of sums: `out[i, j] = Σ_c rows[i, c] · weights[c, j]`. The hot loop
//! of the backbone's Winograd convolutions and of the coreset's projection.
//!
//! Each sum starts at 0 and takes its terms in ascending order of `c`, by fused multiply-adds. The lanes of a vector hold
//! different columns, so neither the vector width, nor the number of rows that are computed together, nor the division
//! of the rows changes a sum: the bits are the same on every machine.

use pulp::Simd;

/// Columns of a panel: two registers of AVX-512, four of AVX2.
pub(crate) const PANEL: usize = 32;

/// Terms that are summed up before some of the next weights are asked for (measured: 16 to 64 are alike).
const CHUNK: usize = 64;

/// Computes the product of rows with one panel, `out[n, PANEL] = rows[n, c] · weights[c, PANEL]`. `stride` is the number
/// of values from one row to the next.
///
/// At most `ROWS` rows by `VECTORS` vectors of columns are computed at once: as many rows as divide all evenly. `weights` are
/// those of this product, and those of the products after it, if any: while this one is computed, the next one's are asked for,
/// as many at a time as make the demand on memory even. Without this a Winograd layer of 512 channels took a third longer
/// (Xeon with AVX-512, 2026-11-29).
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must take the instruction set of its caller")]
pub(crate) fn multiply<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    inputs: &[f32],
    stride: usize,
    weights: [&[[f32; PANEL]]; 2],
    out: &mut [f32],
) {
    let tiles = out.len() / PANEL;
    match tiles.div_ceil(tiles.div_ceil(ROWS)) {
        13.. => multiply_by::<S, 14, VECTORS>(simd, inputs, stride, weights, out),
        11.. => multiply_by::<S, 12, VECTORS>(simd, inputs, stride, weights, out),
        9.. => multiply_by::<S, 10, VECTORS>(simd, inputs, stride, weights, out),
        7.. => multiply_by::<S, 8, VECTORS>(simd, inputs, stride, weights, out),
        5.. => multiply_by::<S, 6, VECTORS>(simd, inputs, stride, weights, out),
        3.. => multiply_by::<S, 4, VECTORS>(simd, inputs, stride, weights, out),
        _ => multiply_by::<S, 2, VECTORS>(simd, inputs, stride, weights, out),
    }
}

/// As [`multiply`], by `ROWS` tiles at once.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `multiply`")]
fn multiply_by<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    inputs: &[f32],
    stride: usize,
    [weights, next]: [&[[f32; PANEL]]; 2],
    out: &mut [f32],
) {
    let tiles = out.len() / PANEL;
    let parts = PANEL / S::F32_LANES / VECTORS;
    let mut coming = next.iter().take(weights.len());
    let share = CHUNK.div_ceil(tiles.div_ceil(ROWS) * parts);
    for first in (0..tiles).step_by(ROWS) {
        // The last rows repeat the last tile, which is computed more than once and stored once.
        let rows: [&[f32]; ROWS] =
            std::array::from_fn(|row| &inputs[(first + row).min(tiles - 1) * stride..][..weights.len()]);
        for part in 0..parts {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            for (index, weights) in weights.chunks(CHUNK).enumerate() {
                coming.by_ref().take(share).for_each(prefetch);
                let rows: [&[f32]; ROWS] =
                    std::array::from_fn(|row| &rows[row][index * CHUNK..][..weights.len()]);
                let weights = weights.iter().map(|weights| {
                    let weights = &S::as_simd_f32s(weights).0[part * VECTORS..][..VECTORS];
                    std::array::from_fn(|vector| weights[vector])
                });
                sums = accumulate::<S, ROWS, VECTORS>(simd, sums, rows, weights);
            }
            for (tile, sums) in (first..tiles).zip(&sums) {
                let out = &mut out[tile * PANEL..][..PANEL];
                let out = &mut S::as_mut_simd_f32s(out).0[part * VECTORS..][..VECTORS];
                out.copy_from_slice(sums);
            }
        }
    }
}

/// Adds the products of some channels: the rows' values times the channels' weights.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `multiply`")]
fn accumulate<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mut sums: [[S::f32s; VECTORS]; ROWS],
    rows: [&[f32]; ROWS],
    weights: impl ExactSizeIterator<Item = [S::f32s; VECTORS]>,
) -> [[S::f32s; VECTORS]; ROWS] {
    for (channel, weights) in weights.enumerate() {
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let input = simd.splat_f32s(row[channel]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = simd.mul_add_f32s(input, weight, *sum);
            }
        }
    }
    sums
}

/// Asks for weights that are needed soon, so that they are in the second-level cache by then.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `multiply`")]
fn prefetch(weights: &[f32; PANEL]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(sse) = pulp::core_arch::x86::Sse::try_new() {
        for line in weights.chunks_exact(16) {
            sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = weights;
}
