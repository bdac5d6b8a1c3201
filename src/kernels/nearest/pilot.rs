//! How long a code should be, and whether codes pay at all: a trial on a few queries and rows.
//!
//! Features of a network lie near few dimensions: a fraction of a distance rules most rows out. Noise has no
//! such directions, and there the whole rows in one matrix product are best. The answer changes speed alone.

use super::axes::Axes;
use super::screen::spread;
use crate::kernels::distance::squared_euclidean;

/// Queries and rows of the trial (chosen: under 1 % of a search of 2,000 in 20,000).
const QUERIES: usize = 32;
const ROWS: usize = 1024;

/// Steps of the code's length.
const STEP: usize = 16;

/// What a row costs that the coarse codes leave, in multiplications of the matrix product (measured
/// 2026-11-24 on Zen 4: about 15 ns against 0.02 ns).
const LEFT_COST: f64 = 750.0;

/// Share of the plain search's cost above which codes are not worth their preparation (chosen).
const WORTH: f64 = 0.7;

/// Finds the width of a coarse code with the least expected cost; none where the plain search is as good.
///
/// `(rows, queries)` are `[m, d]` and `[n, d]`. Each of some queries is measured against some rows: its `k`-th
/// smallest distance there (not below that of the whole bank, so the trial is pessimistic) against what the
/// first axes see of the distance to each row.
pub(super) fn coarse_width(
    axes: &Axes,
    (rows, queries): (&[f32], &[f32]),
    d: usize,
    k: usize,
    is_allowed: impl Fn(usize, usize) -> bool,
) -> Option<usize> {
    let ((places, some), (askers, asked)) = (spread(rows, d, ROWS), spread(queries, d, QUERIES));
    let (codes, questions) = (along(axes, &some, d), along(axes, &asked, d));
    let mut left = vec![0_usize; axes.count().div_ceil(STEP)];
    for (query, (asker, question)) in asked.chunks(d).zip(askers.iter().zip(questions.chunks(axes.count()))) {
        let allowed = places.iter().enumerate().filter(|&(_, &place)| is_allowed(*asker, place));
        let allowed: Vec<usize> = allowed.map(|(number, _)| number).collect();
        let mut squared: Vec<f32> =
            allowed.iter().map(|&number| squared_euclidean(query, &some[number * d..][..d])).collect();
        if squared.len() <= k {
            continue;
        }
        let limit = *squared.select_nth_unstable_by(k - 1, f32::total_cmp).1;
        for number in allowed {
            let code = &codes[number * axes.count()..][..axes.count()];
            let mut seen = 0.0;
            for (left, (x, y)) in left.iter_mut().zip(question.chunks(STEP).zip(code.chunks(STEP))) {
                seen += squared_euclidean(x, y);
                if seen > limit {
                    break;
                }
                *left += 1;
            }
        }
    }
    let pairs = (asked.len() / d * places.len()) as f64;
    let cost = |step: usize| ((step + 1) * STEP) as f64 + LEFT_COST * left[step] as f64 / pairs;
    let best = (0..left.len()).min_by(|&a, &b| cost(a).total_cmp(&cost(b)))?;
    (cost(best) < WORTH * d as f64).then_some((best + 1) * STEP)
}

fn along(axes: &Axes, rows: &[f32], d: usize) -> Vec<f32> {
    let (mut centred, mut out) = (vec![0.0; rows.len()], vec![0.0; rows.len() / d * axes.count()]);
    axes.apply(rows, &mut centred, &mut out);
    out
}
