//! Pixel metrics of any resample of the images, from bins of the score, with a bound of what the bins cost.
//!
//! Going down the score by whole bins meets every curve at the bins' borders exactly; only its course between two
//! borders is unknown. With `(P, N)` the defective and normal pixels of the resample, `(a, b)` those above a bin
//! and `(p, n)` those in it:
//!
//! - **AUROC** counts half of the bin's `p n` pairs as right. Between none and all of them are, hence it is off by
//!   at most `p n / 2`, and in all by `Σ p n / (2 P N)`. For the whole set `n ≤ 2N/B` in every bin that is no tie
//!   (`bins`; B the bins asked for), so that this is at most `1/B`.
//! - **AUPRO** draws a straight line from corner to corner of a box that the true curve, which never falls,
//!   does not leave either. The area differs by at most half of the box; where the limit cuts the box, by at
//!   most the whole of the part before the limit. The sum is divided by the limit.
//! - **Average precision** sums over the defective pixels the precision at their score. In the bin that is at
//!   least `f(j) = (a + j)/(a + j + b + n)` for the j-th of them (all normal ones stand before it; ties only
//!   add to j) and at most `(a + p)/(a + p + b)`. f is concave, so its sum is at least `p (f(1) + f(p))/2`.
//!   The estimate mixes both classes evenly; the larger distance to these two ends is the bound, and the sum of
//!   them is divided by P.
//!
//! Bins of one score are exact in all three. Overlaps are summed in f64 in the order of images: the same for any
//! number of threads.

use super::MetricError;
use super::bins::{ImageBins, ScoreBins};
use super::regions::OverlapCurve;
use super::sweep::ThresholdSweep;

/// Bins that serve any set, far inside any interval. Measured (2026-11-24, `benches/peers/metrics.py`) on 142 million
/// pixels, 0.15 % defective: off by 2.3e-7 (AUROC; stated 3.6e-4), 1.1e-5 (average precision, 0.369; stated 1.2e-3)
/// and 7.7e-7 (AUPRO; stated 6.9e-4), under intervals 0.08, 0.21 and 0.15 wide.
pub const DEFAULT_BINS: usize = 1024;

/// The largest of the differences between metrics from bins and exact ones that could be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelErrors {
    /// Of `auroc`.
    pub auroc: f64,
    /// Of `average_precision`.
    pub average_precision: f64,
    /// Of `aupro`.
    pub aupro: f64,
}

/// Pixel metrics computed from bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelEstimate {
    /// As `PixelMetrics::auroc`, scores of one bin and both classes counting half.
    pub auroc: f64,
    /// As `PixelMetrics::average_precision`, both classes evenly mixed within a bin.
    pub average_precision: f64,
    /// As `PixelMetrics::aupro`, the curve straight within a bin.
    pub aupro: f64,
    /// How far from the exact metrics these may be at most.
    pub errors: PixelErrors,
}

/// Histograms of each image's pixels.
#[derive(Debug, Clone)]
pub struct PixelStatistics {
    fpr_limit: f64,
    /// Whether a bin holds one score only: `[bins]`.
    is_tie: Vec<bool>,
    images: Vec<ImageBins>,
}

/// Sums over the images of a resample.
struct Totals {
    negatives: Vec<u64>,
    positives: Vec<u64>,
    overlaps: Vec<f64>,
    regions: u64,
}

/// What one bin holds and what lies above it: (positives, negatives).
#[derive(Clone, Copy)]
struct BinCounts {
    above: [u64; 2],
    here: [u64; 2],
    is_tie: bool,
}

impl PixelStatistics {
    /// Gathers the images, counted in these bins, in the order that the bootstrap numbers them in.
    ///
    /// # Panics
    /// If the limit is not in (0, 1], or an image was counted in other bins.
    pub fn new(bins: &ScoreBins, images: Vec<ImageBins>, fpr_limit: f64) -> Self {
        let _ = OverlapCurve::new(fpr_limit);
        assert!(images.iter().all(|image| image.negatives.len() == bins.len()), "an image of other bins");
        Self { fpr_limit, is_tie: bins.ties(), images }
    }

    /// Number of images.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Computes the metrics of the whole set from its bins.
    pub fn estimate(&self) -> Result<PixelEstimate, MetricError> {
        self.weighted_estimate(&vec![1; self.images.len()])
    }

    /// Computes the metrics of a set that holds each image as often as `weights: [images]` says. Cost:
    /// O(images · bins).
    pub(super) fn weighted_estimate(&self, weights: &[u32]) -> Result<PixelEstimate, MetricError> {
        let totals = self.totals(weights);
        let all = [totals.positives.iter().sum(), totals.negatives.iter().sum::<u64>()];
        let mut sweep = ThresholdSweep::new(all[0], all[1])?;
        let mut curve = OverlapCurve::new(self.fpr_limit);
        let (mut above, mut overlap, mut precision_sum, mut errors) = ([0, 0], 0.0, 0.0, [0.0; 3]);
        for index in (0..self.is_tie.len()).rev() {
            let here = [totals.positives[index], totals.negatives[index]];
            let bin = BinCounts { above, here, is_tie: self.is_tie[index] };
            let precision = bin.precision_sum();
            precision_sum += precision;
            let rate = sweep.false_positive_rate();
            sweep.step(0.0, here[0], here[1]);
            overlap += totals.overlaps[index];
            curve.line_to(sweep.false_positive_rate(), overlap / totals.regions as f64);
            above = [above[0] + here[0], above[1] + here[1]];
            if !bin.is_tie {
                let rise = totals.overlaps[index] / totals.regions as f64;
                errors[0] += here[0] as f64 / all[0] as f64 * (here[1] as f64 / all[1] as f64) / 2.0;
                errors[1] += bin.precision_error(precision) / all[0] as f64;
                errors[2] += self.box_error([rate, sweep.false_positive_rate()], rise);
            }
        }
        Ok(PixelEstimate {
            auroc: sweep.auroc(),
            average_precision: precision_sum / all[0] as f64,
            aupro: curve.normalised_area(),
            errors: PixelErrors { auroc: errors[0], average_precision: errors[1], aupro: errors[2] },
        })
    }

    /// How far the area within one bin's box may be from that under its diagonal, divided by the limit.
    fn box_error(&self, [from, to]: [f64; 2], rise: f64) -> f64 {
        let limit = self.fpr_limit;
        let share = if to <= limit { 0.5 } else { 1.0 };
        share * (to.min(limit) - from).max(0.0) * rise / limit
    }

    /// Sums histograms in the order of images, which fixes the rounding.
    fn totals(&self, weights: &[u32]) -> Totals {
        let bins = self.is_tie.len();
        let mut totals = Totals {
            negatives: vec![0; bins],
            positives: vec![0; bins],
            overlaps: vec![0.0; bins],
            regions: 0,
        };
        for (image, &weight) in self.images.iter().zip(weights).filter(|&(_, &weight)| weight > 0) {
            add_weighted(&mut totals.negatives, &image.negatives, weight);
            let Some(defects) = &image.defects else { continue };
            add_weighted(&mut totals.positives, &defects.positives, weight);
            for (total, overlap) in totals.overlaps.iter_mut().zip(&defects.overlaps) {
                *total += f64::from(weight) * overlap;
            }
            totals.regions += u64::from(weight) * defects.regions;
        }
        totals
    }
}

/// Adds `weight` times the counts.
fn add_weighted(totals: &mut [u64], counts: &[u32], weight: u32) {
    for (total, &count) in totals.iter_mut().zip(counts) {
        *total += u64::from(weight) * u64::from(count);
    }
}

impl BinCounts {
    /// Sum over the bin's positives of the precision at their score.
    ///
    /// In a tie all have the precision after the bin. Else both classes are evenly mixed: the j-th of p
    /// positives is expected to follow `n j / (p + 1)` of n negatives; taken at the first, the middle and the
    /// last (Simpson's rule).
    fn precision_sum(self) -> f64 {
        let [positives, negatives] = self.here.map(|count| count as f64);
        if self.here[0] == 0 {
            return 0.0;
        }
        if self.is_tie {
            return positives * self.precision(positives, negatives);
        }
        let mixed = |rank: f64| self.precision(rank, negatives * rank / (positives + 1.0));
        let middle = mixed(f64::midpoint(1.0, positives));
        positives * (mixed(1.0) + 4.0 * middle + mixed(positives)) / 6.0
    }

    /// How far the true sum may be from this one: see the module's opening.
    fn precision_error(self, estimate: f64) -> f64 {
        let [positives, negatives] = self.here.map(|count| count as f64);
        if self.here[0] == 0 {
            return 0.0;
        }
        let lowest = |rank: f64| self.precision(rank, negatives);
        let least = positives * f64::midpoint(lowest(1.0), lowest(positives));
        let most = positives * self.precision(positives, 0.0);
        (most - estimate).max(estimate - least)
    }

    /// Precision after so many of the bin's positives and negatives.
    fn precision(self, positives: f64, negatives: f64) -> f64 {
        let true_positives = self.above[0] as f64 + positives;
        true_positives / (true_positives + self.above[1] as f64 + negatives)
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    /// Differences from the exact metrics, and the bounds stated for them.
    fn errors(images: &[usize], change: fn(f32) -> f32, bins: usize) -> ([f64; 3], [f64; 3]) {
        let estimate = golden::pixel_statistics(images, change, bins).estimate().unwrap();
        let exact = golden::pixel_scores(images.iter().copied(), change).unwrap().finish(0.3).unwrap();
        let found = [
            (estimate.auroc - exact.auroc).abs(),
            (estimate.average_precision - exact.average_precision).abs(),
            (estimate.aupro - exact.aupro).abs(),
        ];
        (found, [estimate.errors.auroc, estimate.errors.average_precision, estimate.errors.aupro])
    }

    #[test]
    fn bins_come_closer_to_the_exact_metrics_than_they_state() {
        let all: Vec<usize> = (0..golden::IMAGES).collect();
        let plain = |score| score;
        for (bins, limit) in [(512, 2e-4), (256, 2e-4), (64, 1e-2), (8, 0.2), (2, 1.0)] {
            let (found, stated) = errors(&all, plain, bins);
            assert!(found.iter().all(|&error| error < limit), "{bins} bins: {found:?}");
            let is_within = found.iter().zip(&stated).all(|(error, bound)| *error <= bound + 1e-12);
            assert!(is_within, "{bins} bins: {found:?} {stated:?}");
            assert!(stated[0] <= 1.0 / bins as f64 + 1e-3, "{bins} bins: {stated:?}");
        }
        // Few pixels and many ties.
        for first in 0..golden::IMAGES - 3 {
            for change in [plain, golden::tie, |score: f32| (score * 1000.0).round()] {
                let (found, stated) = errors(&[first, first + 1, first + 2, 2], change, 6);
                let is_within = found.iter().zip(&stated).all(|(error, bound)| *error <= bound + 1e-12);
                assert!(is_within, "image {first}: {found:?} {stated:?}");
            }
        }
    }

    #[test]
    fn tied_scores_and_few_defective_pixels_are_exact() {
        let all: Vec<usize> = (0..golden::IMAGES).collect();
        let (found, stated) = errors(&all, golden::tie, DEFAULT_BINS);
        assert!(found.iter().chain(&stated).all(|&error| error < 1e-12), "{found:?} {stated:?}");
        let (found, _) = errors(&all, |score| score, DEFAULT_BINS);
        assert!(found.iter().all(|&error| error < 1e-12), "{found:?}");
    }

    #[test]
    fn weights_stand_for_images_met_more_than_once() {
        let all: Vec<usize> = (0..golden::IMAGES).collect();
        let statistics = golden::pixel_statistics(&all, |score| score, DEFAULT_BINS);
        let weights: Vec<u32> = (0..golden::IMAGES as u32).map(|image| image * 7 % 4).collect();
        let drawn = (0..golden::IMAGES).flat_map(|image| vec![image; weights[image] as usize]);
        let exact = golden::pixel_scores(drawn, |score| score).unwrap().finish(0.3).unwrap();
        let estimate = statistics.weighted_estimate(&weights).unwrap();
        let is_close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(is_close(estimate.auroc, exact.auroc), "{estimate:?} {exact:?}");
        assert!(is_close(estimate.average_precision, exact.average_precision), "{estimate:?} {exact:?}");
        assert!(is_close(estimate.aupro, exact.aupro), "{estimate:?} {exact:?}");
    }

    #[test]
    fn one_class_has_no_bins() {
        let mut normal = super::super::PixelScores::new();
        assert_eq!(normal.bins(8).err(), Some(MetricError::Empty));
        normal.add(&[1.0, 2.0], &[0, 0], 1, 2).unwrap();
        let one_class = MetricError::OneClassOnly { positives: 0, negatives: 2 };
        assert_eq!(normal.bins(8).err(), Some(one_class));
    }
}
