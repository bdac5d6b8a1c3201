//! The lower bound by short codes along principal axes, and the error bound of the codes.
//!
//! With the principal axes `V: [p, d]`, `‖V·Vᵀ - I‖ <= ε`, and the centre `c`, a row `a` gets the code `(V·a', ρ)`,
//! where `a' = a - c` and `ρ` is the length of the part of `a'` that is orthogonal to the axes. In exact arithmetic,
//! with `P` the projection on the span of the axes,
//!
//! ```text
//! ‖q - b‖² = ‖P(q' - b')‖² + ‖(I - P)(q' - b')‖² >= ‖V(q' - b')‖²/(1 + ε) + (ρ(q) - ρ(b))²
//! ```
//!
//! because `‖V·x‖ = ‖V·P·x‖ <= √(1 + ε)·‖P·x‖`, and by the triangle inequality. The codes as computed lie within
//! `error(a)` of these exact ones (scaled), so that again by the triangle inequality
//!
//! ```text
//! ‖code(q) - code(b)‖ <= ‖q - b‖ + error(q) + error(b)                                            (1)
//! ```
//!
//! **The error bound.** Let `u = 2^-24` and `N = ‖a'‖ + 2^-76`, whose second part stands for all that underflows
//! (`p·d·2^-126` at most). Each code number is a product of `d` terms: `V·a'` errs by `1.1·√p·d·u·N` at most (Higham
//! 2002, section 3.1); the subtraction of the centre by `u·N`; the scale by `ε·N`; the rounding of `ρ` by `u·N`.
//! Their sum is below `κ·N`, `κ = 1.1·√p·d·u + ε + 4u`. As for `ρ² = ‖a'‖² - ‖P·a'‖²`, taken as `‖a'‖² - ‖code‖²` in
//! f64: `‖V·a'‖²` is within `ε` of `‖P·a'‖²`, and the code within `κ·N` of `V·a'`, so it errs by `3κ·N²` at most.
//! Since `|x - y| = |x² - y²|/(x + y)` and `(x - y)² <= |x² - y²|`, `ρ` errs by `min(3κ·N²/ρ, √(3κ)·N)`. The
//! derivation needs `ε <= 0.01` and `d·u <= 0.01`.
//!
//! **Two codes a row.** The coarse one, of the first axes, goes through a matrix product in f32; the fine one, of all
//! axes, is compared only for the pairs that the coarse one did not rule out. Where the processor multiplies bytes,
//! the fine codes in int8 take the place of both (`int8`). Fine codes are spread over their numbers (`spread`), which changes
//! no distance.

mod calibration;
mod inverted_lists;
mod principal_axes;
mod spread;

use std::ops::Range;

use rayon::prelude::*;

use self::calibration::coarse_width;
use self::inverted_lists::{InvertedLists, NearestCodes, PROBES, nearest_centroids};
pub(super) use self::principal_axes::PrincipalAxes;
use self::principal_axes::ROUNDS;
use super::float::{F32Filter, F32Queries, STEP};
use super::int8::{Int8Filter, Int8Queries};
use super::{Candidates, LowerBound, set_bits};
use crate::kernels::distance::{ErrorBound, measure, squared_norm};
use crate::kernels::product::int8::{Int8Simd, TILE};
use crate::kernels::sample::sample_rows;

/// Number of rows that the axes are computed from (measured 2026-11-24: from 512, 1024 and 2048 of 20,000 rows, the
/// first 64 axes hold 81.3, 82.6 and 83.3 % of the variance).
const SAMPLE: usize = 2048;

/// Largest number of axes: a longer fine code costs more than the distances that it saves (chosen, of 127 and 255).
const MOST_AXES: usize = 255;

/// Shortest row that is encoded: shorter ones are measured as fast as their codes (chosen, untested).
const SHORTEST_ROW: usize = 96;

/// Longest row for which the error bound is derived: `d·u <= 0.01`.
const LONGEST_ROW: usize = 1 << 17;

/// Number of rows that one parallel task encodes.
const ENCODE_BLOCK: usize = 256;

/// Distance between computed and exact codes, at most: `error` in the module's inequality (1).
#[derive(Debug, Clone, Copy, Default)]
struct CodeError {
    coarse: f64,
    fine: f64,
}

/// The codes of some rows.
struct Codes {
    /// Coarse codes, `[n, width]`: the products with the first `width - 1` axes, then the length of the rest of the
    /// row.
    coarse: Vec<f32>,
    /// Squared norms of the coarse codes, `[n]`.
    norms: Vec<f32>,
    /// Fine codes, `[n, fine width]`: the same with all axes.
    fine: Vec<f32>,
    errors: Vec<CodeError>,
}

/// The codes of a bank's rows, and the axes by which queries are encoded.
pub(super) struct PcaFilter {
    axes: PrincipalAxes,
    coarse: F32Filter,
    fine: Vec<f32>,
    /// The largest code errors of all rows.
    error: CodeError,
    /// Rounding error of the exact distance. It also covers the distance between codes, which are no longer than
    /// rows.
    distance: ErrorBound,
    lists: InvertedLists,
    /// The fine codes in int8; `None` if that does not pay.
    int8: Option<Int8Codes>,
}

/// Fine codes in int8.
struct Int8Codes {
    /// In the order of the rows.
    rows: Int8Filter,
    /// In the order of the inverted lists, so that those of a list lie together.
    lists: Int8Filter,
}

/// Encoded queries of a [`PcaFilter`].
pub(super) struct PcaQueries {
    coarse: F32Queries,
    fine: Vec<f32>,
    errors: Vec<CodeError>,
    /// `[n]`: squared distance between fine codes above which a row is ruled out.
    thresholds: Vec<f32>,
    /// `[n]`: the inverted lists of each query, those of its nearest centroids.
    lists: Vec<[u32; PROBES]>,
    int8: Option<Int8Queries>,
}

impl PcaFilter {
    /// Returns about how many multiplications [`PcaFilter::calibrated`] takes for `m` rows of length `d`.
    pub(super) fn cost(m: usize, d: usize) -> usize {
        let axes = axes_for(d);
        (SAMPLE.min(m) * d + 2 * ROUNDS * axes * d + m * axes) * d
    }

    /// Encodes `rows: [m, d]`; `None` if a trial with some of `queries: [n, d]` shows that codes do not pay.
    ///
    /// `is_allowed` and `k` are those of the search. They have no influence on results.
    pub(super) fn calibrated(
        rows: &[f32],
        queries: &[f32],
        d: usize,
        k: usize,
        is_allowed: impl Fn(usize, usize) -> bool,
    ) -> Option<Self> {
        if !(SHORTEST_ROW..LONGEST_ROW).contains(&d) || queries.is_empty() {
            return None;
        }
        let axes = PrincipalAxes::of(&sample_rows(rows, d, SAMPLE).1, d, axes_for(d))?;
        let width = coarse_width(&axes, (rows, queries), d, k, is_allowed)?;
        Some(Self::new(axes, width, rows))
    }

    /// Encodes rows with coarse codes of length `width`, and with fine codes of all axes.
    pub(super) fn new(axes: PrincipalAxes, width: usize, rows: &[f32]) -> Self {
        let Codes { coarse, norms, fine, errors } = encode(&axes, width, rows);
        let error = errors.iter().fold(CodeError::default(), |most, error| CodeError {
            coarse: most.coarse.max(error.coarse),
            fine: most.fine.max(error.fine),
        });
        let coarse = F32Filter::new(coarse, &norms, width);
        let lists = InvertedLists::of(coarse.rows(), width, coarse.lower());
        let distance = ErrorBound::of_distance(axes.dimension());
        let mut filter = Self { axes, coarse, fine, error, distance, lists, int8: None };
        filter.int8 = Int8Simd::fastest().and_then(|simd| filter.in_int8(simd));
        filter
    }

    /// Quantises the fine codes; `None` if they do not fit.
    fn in_int8(&self, simd: Int8Simd) -> Option<Int8Codes> {
        let (length, d) = (self.axes.count() + 1, self.axes.dimension());
        let quantise = |codes: &[f32]| Int8Filter::of_codes(simd, codes, length, d, self.error.fine);
        let code = |&row: &u32| &self.fine[row as usize * length..][..length];
        let by_list: Vec<f32> = self.lists.members().iter().flat_map(code).copied().collect();
        Some(Int8Codes { rows: quantise(&self.fine)?, lists: quantise(&by_list)? })
    }

    /// Sets the instructions that compare fine codes in int8, if any, even if this processor lacks them.
    #[cfg(test)]
    pub(super) fn with_int8(mut self, simd: Option<Int8Simd>) -> Self {
        self.int8 = simd.and_then(|simd| self.in_int8(simd));
        self
    }

    /// Compares fine codes of the pairs that the coarse codes left, and clears the bits of those that are ruled out.
    fn refine(&self, queries: &PcaQueries, rows: Range<usize>, out: &mut Candidates) {
        let width = self.axes.count() + 1;
        let n = queries.thresholds.len();
        let codes = &self.fine[rows.start * width..rows.end * width];
        for (tile, masks) in out.masks.chunks_mut(n).enumerate() {
            let codes = &codes[tile * TILE * width..];
            for (query, mask) in masks.iter_mut().enumerate().filter(|(_, mask)| **mask != 0) {
                let code = &queries.fine[query * width..][..width];
                let candidates = set_bits(*mask).filter(|&lane| lane < codes.len() / width);
                measure(code, codes, candidates.map(|lane| (lane, lane)), |lane, squared| {
                    if squared > queries.thresholds[query] {
                        *mask &= !(1 << lane);
                    }
                });
            }
        }
    }
}

impl LowerBound for PcaFilter {
    type Queries = PcaQueries;

    fn step(&self) -> usize {
        self.int8.as_ref().map_or(STEP, |int8| int8.rows.step())
    }

    fn encode(&self, rows: Vec<f32>, _: &[f32]) -> PcaQueries {
        let width = self.coarse.dimension();
        let Codes { coarse, norms, fine, errors } = encode(&self.axes, width, &rows);
        let centroids = &self.coarse.rows()[..self.lists.count() * width];
        let lists = nearest_centroids(&coarse, centroids, width, self.coarse.lower());
        let int8 = self.int8.as_ref().map(|int8| {
            let norm = |code| squared_norm(code) as f32;
            let norms: Vec<f32> = fine.chunks_exact(self.axes.count() + 1).map(norm).collect();
            int8.rows.encode_codes(&fine, &norms, |query| errors[query].fine)
        });
        let thresholds = vec![f32::INFINITY; norms.len()];
        PcaQueries { coarse: self.coarse.encode(coarse, &norms), fine, errors, thresholds, lists, int8 }
    }

    fn set_limit(&self, queries: &mut PcaQueries, query: usize, limit: f32) {
        if let (Some(int8), Some(queries)) = (&self.int8, &mut queries.int8) {
            return int8.rows.set_limit(queries, query, limit);
        }
        let (farthest, error) = (self.distance.farthest(limit), queries.errors[query]);
        let threshold = |error: f64| self.distance.largest_computed(farthest + error);
        queries.thresholds[query] = threshold(error.fine + self.error.fine);
        self.coarse.set_limit(&mut queries.coarse, query, threshold(error.coarse + self.error.coarse));
    }

    fn candidates(&self, queries: &PcaQueries, rows: Range<usize>, out: &mut Candidates) {
        if let (Some(int8), Some(queries)) = (&self.int8, &queries.int8) {
            return int8.rows.candidates(queries, rows, out);
        }
        self.coarse.candidates(&queries.coarse, rows.clone(), out);
        self.refine(queries, rows, out);
    }

    /// Returns the rows of the query's inverted lists whose fine codes are nearest: of several lists in int8, of one in f32.
    fn likely_rows(
        &self,
        queries: &PcaQueries,
        query: usize,
        k: usize,
        is_allowed: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        let members = self.lists.members();
        let lists = queries.lists[query].map(|list| self.lists.list(list as usize));
        let mut near = NearestCodes::new(k);
        if let (Some(int8), Some(queries)) = (&self.int8, &queries.int8) {
            for list in lists {
                int8.lists.estimate(queries, query, list, |index, estimate| {
                    near.insert(estimate, members[index] as usize, &is_allowed);
                });
            }
            return near.rows();
        }
        let width = self.axes.count() + 1;
        let code = &queries.fine[query * width..][..width];
        let rows = members[lists[0].clone()].iter().map(|&row| (row as usize, row as usize));
        measure(code, &self.fine, rows, |row, squared| near.insert(squared, row, &is_allowed));
        near.rows()
    }
}

/// Returns the number of axes: about a third of the dimensions, such that a fine code (one number more) is a multiple
/// of 32 long.
fn axes_for(d: usize) -> usize {
    (d / 3).next_multiple_of(32).saturating_sub(1).min(MOST_AXES)
}

fn encode(axes: &PrincipalAxes, width: usize, rows: &[f32]) -> Codes {
    let (d, fine_width) = (axes.dimension(), axes.count() + 1);
    let n = rows.len() / d;
    let mut codes = Codes {
        coarse: vec![0.0; n * width],
        norms: vec![0.0; n],
        fine: vec![0.0; n * fine_width],
        errors: vec![CodeError::default(); n],
    };
    let blocks =
        codes.coarse.par_chunks_mut(ENCODE_BLOCK * width).zip(codes.norms.par_chunks_mut(ENCODE_BLOCK));
    let blocks = blocks.zip(codes.fine.par_chunks_mut(ENCODE_BLOCK * fine_width));
    let blocks = blocks.zip(codes.errors.par_chunks_mut(ENCODE_BLOCK));
    blocks.zip(rows.par_chunks(ENCODE_BLOCK * d)).for_each(|((((coarse, norms), fine), errors), rows)| {
        let count = rows.len() / d;
        let (mut centred, mut along) = (vec![0.0; rows.len()], vec![0.0; count * (fine_width - 1)]);
        axes.apply(rows, &mut centred, &mut along);
        let encoder = Encoder::new(axes);
        for row in 0..count {
            let squared = squared_norm(&centred[row * d..][..d]);
            let along = &along[row * (fine_width - 1)..][..fine_width - 1];
            let code = &mut coarse[row * width..][..width];
            errors[row].coarse = encoder.write(squared, along, code);
            errors[row].fine = encoder.write(squared, along, &mut fine[row * fine_width..][..fine_width])
                + spread::ERROR * squared.sqrt() * 1.1;
            norms[row] = squared_norm(code) as f32;
        }
        spread::spread(fine, fine_width);
    });
    codes
}

/// Writes codes and bounds their errors with the module's `κ`.
struct Encoder {
    kappa: f64,
}

impl Encoder {
    fn new(axes: &PrincipalAxes) -> Self {
        let rounding = 2.0_f64.powi(-24);
        let products = 1.1 * (axes.count() as f64).sqrt() * axes.dimension() as f64 * rounding;
        Self { kappa: products + axes.skew() + 4.0 * rounding }
    }

    /// Writes the code of a row and returns its error bound. `squared` is the squared length of the row after
    /// subtraction of the centre, `along` its products with the axes.
    fn write(&self, squared: f64, along: &[f32], code: &mut [f32]) -> f64 {
        let (seen, rest) = code.split_at_mut(code.len() - 1);
        seen.copy_from_slice(&along[..seen.len()]);
        let unseen = (squared - squared_norm(seen)).max(0.0).sqrt();
        rest[0] = unseen as f32;
        let length = squared.sqrt() + 2.0_f64.powi(-76);
        let of_square = 3.0 * self.kappa * length * length;
        self.kappa * length + (of_square / unseen).min(of_square.sqrt())
    }
}
