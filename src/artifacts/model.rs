//! `Model`: everything needed to score a new image.
//!
//! ```text
//! model.json              preprocessing, network, weights digest, layers, scoring, thresholds (Description)
//! normal.safetensors      rows of the bank of normal patches, as in a Bank
//! defect.safetensors      rows of the bank of defect patches (only for two banks)
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bank::{self, Bank, read_rows, write_rows};
use super::feature_set::Extraction;
use super::files::write_json;
use super::{ArtifactError, Files};
use crate::kernels::scoring::{Aggregation, Calibration, DualScore, Reweight};

/// How an image is scored. In JSON, options that the rule does not use are `null`, so that equal keys give equal bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredScoring", into = "StoredScoring")]
pub struct Scoring {
    /// Which banks are searched, and how distances become scores.
    pub rule: ScoringRule,
    /// How the scores of patches are aggregated into the score of the image.
    pub aggregation: Aggregation,
}

/// Which banks are searched, and how distances become scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScoringRule {
    /// The normal bank alone.
    Single {
        /// How the image score is weighted.
        reweight: Reweight,
    },
    /// The normal and the defect bank.
    Dual(DualScore),
}

/// [`Scoring`] as in `model.json`.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct StoredScoring {
    reweight: Option<Reweight>,
    dual: Option<StoredDualScore>,
    aggregation: Aggregation,
}

/// [`DualScore`] as in `model.json`.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredDualScore {
    Weighted,
    Difference { alpha: f32 },
    Ratio,
    Calibrated,
    Reference,
}

impl From<Scoring> for StoredScoring {
    fn from(Scoring { rule, aggregation }: Scoring) -> Self {
        let (reweight, dual) = match rule {
            ScoringRule::Single { reweight } => (Some(reweight), None),
            ScoringRule::Dual(DualScore::Weighted) => (None, Some(StoredDualScore::Weighted)),
            ScoringRule::Dual(DualScore::Difference { alpha }) => {
                (None, Some(StoredDualScore::Difference { alpha }))
            }
            ScoringRule::Dual(DualScore::Ratio) => (None, Some(StoredDualScore::Ratio)),
            ScoringRule::Dual(DualScore::Calibrated) => (None, Some(StoredDualScore::Calibrated)),
            ScoringRule::Dual(DualScore::Reference { reweight }) => {
                (Some(reweight), Some(StoredDualScore::Reference))
            }
        };
        Self { reweight, dual, aggregation }
    }
}

impl TryFrom<StoredScoring> for Scoring {
    type Error = &'static str;

    fn try_from(stored: StoredScoring) -> Result<Self, Self::Error> {
        let StoredScoring { reweight, dual, aggregation } = stored;
        let rule = match (dual, reweight) {
            (None, Some(reweight)) => ScoringRule::Single { reweight },
            (Some(StoredDualScore::Reference), Some(reweight)) => {
                ScoringRule::Dual(DualScore::Reference { reweight })
            }
            (Some(StoredDualScore::Weighted), None) => ScoringRule::Dual(DualScore::Weighted),
            (Some(StoredDualScore::Difference { alpha }), None) => {
                ScoringRule::Dual(DualScore::Difference { alpha })
            }
            (Some(StoredDualScore::Ratio), None) => ScoringRule::Dual(DualScore::Ratio),
            (Some(StoredDualScore::Calibrated), None) => ScoringRule::Dual(DualScore::Calibrated),
            (None | Some(StoredDualScore::Reference), None) => return Err("`scoring` lacks `reweight`"),
            (Some(_), Some(_)) => return Err("`scoring` has a `reweight` that its `dual` does not use"),
        };
        Ok(Self { rule, aggregation })
    }
}

/// The decision threshold: images with this score or a higher one are predicted defective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// The score.
    pub score: f32,
    /// The quantile by which `score` was chosen: that of the leave-one-out scores of normal training images.
    pub quantile: f64,
    /// Number of normal training images that were scored.
    pub images: usize,
}

/// The content of `model.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// How patch features are extracted from an image.
    pub extraction: Extraction,
    /// How an image is scored.
    pub scoring: Scoring,
    /// The decision threshold; `None` if `fit` had no `features` input of normal training images.
    pub threshold: Option<Threshold>,
    /// Quantiles for the `calibrated` dual score; `None` for every other score.
    pub calibration: Option<Calibration>,
    /// What the normal bank was selected from, and how.
    pub normal: bank::Description,
    /// The same for the defect bank; `None` for a single-bank model.
    pub defect: Option<bank::Description>,
}

/// A model in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Everything except the rows of the banks.
    pub description: Description,
    /// The bank of normal patches.
    pub normal: Bank,
    /// The bank of defect patches; `None` for a single-bank model.
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
        let file = files.require("Model", "model.json")?;
        let description: Description = file.read_json()?;
        let is_dual = matches!(description.scoring.rule, ScoringRule::Dual(_));
        if is_dual != description.defect.is_some() {
            return Err(ArtifactError::Mismatch {
                what: format!("the scoring and the banks of `{}`", file.path.display()),
                left: if is_dual { "a score of two banks" } else { "a score of one bank" }.to_owned(),
                right: if is_dual { "no defect bank" } else { "a defect bank" }.to_owned(),
            });
        }
        let normal = read_rows(files, "normal.safetensors", description.normal.clone())?;
        let defect = match &description.defect {
            Some(defect) => Some(read_rows(files, "defect.safetensors", defect.clone())?),
            None => None,
        };
        Ok(Self { description, normal, defect })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scorings_come_back_from_their_json() {
        let reweight = Reweight::default();
        let rules = [
            (ScoringRule::Single { reweight }, r#"{"paper":{"neighbours":9}},"dual":null"#),
            (ScoringRule::Dual(DualScore::Weighted), r#"null,"dual":"weighted""#),
            (
                ScoringRule::Dual(DualScore::Difference { alpha: 0.25 }),
                r#"null,"dual":{"difference":{"alpha":0.25}}"#,
            ),
            (ScoringRule::Dual(DualScore::Ratio), r#"null,"dual":"ratio""#),
            (ScoringRule::Dual(DualScore::Calibrated), r#"null,"dual":"calibrated""#),
            (
                ScoringRule::Dual(DualScore::Reference { reweight }),
                r#"{"paper":{"neighbours":9}},"dual":"reference""#,
            ),
        ];
        for (rule, expected) in rules {
            let scoring = Scoring { rule, aggregation: Aggregation::Maximum };
            let json = serde_json::to_string(&scoring).unwrap();
            assert_eq!(json, format!(r#"{{"reweight":{expected},"aggregation":"maximum"}}"#));
            assert_eq!(serde_json::from_str::<Scoring>(&json).unwrap(), scoring);
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for wrong in [
            r#"{"reweight":null,"dual":null,"aggregation":"maximum"}"#,
            r#"{"reweight":null,"dual":"reference","aggregation":"maximum"}"#,
            r#"{"reweight":"none","dual":"ratio","aggregation":"maximum"}"#,
        ] {
            assert!(serde_json::from_str::<Scoring>(wrong).is_err(), "{wrong}");
        }
    }
}
