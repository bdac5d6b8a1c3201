//! Products of rows with panels of a matrix, in one order of sums: `out[i, j] = Σ_c rows[i, c] · weights[c, j]`.
//!
//! Each sum starts at 0 and takes its terms in ascending order of `c`, by fused multiply-adds. The lanes of a vector hold
//! different columns, so neither the vector width, nor the number of rows that are computed together, nor the division
//! of the rows changes a sum: the bits are the same on every machine.

use pulp::Simd;

/// Columns of a panel: two registers of AVX-512, four of AVX2.
pub(crate) const PANEL: usize = 32;

/// Computes the product of rows with one panel, `out[n, PANEL] = rows[n, c] · weights[c, PANEL]`. `stride` is the number
/// of values from one row to the next.
///
/// At most `ROWS` rows by `VECTORS` vectors of columns are computed at once: as many rows as divide all evenly.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must take the instruction set of its caller")]
pub(crate) fn multiply<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    rows: &[f32],
    stride: usize,
    weights: &[[f32; PANEL]],
    out: &mut [f32],
) {
    let count = out.len() / PANEL;
    match count.div_ceil(count.div_ceil(ROWS)) {
        13.. => multiply_by::<S, 14, VECTORS>(simd, rows, stride, weights, out),
        11.. => multiply_by::<S, 12, VECTORS>(simd, rows, stride, weights, out),
        9.. => multiply_by::<S, 10, VECTORS>(simd, rows, stride, weights, out),
        7.. => multiply_by::<S, 8, VECTORS>(simd, rows, stride, weights, out),
        5.. => multiply_by::<S, 6, VECTORS>(simd, rows, stride, weights, out),
        3.. => multiply_by::<S, 4, VECTORS>(simd, rows, stride, weights, out),
        _ => multiply_by::<S, 2, VECTORS>(simd, rows, stride, weights, out),
    }
}

/// As [`multiply`], by `ROWS` rows at once.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `multiply`")]
fn multiply_by<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    rows: &[f32],
    stride: usize,
    weights: &[[f32; PANEL]],
    out: &mut [f32],
) {
    let count = out.len() / PANEL;
    for first in (0..count).step_by(ROWS) {
        // Beyond the last row it is repeated: computed more than once and stored once.
        let rows: [&[f32]; ROWS] =
            std::array::from_fn(|row| &rows[(first + row).min(count - 1) * stride..][..weights.len()]);
        for part in 0..PANEL / S::F32_LANES / VECTORS {
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            for (column, weights) in weights.iter().enumerate() {
                let weights = &S::as_simd_f32s(weights).0[part * VECTORS..][..VECTORS];
                let weights: [S::f32s; VECTORS] = std::array::from_fn(|vector| weights[vector]);
                for (sums, row) in sums.iter_mut().zip(&rows) {
                    let value = simd.splat_f32s(row[column]);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = simd.mul_add_f32s(value, weight, *sum);
                    }
                }
            }
            for (row, sums) in (first..count).zip(&sums) {
                let out = &mut out[row * PANEL..][..PANEL];
                let out = &mut S::as_mut_simd_f32s(out).0[part * VECTORS..][..VECTORS];
                out.copy_from_slice(sums);
            }
        }
    }
}
