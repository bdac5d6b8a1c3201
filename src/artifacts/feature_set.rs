//! `FeatureSet`: patch features, one block per image. Blocks are cached by content, so that equal pixels are extracted
//! only once.
//!
//! ```text
//! features.json               how the features were extracted (Extraction), the same for every image
//! blocks/<id>.safetensors     "features": [h, w, d], f16 or f32
//!                             "frame": [1, 1, 4], i64 (only of padded images): top, left, height, width
//! ```
//! A block has no features of the padding around its image. If there is any, "frame" says where the patches lie in the
//! grid of the padded image: first row and column, and the size of the grid.
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
    /// Where the patches lie in the grid of a padded image; `None` if the image has no padding.
    pub frame: Option<Frame>,
}

/// Where the patches of an image lie in the grid of its padded image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows of the grid.
    pub height: usize,
    /// Columns of the grid.
    pub width: usize,
}

impl Block {
    /// Makes a block of the features of a padded image: `[height, width, d]` on the whole grid. `inside` is the box of the
    /// image in the padded image of `size` px: top, left, height and width. Keeps the patches of which the image covers
    /// half or more in each direction, and at least one row and column.
    pub fn of_padded(
        [height, width, d]: [usize; 3],
        data: &[f32],
        inside: [usize; 4],
        size: (usize, usize),
    ) -> Self {
        let rows = covered(inside[0], inside[2], size.0, height);
        let columns = covered(inside[1], inside[3], size.1, width);
        let frame = Frame { top: rows.start, left: columns.start, height, width };
        let row = |row: usize| &data[(row * width + columns.start) * d..(row * width + columns.end) * d];
        let kept = rows.clone().flat_map(row).copied().collect();
        Self { height: rows.len(), width: columns.len(), d, data: kept, frame: Some(frame) }
    }

    /// Returns a map of the patches on the grid of the padded image: the padding takes the value of the nearest patch.
    pub fn on_grid(&self, map: &[f32]) -> (Vec<f32>, [usize; 2]) {
        let Some(frame) = self.frame else { return (map.to_vec(), [self.height, self.width]) };
        let near = |index: usize, first: usize, count: usize| index.saturating_sub(first).min(count - 1);
        let value = |row: usize, column: usize| {
            map[near(row, frame.top, self.height) * self.width + near(column, frame.left, self.width)]
        };
        let cells = (0..frame.height).flat_map(|row| (0..frame.width).map(move |column| (row, column)));
        (cells.map(|(row, column)| value(row, column)).collect(), [frame.height, frame.width])
    }
}

/// Returns the cells of a grid of `cells` over `side` px that `start..start + length` covers to a half or more.
fn covered(start: usize, length: usize, side: usize, cells: usize) -> std::ops::Range<usize> {
    // In units of 1/cells px, a cell has `side` of them.
    let (from, to) = (start * cells, (start + length) * cells);
    let covers = |cell: &usize| {
        let shared = to.min((cell + 1) * side).saturating_sub(from.max(cell * side));
        2 * shared >= side
    };
    let first = (0..cells).find(covers);
    let last = (0..cells).rev().find(covers);
    if let (Some(first), Some(last)) = (first, last) {
        return first..last + 1;
    }
    let middle = ((from + to) / (2 * side)).min(cells - 1);
    middle..middle + 1
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
    let frame = block.frame.map(|frame| {
        let Frame { top, left, height, width } = frame;
        [top, left, height, width]
            .iter()
            .flat_map(|&number| (number as i64).to_le_bytes())
            .collect::<Vec<u8>>()
    });
    let mut tensors = vec![("features", view)];
    if let Some(frame) = &frame {
        tensors.push(("frame", TensorView::new(Dtype::I64, vec![1, 1, 4], frame).map_err(error)?));
    }
    let file = safetensors::serialize(tensors, None).map_err(error)?;
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
    Ok(Block { height, width, d, data, frame: frame(&tensors, wrong)? })
}

/// Reads the frame; `None` if the block has none. `wrong` makes the error of a malformed one.
fn frame(
    tensors: &SafeTensors<'_>,
    wrong: impl Fn() -> ArtifactError,
) -> Result<Option<Frame>, ArtifactError> {
    let Ok(view) = tensors.tensor("frame") else { return Ok(None) };
    let number = |bytes: &[u8]| usize::try_from(i64::from_le_bytes(bytes.try_into().ok()?)).ok();
    let numbers: Option<Vec<usize>> = view.data().chunks_exact(8).map(number).collect();
    let [top, left, height, width] = numbers.unwrap_or_default()[..] else { return Err(wrong()) };
    Ok(Some(Frame { top, left, height, width }))
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
    let no_tensor =
        |_| BlockFault::NoTensor { found: tensors.names().into_iter().map(ToString::to_string).collect() };
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
    if (old.height, old.width, old.d, old.frame) != (new.height, new.width, new.d, new.frame) {
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
    frame: Option<serde::de::IgnoredAny>,
}

/// A tensor in a safetensors header, without the fields that are not used.
#[derive(Deserialize)]
struct TensorHeader {
    shape: [usize; 3],
}

/// Reads the shape of a block, `[h, w, d]`, without its values.
pub fn read_shape(file: &File) -> Result<[usize; 3], ArtifactError> {
    let wrong = || ArtifactError::Tensor {
        path: file.path.clone(),
        tensor: "features".to_owned(),
        expected: "[h, w, d] of f16 or f32".to_owned(),
    };
    read_header(file)?.features.map(|tensor| tensor.shape).ok_or_else(wrong)
}

/// Reads where the patches of a block lie in a padded image; `None` without padding. Reads the values only if there is any.
pub fn read_frame(file: &File) -> Result<Option<Frame>, ArtifactError> {
    if read_header(file)?.frame.is_some() { Ok(read_block(file)?.frame) } else { Ok(None) }
}

fn read_header(file: &File) -> Result<BlockHeader, ArtifactError> {
    use std::io::Read;
    let io = |source| ArtifactError::Io { path: file.path.clone(), source };
    let mut open = std::fs::File::open(&file.path).map_err(io)?;
    let mut head = vec![0; 8];
    open.read_exact(&mut head).map_err(io)?;
    let length = head.iter().rev().fold(0_u64, |length, &byte| (length << 8) | u64::from(byte));
    open.take(length.min(MAX_HEADER_BYTES)).read_to_end(&mut head).map_err(io)?;
    serde_json::from_slice(&head[8..])
        .map_err(|source| ArtifactError::Json { path: file.path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_compared_by_their_norms() {
        let block = |data: &[f32]| Block { height: 1, width: 2, d: 1, data: data.to_vec(), frame: None };
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
        let data = vec![0.0, 1.0, -2.5, 0.1, 3.0, 1000.0];
        let block = Block { height: 2, width: 1, d: 3, data, frame: None };
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

    #[test]
    fn a_padded_block_keeps_the_patches_of_its_image() {
        // 4 × 2 cells of 8 px over 32 × 16 px; the image covers rows 10 to 25: row 1 to 6/8, row 3 to 2/8.
        let data: Vec<f32> = (0..8).map(|cell| cell as f32).collect();
        let block = Block::of_padded([4, 2, 1], &data, [10, 0, 16, 16], (32, 16));
        assert_eq!((block.height, block.width), (2, 2));
        assert_eq!(block.data, [2.0, 3.0, 4.0, 5.0]);
        let (map, grid) = block.on_grid(&block.data);
        assert_eq!(grid, [4, 2]);
        assert_eq!(map, [2.0, 3.0, 2.0, 3.0, 4.0, 5.0, 4.0, 5.0]);
        let thin = Block::of_padded([4, 2, 1], &data, [15, 0, 2, 16], (32, 16));
        assert_eq!((thin.height, thin.frame.unwrap().top), (1, 2), "at least one row remains");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("block");
        write_block(&path, &block, StoragePrecision::F32).unwrap();
        let file = File { path, digest: None, size_bytes: 0, is_executable: false };
        assert_eq!(read_block(&file).unwrap(), block);
        assert_eq!((read_shape(&file).unwrap(), read_frame(&file).unwrap()), ([2, 2, 1], block.frame));
    }
}
