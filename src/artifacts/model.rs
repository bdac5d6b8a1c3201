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

/// How an image's patches become its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// `paper`, `none` or `reference`.
    pub reweight: String,
    /// Neighbours of `paper` (Roth et al. 2022, Eq. 7: b).
    pub neighbours: usize,
    /// `weighted`, `difference`, `ratio`, `calibrated` or `reference`; read where there is a defect bank.
    pub dual: String,
    /// The weight of `difference`.
    pub alpha: f32,
    /// `maximum` or `top_mean`.
    pub aggregation: String,
    /// The share of patches that `top_mean` averages.
    pub top_share: f32,
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

/// Quantiles of the normal training patches' distances to both banks, evenly spaced from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationTables {
    /// Distances to the normal bank.
    pub normal: Vec<f32>,
    /// Distances to the defect bank.
    pub defect: Vec<f32>,
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
    pub calibration: Option<CalibrationTables>,
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
