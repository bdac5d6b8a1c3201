//! Metrics of anomaly detection, per image and per pixel.
//!
//! | file | content |
//! |---|---|
//! | `sweep` | the sweep over all thresholds, from the highest down, that every exact metric comes from |
//! | `ranking` | image level: AUROC, average precision, best F1, counts at a given threshold |
//! | `curves` | image level: ROC and precision-recall curves with the fewest points |
//! | `regions` | the area under the per-region overlap curve (AUPRO) |
//! | `pixels` | pixel level over a whole test set, exact, in bounded memory |
//! | `pixel_keys` | the scores of one image, split into normal and defective pixels |
//! | `normals`, `defects` | the counts that `pixels` keeps, and bounds of their memory |
//! | `bins` | the counts of one image in bins of the score, for the bootstrap |
//! | `statistics` | pixel metrics computed from bins, and bounds of their error |
//! | `bootstrap` | confidence intervals of image and pixel metrics |
//!
//! A higher score means more likely defective; the prediction is `score >= threshold`. Ties are handled exactly:
//! equal scores are one threshold, and `-0.0` equals `0.0`. If only one class is present or a score is not
//! finite, a function returns an error, never a default value.

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

/// Why a metric cannot be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum MetricError {
    #[error("no scores to evaluate")]
    Empty,
    /// The counts are of images or of pixels.
    #[error("both classes are needed, found {positives} defective and {negatives} normal")]
    OneClassOnly { positives: u64, negatives: u64 },
    /// `index` is the index of the score in the slice of scores.
    #[error("score {index} is `{value}`, not a finite number")]
    NotFinite { index: usize, value: f32 },
    #[error("the threshold is not a number")]
    ThresholdNotANumber,
    /// One class is so rare that random resamples miss it.
    #[error("none of {attempts} resamples held both classes")]
    ResamplesOneClassOnly { attempts: usize },
}

/// Refuses a set without images or pixels, and a set of one class only.
fn check_classes(positives: u64, negatives: u64) -> Result<(), MetricError> {
    match (positives, negatives) {
        (0, 0) => Err(MetricError::Empty),
        (0, _) | (_, 0) => Err(MetricError::OneClassOnly { positives, negatives }),
        _ => Ok(()),
    }
}

/// Refuses scores that are not finite; the error names the first one.
fn check_finite(scores: &[f32]) -> Result<(), MetricError> {
    match scores.iter().position(|score| !score.is_finite()) {
        Some(index) => Err(MetricError::NotFinite { index, value: scores[index] }),
        None => Ok(()),
    }
}
