//! How well scores tell defects from normals, by image and by pixel.
//!
//! | file | what |
//! |---|---|
//! | `sweep` | the one pass that every exact number comes from: a threshold falling from the top |
//! | `ranking` | image level: AUROC, average precision, the best F1, counts at a given threshold |
//! | `curves` | image level: the ROC and the precision-recall curve as few points as draw them |
//! | `regions` | the area under the per-region overlap curve (AUPRO) |
//! | `pixels` | pixel level over a whole test set, exact, in bounded memory |
//! | `normals`, `defects` | the counts that `pixels` keeps, with the bounds of their memory |
//! | `bins` | what one image adds to the pixel metrics, in bins of the score |
//! | `statistics` | the pixel metrics from bins, and the bound of their error |
//! | `bootstrap` | intervals of both, by drawing images again |
//!
//! A higher score means more likely defective; a prediction is `score >= threshold`. Ties are exact
//! everywhere: equal scores are one threshold. `-0.0` equals `0.0`. Where only one class is present, or a
//! score is not finite, there is no metric but an error.

mod bins;
mod bootstrap;
mod curves;
mod defects;
#[cfg(test)]
mod golden;
mod normals;
mod pixel_keys;
mod pixels;
mod ranking;
mod regions;
mod statistics;
mod sweep;

pub use bins::{ImageBins, ScoreBins};
pub use bootstrap::{ConfidenceInterval, ImageIntervals, PixelIntervals, image_intervals, pixel_intervals};
pub use curves::{PrecisionRecallPoint, RocPoint, precision_recall_curve, roc_curve};
pub use pixels::{PixelMetrics, PixelScores};
pub use ranking::{ThresholdMetrics, at_threshold, auroc, average_precision, f1_max};
pub use statistics::{DEFAULT_BINS, PixelErrors, PixelEstimate, PixelStatistics};
pub use sweep::F1Max;

/// Why there is no metric.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// Nothing was given.
    #[error("no scores to evaluate")]
    Empty,
    /// A ranking needs something to rank against.
    #[error("both classes are needed, found {positives} defective and {negatives} normal")]
    OneClassOnly {
        /// Number of defective images or pixels.
        positives: u64,
        /// Number of normal images or pixels.
        negatives: u64,
    },
    /// A score is infinite or not a number.
    #[error("score {index} is `{value}`, not a finite number")]
    NotFinite {
        /// Its place in the slice that was given.
        index: usize,
        /// The score.
        value: f32,
    },
    /// A threshold that nothing can be compared with.
    #[error("the threshold is not a number")]
    ThresholdNotANumber,
    /// One class is so rare that resamples miss it.
    #[error("none of {attempts} resamples held both classes")]
    ResamplesOneClassOnly {
        /// How often images were drawn.
        attempts: usize,
    },
}

/// Refuses a set without images or pixels, and a set of one class only.
fn check_classes(positives: u64, negatives: u64) -> Result<(), MetricError> {
    match (positives, negatives) {
        (0, 0) => Err(MetricError::Empty),
        (0, _) | (_, 0) => Err(MetricError::OneClassOnly { positives, negatives }),
        _ => Ok(()),
    }
}

/// Refuses the first score that is not finite.
fn check_finite(scores: &[f32]) -> Result<(), MetricError> {
    match scores.iter().position(|score| !score.is_finite()) {
        Some(index) => Err(MetricError::NotFinite { index, value: scores[index] }),
        None => Ok(()),
    }
}
