//! Principal axes of a bank: a rotation that moves most of a distance into its first numbers.
//!
//! Subspace iteration (Golub and Van Loan 2013, section 8.2.4): multiply a set of directions by the scatter matrix
//! and orthonormalise them, four times. Nothing relies on the quality of the axes, nor on exact orthogonality: how
//! far they are from it is measured afterwards ([`PrincipalAxes::skew`]) and enters the error bounds of the codes.

use rayon::prelude::*;

use crate::kernels::product::inner_products;
use crate::kernels::random::Rng;
use crate::kernels::sample::mean;

/// Multiplications by the scatter matrix (measured 2026-11-24 on patches of `ResNet18`: the first 64 of 384 axes hold
/// 79.3, 82.5, 83.3 and 83.5 % of the variance after 1, 2, 4 and 8; the best hold 84.2).
pub(super) const ROUNDS: usize = 4;

/// Number of partial sums.
const LANES: usize = 16;

/// Nearly orthonormal directions about a centre.
pub(in super::super) struct PrincipalAxes {
    d: usize,
    centre: Vec<f32>,
    /// `[count, d]`, the direction of most variance first.
    directions: Vec<f32>,
    skew: f64,
}

impl PrincipalAxes {
    /// Finds `count` axes of `sample: [s, d]`; `None` if its numbers overflow on the way.
    ///
    /// Cost `2·s·d² + 4·ROUNDS·count·d²` operations in matrix products and `(ROUNDS + 1)·2·count²·d` in Gram-Schmidt;
    /// the directions do not depend on the number of threads.
    pub(in super::super) fn of(sample: &[f32], d: usize, count: usize) -> Option<Self> {
        let centre = mean(sample, d);
        let scatter = scatter(sample, &centre);
        let mut stream = Rng::new(1, "axes");
        let mut directions: Vec<f32> = (0..count * d).map(|_| stream.normal() as f32).collect();
        orthonormalise(&mut directions, d);
        for _ in 0..ROUNDS {
            let mut turned = vec![0.0; count * d];
            let blocks = turned.par_chunks_mut(32 * d).zip(directions.par_chunks(32 * d));
            blocks.for_each(|(turned, rows)| inner_products(rows, &scatter, d, turned));
            directions = turned;
            orthonormalise(&mut directions, d);
        }
        Self::measure(centre, directions)
    }

    /// Takes directions as axes, unless they are farther from orthonormal than the error bounds of codes allow.
    pub(in super::super) fn measure(centre: Vec<f32>, directions: Vec<f32>) -> Option<Self> {
        let d = centre.len();
        let skew = skew(&directions, d);
        (skew <= 0.01).then_some(Self { d, centre, directions, skew })
    }

    /// Returns the length of a row.
    pub(in super::super) fn dimension(&self) -> usize {
        self.d
    }

    /// Returns the number of directions.
    pub(super) fn count(&self) -> usize {
        self.directions.len() / self.d
    }

    /// Returns an upper bound of `‖V·Vᵀ - I‖` for the directions `V` as they are stored.
    pub(super) fn skew(&self) -> f64 {
        self.skew
    }

    /// Writes `rows - centre` into `centred: [n, d]` and its products with the directions into `out: [n, count]`.
    pub(super) fn apply(&self, rows: &[f32], centred: &mut [f32], out: &mut [f32]) {
        for (row, centred) in rows.chunks_exact(self.d).zip(centred.chunks_exact_mut(self.d)) {
            for (to, (x, centre)) in centred.iter_mut().zip(row.iter().zip(&self.centre)) {
                *to = x - centre;
            }
        }
        inner_products(centred, &self.directions, self.d, out);
    }
}

/// Returns `Σ (row - centre)·(row - centre)ᵀ`, `[d, d]`, plus a small multiple of the identity. The multiple does not
/// change the axes, and keeps directions that the rows do not span from vanishing.
fn scatter(rows: &[f32], centre: &[f32]) -> Vec<f32> {
    let (d, count) = (centre.len(), rows.len() / centre.len());
    let mut columns = vec![0.0; rows.len()];
    for (number, row) in rows.chunks_exact(d).enumerate() {
        for (column, (x, centre)) in row.iter().zip(centre).enumerate() {
            columns[column * count + number] = x - centre;
        }
    }
    let mut out = vec![0.0; d * d];
    let blocks = out.par_chunks_mut(64 * d).zip(columns.par_chunks(64 * count));
    blocks.for_each(|(out, some)| inner_products(some, &columns, count, out));
    let trace: f32 = out.iter().step_by(d + 1).sum();
    let ridge = if trace == 0.0 { 1.0 } else { trace / d as f32 * 1e-4 };
    out.iter_mut().step_by(d + 1).for_each(|x| *x += ridge);
    out
}

/// Orthonormalises rows in order: Gram-Schmidt, each row twice, which is enough in f32 where once is not (Giraud,
/// Langou and Rozložník 2005).
fn orthonormalise(rows: &mut [f32], d: usize) {
    pulp::Arch::new().dispatch(Orthonormalise { rows, d });
}

struct Orthonormalise<'a> {
    rows: &'a mut [f32],
    d: usize,
}

impl pulp::WithSimd for Orthonormalise<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for number in 0..self.rows.len() / self.d {
            let (before, rest) = self.rows.split_at_mut(number * self.d);
            let row = &mut rest[..self.d];
            normalise(row);
            for _ in 0..2 {
                for axis in before.chunks_exact(self.d) {
                    let along = dot(axis, row);
                    row.iter_mut().zip(axis).for_each(|(x, axis)| *x -= along * axis);
                }
                normalise(row);
            }
        }
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `Orthonormalise`")]
fn normalise(row: &mut [f32]) {
    let length = dot(row, row).sqrt();
    for x in row {
        *x /= length;
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `Orthonormalise`")]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Returns the Frobenius norm of `V·Vᵀ - I`, which bounds its spectral norm. Summed in f64, whose own rounding, below
/// `count·d·2^-50`, is added.
fn skew(directions: &[f32], d: usize) -> f64 {
    let count = directions.len() / d;
    let squares: Vec<f64> = (0..count)
        .into_par_iter()
        .map(|i| {
            let row = &directions[i * d..][..d];
            let of_row = directions.chunks_exact(d).enumerate().take(i + 1).map(|(j, other)| {
                let product: f64 = row.iter().zip(other).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
                if i == j { (product - 1.0).powi(2) } else { 2.0 * product * product }
            });
            of_row.sum()
        })
        .collect();
    squares.iter().sum::<f64>().sqrt() + (count * d) as f64 * 2.0_f64.powi(-50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_orthonormal_and_lead_along_the_variance() {
        let (d, mut stream) = (40, Rng::new(1, "axes-test"));
        let rows: Vec<f32> = (0..500 * d)
            .map(|at| stream.normal() as f32 * if at % d == 7 { 9.0 } else { 1.0 } + 3.0)
            .collect();
        let axes = PrincipalAxes::of(&rows, d, 8).unwrap();
        assert!(axes.skew() < 1e-5, "{}", axes.skew());
        assert!(axes.directions[7].abs() > 0.99, "{:?}", &axes.directions[..d]);
    }

    #[test]
    fn directions_far_from_orthonormal_are_refused() {
        assert!(PrincipalAxes::measure(vec![0.0; 2], vec![1.0, 0.0, 0.001, 1.0]).is_some());
        assert!(PrincipalAxes::measure(vec![0.0; 2], vec![1.0, 0.0, 0.1, 1.0]).is_none());
        assert!(PrincipalAxes::measure(vec![0.0; 2], vec![1.0, f32::NAN]).is_none());
    }

    #[test]
    fn rows_without_rank_give_axes_all_the_same() {
        assert!(PrincipalAxes::of(&[2.5; 100 * 24], 24, 8).unwrap().skew() < 1e-5);
        let line: Vec<f32> = (0..100 * 24).map(|at| (at / 24) as f32).collect();
        assert!(PrincipalAxes::of(&line, 24, 8).unwrap().skew() < 1e-5);
    }

    #[test]
    fn numbers_that_overflow_give_none() {
        let rows: Vec<f32> = (0..50 * 24).map(|at| if at % 5 == 0 { 3e38 } else { -3e38 }).collect();
        assert!(PrincipalAxes::of(&rows, 24, 8).is_none());
    }
}
