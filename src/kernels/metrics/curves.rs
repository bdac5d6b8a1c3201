//! The ROC and the precision-recall curve of image scores, with the fewest points that draw them exactly.

use super::ranking::{Ranking, total};
use super::{MetricError, check_classes};

/// One point of a ROC curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint {
    /// The threshold; `None` at the start, where no image is predicted defective.
    pub threshold: Option<f32>,
    /// Fraction of the normal images that are predicted defective.
    pub false_positive_rate: f64,
    /// Fraction of the defective images that are predicted defective.
    pub true_positive_rate: f64,
}

/// One point of a precision-recall curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecallPoint {
    /// The threshold; `None` at the start, where no image is predicted defective.
    pub threshold: Option<f32>,
    /// Fraction of the predicted images that are defective; 1 at the start, by convention.
    pub precision: f64,
    /// Fraction of the defective images that are predicted defective.
    pub recall: f64,
}

/// Returns the ROC curve from (0, 0) to (1, 1): one point per distinct score, thresholds descending, without the
/// inner points of straight lines. The area under it is `auroc`.
///
/// # Panics
/// If there are not as many labels as scores.
pub fn roc_curve(scores: &[f32], labels: &[bool]) -> Result<Vec<RocPoint>, MetricError> {
    let steps = Steps::new(scores, labels)?;
    let points: Vec<[i128; 3]> = steps.counts.iter().map(|&[tp, fp]| [fp, tp, 1]).collect();
    let point = |step: usize| RocPoint {
        threshold: steps.threshold(step),
        false_positive_rate: steps.counts[step][1] as f64 / steps.negatives as f64,
        true_positive_rate: steps.counts[step][0] as f64 / steps.positives as f64,
    };
    Ok(corners(&points).into_iter().map(point).collect())
}

/// Returns the precision-recall curve from (recall 0, precision 1): one point per distinct score, thresholds
/// descending, without the inner points of straight lines. Lines between the points are for plotting only: average
/// precision is a sum of steps, not the area under the lines.
///
/// # Panics
/// If there are not as many labels as scores.
pub fn precision_recall_curve(
    scores: &[f32],
    labels: &[bool],
) -> Result<Vec<PrecisionRecallPoint>, MetricError> {
    let steps = Steps::new(scores, labels)?;
    let point = |&[tp, fp]: &[i128; 2]| match tp + fp {
        0 => [0, 1, 1],
        predicted => [tp * predicted, tp, predicted],
    };
    let points: Vec<[i128; 3]> = steps.counts.iter().map(point).collect();
    let point = |step: usize| PrecisionRecallPoint {
        threshold: steps.threshold(step),
        precision: points[step][1] as f64 / points[step][2] as f64,
        recall: steps.counts[step][0] as f64 / steps.positives as f64,
    };
    Ok(corners(&points).into_iter().map(point).collect())
}

/// Counts at each threshold, highest first. The first entry is for a threshold above all scores.
struct Steps {
    positives: i128,
    negatives: i128,
    thresholds: Vec<f32>,
    /// (true positives, false positives): one entry more than `thresholds`.
    counts: Vec<[i128; 2]>,
}

impl Steps {
    fn new(scores: &[f32], labels: &[bool]) -> Result<Self, MetricError> {
        let ranking = Ranking::new(scores, labels)?;
        let tallies = ranking.tallies();
        let total = total(&tallies);
        check_classes(total.positives, total.negatives)?;
        let mut counts = vec![[0, 0]];
        let mut now = [0, 0];
        for tally in tallies {
            now = [now[0] + i128::from(tally.positives), now[1] + i128::from(tally.negatives)];
            counts.push(now);
        }
        let (positives, negatives) = (total.positives.into(), total.negatives.into());
        Ok(Self { positives, negatives, thresholds: ranking.thresholds, counts })
    }

    fn threshold(&self, step: usize) -> Option<f32> {
        step.checked_sub(1).map(|before| self.thresholds[before])
    }
}

/// Returns the indices of the points that are not inner points of a straight line. Points are homogeneous:
/// (x · s, y · s, s). Exact up to a billion images; beyond that the products of the determinant exceed 128 bits.
fn corners(points: &[[i128; 3]]) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::new();
    for next in 0..points.len() {
        if let [.., before, last] = kept[..]
            && are_collinear(&points[before], &points[last], &points[next])
        {
            kept.pop();
        }
        kept.push(next);
    }
    kept
}

/// Returns whether three points in homogeneous coordinates lie on a line: their determinant is 0.
fn are_collinear(a: &[i128; 3], b: &[i128; 3], c: &[i128; 3]) -> bool {
    let minor = |i: usize, j: usize| b[i] * c[j] - b[j] * c[i];
    a[0] * minor(1, 2) + a[1] * minor(2, 0) + a[2] * minor(0, 1) == 0
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::super::ranking::{at_threshold, auroc};
    use super::*;

    #[test]
    fn the_area_under_the_roc_curve_is_the_auroc() {
        let (scores, labels) = golden::image_scores();
        for scores in [scores.clone(), scores.into_iter().map(golden::tie).collect()] {
            let curve = roc_curve(&scores, &labels).unwrap();
            let width = |pair: &[RocPoint]| pair[1].false_positive_rate - pair[0].false_positive_rate;
            let area: f64 = curve
                .windows(2)
                .map(|pair| width(pair) * (pair[0].true_positive_rate + pair[1].true_positive_rate) / 2.0)
                .sum();
            assert!((area - auroc(&scores, &labels).unwrap()).abs() < 1e-14);
        }
    }

    #[test]
    fn points_are_what_their_thresholds_give() {
        let (scores, labels) = golden::image_scores();
        for point in precision_recall_curve(&scores, &labels).unwrap() {
            let Some(threshold) = point.threshold else {
                assert_eq!((point.precision, point.recall), (1.0, 0.0));
                continue;
            };
            let at = at_threshold(&scores, &labels, threshold).unwrap();
            assert!(
                (point.precision - at.precision).abs() < 1e-15 && (point.recall - at.recall).abs() < 1e-15
            );
        }
    }

    #[test]
    fn inner_points_of_straight_lines_are_left_out() {
        let scores = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0];
        let labels = [true, true, false, false, false, true, false];
        let roc = roc_curve(&scores, &labels).unwrap();
        let thresholds: Vec<_> = roc.iter().map(|point| point.threshold).collect();
        assert_eq!(thresholds, [None, Some(8.0), Some(5.0), Some(4.0), Some(3.0)]);
        assert_eq!((roc[0].false_positive_rate, roc[0].true_positive_rate), (0.0, 0.0));
        assert_eq!((roc[4].false_positive_rate, roc[4].true_positive_rate), (1.0, 1.0));
        let curve = precision_recall_curve(&scores, &labels).unwrap();
        let thresholds: Vec<_> = curve.iter().map(|point| point.threshold).collect();
        assert_eq!(thresholds, [None, Some(8.0), Some(5.0), Some(4.0), Some(3.0)]);
    }

    #[test]
    fn every_point_left_out_lies_on_the_curve_drawn() {
        let (scores, labels) = golden::image_scores();
        let steps = Steps::new(&scores, &labels).unwrap();
        let points: Vec<[i128; 3]> = steps.counts.iter().map(|&[tp, fp]| [fp, tp, 1]).collect();
        let kept = corners(&points);
        for pair in kept.windows(2) {
            for between in pair[0] + 1..pair[1] {
                assert!(are_collinear(&points[pair[0]], &points[between], &points[pair[1]]));
            }
        }
        assert_eq!((kept[0], kept[kept.len() - 1]), (0, points.len() - 1));
    }

    #[test]
    fn one_class_has_no_curve() {
        let one_class = Some(MetricError::OneClassOnly { positives: 1, negatives: 0 });
        assert_eq!(roc_curve(&[1.0], &[true]).err(), one_class);
        assert_eq!(precision_recall_curve(&[1.0], &[true]).err(), one_class);
        assert_eq!(roc_curve(&[], &[]).err(), Some(MetricError::Empty));
    }
}
