//! Inner products of all pairs of rows: the one place that calls the matrix product.
//!
//! The `gemm` crate takes raw pointers, so this file is also the only unsafe one of the kernels. Its
//! results depend on the instruction set of the machine (order of sums, fused operations): they serve
//! as a filter with an error margin, or where the last bit is not promised. Where it is, `panel` sums in one order.
//! Products of int8 rows, in `int8`, are exact; the call of their vector form, which the compiler cannot know to be
//! allowed, is here too.
#![expect(unsafe_code, reason = "the gemm crate's only entry point takes raw pointers")]

pub(crate) mod int8;
pub(crate) mod panel;

use int8::{LeftRow, Tile};

/// Writes `out[i, j] = Σ_c left[i, c] · right[j, c]` on the calling thread alone.
///
/// `left: [n, d]`, `right: [m, d]`, `out: [n, m]`, all row-major. For equal shapes and data on one
/// machine the bytes are the same. The error of each product is at most `d·u·‖left_i‖·‖right_j‖`
/// to first order, `u = 2^-24`, in whatever order the sums run. Cost `2·n·m·d` operations.
///
/// # Panics
/// If a length is no multiple of `d`, or `out` does not have `n·m` elements.
pub(crate) fn inner_products(left: &[f32], right: &[f32], d: usize, out: &mut [f32]) {
    assert!(d > 0 && left.len().is_multiple_of(d) && right.len().is_multiple_of(d), "rows are not [.., {d}]");
    let (n, m) = (left.len() / d, right.len() / d);
    assert_eq!(out.len(), n * m, "the product of {n} and {m} rows has another size");
    if n == 0 || m == 0 {
        return;
    }
    // SAFETY: the three slices are alive for the call, `out` is borrowed mutably and so overlaps
    // neither of the others; the strides below stay inside them: row i of `left` starts at i·d < n·d,
    // column j of the transposed `right` at j·d < m·d, row i of `out` at i·m < n·m (asserted above).
    // `read_dst` is false, so `out` is written before it is read.
    unsafe {
        gemm::gemm(
            n,
            m,
            d,
            out.as_mut_ptr(),
            1,
            m as isize,
            false,
            left.as_ptr(),
            1,
            d as isize,
            right.as_ptr(),
            d as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Says whether [`int8_masks`] is faster on this processor than [`inner_products`].
pub(crate) fn has_fast_int8() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Writes, for each row on the left, which rows of a tile have a value at most its limit: bit `j` of
/// `masks[i]` for `norm_j - factor_i·(scale_j·p_ij) <= limit_i`, or where one of the two is NaN.
///
/// `p_ij = Σ_c left_ic·right_jc` is exact. `words: [n, w]` are the rows on the left, four signed bytes a
/// word; the tile holds its rows' bytes with 128 added. The bits are the same on every machine. Cost
/// `2·n·32·4w` operations.
///
/// # Panics
/// If the lengths differ, or rows are longer than [`int8::LONGEST`].
pub(crate) fn int8_masks(lefts: &[LeftRow], words: &[u32], tile: &Tile, masks: &mut [u32]) {
    let width = tile.words.len();
    assert!(width > 0 && width * int8::WORD <= int8::LONGEST, "rows of {width} words");
    assert_eq!((words.len(), masks.len()), (lefts.len() * width, lefts.len()), "rows of other lengths");
    #[cfg(target_arch = "x86_64")]
    if has_fast_int8() {
        // SAFETY: the processor has the features that the function is compiled for, as was just checked.
        unsafe { int8::vnni::vectors(lefts, words, tile, masks) };
        return;
    }
    int8::plain(lefts, words, tile, masks);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn products_are_those_of_plain_loops() {
        let mut stream = Rng::new(1, "product");
        for (n, m, d) in [(1, 1, 1), (1, 7, 3), (5, 1, 20), (13, 17, 40), (33, 65, 129)] {
            let left: Vec<f32> = (0..n * d).map(|_| stream.normal() as f32).collect();
            let right: Vec<f32> = (0..m * d).map(|_| stream.normal() as f32).collect();
            let mut out = vec![f32::NAN; n * m];
            inner_products(&left, &right, d, &mut out);
            for (index, &product) in out.iter().enumerate() {
                let (i, j) = (index / m, index % m);
                let plain: f32 = (0..d).map(|c| left[i * d + c] * right[j * d + c]).sum();
                assert!((product - plain).abs() < 1e-4, "{n} {m} {d}: {product} {plain}");
            }
        }
    }

    #[test]
    fn int8_products_are_those_of_plain_loops() {
        let mut stream = Rng::new(2, "product");
        for (n, width) in [(1, 1), (8, 3), (13, 32), (100, 9)] {
            let words: Vec<u32> = (0..n * width).map(|_| stream.next_u64() as u32).collect();
            let mut tile = Tile::new(width);
            tile.words.iter_mut().flatten().for_each(|word| *word = stream.next_u64() as u32);
            tile.scale.iter_mut().for_each(|scale| *scale = stream.uniform() as f32);
            tile.norm.iter_mut().for_each(|norm| *norm = 30_000.0 * stream.normal() as f32);
            tile.norm[5] = f32::NAN;
            let left = |row: &[u32]| {
                let sum: i32 =
                    row.iter().flat_map(|w| w.to_le_bytes()).map(|byte| i32::from(byte.cast_signed())).sum();
                LeftRow { start: -128 * sum, factor: stream.uniform() as f32, limit: 1000.0 }
            };
            let lefts: Vec<LeftRow> = words.chunks(width).map(left).collect();
            let (mut found, mut plain) = (vec![0; n], vec![0; n]);
            int8_masks(&lefts, &words, &tile, &mut found);
            int8::plain(&lefts, &words, &tile, &mut plain);
            assert_eq!(found, plain, "{n} {width}");
            assert!(found.iter().all(|mask| mask >> 5 & 1 == 1));
        }
    }

    #[test]
    fn no_rows_give_no_products() {
        inner_products(&[], &[1.0, 2.0], 2, &mut []);
        inner_products(&[1.0, 2.0], &[], 2, &mut []);
    }
}
