//! Choosing the rows of a bank: greedy k-center and the samplers that stand beside it.
//!
//! The greedy algorithm is that of Sener and Savarese, "Active Learning for Convolutional Neural
//! Networks: A Core-Set Approach", ICLR 2018, as PatchCore uses it (Roth et al., CVPR 2022, Algorithm
//! 1): the next pick is the point farthest from all picks so far. The private module `lazy` computes it
//! faster than its textbook form and promises the same picks; the tests hold the textbook form.

use rayon::prelude::*;

use super::KernelError;
use super::distance::{squared_norms, squared_to_centre};
use super::random::Stream;

mod bytes;
mod lazy;
mod projection;
mod screen;

use bytes::Bytes;
use lazy::Search;
pub use projection::{Projection, join_blocks};
use screen::Floats;

/// Rows measured against one centre by one task.
const ROW_BLOCK: usize = 256;

/// The rows chosen by a greedy sampler, in the order of choosing.
#[derive(Debug, Clone, PartialEq)]
pub struct Picks {
    /// Indices of the chosen rows, all different.
    pub rows: Vec<u32>,
    /// `radii[i]`: the largest distance of a point to its nearest pick after pick `i` (covering
    /// radius), plain Euclidean, in the space that was searched; it never grows.
    pub radii: Vec<f32>,
}

/// Returns the size of a bank: `max(min_size, ⌊n·ratio⌋)`, at most `n`.
pub fn bank_size(n: usize, ratio: f64, min_size: usize) -> usize {
    ((n as f64 * ratio).floor() as usize).max(min_size).min(n)
}

/// Chooses `count` of `n` rows at random, all different, in ascending order.
///
/// # Panics
/// If `count` is greater than `n`, or `n` does not fit 32 bits.
pub fn random_rows(n: usize, count: usize, stream: &mut Stream) -> Vec<u32> {
    assert!(u32::try_from(n).is_ok(), "{n} rows do not fit 32 bits");
    stream.choose(n, count).into_iter().map(|row| row as u32).collect()
}

/// Chooses `count` of `points: [n, d]` by greedy k-center from the row `first`.
///
/// Pick `i + 1` is the point with the largest squared distance ([`squared_euclidean`]) to its nearest
/// pick; among equal distances the lowest index. A picked row is not picked again, so that once all
/// distances are 0 the remaining rows follow in ascending order. Exact: the picks and radii are those of
/// the textbook algorithm to the bit, for every number of threads.
///
/// `progress` is told the number of picks after each; if it answers false, the search stops.
/// Cost at most `2·n·count·d` operations in matrix products (less where bounds rule points out),
/// memory `8·n` bytes besides the points.
///
/// [`squared_euclidean`]: super::distance::squared_euclidean
///
/// # Errors
/// If a point holds NaN or an infinity, or `progress` answered false.
///
/// # Panics
/// If `count` is not in `1..=n`, `first` is no row, `points` are no rows of `d`, or `n` does not fit 32
/// bits.
pub fn k_center_greedy(
    points: &[f32],
    d: usize,
    first: usize,
    count: usize,
    progress: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Picks, KernelError> {
    let norms = norms_for(points, d, count)?;
    assert!(first < norms.len(), "the first pick is row {first} of {}", norms.len());
    let bounds = squared_distances(points, d, &points[first * d..][..d]);
    search(points, d, &norms, bounds, Some(first), count, progress)
}

/// Chooses `count` of `points: [n, d]` as patchcore-inspection's `ApproximateGreedyCoresetSampler`.
///
/// A point's distance starts as its mean distance to `anchors` random points (10 there), as if that
/// were its distance to a pick; then greedy k-center goes on, the first pick included. Ties go to the
/// lower index, a picked row is not picked again (there it can be). The radii are the greedy
/// algorithm's own distances, which the anchors keep below the covering radius at first. Cost as
/// [`k_center_greedy`].
///
/// # Errors
/// If a point holds NaN or an infinity, or `progress` answered false.
///
/// # Panics
/// If `count` is not in `1..=n`, `anchors` is 0, `points` are no rows of `d`, or `n` does not fit 32
/// bits.
pub fn approximate_greedy(
    points: &[f32],
    d: usize,
    count: usize,
    anchors: usize,
    stream: &mut Stream,
    progress: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Picks, KernelError> {
    let norms = norms_for(points, d, count)?;
    assert!(anchors > 0, "an approximate coreset needs anchors");
    let chosen = stream.choose(norms.len(), anchors.min(norms.len()));
    let bounds = squared_mean_distances(points, d, &chosen);
    search(points, d, &norms, bounds, None, count, progress)
}

fn search(
    points: &[f32],
    d: usize,
    norms: &[f32],
    bounds: Vec<f32>,
    first: Option<usize>,
    count: usize,
    progress: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Picks, KernelError> {
    match Bytes::new(points, d, norms) {
        Some(screen) => Search::new(points, d, norms, bounds, first, screen).run(count, progress),
        None => Search::new(points, d, norms, bounds, first, Floats::new(d)).run(count, progress),
    }
}

fn norms_for(points: &[f32], d: usize, count: usize) -> Result<Vec<f32>, KernelError> {
    assert!(d > 0 && points.len().is_multiple_of(d), "{} numbers are no rows of {d}", points.len());
    let norms = |(block, rows): (usize, &[f32])| {
        squared_norms(rows, d).map_err(|error| match error {
            KernelError::NotFinite { row } => KernelError::NotFinite { row: block * ROW_BLOCK + row },
            other => other,
        })
    };
    let blocks: Vec<_> = points.par_chunks(ROW_BLOCK * d).enumerate().map(norms).collect();
    // One by one, so that the first row that is not finite is named.
    let norms = blocks.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let n = norms.len();
    assert!(u32::try_from(n).is_ok(), "{n} rows do not fit 32 bits");
    assert!((1..=n).contains(&count), "{count} of {n} rows were asked for");
    Ok(norms)
}

fn squared_distances(points: &[f32], d: usize, centre: &[f32]) -> Vec<f32> {
    let mut distances = vec![0.0; points.len() / d];
    distances
        .par_chunks_mut(ROW_BLOCK)
        .zip(points.par_chunks(ROW_BLOCK * d))
        .for_each(|(out, rows)| squared_to_centre(rows, d, centre, out));
    distances
}

fn squared_mean_distances(points: &[f32], d: usize, anchors: &[usize]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; points.len() / d];
    for anchor in anchors {
        let distances = squared_distances(points, d, &points[anchor * d..][..d]);
        sums.iter_mut().zip(distances).for_each(|(sum, squared)| *sum += f64::from(squared).sqrt());
    }
    sums.into_iter().map(|sum| (sum / anchors.len() as f64).powi(2) as f32).collect()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are promised to the bit")]
mod tests {
    use super::*;
    use crate::kernels::distance::squared_euclidean;

    /// The textbook algorithm, from given distances.
    fn textbook(points: &[f32], d: usize, mut bounds: Vec<f32>, first: Option<usize>, count: usize) -> Picks {
        let row = |index: usize| &points[index * d..][..d];
        let mut picks = Picks { rows: Vec::new(), radii: Vec::new() };
        let mut is_picked = vec![false; bounds.len()];
        let mut next = first;
        loop {
            let mut best: Option<usize> = None;
            for (index, &bound) in bounds.iter().enumerate() {
                if !is_picked[index] && best.is_none_or(|best| bound > bounds[best]) {
                    best = Some(index);
                }
            }
            if !picks.rows.is_empty() {
                picks.radii.push(best.map_or(0.0, |best| bounds[best].sqrt()));
            }
            if picks.rows.len() == count {
                return picks;
            }
            let pick = next.take().or(best).unwrap();
            picks.rows.push(pick as u32);
            is_picked[pick] = true;
            for (index, bound) in bounds.iter_mut().enumerate() {
                *bound = bound.min(squared_euclidean(row(index), row(pick)));
            }
        }
    }

    fn greedy(points: &[f32], d: usize, first: usize, count: usize) -> Picks {
        k_center_greedy(points, d, first, count, &|_| true).unwrap()
    }

    /// The same by both screens, whichever of them this processor would use.
    fn by_both_screens(points: &[f32], d: usize, first: usize, count: usize) -> [Picks; 2] {
        let norms = norms_for(points, d, count).unwrap();
        let bounds = squared_distances(points, d, &points[first * d..][..d]);
        let (bytes, floats) = (Bytes::of(points, d), Floats::new(d));
        [
            Search::new(points, d, &norms, bounds.clone(), Some(first), bytes).run(count, &|_| true).unwrap(),
            Search::new(points, d, &norms, bounds, Some(first), floats).run(count, &|_| true).unwrap(),
        ]
    }

    fn normals(stream: &mut Stream, count: usize) -> Vec<f32> {
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    #[test]
    fn small_sizes_equal_the_textbook_with_ties() {
        let mut stream = Stream::new(1, "coreset");
        for n in 1..=20 {
            for d in [1, 2, 3] {
                let points: Vec<f32> = (0..n * d).map(|_| stream.below(4) as f32).collect();
                let first = stream.below(n);
                for count in 1..=n {
                    let start = vec![f32::INFINITY; n];
                    let expected = textbook(&points, d, start, Some(first), count);
                    assert_eq!(greedy(&points, d, first, count), expected, "n {n}, d {d}, count {count}");
                }
            }
        }
    }

    /// Rows of one of five kinds: none of them special, ties on a grid, duplicates, tight groups far from the
    /// origin (where a matrix product cancels), one row over and over.
    fn random_case(stream: &mut Stream, kind: usize, n: usize, d: usize) -> Vec<f32> {
        let mut points = normals(stream, n * d);
        match kind {
            0 => {}
            1 => points.iter_mut().for_each(|x| *x = x.round()),
            2 => (1..n).for_each(|row| {
                let other = stream.below(row);
                if stream.below(3) > 0 {
                    points.copy_within(other * d..(other + 1) * d, row * d);
                }
            }),
            3 => {
                let centres = normals(stream, 5 * d);
                for point in points.chunks_mut(d) {
                    let centre = &centres[stream.below(5) * d..][..d];
                    point.iter_mut().zip(centre).for_each(|(x, c)| *x = *x * 0.01 + 30.0 * c + 100.0);
                }
            }
            _ => (1..n).for_each(|row| points.copy_within(..d, row * d)),
        }
        points
    }

    #[test]
    fn random_cases_equal_the_textbook() {
        let mut stream = Stream::new(7, "coreset");
        for case in 0..200 {
            let (n, d) = (1 + stream.below(500), 1 + stream.below(if case % 2 == 0 { 8 } else { 140 }));
            let points = random_case(&mut stream, case % 5, n, d);
            let (first, count) = (stream.below(n), 1 + stream.below(n));
            let expected = textbook(&points, d, vec![f32::INFINITY; n], Some(first), count);
            for found in by_both_screens(&points, d, first, count) {
                assert_eq!(found, expected, "case {case}: n {n}, d {d}, count {count}");
            }
        }
    }

    #[test]
    fn larger_sets_equal_the_textbook() {
        let mut stream = Stream::new(2, "coreset");
        let centres = normals(&mut stream, 12 * 40);
        for (n, d, spread) in [(3000, 40, 0.0), (3000, 40, 5.0), (5000, 2, 0.0), (900, 130, 0.0)] {
            let mut points = normals(&mut stream, n * d);
            for (row, point) in points.chunks_mut(d).enumerate() {
                let centre = &centres[(row * 7 % 12) * 40..];
                point.iter_mut().zip(centre).for_each(|(x, c)| *x = *x * 0.3 + spread * c + spread);
            }
            let start = vec![f32::INFINITY; n];
            let expected = textbook(&points, d, start, Some(17), 150);
            assert_eq!(greedy(&points, d, 17, 150), expected, "n {n}, d {d}, spread {spread}");
        }
    }

    #[test]
    fn many_equal_points_are_taken_in_order() {
        let points: Vec<f32> = (0..3000).map(|row| (row % 3) as f32).collect();
        let picks = greedy(&points, 1, 1, 3000);
        assert_eq!(picks.rows[..6], [1, 0, 2, 3, 4, 5]);
        assert_eq!(picks.rows[2999], 2999);
        assert_eq!(picks.radii[..3], [1.0, 1.0, 0.0]);
    }

    #[test]
    fn threads_change_nothing() {
        let mut stream = Stream::new(3, "coreset");
        let points = normals(&mut stream, 4000 * 16);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let projection = Projection::new(16, 8, &mut Stream::new(5, "project"));
                let read = |block: usize| Ok::<_, KernelError>(points[block * 16_000..][..16_000].to_vec());
                let projected = projection.apply_blocks(&[1000; 4], read).unwrap();
                (greedy(&points, 16, 0, 300), projected)
            })
        };
        assert!([2, 4, 5].iter().all(|&threads| run(threads) == run(1)));
    }

    #[test]
    fn the_radius_covers_every_point_and_never_grows() {
        let mut stream = Stream::new(4, "coreset");
        let (n, d) = (500, 6);
        let points = normals(&mut stream, n * d);
        let picks = greedy(&points, d, 3, 60);
        assert!(picks.radii.windows(2).all(|pair| pair[1] <= pair[0]));
        let nearest = |point: &[f32]| {
            let distances =
                picks.rows.iter().map(|&row| squared_euclidean(point, &points[row as usize * d..][..d]));
            distances.fold(f32::INFINITY, f32::min).sqrt()
        };
        assert_eq!(points.chunks(d).map(nearest).fold(0.0, f32::max), picks.radii[59]);
    }

    #[test]
    fn the_approximate_greedy_starts_from_mean_distances() {
        let mut stream = Stream::new(5, "coreset");
        let (n, d) = (400, 5);
        let points = normals(&mut stream, n * d);
        let anchors = Stream::new(9, "anchors").choose(n, 10);
        let mean = |point: &[f32]| {
            let distances = anchors.iter().map(|&row| squared_euclidean(point, &points[row * d..][..d]));
            (distances.map(|squared| f64::from(squared).sqrt()).sum::<f64>() / 10.0).powi(2) as f32
        };
        let expected = textbook(&points, d, points.chunks(d).map(mean).collect(), None, 40);
        let mut anchors = Stream::new(9, "anchors");
        assert_eq!(approximate_greedy(&points, d, 40, 10, &mut anchors, &|_| true), Ok(expected));
    }

    #[test]
    fn cancelling_and_wrong_data_are_errors() {
        let points = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(k_center_greedy(&points, 1, 0, 4, &|picks| picks < 2), Err(KernelError::Cancelled));
        let points = [0.0, f32::NAN];
        assert_eq!(k_center_greedy(&points, 1, 0, 2, &|_| true), Err(KernelError::NotFinite { row: 1 }));
    }

    #[test]
    fn bank_sizes_are_capped() {
        assert_eq!(bank_size(200_000, 0.01, 1000), 2000);
        assert_eq!(bank_size(5000, 0.01, 1000), 1000);
        assert_eq!(bank_size(300, 0.1, 1000), 300);
        assert_eq!(random_rows(5, 5, &mut Stream::new(1, "rows")), [0, 1, 2, 3, 4]);
    }
}
