//! Inner products of all pairs of rows: the one place that calls the matrix product.
//!
//! The `gemm` crate takes raw pointers, so this file is also the only unsafe one of the kernels. Its
//! results depend on the instruction set of the machine (order of sums, fused operations): they serve
//! as a filter with an error margin, or where the last bit is not promised.
#![expect(unsafe_code, reason = "the gemm crate's only entry point takes raw pointers")]

/// Writes `out[i, j] = Σ_c left[i, c] · right[j, c]` on the calling thread alone.
///
/// `left: [n, d]`, `right: [m, d]`, `out: [n, m]`, all row-major. For equal shapes and data on one
/// machine the bytes are the same. The error of each product is at most `d·u·‖left_i‖·‖right_j‖`
/// to first order, `u = 2^-24`, in whatever order the sums run. Cost `2·n·m·d` operations.
///
/// # Panics
/// If a length is no multiple of `d`, or `out` has not `n·m` places.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Stream;

    #[test]
    fn products_are_those_of_plain_loops() {
        let mut stream = Stream::new(1, "product");
        for (n, m, d) in [(1, 1, 1), (1, 7, 3), (5, 1, 20), (13, 17, 40), (33, 65, 129)] {
            let left: Vec<f32> = (0..n * d).map(|_| stream.normal() as f32).collect();
            let right: Vec<f32> = (0..m * d).map(|_| stream.normal() as f32).collect();
            let mut out = vec![f32::NAN; n * m];
            inner_products(&left, &right, d, &mut out);
            for (place, &product) in out.iter().enumerate() {
                let (i, j) = (place / m, place % m);
                let plain: f32 = (0..d).map(|c| left[i * d + c] * right[j * d + c]).sum();
                assert!((product - plain).abs() < 1e-4, "{n} {m} {d}: {product} {plain}");
            }
        }
    }

    #[test]
    fn no_rows_give_no_products() {
        inner_products(&[], &[1.0, 2.0], 2, &mut []);
        inner_products(&[1.0, 2.0], &[], 2, &mut []);
    }
}
