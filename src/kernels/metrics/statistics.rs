//! Pixel metrics of any resample of the images, computed from histograms, with bounds of the error that the binning
//! causes.
//!
//! A sweep over whole bins is exact at the edges of the bins; only the course of a curve within a bin is unknown. Let
//! `(P, N)` be the numbers of defective and normal pixels of the resample, `(a, b)` those above a bin and `(p, n)`
//! those in it:
//!
//! - **AUROC** counts half of the `p n` pairs within the bin as correctly ordered. Between none and all of them are,
//!   so the error is at most `p n / 2` for the bin and `Σ p n / (2 P N)` in total. For the whole set, `n ≤ 2N/B` in
//!   every bin with more than one score (`bins`; B is the number of requested bins), so the error is at most `1/B`.
//! - **AUPRO** takes the diagonal of a box that also contains the true curve, because that never decreases. The area
//!   differs by at most half of the box; if the limit cuts the box, by at most all of the box before the limit. The
//!   sum is divided by the limit.
//! - **Average precision** sums the precision at the score of each defective pixel. For the j-th defective pixel of
//!   the bin it is at least `f(j) = (a + j)/(a + j + b + n)`, the value if all normal pixels of the bin score higher
//!   (ties only increase j), and at most `(a + p)/(a + p + b)`. As f is concave, its sum is at least
//!   `p (f(1) + f(p))/2`. The estimate assumes that both classes are evenly mixed. The bound of a bin is the larger
//!   difference between the estimate and these two limits; the sum of the bounds is divided by P.
//!
//! Bins of a single score are exact for all three metrics. Overlaps are summed in f64 in the order of the images, so
//! the result is the same for any number of threads.

use super::MetricError;
use super::bins::{ImageBins, ScoreBins};
use super::regions::OverlapCurve;
use super::sweep::ThresholdSweep;

/// The default number of bins, whose error is far below the width of the intervals. Measured (2026-11-24,
/// `benches/peers/metrics.py`) on 142 million pixels, 0.15 % defective:
///
/// | metric | error | bound | width of the interval |
/// |---|---|---|---|
/// | AUROC | 2.3e-7 | 3.6e-4 | 0.08 |
/// | average precision (0.369) | 1.1e-5 | 1.2e-3 | 0.21 |
/// | AUPRO | 7.7e-7 | 6.9e-4 | 0.15 |
pub const DEFAULT_BINS: usize = 1024;

/// Bounds of the difference between metrics computed from bins and exact ones.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(missing_docs, reason = "named as the metrics")]
pub struct PixelErrors {
    pub auroc: f64,
    pub average_precision: f64,
    pub aupro: f64,
}

/// Pixel metrics computed from bins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelEstimate {
    /// `PixelMetrics::auroc`, with the scores of a bin counted as ties.
    pub auroc: f64,
    /// `PixelMetrics::average_precision`, with both classes assumed to be evenly mixed within a bin.
    pub average_precision: f64,
    /// `PixelMetrics::aupro`, with a curve that is straight within a bin.
    pub aupro: f64,
    /// Bounds of the difference to the exact metrics.
    pub errors: PixelErrors,
}

/// The histograms of all images.
#[derive(Debug, Clone)]
pub struct PixelStatistics {
    fpr_limit: f64,
    /// Whether each bin holds a single score: `[bins]`.
    is_tie: Vec<bool>,
    images: Vec<ImageBins>,
}

/// Sums of the histograms of a resample.
struct Totals {
    negatives: Vec<u64>,
    positives: Vec<u64>,
    overlaps: Vec<f64>,
    regions: u64,
}

/// The counts of one bin and of all bins above it, as (positives, negatives).
#[derive(Clone, Copy)]
struct BinCounts {
    above: [u64; 2],
    here: [u64; 2],
    is_tie: bool,
}

impl PixelStatistics {
    /// Collects the histograms of the images. `fpr_limit` is the false positive rate up to which AUPRO is computed.
    ///
    /// # Panics
    /// If the limit is not in (0, 1], or an image was counted in other bins.
    pub fn new(bins: &ScoreBins, images: Vec<ImageBins>, fpr_limit: f64) -> Self {
        let _ = OverlapCurve::new(fpr_limit);
        assert!(images.iter().all(|image| image.negatives.len() == bins.len()), "an image of other bins");
        Self { fpr_limit, is_tie: bins.ties(), images }
    }

    /// Returns the number of images.
    pub fn images(&self) -> usize {
        self.images.len()
    }

    /// Computes the metrics of the whole set.
    pub fn estimate(&self) -> Result<PixelEstimate, MetricError> {
        self.weighted_estimate(&vec![1; self.images.len()])
    }

    /// Computes the metrics of a set that holds image i `weights[i]` times. Cost: O(images · bins).
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

    /// Returns the bound of the AUPRO error of one bin, whose box spans the rates `from..to` and the overlap `rise`.
    fn box_error(&self, [from, to]: [f64; 2], rise: f64) -> f64 {
        let limit = self.fpr_limit;
        let share = if to <= limit { 0.5 } else { 1.0 };
        share * (to.min(limit) - from).max(0.0) * rise / limit
    }

    /// Sums the histograms in the order of the images, which fixes the rounding.
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

/// Adds `weight · counts` to the totals.
fn add_weighted(totals: &mut [u64], counts: &[u32], weight: u32) {
    for (total, &count) in totals.iter_mut().zip(counts) {
        *total += u64::from(weight) * u64::from(count);
    }
}

impl BinCounts {
    /// Estimates the sum, over the positives of the bin, of the precision at their score.
    ///
    /// In a bin of a single score, all positives have the precision after the bin. Otherwise both classes are assumed
    /// to be evenly mixed: the j-th of p positives follows `n j / (p + 1)` of n negatives. The sum is then
    /// approximated by Simpson's rule from its first, middle and last term.
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

    /// Returns the bound of the difference between `estimate` and the true sum: see the module's documentation.
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

    /// Returns the precision after this many positives and negatives of the bin.
    fn precision(self, positives: f64, negatives: f64) -> f64 {
        let true_positives = self.above[0] as f64 + positives;
        true_positives / (true_positives + self.above[1] as f64 + negatives)
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    /// Returns the differences to the exact metrics, and their bounds.
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
