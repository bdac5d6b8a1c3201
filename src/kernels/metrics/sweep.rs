//! The sweep over all thresholds, from the highest score to the lowest, and the metrics that it accumulates.
//!
//! Image metrics, pixel metrics and the bootstrap all feed groups of equal scores to this accumulator. Counts are
//! integers and areas are summed in 128 bits, so that neither AUROC nor the choice of the best F1 is affected by
//! rounding. Only average precision sums floating-point numbers, in the order of the sweep.

use super::{MetricError, check_classes};

/// Maps a finite score to an integer such that integers compare as scores do. `-0.0` and `0.0` have the same key.
pub(super) fn order_key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// Inverts [`order_key`].
pub(super) fn score_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key ^ 1 << 31 } else { !key })
}

/// The best F1 over all thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct F1Max {
    /// `2 · precision · recall / (precision + recall)`.
    pub f1: f64,
    /// The threshold that gives the best F1; the highest one if several do.
    pub threshold: f32,
    /// Precision at the threshold.
    pub precision: f64,
    /// Recall at the threshold.
    pub recall: f64,
}

/// Running counts of one sweep. The class totals are given in advance; [`ThresholdSweep::step`] adds one group of
/// equal scores at a time, highest score first.
pub(super) struct ThresholdSweep {
    positives: u64,
    negatives: u64,
    true_positives: u64,
    false_positives: u64,
    /// Twice the number of (positive, negative) pairs in which the positive scores higher; ties count half.
    doubled_pairs: u128,
    /// Sum over positives of the precision at their score.
    precision_sum: f64,
    best: BestCounts,
}

/// Counts at the threshold with the best F1 so far.
struct BestCounts {
    true_positives: u64,
    false_positives: u64,
    threshold: f32,
}

impl ThresholdSweep {
    /// Starts a sweep over a set of `positives` and `negatives`.
    ///
    /// # Errors
    /// If the set is empty or has one class only.
    pub(super) fn new(positives: u64, negatives: u64) -> Result<Self, MetricError> {
        check_classes(positives, negatives)?;
        Ok(Self {
            positives,
            negatives,
            true_positives: 0,
            false_positives: 0,
            doubled_pairs: 0,
            precision_sum: 0.0,
            best: BestCounts { true_positives: 0, false_positives: 0, threshold: f32::INFINITY },
        })
    }

    /// Lowers the threshold to the score of the next group and adds the counts of that group. Consecutive groups
    /// without positives may be merged into one: no metric depends on the order of negatives between two positives.
    pub(super) fn step(&mut self, threshold: f32, positives: u64, negatives: u64) {
        let doubled_height = 2 * u128::from(self.true_positives) + u128::from(positives);
        self.doubled_pairs += u128::from(negatives) * doubled_height;
        self.true_positives += positives;
        self.false_positives += negatives;
        if positives == 0 {
            return;
        }
        let predicted = self.true_positives + self.false_positives;
        self.precision_sum += positives as f64 * self.true_positives as f64 / predicted as f64;
        // F1 = 2 tp / (tp + fp + positives), compared by cross-multiplication.
        let best_size = self.best.true_positives + self.best.false_positives + self.positives;
        let here = u128::from(self.true_positives) * u128::from(best_size);
        let best = u128::from(self.best.true_positives) * u128::from(predicted + self.positives);
        if here > best {
            self.best = BestCounts {
                true_positives: self.true_positives,
                false_positives: self.false_positives,
                threshold,
            };
        }
    }

    /// Returns the false positive rate at the current threshold.
    pub(super) fn false_positive_rate(&self) -> f64 {
        self.false_positives as f64 / self.negatives as f64
    }

    /// Returns the probability that a positive scores higher than a negative, ties counting half (Mann and Whitney
    /// 1947).
    pub(super) fn auroc(&self) -> f64 {
        let doubled_all = 2 * u128::from(self.positives) * u128::from(self.negatives);
        self.doubled_pairs as f64 / doubled_all as f64
    }

    /// Returns `Σ (R_i - R_{i-1}) P_i` over distinct thresholds, without interpolation.
    pub(super) fn average_precision(&self) -> f64 {
        self.precision_sum / self.positives as f64
    }

    /// Returns the best F1 of all steps.
    pub(super) fn f1_max(&self) -> F1Max {
        let BestCounts { true_positives, false_positives, threshold } = self.best;
        let predicted = true_positives + false_positives;
        F1Max {
            f1: 2.0 * true_positives as f64 / (predicted + self.positives) as f64,
            threshold,
            precision: true_positives as f64 / predicted as f64,
            recall: true_positives as f64 / self.positives as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_and_come_back() {
        let scores = [f32::MIN, -2.5, -1e-40, 0.0, f32::MIN_POSITIVE, 1.0, 1.000_000_1, f32::MAX];
        assert!(scores.windows(2).all(|pair| order_key(pair[0]) < order_key(pair[1])));
        assert!(scores.iter().all(|&score| score_of(order_key(score)).to_bits() == score.to_bits()));
        assert_eq!(order_key(-0.0), order_key(0.0));
    }

    #[test]
    fn equal_best_f1_goes_to_the_highest_threshold() {
        // F1 is 2·1/(1+0+2) = 2/3 at 3.0 and 2·2/(2+2+2) = 2/3 at 1.0.
        let mut sweep = ThresholdSweep::new(2, 2).unwrap();
        sweep.step(3.0, 1, 0);
        sweep.step(2.0, 0, 2);
        sweep.step(1.0, 1, 0);
        assert_eq!(sweep.f1_max().threshold.to_bits(), 3.0_f32.to_bits());
    }

    #[test]
    fn one_class_only_is_refused() {
        assert_eq!(ThresholdSweep::new(0, 0).err(), Some(MetricError::Empty));
        assert_eq!(
            ThresholdSweep::new(0, 3).err(),
            Some(MetricError::OneClassOnly { positives: 0, negatives: 3 })
        );
        assert_eq!(
            ThresholdSweep::new(3, 0).err(),
            Some(MetricError::OneClassOnly { positives: 3, negatives: 0 })
        );
    }
}
