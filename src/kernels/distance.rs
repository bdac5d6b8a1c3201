//! The one definition of distance between rows, and the margin by which a faster estimate may err.
//!
//! `coreset` and `nearest` promise the results of the plain algorithm to the bit. Both decide by
//! [`squared_euclidean`] alone; matrix products only rule out what cannot matter.

use super::KernelError;

/// Partial sums kept side by side (chosen: four registers of eight, so that additions do not wait).
const LANES: usize = 32;

/// Half a unit in the last place of 1: the relative error of one rounding in f32.
const ROUNDING: f32 = 1.0 / 16_777_216.0;

/// Returns `Σ_c (a_c - b_c)²` in f32.
///
/// Term `c` goes to partial sum `c mod 32`, in ascending order; the partial sums are then added in a
/// tree of halves. Nothing is fused, so the bits are the same on every machine and for every vector
/// width. Relative error at most `(d/32 + 8)·2^-24` to first order. NaN in, NaN out; no rows, 0.
///
/// # Panics
/// If the rows differ in length.
#[must_use]
pub fn squared_euclidean(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "rows of different length");
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            let difference = x[lane] - y[lane];
            lanes[lane] += difference * difference;
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += (x - y) * (x - y);
    }
    sum_tree(&mut lanes)
}

/// The same sum in vectors of the caller's width, bits as [`squared_euclidean`]: inside longer loops the compiler
/// makes single numbers of the 32 sums of that (measured 2026-11-24: seven times slower).
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must take the instruction set of its caller")]
pub(crate) fn squared_simd<S: pulp::Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [simd.splat_f32s(0.0); LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        let (x, y) = (S::as_simd_f32s(x).0, S::as_simd_f32s(y).0);
        for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            let difference = simd.sub_f32s(x, y);
            *sum = simd.add_f32s(*sum, simd.mul_f32s(difference, difference));
        }
    }
    let mut lanes = [0.0_f32; LANES];
    S::as_mut_simd_f32s(&mut lanes).0.iter_mut().zip(sums).for_each(|(lane, sum)| *lane = sum);
    for (lane, (x, y)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += (x - y) * (x - y);
    }
    sum_tree(&mut lanes)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `squared_simd`")]
fn sum_tree(lanes: &mut [f32; LANES]) -> f32 {
    for half in [16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Writes the squared distance of every row of `rows: [n, d]` to `centre` into `out: [n]`.
///
/// Compiled for the widest vectors that the machine has; bits as [`squared_euclidean`].
pub(crate) fn squared_to_centre(rows: &[f32], d: usize, centre: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * d, "rows are not [{}, {d}]", out.len());
    assert_eq!(centre.len(), d, "the centre has another length than the rows");
    pulp::Arch::new().dispatch(ToCentre { rows, d, centre, out });
}

struct ToCentre<'a> {
    rows: &'a [f32],
    d: usize,
    centre: &'a [f32],
    out: &'a mut [f32],
}

impl pulp::WithSimd for ToCentre<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        for (row, distance) in self.rows.chunks_exact(self.d).zip(self.out) {
            *distance = squared_simd(simd, row, self.centre);
        }
    }
}

/// Squared norms of rows, and how far a distance estimated from them and a matrix product may err.
///
/// With `S = ‖a‖² + ‖b‖²`, the estimate `S - 2·a·b` differs from [`squared_euclidean`] by at most
/// `c·S + t`: the product errs by `d·u·‖a‖‖b‖ <= d·u·S/2`, counted twice; the norms by `u·S`; the
/// direct sum by `(d/32 + 8)·u·2·S`; the shares and the three terms, added in any order, by `3·u·2·S` (Higham
/// 2002, section 3.1). `c = (1.25·d + 64)·u` covers the sum of these, `(1.07·d + 23)·u`, with their second-order
/// terms for `d < 2^20`.
///
/// A product that a processor or a GPU sums in any order, in parts, with fused operations or without, errs by no
/// more; nor does one that is summed of `-2·a`, since doubling rounds nothing. It must not start from a share
/// (`addmm`): each of its roundings would be one of the share, too.
///
/// `t` covers what underflows, even where numbers below `2^-126` are taken as 0: `d` products and `d` partial sums,
/// each counted twice, lose `4·d·2^-126` at most; factors taken as 0 lose `2·√d·2^-126·max(‖a‖, ‖b‖)`, which is below
/// `2·√d·2^-126` or, for rows longer than 1, below `u·S`; the shares and the additions a few `2^-126`.
pub(crate) struct Margin {
    relative: f32,
    absolute: f32,
}

impl Margin {
    pub(crate) fn new(d: usize) -> Self {
        Self {
            relative: (1.25 * d as f32 + 64.0) * ROUNDING,
            absolute: 4.0 * (d as f32 + 8.0) * f32::MIN_POSITIVE,
        }
    }

    /// A row's share of a lower bound: `lower(a) + lower(b) - 2·a·b` is at most the distance.
    pub(crate) fn lower(&self, squared_norm: f32) -> f32 {
        (squared_norm - squared_norm * self.relative) - self.absolute
    }

    /// A row's share of an upper bound: `upper(a) + upper(b) - 2·a·b` is at least the distance.
    #[cfg(any(feature = "torch", test))]
    pub(crate) fn upper(&self, squared_norm: f32) -> f32 {
        (squared_norm + squared_norm * self.relative) + self.absolute
    }
}

/// Tells whether any `lower - 2·product` is at most `limit`, or NaN.
pub(crate) fn is_any_within(products: &[f32], lower: &[f32], limit: f32) -> bool {
    let mut is_any = false;
    for (product, lower) in products.iter().zip(lower) {
        let bound = lower - 2.0 * product;
        is_any |= bound <= limit || bound.is_nan() || limit.is_nan();
    }
    is_any
}

/// Returns the squared norm of each row of `rows: [n, d]`, summed in f64 and rounded once.
///
/// # Errors
/// If a row holds NaN or an infinity.
pub(crate) fn squared_norms(rows: &[f32], d: usize) -> Result<Vec<f32>, KernelError> {
    assert!(d > 0 && rows.len().is_multiple_of(d), "{} numbers are no rows of {d}", rows.len());
    let mut norms = Vec::with_capacity(rows.len() / d);
    for (row, values) in rows.chunks_exact(d).enumerate() {
        let norm = squared_norm(values);
        if !norm.is_finite() {
            return Err(KernelError::NotFinite { row });
        }
        norms.push(norm as f32);
    }
    Ok(norms)
}

/// The squared norm of one row, in f64.
pub(crate) fn squared_norm(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    for chunk in values.chunks(8) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are promised to the bit")]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    fn rows(stream: &mut Rng, count: usize) -> Vec<f32> {
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    #[test]
    fn a_distance_is_the_sum_of_squared_differences() {
        assert_eq!(squared_euclidean(&[1.0, 2.0, 3.0], &[4.0, 2.0, -1.0]), 25.0);
        assert_eq!(squared_euclidean(&[], &[]), 0.0);
        let mut stream = Rng::new(3, "distance");
        for d in [1, 2, 15, 16, 31, 32, 33, 64, 100, 1536] {
            let (a, b) = (rows(&mut stream, d), rows(&mut stream, d));
            let plain: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let found = f64::from(squared_euclidean(&a, &b));
            assert!((found - plain).abs() <= plain * 1e-6, "{d}: {found} {plain}");
            assert_eq!(squared_euclidean(&a, &b).to_bits(), squared_euclidean(&b, &a).to_bits());
        }
    }

    #[test]
    fn wider_vectors_change_no_bit() {
        let mut stream = Rng::new(4, "distance");
        for d in [1, 31, 128, 130] {
            let (points, centre) = (rows(&mut stream, 20 * d), rows(&mut stream, d));
            let mut out = vec![0.0; 20];
            squared_to_centre(&points, d, &centre, &mut out);
            for (row, found) in points.chunks(d).zip(out) {
                assert_eq!(found.to_bits(), squared_euclidean(row, &centre).to_bits());
            }
        }
    }

    #[test]
    fn explicit_vectors_change_no_bit() {
        struct Pair<'a>(&'a [f32], &'a [f32]);
        impl pulp::WithSimd for Pair<'_> {
            type Output = f32;
            fn with_simd<S: pulp::Simd>(self, simd: S) -> f32 {
                squared_simd(simd, self.0, self.1)
            }
        }
        let mut stream = Rng::new(6, "distance");
        for d in [0, 1, 31, 32, 33, 128, 130, 384] {
            let (a, b) = (rows(&mut stream, d), rows(&mut stream, d));
            let expected = squared_euclidean(&a, &b).to_bits();
            assert_eq!(pulp::Arch::new().dispatch(Pair(&a, &b)).to_bits(), expected);
            assert_eq!(pulp::Arch::Scalar.dispatch(Pair(&a, &b)).to_bits(), expected);
        }
    }

    #[test]
    fn the_margin_holds_the_distance() {
        let mut stream = Rng::new(5, "margin");
        for d in [1, 8, 128, 1024] {
            let margin = Margin::new(d);
            let mut a = rows(&mut stream, 40 * d);
            for x in &mut a {
                *x += 3.0;
            }
            let norms = squared_norms(&a, d).unwrap();
            let mut products = vec![0.0; 1600];
            crate::kernels::product::inner_products(&a, &a, d, &mut products);
            for (place, product) in products.into_iter().enumerate() {
                let (i, j) = (place / 40, place % 40);
                let exact = squared_euclidean(&a[i * d..][..d], &a[j * d..][..d]);
                assert!(margin.lower(norms[i]) + margin.lower(norms[j]) - 2.0 * product <= exact);
                assert!(margin.upper(norms[i]) + margin.upper(norms[j]) - 2.0 * product >= exact);
            }
        }
    }

    #[test]
    fn a_row_that_is_not_finite_is_named() {
        let rows = [1.0, 2.0, f32::NAN, 0.0];
        assert_eq!(squared_norms(&rows, 2), Err(KernelError::NotFinite { row: 1 }));
        assert_eq!(squared_norms(&[f32::MAX; 2], 2), Ok(vec![f32::INFINITY]));
    }
}
