//! `Model`: everything that scoring a new image needs.
//!
//! ```text
//! model.json              preprocessing, network, weights digest, layers, scoring, thresholds (Description)
//! normal.safetensors      rows of the bank of normal patches, as in a Bank
//! defect.safetensors      rows of the bank of defect patches, where there is one
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bank::{self, Bank, read_rows, write_rows};
use super::feature_set::Extraction;
use super::files::write_json;
use super::{ArtifactError, Files};
use crate::kernels::scoring::{Aggregation, Calibration, DualScore, Reweight};

/// How an image's patches become its score. What a choice does not use is not here, so that equal keys are
/// equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// Of the image score; none where two banks are joined otherwise than by `reference`.
    pub reweight: Option<Reweight>,
    /// How the distances to two banks are joined; none where there is one.
    pub dual: Option<DualScore>,
    /// From patches to the image.
    pub aggregation: Aggregation,
}

/// The score above which an image is called defective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The score.
    pub score: f32,
    /// Its quantile among the leave-one-image-out scores of the training normals.
    pub quantile: f64,
    /// How many training normals there were.
    pub images: usize,
}

/// What `model.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// What turns an image into patch features.
    pub extraction: Extraction,
    /// How patches become scores.
    pub scoring: Scoring,
    /// From training normals; none where `fit` was given no features.
    pub threshold: Option<Threshold>,
    /// Used by the `calibrated` dual score.
    pub calibration: Option<Calibration>,
    /// Where the normal bank came from.
    pub normal: bank::Description,
    /// Where the defect bank came from.
    pub defect: Option<bank::Description>,
}

/// A model in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// All but the rows.
    pub description: Description,
    /// The bank of normal patches.
    pub normal: Bank,
    /// The bank of defect patches (`dual`).
    pub defect: Option<Bank>,
}

impl Model {
    /// Writes the model into `folder`.
    pub fn write(&self, folder: &Path) -> Result<(), ArtifactError> {
        write_json(&folder.join("model.json"), &self.description)?;
        write_rows(&folder.join("normal.safetensors"), &self.normal)?;
        self.defect.as_ref().map_or(Ok(()), |bank| write_rows(&folder.join("defect.safetensors"), bank))
    }

    /// Reads a model.
    pub fn read(files: &Files) -> Result<Self, ArtifactError> {
        let description: Description = files.require("Model", "model.json")?.read_json()?;
        let normal = read_rows(files, "normal.safetensors", description.normal.clone())?;
        let defect = match &description.defect {
            Some(defect) => Some(read_rows(files, "defect.safetensors", defect.clone())?),
            None => None,
        };
        Ok(Self { description, normal, defect })
    }
}
