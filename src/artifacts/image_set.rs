//! `ImageSet`: preprocessed images with their masks, labels and splits.
//!
//! ```text
//! pixels/set.json                          how the images were preprocessed (Preprocessing)
//! pixels/images/<id>.png                   RGB, 8 bits
//! pixels/padding.json                      where the images lie within their padding (only if one has any)
//! labels/<split>/normal/<id>.png           mask, all 0
//! labels/<split>/defect/<kind>/<id>.png    mask, 0 or 255, of the size of the image
//! provenance.csv                           the origin of each image (only from `augment`)
//! samples.png                              the first images with their masks (only from `augment`)
//! ```
//! The folder of a mask gives the split and the label of its image, so that a listing of names is enough to select
//! images: only the names and digests of the selected files enter the key of a stage. `extract` reads only `pixels/`,
//! so new masks do not rerun it. A pixel of a mask is 128 if no metric may count it: in the padding around an image, and
//! everywhere if an image is defective and nothing says where. An id may contain `/` (`train/10000`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::files::write_json;
use super::{ArtifactError, File, Files};

/// The kind of a defect if the data set does not name kinds.
pub const UNKNOWN_KIND: &str = "any";

/// The kind of the synthetic defects of an `augment` stage.
pub const SYNTHETIC_KIND: &str = "synthetic";

/// The level of a mask's pixels that no metric counts: padding, and images whose defects have no region.
pub const UNCOUNTED: u8 = 128;

/// File name of the boxes of padded images.
pub const PADDING: &str = "pixels/padding.json";

/// Folder of the images, and the only one that `extract` reads.
pub const PIXELS: &str = "pixels";
/// Folder of the masks, by split and label.
pub const LABELS: &str = "labels";
/// File name of the description of the preprocessing.
pub const SET: &str = "pixels/set.json";

/// How images are resized to the size of their set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Each side by its own factor.
    Stretch,
    /// Both sides by the smaller factor, then padded.
    Fit,
    /// Both sides by the larger factor, then cropped to the centre.
    Crop,
    /// Not resized.
    Native,
}

/// How source images were converted to the images of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height of the images; `None` if each keeps its own.
    pub height_px: Option<usize>,
    /// Width of the images; `None` if each keeps its own.
    pub width_px: Option<usize>,
    /// How they were resized.
    pub resize: Resize,
    /// Size (height, width) between two resizes; `None` if there was at most one.
    pub via_px: Option<(usize, usize)>,
    /// Bits per level that are in use in source images with 16 bits per level; `None` if there were no such images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth_bits: Option<u8>,
}

/// The label of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The image has no defect.
    Normal,
    /// The image has at least one defect.
    Defect,
}

/// What the file name of a mask says about its image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageEntry<'a> {
    /// `train`, `test`, or a split that the user defined.
    pub split: &'a str,
    /// The label.
    pub label: Label,
    /// The kind of the defect; `None` for a normal image.
    pub kind: Option<&'a str>,
    /// The id of the image.
    pub id: &'a str,
}

/// Parses `labels/<split>/…/<id>.png`; `None` for any other name.
pub fn parse_label(name: &str) -> Option<ImageEntry<'_>> {
    let (split, rest) = name.strip_prefix("labels/")?.strip_suffix(".png")?.split_once('/')?;
    if let Some(id) = rest.strip_prefix("normal/") {
        return Some(ImageEntry { split, label: Label::Normal, kind: None, id });
    }
    let (kind, id) = rest.strip_prefix("defect/")?.split_once('/')?;
    Some(ImageEntry { split, label: Label::Defect, kind: Some(kind), id })
}

/// Returns the file name of a mask within the set. `kind` is not used for normal images.
pub fn label_name(split: &str, label: Label, kind: &str, id: &str) -> String {
    match label {
        Label::Normal => format!("{LABELS}/{split}/normal/{id}.png"),
        Label::Defect => format!("{LABELS}/{split}/defect/{kind}/{id}.png"),
    }
}

/// Returns the file name of an image within the set.
pub fn pixels_name(id: &str) -> String {
    format!("{PIXELS}/images/{id}.png")
}

/// Returns the id of an image's file name, which is relative to the set or to `pixels/`; `None` for other files.
pub fn parse_pixels(name: &str) -> Option<&str> {
    name.strip_prefix("pixels/").unwrap_or(name).strip_prefix("images/")?.strip_suffix(".png")
}

/// Which images of a set are selected.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// Only images of this split; `None` for every split.
    pub split: Option<String>,
    /// Only images with this label; `None` for both.
    pub label: Option<Label>,
}

impl Selection {
    /// Returns whether an image is selected.
    pub fn holds(&self, entry: &ImageEntry<'_>) -> bool {
        self.split.as_deref().is_none_or(|split| split == entry.split)
            && self.label.is_none_or(|label| label == entry.label)
    }
}

/// A labelled image of a set.
#[derive(Clone, Debug)]
pub struct Labelled<'a> {
    /// Split, label, kind and id.
    pub entry: ImageEntry<'a>,
    /// The mask.
    pub mask: &'a File,
}

/// Returns the labelled images of a set, or of its labels alone, ordered by id.
pub fn labelled(files: &Files) -> BTreeMap<&str, Labelled<'_>> {
    files
        .iter()
        .filter_map(|(name, mask)| parse_label(name).map(|entry| (entry.id, Labelled { entry, mask })))
        .collect()
}

/// Returns the images of a set, or of its pixels alone, as (id, file), ordered by id.
pub fn pixels(files: &Files) -> BTreeMap<&str, &File> {
    files.iter().filter_map(|(name, file)| parse_pixels(name).map(|id| (id, file))).collect()
}

/// Writes the description of the preprocessing into the output folder `set`.
pub fn write_preprocessing(set: &Path, preprocessing: &Preprocessing) -> Result<(), ArtifactError> {
    write_json(&set.join(SET), preprocessing)
}

/// Reads the description of the preprocessing.
pub fn read_preprocessing(files: &Files) -> Result<Preprocessing, ArtifactError> {
    let file = files.get(SET).or_else(|| files.get("set.json"));
    file.ok_or(ArtifactError::MissingFile { artifact: "ImageSet", file: SET.to_owned() })?.read_json()
}

/// Decodes an image as RGB.
pub fn read_rgb(file: &File) -> Result<RgbImage, ArtifactError> {
    Ok(decode(file)?.into_rgb8())
}

/// Decodes a mask: defects are 255, everything else is 0.
pub fn read_mask(file: &File) -> Result<GrayImage, ArtifactError> {
    let mut mask = decode(file)?.into_luma8();
    mask.iter_mut().filter(|level| **level == UNCOUNTED).for_each(|level| *level = 0);
    Ok(mask)
}

/// A mask with the part of it that metrics count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Defects are not 0.
    pub mask: GrayImage,
    /// The part that counts; `None` if nothing says where the defects are.
    pub counted: Option<Region>,
}

/// A rectangle in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Region {
    /// Cuts the region out of `[height, width]` values with rows of `width` values.
    pub fn cut<T: Copy>(&self, values: &[T], width: usize) -> Vec<T> {
        let rows = values.chunks_exact(width.max(1)).skip(self.top).take(self.height);
        rows.flat_map(|row| row[self.left..self.left + self.width].iter().copied()).collect()
    }
}

/// Decodes a mask with the part of it that metrics count. Uncounted pixels must be around that part.
pub fn read_truth(file: &File) -> Result<Truth, ArtifactError> {
    let mut mask = decode(file)?.into_luma8();
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let is_counted = |row: usize, column: usize| mask.as_raw()[row * width + column] != UNCOUNTED;
    let rows: Vec<usize> =
        (0..height).filter(|&row| (0..width).any(|column| is_counted(row, column))).collect();
    let columns: Vec<usize> =
        (0..width).filter(|&column| (0..height).any(|row| is_counted(row, column))).collect();
    let counted = match (rows.first(), rows.last(), columns.first(), columns.last()) {
        (Some(&top), Some(&bottom), Some(&left), Some(&right)) => {
            Some(Region { top, left, height: bottom - top + 1, width: right - left + 1 })
        }
        _ => None,
    };
    let is_whole = counted.is_none_or(|region| !region.cut(mask.as_raw(), width).contains(&UNCOUNTED));
    if !is_whole {
        return Err(ArtifactError::Mask { path: file.path.clone() });
    }
    mask.iter_mut().filter(|level| **level == UNCOUNTED).for_each(|level| *level = 0);
    Ok(Truth { mask, counted })
}

/// Writes the boxes of padded images: top, left, height and width in px, by id. Writes nothing without any.
pub fn write_padding(set: &Path, boxes: &BTreeMap<&str, [usize; 4]>) -> Result<(), ArtifactError> {
    if boxes.is_empty() { Ok(()) } else { write_json(&set.join(PADDING), boxes) }
}

/// Reads the boxes of padded images, by id.
pub fn read_padding(files: &Files) -> Result<BTreeMap<String, [usize; 4]>, ArtifactError> {
    let file = files.get(PADDING).or_else(|| files.get("padding.json"));
    file.map_or_else(|| Ok(BTreeMap::new()), File::read_json)
}

fn decode(file: &File) -> Result<image::DynamicImage, ArtifactError> {
    let error = |source| ArtifactError::Image { path: file.path.clone(), source };
    let bytes = file.read()?;
    image::load_from_memory(&bytes).map_err(error)
}

/// Encodes an RGB image as PNG.
pub fn write_rgb(path: &Path, image: &RgbImage) -> Result<(), ArtifactError> {
    encode(path, image.as_raw(), image.width(), image.height(), image::ExtendedColorType::Rgb8)
}

/// Encodes a mask as PNG.
pub fn write_mask(path: &Path, mask: &GrayImage) -> Result<(), ArtifactError> {
    encode(path, mask.as_raw(), mask.width(), mask.height(), image::ExtendedColorType::L8)
}

fn encode(
    path: &Path,
    raw: &[u8],
    width: u32,
    height: u32,
    color: image::ExtendedColorType,
) -> Result<(), ArtifactError> {
    use image::ImageEncoder;
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(raw, width, height, color)
        .map_err(|source| ArtifactError::Image { path: PathBuf::from(path), source })?;
    super::files::write(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_name_says_split_label_kind_and_id() {
        let name = label_name("test", Label::Defect, "scratch", "test/000");
        assert_eq!(name, "labels/test/defect/scratch/test/000.png");
        let entry = parse_label(&name).unwrap();
        assert_eq!((entry.split, entry.kind, entry.id), ("test", Some("scratch"), "test/000"));
        let name = label_name("train", Label::Normal, UNKNOWN_KIND, "10001");
        assert_eq!(parse_label(&name).unwrap().label, Label::Normal);
        assert_eq!(parse_label("pixels/images/1.png"), None);
    }
}
