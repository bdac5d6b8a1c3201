//! Artifacts: what stages pass to each other. Each artifact is a folder of files; each module defines one format with
//! a typed reader and writer. Formats know files and paths, but not the store, keys or manifests.

use serde::{Deserialize, Serialize};

pub mod bank;
pub mod denoiser;
pub mod feature_set;
pub mod files;
pub mod image_set;
pub mod model;
pub mod npy;
pub mod scores;
pub mod size;
pub mod weights;

use std::fmt;
use std::path::PathBuf;

pub use files::{File, Files};

/// The type of an output, and of the ports that accept it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Artifact {
    /// Any folder of files.
    Files,
    /// Preprocessed images with their masks, labels and splits.
    ImageSet,
    /// Patch features of the images of an image set.
    FeatureSet,
    /// The selected rows of feature sets (a coreset).
    Bank,
    /// Everything needed to score a new image.
    Model,
    /// Metrics, scores and maps of one variant.
    Scores,
    /// Any artifact. Only for ports of commands.
    Any,
}

impl Artifact {
    /// Returns whether a port of this type accepts an output of type `given`.
    pub fn accepts(self, given: Self) -> bool {
        self == given || self == Self::Any
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Files => "Files",
            Self::ImageSet => "an ImageSet",
            Self::FeatureSet => "a FeatureSet",
            Self::Bank => "a Bank",
            Self::Model => "a Model",
            Self::Scores => "Scores",
            Self::Any => "any artifact",
        })
    }
}

/// Why an artifact cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum ArtifactError {
    #[error("`{file}` is missing from the {artifact}")]
    MissingFile { artifact: &'static str, file: String },
    #[error("cannot read or write `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// The content does not have the digest that the plan was made with: the file was edited during the run.
    #[error("`{}` changed while the run was reading it", path.display())]
    Changed { path: PathBuf },
    #[error("`{}` is not the JSON that was expected here", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    /// The image cannot be decoded, or cannot be encoded.
    #[error("cannot decode the image `{}`", path.display())]
    Image { path: PathBuf, source: image::ImageError },
    /// Uncounted pixels must lie around the counted ones.
    #[error("the mask `{}` has uncounted pixels (level 128) amid counted ones", path.display())]
    Mask { path: PathBuf },
    /// `expected` is the expected shape and number format.
    #[error("`{}` does not hold the tensor `{tensor}` as {expected}", path.display())]
    Tensor { path: PathBuf, tensor: String, expected: String },
    #[error("`{}` is not a safetensors file", path.display())]
    SafeTensors { path: PathBuf, source: safetensors::SafeTensorError },
    /// Two inputs, `left` and `right`, do not belong together; `what` names what was compared.
    #[error("{what} do not fit together: {left} and {right}")]
    Mismatch { what: String, left: String, right: String },
}
