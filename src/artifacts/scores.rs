//! `Scores`: the output of `evaluate` for one variant. No file contains a time, a path or a host name, so that equal
//! results have equal bytes.
//!
//! ```text
//! metrics.json     metrics with intervals, thresholds, counts, the digest of the split (Metrics)
//! results.npy      structured array of one row, one field per metric
//! scores.csv       image, split, label, kind, score, prediction
//! maps.npy         f32 [n, grid h, grid w]: patch scores before upsampling, in the order of scores.csv
//! full_maps.npy    f32 [n, h, w]: smoothed maps at image size (optional)
//! curves.json      points of the ROC and precision-recall curves
//! pictures/        image, mask and heat map side by side, highest scores first
//! ```

use serde::{Deserialize, Serialize};

use crate::kernels::metrics::ConfidenceInterval;

/// The 95 % bootstrap confidence intervals of a variant's metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Number of resamples.
    pub resamples: usize,
    /// How pixel metrics are resampled, in words. Like everything else of pixels, `None` if no defect has a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_method: Option<String>,
    /// Upper bound of the error of both ends of the interval `pixel_auroc`, compared with resampling the exact scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_auroc_error: Option<f64>,
    /// The same bound for `pixel_ap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_ap_error: Option<f64>,
    /// The same bound for `aupro`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aupro_error: Option<f64>,
    /// The interval of `image_auroc`.
    pub image_auroc: ConfidenceInterval,
    /// The interval of `image_ap`.
    pub image_ap: ConfidenceInterval,
    /// The interval of `image_f1_max`.
    pub image_f1_max: ConfidenceInterval,
    /// The interval of `pixel_auroc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_auroc: Option<ConfidenceInterval>,
    /// The interval of `pixel_ap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_ap: Option<ConfidenceInterval>,
    /// The interval of `aupro`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aupro: Option<ConfidenceInterval>,
}

/// Predictions at the threshold of the model, which is computed from normal images only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtThreshold {
    /// The threshold: images with this score or a higher one are predicted defective.
    pub threshold: f64,
    /// Fraction of the predicted images that are defective; 0 if no image is predicted.
    pub precision: f64,
    /// Fraction of the defective images that are predicted.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

/// Image metrics of one kind of defect against all normal images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KindMetrics {
    /// The kind of defect.
    pub kind: String,
    /// Number of images of that kind.
    pub images: usize,
    /// Image AUROC.
    pub image_auroc: f64,
    /// Image average precision.
    pub image_ap: f64,
}

/// The content of `metrics.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Area under the image ROC curve.
    pub image_auroc: f64,
    /// Image average precision.
    pub image_ap: f64,
    /// The best image F1 over all thresholds, chosen with knowledge of the labels.
    pub image_f1_max: f64,
    /// The threshold of `image_f1_max`.
    pub image_f1_max_threshold: f64,
    /// Area under the pixel ROC curve. Like every pixel metric, `None` if no defect of the split has a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_auroc: Option<f64>,
    /// Pixel average precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_ap: Option<f64>,
    /// The best pixel F1 over all thresholds, chosen with knowledge of the masks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixel_f1_max: Option<f64>,
    /// Area under the per-region overlap curve up to the false positive rate `aupro_fpr_limit`, divided by that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aupro: Option<f64>,
    /// The false positive rate up to which `aupro` is computed.
    pub aupro_fpr_limit: f64,
    /// Predictions at the threshold of the model; `None` if the model has no threshold.
    pub at_threshold: Option<AtThreshold>,
    /// 95 % confidence intervals; `None` if `bootstrap = 0`.
    pub intervals: Option<Intervals>,
    /// Metrics per kind of defect; empty if the data set does not name kinds.
    pub kinds: Vec<KindMetrics>,
    /// Number of images.
    pub images: usize,
    /// Number of defective images.
    pub defects: usize,
    /// Number of defective images that no pixel metric counts, because nothing says where their defects are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without_region: usize,
    /// Number of defective pixels.
    pub defect_pixels: u64,
    /// Number of pixels that are counted: those of padding and of images without a region are not.
    pub pixels: u64,
    /// Digest of (image, split, label) of all images. Metrics are comparable only if their digests are equal.
    pub split_digest: String,
}

/// The name of a metric, and how it is read; `None` if it is absent.
pub type NamedMetric = (&'static str, fn(&Metrics) -> Option<f64>);

impl Metrics {
    /// The metrics of tables and of `results.npy`: the name of each, and how it is read. Those of pixels are absent if no
    /// defect has a region.
    pub const NAMED: [NamedMetric; 7] = [
        ("image_auroc", |metrics| Some(metrics.image_auroc)),
        ("image_ap", |metrics| Some(metrics.image_ap)),
        ("image_f1_max", |metrics| Some(metrics.image_f1_max)),
        ("pixel_auroc", |metrics| metrics.pixel_auroc),
        ("pixel_ap", |metrics| metrics.pixel_ap),
        ("pixel_f1_max", |metrics| metrics.pixel_f1_max),
        ("aupro", |metrics| metrics.aupro),
    ];

    /// Returns the metrics of [`Self::NAMED`] that there are, with their names.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        Self::NAMED.iter().filter_map(|(name, read)| Some((*name, read(self)?))).collect()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
