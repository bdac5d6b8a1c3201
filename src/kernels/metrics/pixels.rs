//! Pixel metrics over a whole test set: exact, ties included, in bounded memory.
//!
//! Images are added one by one and not kept; only the counts of their pixels' scores remain. Every metric depends
//! only on how many normal and how many defective pixels have each score, and on the weights of the regions there.
//! So nothing is lost by counting.
//!
//! **Memory**, for any number of images (derived in `normals` and `defects`):
//!
//! `35 MiB + min(4 bytes · normal pixels, 65 MiB · octaves) + 64 bytes · distinct scores of defective pixels`
//!
//! An octave is the range of scores between a power of two and the next. The last term is at most 64 bytes per
//! defective pixel, and at most 512 MiB per octave. Measured (2026-11-24, `benches/metrics_speed.rs`, one of 2 shared
//! Zen 4 cores):
//!
//! | maps | pixels | time on one core | memory of the process |
//! |---|---|---|---|
//! | smooth | 142 million | 1.7 s | 73 MiB |
//! | tied | 142 million | 1.3 s | 42 MiB |
//! | smooth | 10⁹ | 14 s | 82 MiB |

use super::bins::{ScoreBins, class_edges};
use super::defects::{DefectLevels, Overlap};
use super::normals::KeyCounts;
use super::pixel_keys::visit_pixels;
use super::regions::OverlapCurve;
use super::sweep::{ThresholdSweep, score_of};
use super::{MetricError, check_classes};

/// The pixel metrics of a test set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelMetrics {
    /// Area under the ROC curve of all pixels, ties counting half.
    pub auroc: f64,
    /// Average precision of all pixels, ties grouped (scikit-learn's definition).
    pub average_precision: f64,
    /// The best F1 over all thresholds.
    pub f1_max: f64,
    /// The threshold of `f1_max`: a pixel is predicted defective if `score >= threshold`. The highest one if several
    /// give the best F1.
    pub f1_max_threshold: f32,
    /// Area under the per-region overlap curve up to a false positive rate, divided by that rate.
    pub aupro: f64,
    /// Number of defective pixels.
    pub positives: u64,
    /// Number of normal pixels.
    pub negatives: u64,
}

/// Counts of the pixel scores of a test set, filled image by image.
#[derive(Debug, Clone, Default)]
pub struct PixelScores {
    normals: KeyCounts,
    defects: DefectLevels,
}

impl PixelScores {
    /// Creates counts without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one image.
    ///
    /// - `map: [height, width]` and `mask: [height, width]`, row-major; a nonzero mask value is defective.
    /// - If a score is not finite, an error is returned and nothing of the image is counted. An image without pixels
    ///   adds nothing.
    /// - The metrics have the same bits for any order of the images and any number of threads.
    /// - Cost: O(height · width).
    ///
    /// # Panics
    /// If map, mask and shape disagree.
    pub fn add(&mut self, map: &[f32], mask: &[u8], height: usize, width: usize) -> Result<(), MetricError> {
        let Self { normals, defects } = self;
        let regions = visit_pixels(
            map,
            mask,
            [height, width],
            |key| normals.add(key),
            |key, region_pixels| defects.add(key, region_pixels),
        )?;
        defects.add_regions(regions);
        Ok(())
    }

    /// Chooses about `bins` bins for the bootstrap: see [`ScoreBins`]. Cost: two passes over the distinct scores.
    ///
    /// # Panics
    /// If `bins` is below 2.
    pub fn bins(&mut self, bins: usize) -> Result<ScoreBins, MetricError> {
        assert!(bins >= 2, "{bins} bins are too few");
        let (positives, negatives) = (self.defects.total(), self.normals.total());
        check_classes(positives, negatives)?;
        let levels = self.defects.levels();
        let defects = || levels.iter().map(|level| (level.key, level.pixels));
        let mut edges = class_edges(defects, positives, bins / 2);
        edges.extend(class_edges(|| self.normals.levels(), negatives, bins - bins / 2));
        Ok(ScoreBins::new(edges))
    }

    /// Computes the metrics of all added pixels.
    ///
    /// - `fpr_limit`, in (0, 1], is the false positive rate up to which AUPRO is computed; usually 0.3. Regions are
    ///   the 8-connected components of each mask; all have the same weight.
    /// - If there are no pixels, or pixels of one class only, an error is returned.
    /// - AUROC and F1 have the rounding error of one division. Average precision and AUPRO sum one f64 term below 1
    ///   per distinct score of a defective pixel; for ten million of these the error is below 10⁷ · 2⁻⁵³ = 1e-9.
    /// - Cost: O(distinct scores). Only small lists still have to be sorted.
    ///
    /// # Panics
    /// If the limit is not in (0, 1].
    pub fn finish(mut self, fpr_limit: f64) -> Result<PixelMetrics, MetricError> {
        let curve = OverlapCurve::new(fpr_limit);
        let sweep = ThresholdSweep::new(self.defects.total(), self.normals.total())?;
        Ok(self.sweep(sweep, curve))
    }

    /// Sweeps the threshold down, from one distinct score of a defective pixel to the next.
    fn sweep(&mut self, mut sweep: ThresholdSweep, mut curve: OverlapCurve) -> PixelMetrics {
        let (positives, negatives) = (self.defects.total(), self.normals.total());
        let regions = self.defects.regions();
        let mut normals = self.normals.levels().rev().peekable();
        let (mut overlap, mut left) = (Overlap::default(), negatives);
        for level in self.defects.levels().iter().rev() {
            let above = std::iter::from_fn(|| normals.next_if(|&(key, _)| key > level.key));
            let above = above.map(|(_, count)| count).sum();
            sweep.step(score_of(level.key), 0, above);
            curve.line_to(sweep.false_positive_rate(), overlap.mean(regions));
            overlap.add(level);
            let tied = normals.next_if(|&(key, _)| key == level.key).map_or(0, |(_, count)| count);
            sweep.step(score_of(level.key), level.pixels, tied);
            curve.line_to(sweep.false_positive_rate(), overlap.mean(regions));
            left -= above + tied;
        }
        sweep.step(f32::NEG_INFINITY, 0, left);
        curve.line_to(1.0, 1.0);
        let best = sweep.f1_max();
        PixelMetrics {
            auroc: sweep.auroc(),
            average_precision: sweep.average_precision(),
            f1_max: best.f1,
            f1_max_threshold: best.threshold,
            aupro: curve.normalised_area(),
            positives,
            negatives,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::super::ranking;
    use super::*;
    use crate::kernels::components::{Component, components};
    use crate::kernels::random::Rng;

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

    /// AUROC from all pairs, and AUPRO with every region counted again at every threshold.
    fn naive(map: &[f32], mask: &[u8], [height, width]: [usize; 2], limit: f64) -> [f64; 2] {
        let chosen = |is_defect: bool| {
            let of_class = map.iter().zip(mask).filter(move |&(_, &value)| (value != 0) == is_defect);
            of_class.map(|(&score, _)| score).collect::<Vec<f32>>()
        };
        let (defects, normals) = (chosen(true), chosen(false));
        let right = |a: f32, b: f32| if a > b { 1.0 } else { f64::from(u8::from(a >= b)) / 2.0 };
        let pairs: f64 = defects.iter().flat_map(|&a| normals.iter().map(move |&b| right(a, b))).sum();
        let regions = components(mask, height, width);
        let mut thresholds = map.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        let (mut area, mut last) = (0.0, [0.0, 0.0]);
        for threshold in thresholds {
            let found = |region: &Component| {
                let above = region.pixels.iter().filter(|&&pixel| map[pixel as usize] >= threshold);
                above.count() as f64 / region.pixels.len() as f64
            };
            let x = normals.iter().filter(|&&score| score >= threshold).count() as f64 / normals.len() as f64;
            let y = regions.iter().map(found).sum::<f64>() / regions.len() as f64;
            if last[0] < limit {
                let end = x.min(limit);
                let share = if x > last[0] { (end - last[0]) / (x - last[0]) } else { 1.0 };
                let height = last[1] + share * (y - last[1]);
                area += (end - last[0]) * (last[1] + height) / 2.0;
            }
            last = [x, y];
        }
        [pairs / (defects.len() * normals.len()) as f64, area / limit]
    }

    #[test]
    fn all_small_tied_maps_agree_with_the_definitions() {
        let mut rng = Rng::new(4, "pixels");
        for side in 2..=20 {
            for limit in [0.05, 0.3, 1.0] {
                let size = [side, 21 - side];
                let map: Vec<f32> = (0..size[0] * size[1]).map(|_| rng.below(5) as f32 - 2.0).collect();
                let mut mask: Vec<u8> = map.iter().map(|_| u8::from(rng.below(4) == 0)).collect();
                (mask[0], mask[1]) = (1, 0);
                let mut scores = PixelScores::new();
                scores.add(&map, &mask, size[0], size[1]).unwrap();
                let found = scores.finish(limit).unwrap();
                let [auroc, aupro] = naive(&map, &mask, size, limit);
                assert!((found.auroc - auroc).abs() < 1e-12, "{size:?}: {} {auroc}", found.auroc);
                assert!((found.aupro - aupro).abs() < 1e-12, "{size:?}, {limit}: {} {aupro}", found.aupro);
            }
        }
    }

    #[test]
    fn degenerate_maps_and_masks_agree_with_the_definitions() {
        let size = [6, 6];
        let mask = |is_defect: &dyn Fn(usize) -> bool| -> Vec<u8> {
            (0..36).map(|pixel| u8::from(is_defect(pixel))).collect()
        };
        let masks = [
            mask(&|pixel| pixel == 14),
            mask(&|pixel| pixel < 6),
            mask(&|pixel| pixel != 0),
            mask(&|pixel| pixel % 2 == 0),
        ];
        let maps: [Vec<f32>; 4] = [
            vec![7.0; 36],
            (0..36).map(|pixel| if pixel == 14 { 1.0 } else { 0.0 }).collect(),
            (0..36).map(|pixel| if pixel == 20 { 1e30 } else { -1e30 }).collect(),
            (0..36).map(|pixel| pixel as f32).collect(),
        ];
        for (map, mask) in maps.iter().flat_map(|map| masks.iter().map(move |mask| (map, mask))) {
            for limit in [1e-6, 0.3, 1.0] {
                let mut scores = PixelScores::new();
                scores.add(map, mask, size[0], size[1]).unwrap();
                let found = scores.finish(limit).unwrap();
                let [auroc, aupro] = naive(map, mask, size, limit);
                assert!((found.auroc - auroc).abs() < 1e-12, "{map:?} {mask:?}: {} {auroc}", found.auroc);
                assert!(
                    (found.aupro - aupro).abs() < 1e-9,
                    "{map:?} {mask:?} {limit}: {} {aupro}",
                    found.aupro
                );
                let all = [found.auroc, found.average_precision, found.f1_max, found.aupro];
                assert!(all.iter().all(|metric| (0.0..=1.0 + 1e-12).contains(metric)), "{all:?}");
            }
        }
    }

    #[test]
    fn regions_weigh_the_same_whatever_their_size() {
        // One region of three pixels above all normal ones, one of a single pixel below: y is 1/2 up to x = 1.
        let mut scores = PixelScores::new();
        scores.add(&[9.0, 9.0, 9.0, 5.0, 5.0, 1.0], &[1, 1, 1, 0, 0, 1], 1, 6).unwrap();
        assert!((scores.finish(0.3).unwrap().aupro - 0.5).abs() < 1e-15);
    }

    #[test]
    fn neither_threads_nor_the_order_of_images_change_a_bit() {
        let forwards = golden::pixel_scores(0..golden::IMAGES, golden::tie).unwrap();
        let backwards = golden::pixel_scores((0..golden::IMAGES).rev(), golden::tie).unwrap();
        let expected = forwards.finish(0.3).unwrap();
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| backwards.clone().finish(0.3)).unwrap(), expected);
        }
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
}
