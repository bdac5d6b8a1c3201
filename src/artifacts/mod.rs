//! What stages pass to each other: one file per format, each a folder of files with a typed reader and
//! writer. Formats know files and paths, never the store, a key or a manifest.

pub mod bank;
pub mod denoiser;
pub mod feature_set;
pub mod files;
pub mod image_set;
pub mod model;
pub mod npy;
pub mod scores;
pub mod weights;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use files::{File, Files};

/// The type of an output and of the port that takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Artifact {
    /// Any folder of files.
    Files,
    /// Preprocessed images with their masks, labels and splits.
    ImageSet,
    /// Patch features of image sets, an ordered group of (set, features).
    FeatureSet,
    /// Rows kept of a feature set.
    Bank,
    /// Everything that scoring a new image needs.
    Model,
    /// Metrics, scores and maps of one variant.
    Scores,
    /// Anything: the port of a command.
    Any,
}

impl Artifact {
    /// Whether an output of type `given` may be wired into this port.
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

/// What can be wrong with an artifact's files.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A file that the format needs is not there.
    #[error("`{file}` is missing from the {artifact}")]
    MissingFile {
        /// The artifact's type.
        artifact: &'static str,
        /// The path within the artifact.
        file: String,
    },
    /// A file could not be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what was hashed: it was edited after the run began to look at it.
    #[error("`{}` changed while the run was reading it", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A JSON file does not hold what it should.
    #[error("`{}` is not the JSON that was expected here", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        #[source]
        source: serde_json::Error,
    },
    /// An image could not be decoded or encoded.
    #[error("cannot decode the image `{}`", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The decoder's answer.
        #[source]
        source: image::ImageError,
    },
    /// A tensor file does not hold what it should.
    #[error("`{}` does not hold the tensor `{tensor}` as {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Shape and type that were expected.
        expected: String,
    },
    /// A tensor file is damaged.
    #[error("`{}` is not a safetensors file", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// The parser's answer.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// Two parts that must belong together do not.
    #[error("{what} do not fit together: {left} and {right}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// One side.
        left: String,
        /// The other side.
        right: String,
    },
}
