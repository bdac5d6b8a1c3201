//! Image metrics: one score and one label for each image.
//!
//! Each function sorts once (O(n log n)) and sweeps once (O(n)). It returns an error if the set is empty or of one
//! class only, or a score is not finite. The order of the images does not matter.

use super::sweep::{F1Max, ThresholdSweep, order_key, score_of};
use super::{MetricError, check_classes, check_finite};

/// Returns the area under the ROC curve, computed exactly as the Mann-Whitney statistic: the probability that a
/// defective image scores higher than a normal one, ties counting half. Equals scikit-learn's `roc_auc_score`.
///
/// # Panics
/// If there are not as many labels as scores.
pub fn auroc(scores: &[f32], labels: &[bool]) -> Result<f64, MetricError> {
    Ok(Ranking::new(scores, labels)?.whole_sweep()?.auroc())
}

/// Returns the average precision `Σ (R_i - R_{i-1}) P_i` over the distinct thresholds, highest first, without
/// interpolation. Tied images share a threshold. Equals scikit-learn's `average_precision_score`.
///
/// # Panics
/// If there are not as many labels as scores.
pub fn average_precision(scores: &[f32], labels: &[bool]) -> Result<f64, MetricError> {
    Ok(Ranking::new(scores, labels)?.whole_sweep()?.average_precision())
}

/// Returns the best F1 over all thresholds. If several thresholds give the same F1 (compared exactly), the highest
/// one is returned.
///
/// # Panics
/// If there are not as many labels as scores.
pub fn f1_max(scores: &[f32], labels: &[bool]) -> Result<F1Max, MetricError> {
    Ok(Ranking::new(scores, labels)?.whole_sweep()?.f1_max())
}

/// The confusion matrix at one threshold, and the ratios derived from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThresholdMetrics {
    /// Defective, predicted defective.
    pub true_positives: u64,
    /// Normal, predicted defective.
    pub false_positives: u64,
    /// Defective, predicted normal.
    pub false_negatives: u64,
    /// Normal, predicted normal.
    pub true_negatives: u64,
    /// `tp / (tp + fp)`; 0 if nothing is predicted defective (scikit-learn's `zero_division = 0`).
    pub precision: f64,
    /// `tp / (tp + fn)`.
    pub recall: f64,
    /// `2 tp / (2 tp + fp + fn)`.
    pub f1: f64,
}

/// Counts predictions `score >= threshold` against the labels. The threshold may be infinite.
///
/// # Panics
/// If there are not as many labels as scores.
pub fn at_threshold(
    scores: &[f32],
    labels: &[bool],
    threshold: f32,
) -> Result<ThresholdMetrics, MetricError> {
    check(scores, labels)?;
    if threshold.is_nan() {
        return Err(MetricError::ThresholdNotANumber);
    }
    let count = |defective: bool, predicted: bool| {
        let both = |(&score, &label): (&f32, &bool)| label == defective && (score >= threshold) == predicted;
        scores.iter().zip(labels).filter(|&pair| both(pair)).count() as u64
    };
    let (true_positives, false_negatives) = (count(true, true), count(true, false));
    let (false_positives, true_negatives) = (count(false, true), count(false, false));
    let positives = true_positives + false_negatives;
    let predicted = true_positives + false_positives;
    check_classes(positives, false_positives + true_negatives)?;
    Ok(ThresholdMetrics {
        true_positives,
        false_positives,
        false_negatives,
        true_negatives,
        precision: if predicted == 0 { 0.0 } else { true_positives as f64 / predicted as f64 },
        recall: true_positives as f64 / positives as f64,
        f1: 2.0 * true_positives as f64 / (predicted + positives) as f64,
    })
}

/// Panics if the lengths differ; refuses scores that are not finite.
fn check(scores: &[f32], labels: &[bool]) -> Result<(), MetricError> {
    assert_eq!(scores.len(), labels.len(), "{} scores and {} labels", scores.len(), labels.len());
    check_finite(scores)
}

/// The number of positives and negatives with one score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) positives: u64,
    pub(super) negatives: u64,
}

/// Images sorted by score once, to be swept for many weightings of the images.
pub(super) struct Ranking<'a> {
    labels: &'a [bool],
    /// Distinct scores, descending.
    pub(super) thresholds: Vec<f32>,
    /// For each image, the index of its score in `thresholds`.
    ranks: Vec<u32>,
}

impl<'a> Ranking<'a> {
    /// Sorts the images.
    pub(super) fn new(scores: &[f32], labels: &'a [bool]) -> Result<Self, MetricError> {
        check(scores, labels)?;
        let mut keys: Vec<u32> = scores.iter().map(|&score| order_key(score)).collect();
        let mut distinct = keys.clone();
        distinct.sort_unstable_by(|a, b| b.cmp(a));
        distinct.dedup();
        for key in &mut keys {
            *key = distinct.partition_point(|other| other > key) as u32;
        }
        let thresholds = distinct.into_iter().map(score_of).collect();
        Ok(Self { labels, thresholds, ranks: keys })
    }

    /// Returns the tally of each distinct score, counting each image once: `[thresholds]`.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        self.weighted_tallies(&vec![1; self.labels.len()])
    }

    /// Returns the tally of each distinct score, counting image i `weights[i]` times: `[thresholds]`.
    pub(super) fn weighted_tallies(&self, weights: &[u32]) -> Vec<Tally> {
        let mut tallies = vec![Tally::default(); self.thresholds.len()];
        for ((&rank, &label), &weight) in self.ranks.iter().zip(self.labels).zip(weights) {
            let tally = &mut tallies[rank as usize];
            if label {
                tally.positives += u64::from(weight);
            } else {
                tally.negatives += u64::from(weight);
            }
        }
        tallies
    }

    /// Sweeps over the tallies of the distinct scores.
    pub(super) fn sweep(&self, tallies: &[Tally]) -> Result<ThresholdSweep, MetricError> {
        let total = total(tallies);
        let mut sweep = ThresholdSweep::new(total.positives, total.negatives)?;
        for (tally, &threshold) in tallies.iter().zip(&self.thresholds) {
            sweep.step(threshold, tally.positives, tally.negatives);
        }
        Ok(sweep)
    }

    fn whole_sweep(&self) -> Result<ThresholdSweep, MetricError> {
        self.sweep(&self.tallies())
    }
}

/// Returns the sum of all tallies.
pub(super) fn total(tallies: &[Tally]) -> Tally {
    Tally {
        positives: tallies.iter().map(|tally| tally.positives).sum(),
        negatives: tallies.iter().map(|tally| tally.negatives).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    /// Returns a set of both classes whose scores take few distinct values, so that many are tied.
    fn tied_set(rng: &mut Rng, n: usize) -> (Vec<f32>, Vec<bool>) {
        let scores = (0..n).map(|_| rng.below(6) as f32 - 2.5).collect();
        let mut labels: Vec<bool> = (0..n).map(|_| rng.below(3) == 0).collect();
        (labels[0], labels[n - 1]) = (true, false);
        (scores, labels)
    }

    fn naive_auroc(scores: &[f32], labels: &[bool]) -> f64 {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (positive, _) in scores.iter().zip(labels).filter(|(_, label)| **label) {
            for (negative, _) in scores.iter().zip(labels).filter(|(_, label)| !**label) {
                pairs += 1.0;
                wins += match positive.total_cmp(negative) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        wins / pairs
    }

    /// Returns each distinct score as a threshold, the highest first, with its metrics.
    fn naive_thresholds(scores: &[f32], labels: &[bool]) -> Vec<(f32, ThresholdMetrics)> {
        let mut thresholds = scores.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        thresholds.into_iter().map(|one| (one, at_threshold(scores, labels, one).unwrap())).collect()
    }

    fn naive_average_precision(scores: &[f32], labels: &[bool]) -> f64 {
        let mut before = 0.0;
        let step = |(_, here): (f32, ThresholdMetrics)| {
            let gained = here.recall - before;
            before = here.recall;
            gained * here.precision
        };
        naive_thresholds(scores, labels).into_iter().map(step).sum()
    }

    #[test]
    fn all_small_sizes_agree_with_the_definitions() {
        let mut rng = Rng::new(3, "ranking");
        for n in 2..=20 {
            for _ in 0..20 {
                let (scores, labels) = tied_set(&mut rng, n);
                // Rounding errors of a few operations on numbers below 1.
                let is_close = |a: f64, b: f64| (a - b).abs() < 1e-14;
                assert!(is_close(auroc(&scores, &labels).unwrap(), naive_auroc(&scores, &labels)));
                let expected = naive_average_precision(&scores, &labels);
                assert!(is_close(average_precision(&scores, &labels).unwrap(), expected));
                let best = f1_max(&scores, &labels).unwrap();
                let there = at_threshold(&scores, &labels, best.threshold).unwrap();
                assert!(is_close(best.f1, there.f1) && is_close(best.recall, there.recall));
                assert!(is_close(best.precision, there.precision));
                for (threshold, here) in naive_thresholds(&scores, &labels) {
                    assert!(here.f1 < best.f1 + 1e-14);
                    assert!(here.f1 < best.f1 - 1e-14 || threshold <= best.threshold);
                }
            }
        }
    }

    #[test]
    fn hand_computed_values() {
        let (scores, labels) = ([0.1, 0.4, 0.35, 0.8], [false, false, true, true]);
        assert!((auroc(&scores, &labels).unwrap() - 0.75).abs() < 1e-15);
        assert!((average_precision(&scores, &labels).unwrap() - 5.0 / 6.0).abs() < 1e-15);
        let best = f1_max(&scores, &labels).unwrap();
        assert_eq!((best.f1, best.threshold, best.precision, best.recall), (0.8, 0.35, 2.0 / 3.0, 1.0));
        let at = at_threshold(&scores, &labels, 0.4).unwrap();
        let counts = (at.true_positives, at.false_positives, at.false_negatives, at.true_negatives);
        assert_eq!(counts, (1, 1, 1, 1));
        assert_eq!((at.precision, at.recall, at.f1), (0.5, 0.5, 0.5));
    }

    /// Scores of 3e4 that differ by units in the last place, of 2⁻⁹.
    #[test]
    fn large_scores_are_ranked_by_their_smallest_differences() {
        let mut rng = Rng::new(5, "ranking");
        for n in 2..=20 {
            let (steps, labels) = tied_set(&mut rng, n);
            let scores: Vec<f32> =
                steps.iter().map(|step| f32::from_bits(3e4_f32.to_bits() + (step + 2.5) as u32)).collect();
            assert!((auroc(&scores, &labels).unwrap() - naive_auroc(&scores, &labels)).abs() < 1e-14);
            let expected = naive_average_precision(&scores, &labels);
            assert!((average_precision(&scores, &labels).unwrap() - expected).abs() < 1e-14);
        }
    }

    #[test]
    fn a_constant_score_ranks_nothing() {
        let (scores, labels) = ([0.0, -0.0, 0.0, 0.0], [true, true, false, false]);
        assert_eq!(auroc(&scores, &labels), Ok(0.5));
        assert_eq!(average_precision(&scores, &labels), Ok(0.5));
    }

    #[test]
    fn no_prediction_has_precision_0() {
        let at = at_threshold(&[1.0, 2.0], &[false, true], f32::INFINITY).unwrap();
        assert_eq!((at.precision, at.recall, at.f1, at.true_negatives), (0.0, 0.0, 0.0, 1));
    }

    #[test]
    fn sets_without_a_ranking_are_refused() {
        assert_eq!(auroc(&[], &[]), Err(MetricError::Empty));
        let one_class = Err(MetricError::OneClassOnly { positives: 0, negatives: 2 });
        assert_eq!(auroc(&[1.0, 2.0], &[false; 2]), one_class);
        assert_eq!(average_precision(&[1.0, 2.0], &[false; 2]), one_class);
        assert_eq!(f1_max(&[1.0, 2.0], &[false; 2]).err(), one_class.clone().err());
        assert_eq!(at_threshold(&[1.0, 2.0], &[false; 2], 1.0).err(), one_class.err());
        let infinite = MetricError::NotFinite { index: 1, value: f32::INFINITY };
        assert_eq!(auroc(&[1.0, f32::INFINITY], &[false, true]), Err(infinite));
        assert!(matches!(
            f1_max(&[f32::NAN, 1.0], &[false, true]),
            Err(MetricError::NotFinite { index: 0, .. })
        ));
        let unclear = at_threshold(&[1.0, 2.0], &[false, true], f32::NAN);
        assert_eq!(unclear.err(), Some(MetricError::ThresholdNotANumber));
    }
}
