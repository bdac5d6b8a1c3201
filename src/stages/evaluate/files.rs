//! Writes the files of an evaluation. `artifacts::scores` documents the folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::passes::Row;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::File;
    use crate::artifacts::image_set::{ImageEntry, Label, Labelled};
    use crate::stages::scorer::Scored;

    /// Large scores may differ in the last bit alone.
    #[test]
    fn scores_in_the_table_rank_as_those_that_were_measured() {
        let base = 123_456_790.0_f32;
        let scores =
            [base, base.next_up(), f32::MAX, f32::MAX.next_down(), base.next_down(), 1e-45, 0.0, base];
        let mask = File { path: PathBuf::new(), digest: None, size_bytes: 0, is_executable: false };
        let label = |index: usize| if index % 2 == 1 { Label::Defect } else { Label::Normal };
        let ids: Vec<String> = (0..scores.len()).map(|index| index.to_string()).collect();
        let entry =
            |index: usize| ImageEntry { split: "test", label: label(index), kind: None, id: &ids[index] };
        let labelled: Vec<Labelled<'_>> =
            (0..scores.len()).map(|index| Labelled { entry: entry(index), mask: &mask }).collect();
        let row = |(labelled, &score)| Row {
            labelled,
            scored: Scored { map: Vec::new(), score },
            grid: [0, 0],
            size: [0, 0],
            is_without_region: false,
        };
        let rows: Vec<Row<'_>> = labelled.iter().zip(&scores).map(row).collect();
        let table = scores_csv(&rows, None);
        let read: Vec<f64> =
            table.lines().skip(1).map(|line| line.split(',').nth(4).unwrap().parse().unwrap()).collect();
        assert!(
            read.iter().zip(scores).all(|(&read, score)| (read as f32).to_bits() == score.to_bits()),
            "{table}"
        );
        let (defects, normals): (Vec<_>, Vec<_>) = (0..scores.len()).partition(|index| index % 2 == 1);
        let pairs = defects.iter().flat_map(|&defect| normals.iter().map(move |&normal| (defect, normal)));
        let won = pairs.map(|(defect, normal)| match read[defect].total_cmp(&read[normal]) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        });
        let labels: Vec<bool> = (0..scores.len()).map(|index| index % 2 == 1).collect();
        let measured = metrics::auroc(&scores, &labels).unwrap();
        assert!((won.sum::<f64>() / 16.0 - measured).abs() < 1e-12);
    }
}
