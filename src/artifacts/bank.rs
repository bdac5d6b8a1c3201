//! `Bank`: the rows that a coreset selects, each with its image and patch.
//!
//! ```text
//! bank.json            what the rows were selected from, and how (Description)
//! rows.safetensors     "rows": [m, d] f32, "image": [m] u32 into bank.json's images, "patch": [m] u32
//! radii.npy            [m] f32: covering radius after each selected row (greedy strategies only)
//! ```

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::feature_set::{Extraction, floats};
use super::files::write_json;
use super::{ArtifactError, Files};

/// What the rows of a bank were selected from, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// How the features were extracted.
    pub extraction: Extraction,
    /// `k_center`, `random`, `approximate`, or `all` if every row was selected.
    pub strategy: String,
    /// Number of input rows, before filtering.
    pub candidates: usize,
    /// How many of them were dropped before the selection.
    pub filtered: usize,
    /// How many synthetic samples the filter kept and dropped; `None` if it did not run.
    #[serde(rename = "made", default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<SyntheticCounts>,
    /// Ids of the images that the input rows come from. The `image` of a row is an index into this list.
    pub images: Vec<String>,
}

/// How many synthetic samples passed the filter, and how many did not, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyntheticCounts {
    /// Samples that passed.
    pub kept: usize,
    /// Samples dropped because they are no farther from the normal bank than normal rows are.
    pub near_normal: usize,
    /// Samples dropped because they are farther from every real defect than real defects are from each other.
    pub far_from_real: usize,
}

impl std::fmt::Display for SyntheticCounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kept, near_normal, far_from_real } = self;
        write!(
            formatter,
            "{kept} are kept, {near_normal} look normal, {far_from_real} look like no real defect"
        )
    }
}

/// A bank in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Bank {
    /// What the rows were selected from, and how.
    pub description: Description,
    /// Selected rows, `[m, d]`, row-major.
    pub rows: Vec<f32>,
    /// `[m]`: the image of each row, an index into the description's images.
    pub image: Vec<u32>,
    /// `[m]`: the patch of each row, a row-major index in the image's grid of patches.
    pub patch: Vec<u32>,
}

impl Bank {
    /// Returns the length of a row.
    pub fn d(&self) -> usize {
        self.description.extraction.dimension
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.image.len()
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.image.is_empty()
    }

    /// Writes the bank into `folder`.
    pub fn write(&self, folder: &Path) -> Result<(), ArtifactError> {
        write_json(&folder.join("bank.json"), &self.description)?;
        write_rows(&folder.join("rows.safetensors"), self)
    }

    /// Reads a bank.
    pub fn read(files: &Files) -> Result<Self, ArtifactError> {
        let description: Description = files.require("Bank", "bank.json")?.read_json()?;
        read_rows(files, "rows.safetensors", description)
    }
}

/// Writes the rows of a bank as a safetensors file.
pub(super) fn write_rows(path: &Path, bank: &Bank) -> Result<(), ArtifactError> {
    let error = |source| ArtifactError::SafeTensors { path: path.to_owned(), source };
    let m = bank.len();
    let rows: Vec<u8> = bank.rows.iter().flat_map(|x| x.to_le_bytes()).collect();
    let image: Vec<u8> = bank.image.iter().flat_map(|x| x.to_le_bytes()).collect();
    let patch: Vec<u8> = bank.patch.iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = [
        ("image", TensorView::new(Dtype::U32, vec![m], &image).map_err(error)?),
        ("patch", TensorView::new(Dtype::U32, vec![m], &patch).map_err(error)?),
        ("rows", TensorView::new(Dtype::F32, vec![m, bank.d()], &rows).map_err(error)?),
    ];
    super::files::write(path, &safetensors::serialize(tensors, None).map_err(error)?)
}

/// Reads the rows of a bank.
pub(super) fn read_rows(files: &Files, name: &str, description: Description) -> Result<Bank, ArtifactError> {
    let file = files.require("Bank", name)?;
    let bytes = file.read()?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|source| ArtifactError::SafeTensors { path: file.path.clone(), source })?;
    let d = description.extraction.dimension;
    let tensor = |tensor: &str, dtype: Dtype, expected: &str| {
        let wrong = || ArtifactError::Tensor {
            path: file.path.clone(),
            tensor: tensor.to_owned(),
            expected: expected.to_owned(),
        };
        let view = tensors.tensor(tensor).map_err(|_| wrong())?;
        if view.dtype() == dtype { Ok(view.data().to_vec()) } else { Err(wrong()) }
    };
    let rows = floats(&tensor("rows", Dtype::F32, "[m, d] of f32")?);
    let image = integers(&tensor("image", Dtype::U32, "[m] of u32")?);
    let patch = integers(&tensor("patch", Dtype::U32, "[m] of u32")?);
    if rows.len() != image.len() * d || patch.len() != image.len() {
        return Err(ArtifactError::Tensor {
            path: file.path.clone(),
            tensor: "rows".to_owned(),
            expected: format!("[{}, {d}] of f32", image.len()),
        });
    }
    Ok(Bank { description, rows, image, patch })
}

fn integers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
