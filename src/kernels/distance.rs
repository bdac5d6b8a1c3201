//! The one definition of distance between rows, and the error bound of a faster estimate.
//!
//! Exact search (`exact`) promises the results of the plain algorithm to the bit. It decides by [`squared_euclidean`]
//! alone; matrix products only rule out pairs that cannot change the result.

use super::KernelError;

/// Number of partial sums (chosen: four registers of eight, so that no addition waits for the one before).
const LANES: usize = 32;

/// Half a unit in the last place of 1: the relative error of one rounding in f32.
const ROUNDING: f32 = 1.0 / 16_777_216.0;

/// Returns `Σ_c (a_c - b_c)²` in f32.
///
/// Term `c` goes to partial sum `c mod 32`, in ascending order; the partial sums are then added in a tree of halves.
/// Nothing is fused, so the bits are the same on every machine and for every vector width. Relative error at most
/// `(d/32 + 8)·2^-24` to first order. If a value is NaN, so is the result; for `d = 0` it is 0.
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

/// Computes the same sum, to the bit, in vectors of the caller's width: inside longer loops the compiler splits the
/// 32 sums of [`squared_euclidean`] into scalars (measured 2026-11-24: seven times slower).
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must take the instruction set of its caller")]
fn squared_simd<S: pulp::Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
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
/// Compiled for the widest vectors that the machine has; same bits as [`squared_euclidean`].
pub(crate) fn squared_to_centre(rows: &[f32], d: usize, centre: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * d, "rows are not [{}, {d}]", out.len());
    assert_eq!(centre.len(), d, "the centre has another length than the rows");
    measure(centre, rows, out.iter_mut().enumerate(), |out, squared| *out = squared);
}

/// Computes the squared distance from `query: [d]` to some of `rows: [m, d]` and passes each to `visit`.
///
/// `items` yields the index of a row and a value that is passed to `visit` with the row's distance. The widest vector
/// instructions are chosen once per call, not once per row. Same bits as [`squared_euclidean`].
pub(crate) fn measure<T>(
    query: &[f32],
    rows: &[f32],
    items: impl Iterator<Item = (usize, T)>,
    visit: impl FnMut(T, f32),
) {
    pulp::Arch::new().dispatch(Measure { query, rows, items, visit });
}

struct Measure<'a, I, V> {
    query: &'a [f32],
    rows: &'a [f32],
    items: I,
    visit: V,
}

impl<T, I: Iterator<Item = (usize, T)>, V: FnMut(T, f32)> pulp::WithSimd for Measure<'_, I, V> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let d = self.query.len();
        // A loop, because a closure would not take the instruction set of its caller.
        for (row, item) in self.items {
            let squared = squared_simd(simd, self.query, &self.rows[row * d..][..d]);
            (self.visit)(item, squared);
        }
    }
}

/// The largest difference between a computed squared distance and the exact one. Below, `u = 2^-24` is the rounding
/// error of f32, and `d` the length of the rows.
///
/// A distance `x` may err by `relative·x + absolute`. Two computations have such a bound:
///
/// **[`ErrorBound::of_distance`]**: [`squared_euclidean`] against the exact `‖a - b‖²`. It errs by `(d/32 + 8)·u`
/// relatively and by what underflows, `d·2^-126`. `8·u` are added for one more subtraction by the caller.
///
/// **[`ErrorBound::of_product`]**: with `S = ‖a‖² + ‖b‖²`, the estimate `S - 2·a·b` against [`squared_euclidean`].
/// They differ by at most `c·S + t`: the product errs by `d·u·‖a‖‖b‖ <= d·u·S/2`, counted twice; the norms by `u·S`;
/// the direct sum by `(d/32 + 8)·u·2·S`; the bound terms and the three summands, added in any order or moved to the
/// other side of a comparison, by `3·u·2·S` (Higham 2002, section 3.1). `c = (1.25·d + 64)·u` covers the sum of
/// these, `(1.07·d + 23)·u`, with their second-order terms for `d < 2^20`.
///
/// A product that a processor or a GPU sums in any order, in parts, with fused operations or without, errs by no
/// more; nor does one that is summed of `-2·a`, since doubling rounds nothing. It must not start from a bound term
/// (`addmm`): each of its roundings would be one of the bound term, too.
///
/// `t` covers what underflows, even where numbers below `2^-126` are taken as 0: `d` products and `d` partial sums,
/// each counted twice, lose `4·d·2^-126` at most; factors taken as 0 lose `2·√d·2^-126·max(‖a‖, ‖b‖)`, which is below
/// `2·√d·2^-126` or, for rows longer than 1, below `u·S`; the bound terms and the additions a few `2^-126`.
pub(crate) struct ErrorBound {
    relative: f32,
    absolute: f32,
}

/// Squared norm (`2^124`) above which the sum of two, and what is added to them, might overflow.
const LARGEST_NORM: f32 = f32::from_bits((127 + 124) << 23);

impl ErrorBound {
    /// The error of [`squared_euclidean`] for rows of length `d`.
    pub(crate) fn of_distance(d: usize) -> Self {
        Self { relative: (d as f32 / 32.0 + 16.0) * ROUNDING, absolute: d as f32 * f32::MIN_POSITIVE }
    }

    /// The error of an estimate from norms and a matrix product for rows of length `d`.
    pub(crate) fn of_product(d: usize) -> Self {
        Self {
            relative: (1.25 * d as f32 + 64.0) * ROUNDING,
            absolute: 4.0 * (d as f32 + 8.0) * f32::MIN_POSITIVE,
        }
    }

    /// Returns the term of a row of this squared norm in lower bounds: `lower(a) + lower(b) - 2·a·b` is at most the
    /// squared distance of rows `a` and `b`. NaN, which rules nothing out, if sums of two such norms might overflow.
    pub(crate) fn lower(&self, squared_norm: f32) -> f32 {
        if squared_norm < LARGEST_NORM {
            (squared_norm - squared_norm * self.relative) - self.absolute
        } else {
            f32::NAN
        }
    }

    /// Returns the term of a row in upper bounds: `upper(a) + upper(b) - 2·a·b` is at least the squared distance of
    /// rows `a` and `b`. NaN as in [`Self::lower`].
    #[cfg(any(feature = "torch", test))]
    pub(crate) fn upper(&self, squared_norm: f32) -> f32 {
        if squared_norm < LARGEST_NORM {
            (squared_norm + squared_norm * self.relative) + self.absolute
        } else {
            f32::NAN
        }
    }

    /// Returns an upper bound of the exact distance (not squared) of rows whose computed squared distance is at most
    /// `limit`.
    pub(crate) fn farthest(&self, limit: f32) -> f64 {
        ((f64::from(limit) + f64::from(self.absolute)) / (1.0 - f64::from(self.relative))).sqrt()
    }

    /// Returns the largest squared distance that is computed for rows at most `distance` (not squared) apart;
    /// infinity for NaN.
    pub(crate) fn largest_computed(&self, distance: f64) -> f32 {
        let most = distance * distance * (1.0 + f64::from(self.relative)) + f64::from(self.absolute);
        if most.is_nan() { f32::INFINITY } else { (most as f32).next_up() }
    }
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
    fn the_bound_terms_hold_the_distance() {
        let mut stream = Rng::new(5, "margin");
        for d in [1, 8, 128, 1024] {
            let bound = ErrorBound::of_product(d);
            let mut a = rows(&mut stream, 40 * d);
            for x in &mut a {
                *x += 3.0;
            }
            let norms = squared_norms(&a, d).unwrap();
            let mut products = vec![0.0; 1600];
            crate::kernels::product::inner_products(&a, &a, d, &mut products);
            for (index, product) in products.into_iter().enumerate() {
                let (i, j) = (index / 40, index % 40);
                let exact = squared_euclidean(&a[i * d..][..d], &a[j * d..][..d]);
                assert!(bound.lower(norms[i]) + bound.lower(norms[j]) - 2.0 * product <= exact);
                assert!(bound.upper(norms[i]) + bound.upper(norms[j]) - 2.0 * product >= exact);
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
