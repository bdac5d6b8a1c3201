//! `fit`: a model of one bank (`PatchCoreSingle`) or two (`PatchCoreDual`), with its decision threshold.
//!
//! The threshold comes from normals alone: the 0.995 quantile of the training normals' scores, each scored
//! against the bank without that image's own rows (leave one image out). It needs the port `features`;
//! without it the model has no threshold, and says so.

use std::path::Path;

use super::coreset::read_selection;
use super::fields::{Fields, Reader, fields};
use super::{Context, Inputs, Reads, StageError};
use crate::artifacts::bank::Bank;
use crate::artifacts::feature_set::{self, Block, read_block};
use crate::artifacts::image_set::Selection;
use crate::artifacts::model::{CalibrationTables, Description, Model, Scoring, Threshold};
use crate::artifacts::{Artifact, File};
use crate::kernels::nearest::Neighbours;
use crate::kernels::scoring::{Calibration, quantile};
use crate::stages::scorer::{Scored, Scorer, read_scoring, scoring_fields};

/// 1: first (2026-11-24).
pub const VERSION: u32 = 1;

/// Quantile of the normals' scores above which an image is called defective (chosen: one false alarm in
/// 200 normal images).
const THRESHOLD_QUANTILE: f64 = 0.995;

/// Training normals that the threshold and the calibration look at (chosen: enough for the 0.995 quantile,
/// and a bound on the time for thousands of images); they are spread evenly over the set.
const THRESHOLD_IMAGES: i64 = 500;

/// The fields of a `fit` stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Whether there is a bank of defects.
    pub is_dual: bool,
    /// How patches become scores.
    pub scoring: Scoring,
    /// Quantile of the normals' scores that becomes the threshold.
    pub threshold_quantile: f64,
    /// Training normals looked at, at most.
    pub threshold_images: usize,
    /// Whether the port `features` is connected.
    pub has_features: bool,
    /// The set whose features alone are read; a name of the manifest, so not in the key.
    pub select_set: Option<String>,
    /// Which images are the training normals.
    pub selection: Selection,
}

impl Spec {
    /// Reads the fields.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let is_dual = reader.choice("bank", &[("single", false), ("dual", true)], Some("single"));
        reader.port("normal", Artifact::Bank);
        if is_dual {
            reader.port("defect", Artifact::Bank);
        } else {
            reader.optional_port("defect", Artifact::Bank, false);
        }
        let has_features = reader.optional_port("features", Artifact::FeatureSet, true);
        let scoring = read_scoring(reader, is_dual);
        if is_dual && scoring.dual == "calibrated" && !has_features {
            reader.missing("features", "the training normals that dual = \"calibrated\" needs");
        }
        let (select_set, selection, _) = read_selection(reader, false);
        Self {
            is_dual,
            scoring,
            threshold_quantile: reader.float("threshold_quantile", 0.0..=1.0, Some(THRESHOLD_QUANTILE)),
            threshold_images: reader.integer("threshold_images", 2..=10_000_000, Some(THRESHOLD_IMAGES))
                as usize,
            has_features,
            select_set,
            selection,
        }
    }

    /// The fields that enter the key.
    pub fn fields(&self) -> Fields {
        // Out: the set's name and the selection, because the selected blocks enter by name and digest.
        let Self {
            is_dual,
            scoring,
            threshold_quantile,
            threshold_images,
            has_features,
            select_set: _,
            selection: _,
        } = self;
        let mut all = scoring_fields(scoring, *is_dual);
        all.extend(fields([("bank", if *is_dual { "dual" } else { "single" }.into())]));
        if *has_features {
            all.extend(fields([
                ("threshold_quantile", (*threshold_quantile).into()),
                ("threshold_images", (*threshold_images).into()),
            ]));
        }
        all
    }

    /// What is read of `port`.
    pub fn reads(&self, port: &str) -> Reads {
        match port {
            "features" => Reads::Blocks { selection: self.selection.clone(), with_masks: false },
            _ => Reads::Everything,
        }
    }
}

/// Joins the banks, finds the threshold, and writes `model/`.
pub fn run(spec: &Spec, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let normal = Bank::read(inputs.require("normal")?)?;
    let defect = if spec.is_dual { Some(Bank::read(inputs.require("defect")?)?) } else { None };
    if let Some(defect) = &defect
        && defect.description.extraction.weights != normal.description.extraction.weights
    {
        return Err(StageError::data(
            "the two banks were extracted with different weights",
            "wire both `coreset` stages to the same `features`",
        ));
    }
    let description = Description {
        extraction: normal.description.extraction.clone(),
        scoring: spec.scoring.clone(),
        threshold: None,
        calibration: None,
        normal: normal.description.clone(),
        defect: defect.as_ref().map(|bank| bank.description.clone()),
    };
    let mut model = Model { description, normal, defect };
    if spec.has_features {
        look_at_normals(spec, &mut model, inputs, context)?;
    } else {
        context.progress.log("no `features`: the model has no threshold, so scores.csv has no predictions");
    }
    model.write(&output.join("model"))?;
    Ok(())
}

/// Sets the calibration, then the threshold.
fn look_at_normals(
    spec: &Spec,
    model: &mut Model,
    inputs: &Inputs,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let all: Vec<(&str, &File)> =
        inputs.members("features").flat_map(|(_, set)| feature_set::blocks(set)).collect();
    let normals = spread(&all, spec.threshold_images);
    if normals.len() < 2 {
        return Err(StageError::data(
            format!("the threshold needs 2 training normals or more, found {}", normals.len()),
            "check `select`, or leave `features` out",
        ));
    }
    let failed = |error| StageError::kernel("cannot score the training normals", error);
    let scorer = Scorer::new(model).map_err(failed)?;
    let mut distances = Vec::new();
    for (done, &(id, file)) in normals.iter().enumerate() {
        context.check()?;
        let block = read_block(file)?;
        distances.push(leave_one_out(&scorer, model, id, &block).map_err(failed)?);
        context.progress.report(done as u64 + 1, normals.len() as u64, "image");
    }
    if model.description.scoring.dual == "calibrated" && spec.is_dual {
        let of = |which: fn(&Distances) -> Option<&Neighbours>| -> Vec<f32> {
            distances.iter().filter_map(which).flat_map(|found| found.distance.iter().copied()).collect()
        };
        let calibration = Calibration::fit(&of(|pair| Some(&pair.normal)), &of(|pair| pair.defect.as_ref()))
            .map_err(failed)?;
        model.description.calibration =
            Some(CalibrationTables { normal: calibration.normal, defect: calibration.defect });
    }
    let scorer = Scorer::new(model).map_err(failed)?;
    let mut scores = Vec::new();
    for (&(_, file), found) in normals.iter().zip(distances) {
        context.check()?;
        let block = read_block(file)?;
        let Scored { score, .. } =
            scorer.score_distances(&block, &found.normal, found.defect.as_ref()).map_err(failed)?;
        scores.push(score);
    }
    let score = quantile(&scores, spec.threshold_quantile).map_err(failed)?;
    context.progress.log(&format!("threshold {score} of {} training normals", scores.len()));
    model.description.threshold =
        Some(Threshold { score, quantile: spec.threshold_quantile, images: scores.len() });
    Ok(())
}

/// A training normal's nearest rows.
struct Distances {
    normal: Neighbours,
    defect: Option<Neighbours>,
}

fn leave_one_out(
    scorer: &Scorer,
    model: &Model,
    id: &str,
    block: &Block,
) -> Result<Distances, crate::kernels::KernelError> {
    let own = model.normal.description.images.iter().position(|image| image == id);
    let normal = match own {
        Some(own) => {
            let group = vec![own as u32; block.height * block.width];
            scorer.normal().nearest_excluding(&block.data, &group, &model.normal.image)?
        }
        None => scorer.normal().nearest(&block.data, 1)?,
    };
    let defect = scorer.defect().map(|bank| bank.nearest(&block.data, 1)).transpose()?;
    Ok(Distances { normal, defect })
}

/// At most `count` of `all`, evenly spread, in order.
fn spread<T: Copy>(all: &[T], count: usize) -> Vec<T> {
    if all.len() <= count {
        return all.to_vec();
    }
    (0..count).map(|place| all[place * all.len() / count]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_even_and_ordered() {
        assert_eq!(spread(&[0, 1, 2, 3, 4, 5], 3), [0, 2, 4]);
        assert_eq!(spread(&[0, 1], 3), [0, 1]);
    }
}
