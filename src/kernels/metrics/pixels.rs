//! Pixel metrics over a whole test set, exact with ties.
//!
//! Scores are kept as order-preserving integers, four bytes a normal pixel and eight a defective one, in
//! the order in which images came, so that the same store serves the exact metrics ([`PixelScores::finish`],
//! which sorts it) and the per-image statistics of the bootstrap ([`PixelScores::statistics`]).

use rayon::prelude::*;

use super::MetricError;
use super::check_finite;
use super::regions::OverlapCurve;
use super::statistics::PixelStatistics;
use super::sweep::{Sweep, order_key, score_of};
use crate::kernels::components::components;

/// The pixel metrics of a test set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelMetrics {
    /// Area under the ROC curve of all pixels, ties counting half.
    pub auroc: f64,
    /// Average precision of all pixels, ties grouped (scikit-learn's definition).
    pub average_precision: f64,
    /// The best F1 over all thresholds.
    pub f1_max: f64,
    /// Its threshold: a pixel is predicted where `score >= threshold`; the highest of equal ones.
    pub f1_max_threshold: f32,
    /// Area under the per-region overlap curve up to the limit, divided by the limit.
    pub aupro: f64,
    /// Number of defective pixels.
    pub positives: u64,
    /// Number of normal pixels.
    pub negatives: u64,
}

/// Scores of all pixels of a test set, added image by image.
#[derive(Debug, Clone, Default)]
pub struct PixelScores {
    /// Keys of the normal pixels.
    pub(super) negatives: Vec<u32>,
    /// Of each defective pixel: its key above, its region's number of pixels below. Sorting them sorts by
    /// score, and fixes the order in which equal scores are summed.
    pub(super) positives: Vec<u64>,
    pub(super) images: Vec<ImageEnd>,
}

/// How far the stores were filled after an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct ImageEnd {
    pub(super) negatives: usize,
    pub(super) positives: usize,
    /// Regions of this image alone.
    pub(super) regions: u64,
}

/// Splits a stored positive into its key and its weight, 1 / pixels of its region.
pub(super) fn key_and_weight(positive: u64) -> (u32, f64) {
    ((positive >> 32) as u32, 1.0 / f64::from(positive as u32))
}

impl PixelScores {
    /// Starts with no image.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one image. The exact metrics do not depend on the order of images; the bootstrap does, since
    /// it draws them by number.
    ///
    /// - `map: [height, width]` and `mask: [height, width]`, row-major; a nonzero mask value is defective.
    /// - A score that is not finite is refused, and nothing of the image is kept.
    /// - Cost: O(height · width).
    ///
    /// # Panics
    /// If map, mask and shape disagree.
    pub fn add(&mut self, map: &[f32], mask: &[u8], height: usize, width: usize) -> Result<(), MetricError> {
        assert_eq!(map.len(), height * width, "map of {} pixels for {height}×{width}", map.len());
        check_finite(map)?;
        let regions = components(mask, height, width);
        if regions.is_empty() {
            self.negatives.extend(map.iter().map(|&score| order_key(score)));
        } else {
            let normal = map.iter().zip(mask).filter(|&(_, &value)| value == 0);
            self.negatives.extend(normal.map(|(&score, _)| order_key(score)));
        }
        for region in &regions {
            let size = region.pixels.len() as u64;
            let keyed = |&pixel: &u32| u64::from(order_key(map[pixel as usize])) << 32 | size;
            self.positives.extend(region.pixels.iter().map(keyed));
        }
        self.images.push(ImageEnd {
            negatives: self.negatives.len(),
            positives: self.positives.len(),
            regions: regions.len() as u64,
        });
        Ok(())
    }

    /// Gathers what the bootstrap needs, before [`PixelScores::finish`] takes the scores: see
    /// [`PixelStatistics`].
    ///
    /// # Panics
    /// If the limit is not in (0, 1] or `bins` is below 2.
    pub fn statistics(&self, fpr_limit: f64, bins: usize) -> Result<PixelStatistics, MetricError> {
        PixelStatistics::new(self, fpr_limit, bins)
    }

    /// Computes the metrics of all pixels added.
    ///
    /// - `fpr_limit` in (0, 1] bounds AUPRO (the usual value is 0.3); regions are the 8-connected
    ///   components of each mask, and each weighs the same.
    /// - No pixel at all, or pixels of one class only, is an error.
    /// - Every number is the same for any number of threads and any order of images.
    /// - Cost: a sort in place, O(pixels · log pixels), in parallel, then one pass. 142 million pixels take
    ///   about 3 s and 0.6 GB from the first image to here (2 shared AMD EPYC cores, see the ignored test).
    ///
    /// # Panics
    /// If the limit is not in (0, 1].
    pub fn finish(mut self, fpr_limit: f64) -> Result<PixelMetrics, MetricError> {
        let curve = OverlapCurve::new(fpr_limit);
        let sweep = Sweep::new(self.positives.len() as u64, self.negatives.len() as u64)?;
        self.negatives.par_sort_unstable();
        self.positives.par_sort_unstable();
        Ok(self.merge(sweep, curve))
    }

    /// Walks down the sorted stores, from one distinct score of a positive to the next.
    fn merge(&self, mut sweep: Sweep, mut curve: OverlapCurve) -> PixelMetrics {
        let regions: u64 = self.images.iter().map(|image| image.regions).sum();
        let mut negatives = self.negatives.as_slice();
        let mut weight_sum = 0.0;
        for tied in self.positives.chunk_by(|a, b| a >> 32 == b >> 32).rev() {
            let (key, _) = key_and_weight(tied[0]);
            sweep.step(score_of(key), 0, take_from_end(&mut negatives, |negative| negative > key));
            curve.line_to(sweep.false_positive_rate(), weight_sum / regions as f64);
            weight_sum += tied.iter().rev().map(|&positive| key_and_weight(positive).1).sum::<f64>();
            let level = take_from_end(&mut negatives, |negative| negative == key);
            sweep.step(score_of(key), tied.len() as u64, level);
            curve.line_to(sweep.false_positive_rate(), weight_sum / regions as f64);
        }
        sweep.step(f32::NEG_INFINITY, 0, negatives.len() as u64);
        curve.line_to(1.0, 1.0);
        let best = sweep.f1_max();
        PixelMetrics {
            auroc: sweep.auroc(),
            average_precision: sweep.average_precision(),
            f1_max: best.f1,
            f1_max_threshold: best.threshold,
            aupro: curve.normalised_area(),
            positives: self.positives.len() as u64,
            negatives: self.negatives.len() as u64,
        }
    }
}

/// Drops the last keys for as long as `is_taken` holds, and counts them.
fn take_from_end(sorted: &mut &[u32], is_taken: impl Fn(u32) -> bool) -> u64 {
    let rest = sorted.iter().rposition(|&key| !is_taken(key)).map_or(0, |last| last + 1);
    let taken = sorted.len() - rest;
    *sorted = &sorted[..rest];
    taken as u64
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::super::ranking;
    use super::*;

    #[test]
    fn pixels_are_ranked_as_images_are() {
        for change in [golden::tie, |score: f32| score - 1.0] {
            let (mut all, mut labels) = (Vec::new(), Vec::new());
            for image in 0..golden::IMAGES {
                let mask = golden::mask(image);
                all.extend(golden::map(image, &mask).into_iter().map(change));
                labels.extend(mask.iter().map(|&value| value != 0));
            }
            let scores = golden::pixel_scores(0..golden::IMAGES, change).unwrap();
            let found = scores.finish(0.3).unwrap();
            let best = ranking::f1_max(&all, &labels).unwrap();
            assert_eq!(Ok(found.auroc), ranking::auroc(&all, &labels));
            assert_eq!(Ok(found.average_precision), ranking::average_precision(&all, &labels));
            assert_eq!((found.f1_max, found.f1_max_threshold), (best.f1, best.threshold));
        }
    }

    #[test]
    fn a_perfect_map_has_metrics_of_1_and_a_constant_map_a_diagonal() {
        let mask = [1, 0, 0, 1];
        let mut perfect = PixelScores::new();
        perfect.add(&[5.0, 1.0, 2.0, 4.0], &mask, 1, 4).unwrap();
        let found = perfect.finish(0.3).unwrap();
        assert_eq!((found.auroc, found.average_precision, found.f1_max), (1.0, 1.0, 1.0));
        assert!((found.aupro - 1.0).abs() < 1e-15 && found.f1_max_threshold.to_bits() == 4.0_f32.to_bits());
        let mut constant = PixelScores::new();
        constant.add(&[0.0, -0.0, 0.0, 0.0], &mask, 1, 4).unwrap();
        let found = constant.finish(0.3).unwrap();
        assert!((found.auroc - 0.5).abs() < 1e-15 && (found.aupro - 0.15).abs() < 1e-15);
    }

    #[test]
    fn regions_weigh_the_same_whatever_their_size() {
        // Three pixels found, one missed below all normal ones: y is 1/2 up to x = 1.
        let mut scores = PixelScores::new();
        scores.add(&[9.0, 9.0, 9.0, 5.0, 5.0, 1.0], &[1, 1, 1, 0, 0, 1], 1, 6).unwrap();
        assert!((scores.finish(0.3).unwrap().aupro - 0.5).abs() < 1e-15);
    }

    #[test]
    fn neither_threads_nor_the_order_of_images_change_a_bit() {
        let forwards = golden::pixel_scores(0..golden::IMAGES, golden::tie).unwrap();
        let backwards = golden::pixel_scores((0..golden::IMAGES).rev(), golden::tie).unwrap();
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let expected = one_thread.install(|| forwards.finish(0.3)).unwrap();
        let three_threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(three_threads.install(|| backwards.finish(0.3)).unwrap(), expected);
    }

    #[test]
    fn sets_without_a_ranking_are_refused() {
        assert_eq!(PixelScores::new().finish(0.3), Err(MetricError::Empty));
        let mut normal = PixelScores::new();
        normal.add(&[1.0, 2.0], &[0, 0], 1, 2).unwrap();
        let one_class = Err(MetricError::OneClassOnly { positives: 0, negatives: 2 });
        assert_eq!(normal.clone().finish(0.3), one_class);
        let refused = normal.add(&[1.0, f32::NEG_INFINITY], &[1, 0], 1, 2);
        assert_eq!(refused, Err(MetricError::NotFinite { index: 1, value: f32::NEG_INFINITY }));
        assert_eq!(normal.finish(0.3), one_class);
    }

    #[test]
    #[should_panic(expected = "map of 3 pixels for 2×2")]
    fn a_wrong_shape_panics() {
        let _ = PixelScores::new().add(&[0.0; 3], &[0; 4], 2, 2);
    }

    /// Peak resident memory of this process, where the system tells it.
    fn peak_kilobytes() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }

    /// Run in the release profile: `cargo test --release -- --ignored ksdd2`.
    #[test]
    #[ignore = "142 million pixels: seconds in the release profile, a minute without"]
    fn a_set_of_ksdd2_s_size_takes_seconds_and_less_than_a_gigabyte() {
        let (height, width) = (632, 224);
        let mut scores = PixelScores::new();
        let mut spent = std::time::Duration::ZERO;
        for image in 0..1004 {
            let mut mask = vec![0; height * width];
            let rows = if image % 9 == 0 { 100..180 } else { 0..0 };
            rows.for_each(|row| mask[row * width + 60 + image % 50..][..90].fill(1));
            let lift = |value: u8| f32::from(value) * 0.4 + 0.3 * golden::uniform(image);
            let score = |(pixel, &value): (usize, &u8)| golden::uniform(image << 20 | pixel) + lift(value);
            let map: Vec<f32> = mask.iter().enumerate().map(score).collect();
            let started = std::time::Instant::now();
            scores.add(&map, &mask, height, width).unwrap();
            spent += started.elapsed();
        }
        let started = std::time::Instant::now();
        let estimate = scores.statistics(0.3, 1024).unwrap().estimate().unwrap();
        let found = scores.finish(0.3).unwrap();
        spent += started.elapsed();
        assert_eq!(found.positives + found.negatives, 1004 * 632 * 224);
        assert!((found.auroc - estimate.auroc).abs() < 1e-4, "{found:?} {estimate:?}");
        assert!(
            (found.average_precision - estimate.average_precision).abs() < 1e-4,
            "{found:?} {estimate:?}"
        );
        assert!((found.aupro - estimate.aupro).abs() < 1e-4, "{found:?} {estimate:?}");
        assert!(spent.as_secs() < 30, "took {spent:?}");
        assert!(peak_kilobytes().is_none_or(|peak| peak < 1_000_000), "{:?} kB", peak_kilobytes());
    }
}
