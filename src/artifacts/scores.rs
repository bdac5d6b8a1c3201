//! `Scores`: what `evaluate` leaves for one variant. No file holds a time, a path or a host, so that equal
//! results are equal bytes.
//!
//! ```text
//! metrics.json     every metric, its interval, thresholds, counts, the digest of the split
//! results.npy      one-row structured array, a field per metric
//! scores.csv       image, split, label, kind, score, prediction
//! maps.npy         f32 [n, grid h, grid w]: patch scores before upsampling, in the order of scores.csv
//! full_maps.npy    f32 [n, h, w], where asked for
//! curves.json      ROC and precision-recall points
//! pictures/        image, mask and heat map side by side, the strongest first
//! ```

use serde::{Deserialize, Serialize};

use crate::kernels::metrics::ConfidenceInterval;

/// The 95 % intervals of a variant's metrics over images (bootstrap).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Resamples drawn.
    pub resamples: usize,
    /// How pixel metrics are resampled.
    pub pixel_method: String,
    /// How far the ends of `pixel_auroc` may be from those of exact resamples at most.
    pub pixel_auroc_error: f64,
    /// The same of `pixel_ap`.
    pub pixel_ap_error: f64,
    /// The same of `aupro`.
    pub aupro_error: f64,
    /// Of `image_auroc`.
    pub image_auroc: ConfidenceInterval,
    /// Of `image_ap`.
    pub image_ap: ConfidenceInterval,
    /// Of `image_f1_max`.
    pub image_f1_max: ConfidenceInterval,
    /// Of `pixel_auroc`.
    pub pixel_auroc: ConfidenceInterval,
    /// Of `pixel_ap`.
    pub pixel_ap: ConfidenceInterval,
    /// Of `aupro`.
    pub aupro: ConfidenceInterval,
}

/// Decisions at the model's own threshold, which saw normals alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtThreshold {
    /// Scores at or above it are called defective.
    pub threshold: f64,
    /// Share of the called that are defective; 0 where none is called.
    pub precision: f64,
    /// Share of the defective that are called.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// Image AUROC of one kind of defect against all normals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindMetrics {
    /// The defect's kind.
    pub kind: String,
    /// Its images.
    pub images: usize,
    /// Its image AUROC.
    pub image_auroc: f64,
    /// Its image average precision.
    pub image_ap: f64,
}

/// What `metrics.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Area under the image ROC curve.
    pub image_auroc: f64,
    /// Image average precision.
    pub image_ap: f64,
    /// The best image F1 over all thresholds (an oracle).
    pub image_f1_max: f64,
    /// Its threshold.
    pub image_f1_max_threshold: f64,
    /// Area under the pixel ROC curve.
    pub pixel_auroc: f64,
    /// Pixel average precision.
    pub pixel_ap: f64,
    /// The best pixel F1 over all thresholds (an oracle).
    pub pixel_f1_max: f64,
    /// Area under the per-region overlap curve up to `aupro_fpr_limit`, divided by it.
    pub aupro: f64,
    /// The limit of `aupro`.
    pub aupro_fpr_limit: f64,
    /// Decisions at the model's threshold; none where the model has none.
    pub at_threshold: Option<AtThreshold>,
    /// 95 % intervals; none where `bootstrap = 0`.
    pub intervals: Option<Intervals>,
    /// By kind of defect, where the data set names kinds.
    pub kinds: Vec<KindMetrics>,
    /// Images scored.
    pub images: usize,
    /// Of them defective.
    pub defects: usize,
    /// Pixels of defects, and all pixels.
    pub defect_pixels: u64,
    /// All pixels scored.
    pub pixels: u64,
    /// Digest of (image, split, label): two numbers with different digests were not scored on the same split.
    pub split_digest: String,
}

impl Metrics {
    /// The metrics that tables and `results.npy` show, by name.
    pub fn named(&self) -> [(&'static str, f64); 7] {
        [
            ("image_auroc", self.image_auroc),
            ("image_ap", self.image_ap),
            ("image_f1_max", self.image_f1_max),
            ("pixel_auroc", self.pixel_auroc),
            ("pixel_ap", self.pixel_ap),
            ("pixel_f1_max", self.pixel_f1_max),
            ("aupro", self.aupro),
        ]
    }
}
