//! Writes the files of an evaluation. `artifacts::scores` documents the folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Row;
use crate::artifacts::files::{csv_field, write, write_json};
use crate::artifacts::model::Model;
use crate::artifacts::scores::Metrics;
use crate::artifacts::{image_set, npy};
use crate::kernels::metrics;
use crate::stages::StageError;

/// Writes all files except pictures and full maps.
pub(super) fn write_files(
    folder: &Path,
    model: &Model,
    rows: &[Row<'_>],
    metrics: &Metrics,
) -> Result<(), StageError> {
    write_json(&folder.join("metrics.json"), metrics)?;
    npy::write_row(&folder.join("results.npy"), &metrics.named())?;
    let threshold = model.description.threshold.map(|threshold| threshold.score);
    write(&folder.join("scores.csv"), scores_csv(rows, threshold).as_bytes())?;
    write_maps(folder, rows)?;
    write_curves(folder, rows)
}

fn scores_csv(rows: &[Row<'_>], threshold: Option<f32>) -> String {
    let mut text = String::from("image,split,label,kind,score,prediction\n");
    for row in rows {
        let entry = &row.labelled.entry;
        let label = if row.is_defect() { "defect" } else { "normal" };
        let prediction =
            threshold.map_or("", |limit| if row.scored.score >= limit { "defect" } else { "normal" });
        let kind = entry.kind.filter(|&kind| kind != image_set::UNKNOWN_KIND).unwrap_or_default();
        let (id, kind, score) = (csv_field(entry.id), csv_field(kind), row.scored.score);
        let _ = writeln!(text, "{id},{},{label},{kind},{score},{prediction}", csv_field(entry.split));
    }
    text
}

/// Writes the patch scores: one array if all images have the same size, else one file per image.
fn write_maps(folder: &Path, rows: &[Row<'_>]) -> Result<(), StageError> {
    let Some(&Row { grid: [h, w], .. }) = rows.first() else { return Ok(()) };
    if rows.iter().all(|row| row.grid == [h, w]) {
        let data: Vec<f32> = rows.iter().flat_map(|row| row.scored.map.iter().copied()).collect();
        return Ok(npy::write_f32(&folder.join("maps.npy"), &[rows.len(), h, w], &data)?);
    }
    for row in rows {
        let file = folder.join("maps").join(format!("{}.npy", row.labelled.entry.id));
        npy::write_f32(&file, &row.grid, &row.scored.map)?;
    }
    Ok(())
}

/// Writes maps at full image size, one by one: into one array if all images have the same size, else one file per
/// image.
pub(super) struct FullMaps {
    folder: PathBuf,
    array: Option<npy::Appender>,
}

impl FullMaps {
    pub(super) fn new(folder: &Path, rows: &[Row<'_>]) -> Result<Self, StageError> {
        let array = match rows {
            [first, others @ ..] if others.iter().all(|row| row.size == first.size) => {
                let shape = [rows.len(), first.size[0], first.size[1]];
                Some(npy::Appender::new(&folder.join("full_maps.npy"), &shape)?)
            }
            _ => None,
        };
        Ok(Self { folder: folder.join("full_maps"), array })
    }

    pub(super) fn append(&mut self, row: &Row<'_>, map: &[f32]) -> Result<(), StageError> {
        if let Some(array) = &mut self.array {
            return Ok(array.append(map)?);
        }
        let file = self.folder.join(format!("{}.npy", row.labelled.entry.id));
        Ok(npy::write_f32(&file, &row.size, map)?)
    }

    pub(super) fn finish(self) -> Result<(), StageError> {
        Ok(self.array.map_or(Ok(()), npy::Appender::finish)?)
    }
}

fn write_curves(folder: &Path, rows: &[Row<'_>]) -> Result<(), StageError> {
    let scores: Vec<f32> = rows.iter().map(|row| row.scored.score).collect();
    let labels: Vec<bool> = rows.iter().map(Row::is_defect).collect();
    let failed = |error| StageError::kernel("cannot draw the curves", error);
    let roc = metrics::roc_curve(&scores, &labels).map_err(failed)?;
    let precision_recall = metrics::precision_recall_curve(&scores, &labels).map_err(failed)?;
    let curves = json!({
        "image_roc": {
            "threshold": roc.iter().map(|point| point.threshold).collect::<Vec<_>>(),
            "false_positive_rate": roc.iter().map(|point| point.false_positive_rate).collect::<Vec<_>>(),
            "true_positive_rate": roc.iter().map(|point| point.true_positive_rate).collect::<Vec<_>>(),
        },
        "image_precision_recall": {
            "threshold": precision_recall.iter().map(|point| point.threshold).collect::<Vec<_>>(),
            "precision": precision_recall.iter().map(|point| point.precision).collect::<Vec<_>>(),
            "recall": precision_recall.iter().map(|point| point.recall).collect::<Vec<_>>(),
        },
    });
    Ok(write_json(&folder.join("curves.json"), &curves)?)
}
