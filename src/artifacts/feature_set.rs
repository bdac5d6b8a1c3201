//! `FeatureSet`: patch features, one block per image. Blocks are cached by content, so that equal pixels are extracted
//! only once.
//!
//! ```text
//! features.json               how the features were extracted (Extraction), the same for every image
//! blocks/<id>.safetensors     "features": [h, w, d], f16 or f32
//! ```

use std::collections::BTreeMap;
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

/// The number format in which features are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoragePrecision {
    /// Half precision: half the size; changes the mean AUROC over seeds in the fourth decimal.
    F16,
    /// Single precision.
    F32,
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
    let header: BTreeMap<String, TensorHeader> = serde_json::from_slice(&head[8..])
        .map_err(|source| ArtifactError::Json { path: file.path.clone(), source })?;
    header.get("features").map(|tensor| tensor.shape).ok_or_else(wrong)
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
