//! Computes the metrics of an evaluation from image scores and pixel counts.

use super::Evaluate;
use super::passes::Row;
use crate::artifacts::image_set;
use crate::artifacts::model::Model;
use crate::artifacts::scores::{AtThreshold, Intervals, KindMetrics, Metrics};
use crate::kernels::metrics::{self, DEFAULT_BINS, MetricError, PixelMetrics, PixelScores, PixelStatistics};
use crate::kernels::random::Rng;
use crate::stages::{Context, StageError};

/// Computes all metrics: those of pixels only if there are `pixel_scores`, their intervals only if there are `statistics`.
pub(super) fn measure(
    spec: &Evaluate,
    model: &Model,
    rows: &[Row<'_>],
    pixel_scores: Option<PixelScores>,
    statistics: Option<&PixelStatistics>,
    context: &Context<'_>,
) -> Result<Metrics, StageError> {
    let scores: Vec<f32> = rows.iter().map(|row| row.scored.score).collect();
    let labels: Vec<bool> = rows.iter().map(Row::is_defect).collect();
    let failed = |error| no_metric(spec, rows, error);
    let best = metrics::f1_max(&scores, &labels).map_err(failed)?;
    let intervals = (spec.bootstrap > 0)
        .then(|| bootstrap(&scores, &labels, statistics, spec.bootstrap, context.seed))
        .transpose()
        .map_err(failed)?;
    let at_threshold = match &model.description.threshold {
        None => None,
        Some(threshold) => {
            let at = metrics::at_threshold(&scores, &labels, threshold.score).map_err(failed)?;
            let threshold = f64::from(threshold.score);
            Some(AtThreshold { threshold, precision: at.precision, recall: at.recall, f1: at.f1 })
        }
    };
    let pixels = pixel_scores.map(|scores| scores.finish(spec.fpr_limit)).transpose().map_err(failed)?;
    let count = |of: fn(&PixelMetrics) -> u64| pixels.as_ref().map_or(0, of);
    Ok(Metrics {
        image_auroc: metrics::auroc(&scores, &labels).map_err(failed)?,
        image_ap: metrics::average_precision(&scores, &labels).map_err(failed)?,
        image_f1_max: best.f1,
        image_f1_max_threshold: f64::from(best.threshold),
        pixel_auroc: pixels.as_ref().map(|pixels| pixels.auroc),
        pixel_ap: pixels.as_ref().map(|pixels| pixels.average_precision),
        pixel_f1_max: pixels.as_ref().map(|pixels| pixels.f1_max),
        aupro: pixels.as_ref().map(|pixels| pixels.aupro),
        aupro_fpr_limit: spec.fpr_limit,
        at_threshold,
        intervals,
        kinds: by_kind(rows).map_err(failed)?,
        images: rows.len(),
        defects: labels.iter().filter(|&&is_defect| is_defect).count(),
        without_region: rows.iter().filter(|row| row.is_without_region).count(),
        defect_pixels: count(|pixels| pixels.positives),
        pixels: count(|pixels| pixels.positives + pixels.negatives),
        split_digest: split_digest(rows),
    })
}

/// Returns the error of a metric that cannot be computed. If the split has only one class, the message says so.
pub(super) fn no_metric(spec: &Evaluate, rows: &[Row<'_>], error: MetricError) -> StageError {
    let defects = rows.iter().filter(|row| row.is_defect()).count();
    if defects == 0 || defects == rows.len() {
        return StageError::data(
            format!(
                "the split `{}` has {defects} defective and {} normal images: no metric is defined on one class",
                spec.split,
                rows.len() - defects
            ),
            "evaluate a split that has both, or check the masks",
        );
    }
    StageError::kernel("cannot compute the metrics", error)
}

fn bootstrap(
    scores: &[f32],
    labels: &[bool],
    statistics: Option<&PixelStatistics>,
    resamples: usize,
    seed: u64,
) -> Result<Intervals, MetricError> {
    let mut rng = Rng::new(seed, "bootstrap");
    let images = metrics::image_intervals(scores, labels, resamples, &mut rng)?;
    let pixels = statistics.map(|all| metrics::pixel_intervals(all, resamples, &mut rng)).transpose()?;
    let errors = pixels.as_ref().map(|pixels| pixels.errors);
    Ok(Intervals {
        resamples,
        pixel_method: pixels
            .as_ref()
            .map(|_| format!("by image, from histograms of about {DEFAULT_BINS} bins an image")),
        pixel_auroc_error: errors.map(|errors| errors.auroc),
        pixel_ap_error: errors.map(|errors| errors.average_precision),
        aupro_error: errors.map(|errors| errors.aupro),
        image_auroc: images.auroc,
        image_ap: images.average_precision,
        image_f1_max: images.f1_max,
        pixel_auroc: pixels.as_ref().map(|pixels| pixels.auroc),
        pixel_ap: pixels.as_ref().map(|pixels| pixels.average_precision),
        aupro: pixels.as_ref().map(|pixels| pixels.aupro),
    })
}

fn by_kind(rows: &[Row<'_>]) -> Result<Vec<KindMetrics>, MetricError> {
    let mut kinds: Vec<&str> = rows.iter().filter_map(|row| row.labelled.entry.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds == [image_set::UNKNOWN_KIND] {
        return Ok(Vec::new());
    }
    kinds
        .into_iter()
        .map(|kind| {
            let some = rows.iter().filter(|row| row.labelled.entry.kind.is_none_or(|of_row| of_row == kind));
            let (scores, labels): (Vec<f32>, Vec<bool>) =
                some.map(|row| (row.scored.score, row.is_defect())).unzip();
            Ok(KindMetrics {
                kind: kind.to_owned(),
                images: labels.iter().filter(|&&is_defect| is_defect).count(),
                image_auroc: metrics::auroc(&scores, &labels)?,
                image_ap: metrics::average_precision(&scores, &labels)?,
            })
        })
        .collect()
}

fn split_digest(rows: &[Row<'_>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        let mask = row.labelled.mask.digest_text();
        for part in [row.labelled.entry.id, row.labelled.entry.split, &mask] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&[u8::from(row.is_defect())]);
    }
    hasher.finalize().to_hex().to_string()
}
