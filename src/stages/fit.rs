//! `fit`: a model of one bank (`PatchCoreSingle`) or two (`PatchCoreDual`), with its decision threshold.
//!
//! The threshold comes from normals alone: the 0.995 quantile of the training normals' scores, each scored
//! against the bank without that image's own rows (leave one image out). It needs the port `features`;
//! without it the model has no threshold, and says so.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, fields};
use super::scorer::{Scorer, read_scoring, require_comparable, scoring_fields};
use super::selection::{features_shape, read_selection};
use super::{About, Context, Estimates, Inputs, PortUse, Reads, Stage, StageError};
use crate::artifacts::bank::Bank;
use crate::artifacts::feature_set::{self, Block, read_block};
use crate::artifacts::image_set::Selection;
use crate::artifacts::model::{Description, Model, Scoring, ScoringRule, Threshold};
use crate::artifacts::{Artifact, File};
use crate::kernels::KernelError;
use crate::kernels::nearest::Neighbours;
use crate::kernels::scoring::{Calibration, DualScore, Excluded, quantile};

/// 1: first (2026-11-24).
pub const VERSION: u32 = 1;

/// Quantile of the normals' scores above which an image is called defective (chosen: one false alarm in
/// 200 normal images).
const THRESHOLD_QUANTILE: f64 = 0.995;

/// Training normals that the threshold and the calibration look at (chosen: enough for the 0.995 quantile,
/// and a bound on the time for thousands of images); they are spread evenly over the set.
const THRESHOLD_IMAGES: i64 = 500;

/// The fields of a `fit` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
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
    /// Whether the features of one set alone are read, that of the port `select.set`.
    pub has_set: bool,
    /// Which images are the training normals.
    pub selection: Selection,
}

impl Stage for Fit {
    fn name() -> &'static str {
        "fit"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let is_dual = reader.choice("bank", &[("single", false), ("dual", true)], Some("single"));
        reader.port("normal", Artifact::Bank);
        if is_dual {
            reader.port("defect", Artifact::Bank);
        } else {
            reader.optional_port("defect", Artifact::Bank, false);
        }
        let has_features = reader.optional_port("features", Artifact::FeatureSet, true);
        let scoring = read_scoring(reader, is_dual);
        if scoring.rule == ScoringRule::Dual(DualScore::Calibrated) && !has_features {
            reader.missing("features", "the training normals that dual = \"calibrated\" needs");
        }
        let (selection, has_set) = reader.table("select", read_selection);
        Self {
            is_dual,
            scoring,
            threshold_quantile: reader.float("threshold_quantile", 0.0..=1.0, Some(THRESHOLD_QUANTILE)),
            threshold_images: reader.integer("threshold_images", 2..=10_000_000, Some(THRESHOLD_IMAGES))
                as usize,
            has_features,
            has_set,
            selection,
        }
    }

    fn about(&self) -> About {
        About {
            version: VERSION,
            is_random: false,
            is_item_wise: false,
            is_blocking: false,
            is_target: false,
            is_shown: false,
            is_verified: true,
            estimates: Estimates::OfKind,
            pictures: &[],
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            target: None,
            source: None,
            tools: Vec::new(),
            implied: Vec::new(),
        }
    }

    fn port(&self, port: &str) -> PortUse {
        if port != "features" {
            return PortUse::whole();
        }
        let reads = Reads::Blocks { selection: self.selection.clone(), with_masks: false };
        PortUse { reads, shape: features_shape(self.has_set) }
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("model".to_owned(), Artifact::Model)]
    }

    fn key_fields(&self) -> Fields {
        // Out: the set and the selection, because the selected blocks enter by name and digest.
        let Self {
            is_dual,
            scoring,
            threshold_quantile,
            threshold_images,
            has_features,
            has_set: _,
            selection: _,
        } = self;
        let mut all = scoring_fields(scoring);
        all.extend(fields([("bank", if *is_dual { "dual" } else { "single" }.into())]));
        if *has_features {
            all.extend(fields([
                ("threshold_quantile", (*threshold_quantile).into()),
                ("threshold_images", (*threshold_images).into()),
            ]));
        }
        all
    }

    /// The banks, and the features that the threshold looks at.
    fn estimated_memory(&self, input_bytes: u64) -> u64 {
        input_bytes / 2 + 256_000_000
    }

    fn preflight(&self, _: &BTreeMap<String, String>) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

/// Joins the banks, finds the threshold, and writes `model/`.
fn run(spec: &Fit, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let normal = Bank::read(inputs.require("normal")?)?;
    let defect = if spec.is_dual { Some(Bank::read(inputs.require("defect")?)?) } else { None };
    if let Some(defect) = &defect {
        require_comparable("the two banks", &normal.description.extraction, &defect.description.extraction)?;
    }
    if let Some((_, features)) = inputs.members("features").next() {
        let of_features = feature_set::read_extraction(features)?;
        require_comparable("the bank and `features`", &normal.description.extraction, &of_features)?;
    }
    let description = Description {
        extraction: normal.description.extraction.clone(),
        scoring: spec.scoring,
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
    spec: &Fit,
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
    let mut scorer = Scorer::new(model, context.search_device).map_err(failed)?;
    let mut found = Vec::new();
    for (done, &(id, file)) in normals.iter().enumerate() {
        context.check()?;
        found.push(leave_one_out(&scorer, model, id, &read_block(file)?)?);
        context.progress.report(done as u64 + 1, normals.len() as u64, "image");
    }
    if model.description.scoring.rule == ScoringRule::Dual(DualScore::Calibrated) {
        let calibration = calibrate(&found).map_err(failed)?;
        scorer.calibrate(calibration.clone());
        model.description.calibration = Some(calibration);
    }
    let mut scores = Vec::new();
    for (&(_, file), normal) in normals.iter().zip(&found) {
        context.check()?;
        let block = read_block(file)?;
        let excluded = normal.own.map(|group| Excluded { groups: &model.normal.image, group });
        let scored = scorer.score_distances(&block, &normal.normal, normal.defect.as_ref(), excluded);
        scores.push(scored.map_err(failed)?.score);
    }
    let score = quantile(&scores, spec.threshold_quantile).map_err(failed)?;
    context.progress.log(&format!("threshold {score} of {} training normals", scores.len()));
    model.description.threshold =
        Some(Threshold { score, quantile: spec.threshold_quantile, images: scores.len() });
    Ok(())
}

/// A training normal's nearest rows, its own rows left out.
struct LeftOut {
    /// Its number among the normal bank's images, where it has rows there.
    own: Option<u32>,
    normal: Neighbours,
    defect: Option<Neighbours>,
}

fn leave_one_out(scorer: &Scorer, model: &Model, id: &str, block: &Block) -> Result<LeftOut, StageError> {
    let failed = |error| StageError::kernel(format!("cannot score the training normal `{id}`"), error);
    let images = &model.normal.description.images;
    let own = images.iter().position(|image| image == id).map(|own| own as u32);
    let normal = match own {
        Some(own) => {
            let group = vec![own; block.height * block.width];
            scorer.normal().nearest_excluding(&block.data, &group, &model.normal.image)
        }
        None => scorer.normal().nearest(&block.data, 1),
    };
    let normal = normal.map_err(failed)?;
    if normal.distance.iter().any(|distance| !distance.is_finite()) {
        return Err(StageError::data(
            format!(
                "the normal bank has rows of `{id}` alone, so that it cannot be left out for the threshold"
            ),
            "keep more rows (`ratio`, `min_size`) of more images, or leave `features` out",
        ));
    }
    let defect = scorer.defect().map(|bank| bank.nearest(&block.data, 1)).transpose().map_err(failed)?;
    Ok(LeftOut { own, normal, defect })
}

fn calibrate(found: &[LeftOut]) -> Result<Calibration, KernelError> {
    let distances = |of: fn(&LeftOut) -> Option<&Neighbours>| -> Vec<f32> {
        found.iter().filter_map(of).flat_map(|rows| rows.distance.iter().copied()).collect()
    };
    Calibration::fit(&distances(|normal| Some(&normal.normal)), &distances(|normal| normal.defect.as_ref()))
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
