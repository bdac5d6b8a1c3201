//! `fit`: builds a model of one bank (`PatchCoreSingle`) or two banks (`PatchCoreDual`), with its decision threshold.
//!
//! The threshold is the 0.995 quantile of the scores of normal training images. Each is scored against the bank without
//! the rows of that image (leave one image out). This needs the port `features`; without it the model has no threshold.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, fields};
use super::scorer::{Scorer, read_scoring, require_comparable, scoring_fields, search_seconds};
use super::selection::{features_shape, read_selection};
use super::workload::selected_positions;
use super::{
    About, Context, Estimates, InputSizes, Inputs, PortUse, Reads, Stage, StageError, Variables, Workload,
};
use crate::artifacts::bank::Bank;
use crate::artifacts::feature_set::{self, Block, read_block};
use crate::artifacts::image_set::Selection;
use crate::artifacts::model::{Description, Model, Scoring, ScoringRule, Threshold};
use crate::artifacts::size::Size;
use crate::artifacts::{Artifact, File};
use crate::kernels::KernelError;
use crate::kernels::nearest::Neighbours;
use crate::kernels::sample::evenly_spaced;
use crate::kernels::scoring::{Calibration, DualScore, Excluded, quantile};

/// Version of the kind, raised when outputs change for equal inputs. 1: first (2026-11-24).
pub const VERSION: u32 = 1;

/// Quantile of the scores of normal images that becomes the threshold (chosen: one false alarm in 200 normal images).
const THRESHOLD_QUANTILE: f64 = 0.995;

/// Number of normal training images for threshold and calibration (chosen: enough for the 0.995 quantile, and a bound
/// on the time for thousands of images). They are spread evenly over the set.
const THRESHOLD_IMAGES: i64 = 500;

/// Seconds for each number of a bank that is read and written (chosen: 1 GB/s).
const COPY_SECONDS: f64 = 5e-9;

/// The fields of a `fit` stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Whether there is a bank of defect patches.
    pub is_dual: bool,
    /// How patch distances become scores.
    pub scoring: Scoring,
    /// Quantile of the scores of normal images that becomes the threshold.
    pub threshold_quantile: f64,
    /// Greatest number of normal training images for threshold and calibration.
    pub threshold_images: usize,
    /// Whether the port `features` is connected.
    pub has_features: bool,
    /// Whether only the features of the set at the port `select.set` are read, instead of those of all sets.
    pub has_set: bool,
    /// Which images are the normal training images.
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
            reader.missing("features", "the normal training images that dual = \"calibrated\" needs");
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
            foresees: false,
            pictures: &[],
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            depends_on_machine: false,
            compute_target: None,
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
        // Left out: the set and the selection, because the selected blocks enter by name and digest.
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

    /// Estimates the memory of the banks, and of the features for the threshold.
    fn estimated_memory(&self, input_bytes: u64) -> u64 {
        input_bytes / 2 + 256_000_000
    }

    /// Copying the banks, and searching them for the patches of the normal training images.
    fn workload(&self, inputs: &InputSizes) -> Workload {
        let (normal, sets) = (inputs.rows("normal"), inputs.images("features"));
        let defect = if self.is_dual { inputs.rows("defect").map(Some) } else { Some(None) };
        let (Some(normal), Some(defect), Some(sets)) = (normal, defect, sets) else {
            return Workload::unknown();
        };
        let images: f64 = sets.iter().map(|set| set.selected(&self.selection)).sum();
        let share = (self.threshold_images as f64 / images.max(1.0)).min(1.0);
        let patches =
            if self.has_features { selected_positions(&sets, &self.selection) * share } else { 0.0 };
        let rows = defect.map_or(normal, |defect| normal.with(defect));
        let seconds = rows.count * rows.channels * COPY_SECONDS + search_seconds(patches, rows);
        Workload::of(seconds, "model", Size::of_rows(rows))
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, inputs, output, context)
    }
}

/// Combines the banks, computes the threshold and writes `model/`.
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
        set_threshold(spec, &mut model, inputs, context)?;
    } else {
        context.progress.log("`features` is not connected: no threshold, and no predictions in scores.csv");
    }
    model.write(&output.join("model"))?;
    Ok(())
}

/// Computes and sets the calibration, then the threshold.
fn set_threshold(
    spec: &Fit,
    model: &mut Model,
    inputs: &Inputs,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let all: Vec<(&str, &File)> =
        inputs.members("features").flat_map(|(_, set)| feature_set::blocks(set)).collect();
    let normals: Vec<_> = evenly_spaced(all.len(), spec.threshold_images).map(|index| all[index]).collect();
    if normals.len() < 2 {
        return Err(StageError::data(
            format!("the threshold needs at least 2 normal training images, found {}", normals.len()),
            "check `select`, or remove `features`",
        ));
    }
    let failed = |error| StageError::kernel("cannot score the normal training images", error);
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
    context.progress.log(&format!("threshold {score} from {} normal training images", scores.len()));
    model.description.threshold =
        Some(Threshold { score, quantile: spec.threshold_quantile, images: scores.len() });
    Ok(())
}

/// The nearest bank rows of the patches of a normal training image, without rows of the same image.
struct LeftOut {
    /// Index of the image in the normal bank. `None` if the bank has no rows of it.
    own: Option<u32>,
    normal: Neighbours,
    defect: Option<Neighbours>,
}

fn leave_one_out(scorer: &Scorer, model: &Model, id: &str, block: &Block) -> Result<LeftOut, StageError> {
    let failed = |error| StageError::kernel(format!("cannot score the normal training image `{id}`"), error);
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
                "the normal bank has only rows of `{id}`, so the threshold cannot be computed without that image"
            ),
            "raise `ratio` or `min_size` so that the bank has rows of more images, or remove `features`",
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
