//! `FeatureSet`: patch features, one block per image. Blocks are cached by content, so that equal pixels are extracted
//! only once.
//!
//! ```text
//! features.json               how the features were extracted (Extraction), the same for every image
//! blocks/<id>.safetensors     "features": [h, w, d], f16 or f32
//! ```
//! A program that writes a feature set may leave parts of `features.json` out: see [`DraftExtraction`].

use std::path::Path;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::image_set::Preprocessing;
use super::{ArtifactError, File, Files};

/// Largest header of a block that is read. The headers that this module writes have about 80 bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// File name of the description of a feature set.
pub const DESCRIPTION: &str = "features.json";

/// All settings that determine the patch features of a source image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extraction {
    /// How the image was preprocessed.
    pub preprocessing: Preprocessing,
    /// Name of the network in torchvision.
    pub backbone: String,
    /// Digest of the weight file, or `seeded:` and the seed of random weights.
    pub weights: String,
    /// Layers whose maps are combined, such as `layer2`.
    pub layers: Vec<String>,
    /// `mean3`, `reference` or `none`.
    pub neighbourhood: String,
    /// `bilinear` or `adaptive_average`.
    pub alignment: String,
    /// `concat` or `patchcore-1024`.
    pub embedding: String,
    /// Number format of the stored features.
    pub storage: StoragePrecision,
    /// Length of a patch vector.
    pub dimension: usize,
}

impl Extraction {
    /// Returns whether features of both extractions are in the same space, so that their distances are meaningful.
    /// Everything must be equal except the preprocessing (such as the image size) and the storage precision.
    pub fn is_comparable(&self, other: &Self) -> bool {
        let same = Self { preprocessing: self.preprocessing.clone(), storage: self.storage, ..other.clone() };
        *self == same
    }
}

/// `features.json` as a program writes it: it says what it alone knows, and may leave out the rest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DraftExtraction {
    /// Name of the network. Features of different networks are not comparable.
    pub backbone: String,
    /// What the weights are, such as the digest of their file. Features of different weights are not comparable.
    pub weights: String,
    /// Layers whose maps are combined.
    #[serde(default)]
    pub layers: Vec<String>,
    /// How neighbouring patches are combined; empty if the program does not say.
    #[serde(default)]
    pub neighbourhood: String,
    /// How layers of different resolution are aligned; empty if the program does not say.
    #[serde(default)]
    pub alignment: String,
    /// How the layers are joined; empty if the program does not say.
    #[serde(default)]
    pub embedding: String,
    /// How the images were preprocessed; as the image sets say if it is left out.
    pub preprocessing: Option<Preprocessing>,
    /// Number format of the blocks; as they are if it is left out.
    pub storage: Option<StoragePrecision>,
    /// Length of a patch vector; as in the blocks if it is left out.
    pub dimension: Option<usize>,
}

impl DraftExtraction {
    /// Completes the description.
    pub fn complete(
        self,
        preprocessing: Preprocessing,
        storage: StoragePrecision,
        dimension: usize,
    ) -> Extraction {
        let Self { backbone, weights, layers, neighbourhood, alignment, embedding, .. } = self;
        Extraction {
            preprocessing,
            backbone,
            weights,
            layers,
            neighbourhood,
            alignment,
            embedding,
            storage,
            dimension,
        }
    }
}

/// The number format in which features are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoragePrecision {
    /// Half precision: half the size; changes the mean AUROC over seeds in the fourth decimal.
    F16,
    /// Single precision.
    F32,
}

impl StoragePrecision {
    /// Returns the name in `features.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// The form of a block that a program has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockForm {
    /// Length of a patch vector.
    pub d: usize,
    /// Number format.
    pub storage: StoragePrecision,
}

/// Why a block that a program has written is no block.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum BlockFault {
    /// The file cannot be read.
    #[error(transparent)]
    Unread(ArtifactError),
    #[error("has no tensor `features`; it has {found:?}")]
    NoTensor { found: Vec<String> },
    #[error("holds `features` as {dtype} of shape {shape:?}, not as F16 or F32 of shape [h, w, d]")]
    Form { dtype: String, shape: Vec<usize> },
    #[error("holds `features` of shape {shape:?}: no side may be 0")]
    Empty { shape: Vec<usize> },
    #[error("is not finite at row {row}, column {column}, channel {channel}")]
    NotFinite { row: usize, column: usize, channel: usize },
}

/// The features of one image: `[height, width, d]`, row-major f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Number of rows of patches.
    pub height: usize,
    /// Number of columns of patches.
    pub width: usize,
    /// Length of a patch vector.
    pub d: usize,
    /// Patch vectors, `[height, width, d]`, row-major.
    pub data: Vec<f32>,
}

/// Returns the file name of an image's block within the set.
pub fn block_name(id: &str) -> String {
    format!("blocks/{id}.safetensors")
}

/// Returns the image id of a block's file name; `None` if the file is not a block.
pub fn parse_block(name: &str) -> Option<&str> {
    name.strip_prefix("blocks/")?.strip_suffix(".safetensors")
}

/// Returns the blocks of a set as (image id, file), ordered by id.
pub fn blocks(files: &Files) -> impl Iterator<Item = (&str, &File)> {
    files.iter().filter_map(|(name, file)| parse_block(name).map(|id| (id, file)))
}

/// Reads the description of a set.
pub fn read_extraction(files: &Files) -> Result<Extraction, ArtifactError> {
    files.require("FeatureSet", DESCRIPTION)?.read_json()
}

/// Writes one block.
pub fn write_block(path: &Path, block: &Block, precision: StoragePrecision) -> Result<(), ArtifactError> {
    let shape = vec![block.height, block.width, block.d];
    let (dtype, bytes) = match precision {
        StoragePrecision::F32 => {
            (Dtype::F32, block.data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        }
        StoragePrecision::F16 => {
            let mut halves = vec![f16::ZERO; block.data.len()];
            halves.convert_from_f32_slice(&block.data);
            (Dtype::F16, halves.reinterpret_cast().iter().flat_map(|x: &u16| x.to_le_bytes()).collect())
        }
    };
    let error = |source| ArtifactError::SafeTensors { path: path.to_owned(), source };
    let view = TensorView::new(dtype, shape, &bytes).map_err(error)?;
    let file = safetensors::serialize([("features", view)], None).map_err(error)?;
    super::files::write(path, &file)
}

/// Reads one block, converted to f32.
pub fn read_block(file: &File) -> Result<Block, ArtifactError> {
    let bytes = file.read()?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|source| ArtifactError::SafeTensors { path: file.path.clone(), source })?;
    let wrong = || ArtifactError::Tensor {
        path: file.path.clone(),
        tensor: "features".to_owned(),
        expected: "[h, w, d] of f16 or f32".to_owned(),
    };
    let view = tensors.tensor("features").map_err(|_| wrong())?;
    let &[height, width, d] = view.shape() else { return Err(wrong()) };
    let data = match view.dtype() {
        Dtype::F32 => floats(view.data()),
        Dtype::F16 => {
            let bits: Vec<u16> =
                view.data().chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            let mut data = vec![0.0; bits.len()];
            bits.reinterpret_cast::<f16>().convert_to_f32_slice(&mut data);
            data
        }
        _ => return Err(wrong()),
    };
    Ok(Block { height, width, d, data })
}

/// Checks a block that a program has written.
///
/// # Errors
/// [`BlockFault`] with the place of the fault.
pub fn check_block(file: &File) -> Result<BlockForm, BlockFault> {
    let bytes = file.read().map_err(BlockFault::Unread)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|source| {
        BlockFault::Unread(ArtifactError::SafeTensors { path: file.path.clone(), source })
    })?;
    let no_tensor = |_| BlockFault::NoTensor {
        found: tensors.names().into_iter().map(|name| name.to_string()).collect(),
    };
    let view = tensors.tensor("features").map_err(no_tensor)?;
    let shape = view.shape().to_vec();
    let (storage, size, mask) = match view.dtype() {
        Dtype::F16 => (StoragePrecision::F16, 2, 0x7c),
        Dtype::F32 => (StoragePrecision::F32, 4, 0x7f),
        other => return Err(BlockFault::Form { dtype: format!("{other:?}"), shape }),
    };
    let &[_, width, d] = &shape[..] else {
        return Err(BlockFault::Form { dtype: storage.name().to_uppercase(), shape });
    };
    if shape.contains(&0) {
        return Err(BlockFault::Empty { shape });
    }
    // Infinite and NaN have every bit of the exponent set: of f16 bits 10 to 14, of f32 bits 23 to 30.
    let is_special = |number: &[u8]| {
        let top = number[size - 1];
        top & mask == mask && (storage == StoragePrecision::F16 || number[2] & 0x80 != 0)
    };
    match view.data().chunks_exact(size).position(is_special) {
        Some(at) => {
            let (patch, channel) = (at / d, at % d);
            Err(BlockFault::NotFinite { row: patch / width, column: patch % width, channel })
        }
        None => Ok(BlockForm { d, storage }),
    }
}

/// Returns `‖new - old‖ / ‖old‖` of two blocks; `None` if either is no block, or their shapes differ.
pub fn relative_difference(old: &File, new: &File) -> Option<f64> {
    relative(&read_block(old).ok()?, &read_block(new).ok()?)
}

fn relative(old: &Block, new: &Block) -> Option<f64> {
    if (old.height, old.width, old.d) != (new.height, new.width, new.d) {
        return None;
    }
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&old, &new) in old.data.iter().zip(&new.data) {
        difference += (f64::from(new) - f64::from(old)).powi(2);
        norm += f64::from(old).powi(2);
    }
    let relative = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
    // NaN is not close to anything.
    relative.is_finite().then_some(relative)
}

/// Decodes little-endian f32.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// The header of a block, without what is not used: a program may write other tensors and metadata beside the features.
#[derive(Deserialize)]
struct BlockHeader {
    features: Option<TensorHeader>,
}

/// A tensor in a safetensors header, without the fields that are not used.
#[derive(Deserialize)]
struct TensorHeader {
    shape: [usize; 3],
}

/// Reads the shape of a block, `[h, w, d]`, without its values.
pub fn read_shape(file: &File) -> Result<[usize; 3], ArtifactError> {
    use std::io::Read;
    let io = |source| ArtifactError::Io { path: file.path.clone(), source };
    let wrong = || ArtifactError::Tensor {
        path: file.path.clone(),
        tensor: "features".to_owned(),
        expected: "[h, w, d] of f16 or f32".to_owned(),
    };
    let mut open = std::fs::File::open(&file.path).map_err(io)?;
    let mut head = vec![0; 8];
    open.read_exact(&mut head).map_err(io)?;
    let length = head.iter().rev().fold(0_u64, |length, &byte| (length << 8) | u64::from(byte));
    open.take(length.min(MAX_HEADER_BYTES)).read_to_end(&mut head).map_err(io)?;
    let header: BlockHeader = serde_json::from_slice(&head[8..])
        .map_err(|source| ArtifactError::Json { path: file.path.clone(), source })?;
    header.features.map(|tensor| tensor.shape).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_compared_by_their_norms() {
        let block = |data: &[f32]| Block { height: 1, width: 2, d: 1, data: data.to_vec() };
        let old = block(&[3.0, 4.0]);
        assert_eq!(relative(&old, &old), Some(0.0));
        assert_eq!(relative(&old, &block(&[3.0, 4.5])), Some(0.1));
        assert_eq!(relative(&old, &block(&[f32::NAN, 4.0])), None);
        assert_eq!(relative(&block(&[0.0, 0.0]), &old), None, "nothing is close to zero but zero");
        assert_eq!(relative(&old, &Block { width: 1, height: 2, ..old.clone() }), None);
    }

    /// The bytes of a block as a program may write it, with metadata and another tensor.
    fn written(dtype: &str, shape: &str, data: &[u8]) -> (tempfile::TempDir, File) {
        let (bytes, end) = (data.len(), data.len() + 1);
        let header = format!(
            r#"{{"__metadata__":{{"format":"pt"}},"features":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}},"flag":{{"dtype":"U8","shape":[1],"data_offsets":[{bytes},{end}]}}}}"#
        );
        let all = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data, &[1]].concat();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("block");
        std::fs::write(&path, &all).unwrap();
        (folder, File { path, digest: None, size_bytes: all.len() as u64, is_executable: false })
    }

    #[test]
    fn a_block_of_a_program_is_read_and_checked() {
        let halves = |values: &[f32]| -> Vec<u8> {
            values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect()
        };
        let floats =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let (_folder, file) = written("F16", "[1,2,2]", &halves(&[1.0, -2.0, 65504.0, 0.0]));
        assert_eq!(check_block(&file).unwrap(), BlockForm { d: 2, storage: StoragePrecision::F16 });
        assert_eq!(read_shape(&file).unwrap(), [1, 2, 2]);
        assert_eq!(read_block(&file).unwrap().data, [1.0, -2.0, 65504.0, 0.0]);
        let (_folder, file) =
            written("F32", "[1,2,2]", &floats(&[f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0]));
        assert_eq!(check_block(&file).unwrap(), BlockForm { d: 2, storage: StoragePrecision::F32 });

        let said = |dtype: &str, shape: &str, data: &[u8]| {
            check_block(&written(dtype, shape, data).1).unwrap_err().to_string()
        };
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let wrong = [0.0, 0.0, 0.0, 0.0, 0.0, value, 0.0, 0.0];
            let wrong_at = "is not finite at row 1, column 0, channel 1";
            assert_eq!(said("F16", "[2,2,2]", &halves(&wrong)), wrong_at);
            assert_eq!(said("F32", "[2,2,2]", &floats(&wrong)), wrong_at);
        }
        assert!(said("F64", "[1,1,1]", &[0; 8]).contains("F64 of shape [1, 1, 1]"));
        assert!(said("F16", "[2,2]", &[0; 8]).contains("of shape [2, 2], not as"));
        assert!(said("F16", "[0,1,2]", &[]).contains("no side may be 0"));
    }

    #[test]
    fn a_block_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let block = Block { height: 2, width: 1, d: 3, data: vec![0.0, 1.0, -2.5, 0.1, 3.0, 1000.0] };
        for precision in [StoragePrecision::F32, StoragePrecision::F16] {
            let path = folder.path().join("block");
            write_block(&path, &block, precision).unwrap();
            let file = File { path, digest: None, size_bytes: 0, is_executable: false };
            let read = read_block(&file).unwrap();
            assert_eq!((read.height, read.width, read.d), (2, 1, 3));
            assert_eq!(read_shape(&file).unwrap(), [2, 1, 3]);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= a.abs() / 1024.0;
            assert!(read.data.iter().zip(&block.data).all(close), "{read:?}");
        }
    }
}
