//! Bootstrap confidence intervals over images (Efron 1979; percentile intervals: Efron and Tibshirani 1993, chapter
//! 13).
//!
//! A resample draws as many images as the set has, with replacement, and the metric is computed for it. The interval
//! spans the 2.5 % to the 97.5 % quantile of the results, interpolated linearly. Whole images are drawn, not pixels,
//! because the pixels of an image are not independent.
//!
//! Image metrics are exact in every resample. Pixel metrics are computed from per-image histograms, with a bound of
//! the error of each resample (`statistics`). The largest of these bounds also holds for both ends of the interval:
//! the ends are (interpolated) order statistics of the values, and if no value changes by more than e, no order
//! statistic does. This bound is returned with the intervals.
//!
//! Each resample has its own generator, seeded by one number of the caller's, so that the results are the same for
//! any number of threads. A resample of one class only is drawn again, at most [`MAX_DRAWS`] times.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::MetricError;
use super::ranking::Ranking;
use super::statistics::{PixelErrors, PixelEstimate, PixelStatistics};
use crate::kernels::random::Rng;

/// The probability on each side of the interval, which leaves 95 % inside.
const TAIL: f64 = 0.025;

/// Draws of one resample before giving up. If there is a single defect among the images, a draw misses it with
/// probability 0.37; so 100 draws all miss it with probability 1e-43.
const MAX_DRAWS: usize = 100;

/// A 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceInterval {
    /// The lower end: the 2.5 % quantile of the resamples.
    pub low: f64,
    /// The upper end: the 97.5 % quantile of the resamples.
    pub high: f64,
}

/// Confidence intervals of the image metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageIntervals {
    /// The interval of `auroc`.
    pub auroc: ConfidenceInterval,
    /// The interval of `average_precision`.
    pub average_precision: ConfidenceInterval,
    /// The interval of `f1_max`; each resample has its own best threshold.
    pub f1_max: ConfidenceInterval,
}

/// Confidence intervals of the pixel metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelIntervals {
    /// The interval of `PixelMetrics::auroc`.
    pub auroc: ConfidenceInterval,
    /// The interval of `PixelMetrics::average_precision`.
    pub average_precision: ConfidenceInterval,
    /// The interval of `PixelMetrics::aupro`.
    pub aupro: ConfidenceInterval,
    /// Bounds of the difference between the ends of these intervals and those of exact resamples.
    pub errors: PixelErrors,
}

/// Computes the intervals of the image metrics. The metrics of each resample are exact. Cost: O(resamples · n), in
/// parallel.
///
/// # Panics
/// If there are not as many labels as scores, or `resamples` is 0.
pub fn image_intervals(
    scores: &[f32],
    labels: &[bool],
    resamples: usize,
    rng: &mut Rng,
) -> Result<ImageIntervals, MetricError> {
    let ranking = Ranking::new(scores, labels)?;
    ranking.sweep(&ranking.tallies())?;
    let measure = |weights: &[u32]| {
        let sweep = ranking.sweep(&ranking.weighted_tallies(weights))?;
        Ok([sweep.auroc(), sweep.average_precision(), sweep.f1_max().f1])
    };
    let [auroc, average_precision, f1_max] =
        measure_resamples(scores.len(), resamples, rng, measure)?.map(interval);
    Ok(ImageIntervals { auroc, average_precision, f1_max })
}

/// Computes the intervals of the pixel metrics from the histograms of the images, with bounds of the error that the
/// binning causes. Cost: O(resamples · images · bins), in parallel.
///
/// # Panics
/// If `resamples` is 0.
pub fn pixel_intervals(
    statistics: &PixelStatistics,
    resamples: usize,
    rng: &mut Rng,
) -> Result<PixelIntervals, MetricError> {
    let measure = |weights: &[u32]| {
        let PixelEstimate { auroc, average_precision, aupro, errors } =
            statistics.weighted_estimate(weights)?;
        Ok([auroc, average_precision, aupro, errors.auroc, errors.average_precision, errors.aupro])
    };
    let [auroc, average_precision, aupro, errors @ ..] =
        measure_resamples(statistics.images(), resamples, rng, measure)?;
    let largest = |errors: &[f64]| errors.iter().copied().fold(0.0, f64::max);
    Ok(PixelIntervals {
        auroc: interval(auroc),
        average_precision: interval(average_precision),
        aupro: interval(aupro),
        errors: PixelErrors {
            auroc: largest(&errors[0]),
            average_precision: largest(&errors[1]),
            aupro: largest(&errors[2]),
        },
    })
}

/// Calls `measure` for each resample with the number of times that each image was drawn, and returns the results by
/// column.
fn measure_resamples<const COLUMNS: usize>(
    images: usize,
    resamples: usize,
    rng: &mut Rng,
    measure: impl Fn(&[u32]) -> Result<[f64; COLUMNS], MetricError> + Sync,
) -> Result<[Vec<f64>; COLUMNS], MetricError> {
    assert!(resamples > 0, "an interval needs at least one resample");
    let seeds: Vec<u64> = (0..resamples).map(|_| rng.next_u64()).collect();
    let measured: Vec<[f64; COLUMNS]> = seeds
        .into_par_iter()
        .map(|seed| measure_resample(images, seed, &measure))
        .collect::<Result<_, _>>()?;
    Ok(std::array::from_fn(|column| measured.iter().map(|row| row[column]).collect()))
}

/// Draws images until the resample holds both classes, and measures it.
fn measure_resample<T>(
    images: usize,
    seed: u64,
    measure: impl Fn(&[u32]) -> Result<T, MetricError>,
) -> Result<T, MetricError> {
    let mut rng = Rng::new(seed, "bootstrap resample");
    for _ in 0..MAX_DRAWS {
        let mut weights = vec![0; images];
        for _ in 0..images {
            weights[rng.below(images)] += 1;
        }
        match measure(&weights) {
            Err(MetricError::OneClassOnly { .. }) => {}
            measured => return measured,
        }
    }
    Err(MetricError::ResamplesOneClassOnly { attempts: MAX_DRAWS })
}

/// Returns the percentile interval of `values`, which must not be empty or hold NaN.
fn interval(mut values: Vec<f64>) -> ConfidenceInterval {
    values.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let position = share * (values.len() - 1) as f64;
        let (below, above) = (values[position.floor() as usize], values[position.ceil() as usize]);
        below + (above - below) * position.fract()
    };
    ConfidenceInterval { low: quantile(TAIL), high: quantile(1.0 - TAIL) }
}

#[cfg(test)]
mod tests {
    use super::super::DEFAULT_BINS;
    use super::super::golden;
    use super::super::ranking::{auroc, f1_max};
    use super::*;

    fn with_threads<T: Send>(threads: usize, compute: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(compute)
    }

    #[test]
    fn intervals_are_the_quantiles_of_naive_resamples() {
        let (scores, labels) = golden::image_scores();
        let found = image_intervals(&scores, &labels, 200, &mut Rng::new(5, "bootstrap")).unwrap();
        let mut seeds = Rng::new(5, "bootstrap");
        let (mut aurocs, mut f1s) = (Vec::new(), Vec::new());
        for _ in 0..200 {
            let mut rng = Rng::new(seeds.next_u64(), "bootstrap resample");
            let drawn: Vec<usize> = (0..scores.len()).map(|_| rng.below(scores.len())).collect();
            let scores: Vec<f32> = drawn.iter().map(|&image| scores[image]).collect();
            let labels: Vec<bool> = drawn.iter().map(|&image| labels[image]).collect();
            aurocs.push(auroc(&scores, &labels).unwrap());
            f1s.push(f1_max(&scores, &labels).unwrap().f1);
        }
        assert_eq!((found.auroc, found.f1_max), (interval(aurocs), interval(f1s)));
    }

    #[test]
    fn intervals_hold_the_estimate_and_are_as_wide_as_theory_says() {
        let (scores, labels) = golden::image_scores();
        let found = image_intervals(&scores, &labels, 2000, &mut Rng::new(5, "bootstrap")).unwrap();
        // Hanley and McNeil (1982), equation 1, with 23 defects and 67 normals.
        let a = auroc(&scores, &labels).unwrap();
        let (q1, q2) = (a / (2.0 - a), 2.0 * a * a / (1.0 + a));
        let variance = (a * (1.0 - a) + 22.0 * (q1 - a * a) + 66.0 * (q2 - a * a)) / (23.0 * 67.0);
        let expected = 2.0 * 1.96 * variance.sqrt();
        let width = found.auroc.high - found.auroc.low;
        assert!(found.auroc.low < a && a < found.auroc.high);
        assert!((width / expected - 1.0).abs() < 0.25, "{width} against {expected}");
    }

    #[test]
    fn pixel_intervals_hold_the_exact_metrics_and_ignore_threads() {
        let all: Vec<usize> = (0..golden::IMAGES).collect();
        let statistics = golden::pixel_statistics(&all, |score| score, 256);
        let compute = || pixel_intervals(&statistics, 200, &mut Rng::new(5, "bootstrap")).unwrap();
        let found = with_threads(1, compute);
        assert_eq!(with_threads(2, compute), found);
        assert_eq!(with_threads(4, compute), found);
        let exact = golden::pixel_scores(all, |score| score).unwrap().finish(0.3).unwrap();
        let holds = |interval: ConfidenceInterval, value: f64| interval.low < value && value < interval.high;
        assert!(holds(found.auroc, exact.auroc) && holds(found.aupro, exact.aupro));
        assert!(holds(found.average_precision, exact.average_precision));
    }

    /// The pixel intervals of resamples whose pixels are all looked at.
    fn exact_pixel_intervals(resamples: usize, seed: u64) -> [ConfidenceInterval; 3] {
        let mut seeds = Rng::new(seed, "bootstrap");
        let mut columns = [(); 3].map(|()| Vec::new());
        for _ in 0..resamples {
            let mut rng = Rng::new(seeds.next_u64(), "bootstrap resample");
            let drawn: Vec<usize> = (0..golden::IMAGES).map(|_| rng.below(golden::IMAGES)).collect();
            let exact = golden::pixel_scores(drawn, |score| score).unwrap().finish(0.3).unwrap();
            let row = [exact.auroc, exact.average_precision, exact.aupro];
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        }
        columns.map(interval)
    }

    #[test]
    fn pixel_intervals_are_as_close_to_an_exact_bootstrap_as_they_state() {
        let all: Vec<usize> = (0..golden::IMAGES).collect();
        let exact = exact_pixel_intervals(60, 5);
        for (bins, limit) in [(DEFAULT_BINS, 1e-12), (256, 1e-3), (32, 2e-2), (4, 0.5)] {
            let statistics = golden::pixel_statistics(&all, |score| score, bins);
            let found = pixel_intervals(&statistics, 60, &mut Rng::new(5, "bootstrap")).unwrap();
            let PixelErrors { auroc, average_precision, aupro } = found.errors;
            let intervals = [found.auroc, found.average_precision, found.aupro];
            for ((found, exact), bound) in intervals.iter().zip(exact).zip([auroc, average_precision, aupro])
            {
                let off = (found.low - exact.low).abs().max((found.high - exact.high).abs());
                assert!(off <= bound + 1e-12 && off < limit, "{bins} bins: {off}, stated {bound}");
            }
        }
    }

    #[test]
    fn resamples_of_one_class_are_drawn_again() {
        // One of two images is defective: half of all draws hold one class only.
        let found = image_intervals(&[1.0, 2.0], &[false, true], 100, &mut Rng::new(5, "bootstrap"));
        assert_eq!(found.unwrap().auroc, ConfidenceInterval { low: 1.0, high: 1.0 });
        let one_class = MetricError::OneClassOnly { positives: 2, negatives: 0 };
        let refused = image_intervals(&[1.0, 2.0], &[true, true], 100, &mut Rng::new(5, "bootstrap"));
        assert_eq!(refused.err(), Some(one_class.clone()));
        let never = |_: &[u32]| Err::<[f64; 1], _>(one_class.clone());
        let refused = measure_resamples(3, 2, &mut Rng::new(5, "bootstrap"), never);
        assert_eq!(refused.err(), Some(MetricError::ResamplesOneClassOnly { attempts: MAX_DRAWS }));
    }

    #[test]
    fn quantiles_are_linear_between_neighbours() {
        let found = interval((0..=100).rev().map(f64::from).collect());
        assert!((found.low - 2.5).abs() < 1e-12 && (found.high - 97.5).abs() < 1e-12, "{found:?}");
        assert_eq!(interval(vec![3.0]), ConfidenceInterval { low: 3.0, high: 3.0 });
    }
}
