//! Calibration of the codes: how long they should be, and whether they pay at all, by a trial on a sample.
//!
//! Features of a network lie near few dimensions: a fraction of a distance rules most rows out. Noise has no such
//! directions, and there the whole rows in one matrix product are best. The answer changes speed alone.

use super::principal_axes::PrincipalAxes;
use crate::kernels::distance::squared_euclidean;
use crate::kernels::sample::sample_rows;

/// Number of queries, and of rows, of the trial (chosen: under 1 % of a search of 2,000 in 20,000).
const QUERIES: usize = 32;
const ROWS: usize = 1024;

/// Code lengths that are tried are multiples of this.
const STEP: usize = 16;

/// Cost of measuring a row that the coarse codes did not rule out, in multiplications of the matrix product (measured
/// 2026-11-24 on Zen 4: about 15 ns against 0.02 ns).
const CANDIDATE_COST: f64 = 750.0;

/// Share of the plain search's cost above which codes are not worth their preparation (chosen).
const WORTH: f64 = 0.7;

/// Finds the length of coarse codes with the least expected cost; `None` if a search without codes is about as cheap.
///
/// `(rows, queries)` are `[m, d]` and `[n, d]`. The `k`-th smallest distance of a sampled query to sampled rows (not
/// below that of the whole bank, so the trial is pessimistic) is compared with the part of each distance that the
/// first axes hold.
pub(super) fn coarse_width(
    axes: &PrincipalAxes,
    (rows, queries): (&[f32], &[f32]),
    d: usize,
    k: usize,
    is_allowed: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let ((row_indices, rows), (query_indices, queries)) =
        (sample_rows(rows, d, ROWS), sample_rows(queries, d, QUERIES));
    let (row_codes, query_codes) = (project(axes, &rows, d), project(axes, &queries, d));
    let mut left = vec![0_usize; axes.count().div_ceil(STEP)];
    let of_queries = queries.chunks(d).zip(query_indices.iter().zip(query_codes.chunks(axes.count())));
    for (query, (&query_index, query_code)) in of_queries {
        let is_allowed = |&number: &usize| is_allowed(query_index, row_indices[number]);
        let allowed: Vec<usize> = (0..row_indices.len()).filter(is_allowed).collect();
        let mut squared: Vec<f32> =
            allowed.iter().map(|&number| squared_euclidean(query, &rows[number * d..][..d])).collect();
        if squared.len() <= k {
            continue;
        }
        let limit = *squared.select_nth_unstable_by(k - 1, f32::total_cmp).1;
        for number in allowed {
            let code = &row_codes[number * axes.count()..][..axes.count()];
            let mut seen = 0.0;
            for (left, (x, y)) in left.iter_mut().zip(query_code.chunks(STEP).zip(code.chunks(STEP))) {
                seen += squared_euclidean(x, y);
                if seen > limit {
                    break;
                }
                *left += 1;
            }
        }
    }
    let pairs = (query_indices.len() * row_indices.len()) as f64;
    let cost = |step: usize| ((step + 1) * STEP) as f64 + CANDIDATE_COST * left[step] as f64 / pairs;
    let best = (0..left.len()).min_by(|&a, &b| cost(a).total_cmp(&cost(b)))?;
    (cost(best) < WORTH * d as f64).then_some((best + 1) * STEP)
}

fn project(axes: &PrincipalAxes, rows: &[f32], d: usize) -> Vec<f32> {
    let (mut centred, mut out) = (vec![0.0; rows.len()], vec![0.0; rows.len() / d * axes.count()]);
    axes.apply(rows, &mut centred, &mut out);
    out
}
