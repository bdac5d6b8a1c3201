//! `ImageSet`: preprocessed images with their masks, labels and splits.
//!
//! ```text
//! pixels/set.json                          how the pixels were made (Preprocessing)
//! pixels/images/<id>.png                   RGB, 8 bits
//! labels/<split>/normal/<id>.png           mask, all 0
//! labels/<split>/defect/<kind>/<id>.png    mask, 0 or 255, of the image's size
//! provenance.csv                           where each image came from (made by augment)
//! ```
//! The label of an image is the folder of its mask, so that a listing alone tells splits and labels:
//! what a stage selects enters its key by name and digest, and nothing else does. `extract` reads only
//! `pixels/`, so that new masks do not rerun it. An id may hold `/` (`train/10000`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::files::write_json;
use super::{ArtifactError, File, Files};

/// The kind of a defect where none is known.
pub const UNKNOWN_KIND: &str = "any";

/// The kind of a defect that an `augment` stage made.
pub const SYNTHETIC_KIND: &str = "synthetic";

/// Folder of what `extract` reads.
pub const PIXELS: &str = "pixels";
/// Folder of masks, labels and splits.
pub const LABELS: &str = "labels";
/// The description of the pixels.
pub const SET: &str = "pixels/set.json";

/// How an image comes to the size of its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Each side by its own factor.
    Stretch,
    /// By the smaller factor, padded.
    Fit,
    /// By the larger factor, the centre cut out.
    Crop,
    /// Not at all.
    Native,
}

/// How a source image became the pixels of a set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Height of the pixels, or none where images keep their own.
    pub height_px: Option<usize>,
    /// Width of the pixels, or none where images keep their own.
    pub width_px: Option<usize>,
    /// How they came to their size.
    pub resize: Resize,
    /// Size before the last resize, where there were two.
    pub via_px: Option<(usize, usize)>,
}

/// Normal or defective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// No pixel is a defect.
    Normal,
    /// Some pixel is.
    Defect,
}

/// What the name of a mask says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageEntry<'a> {
    /// `train`, `test` or the author's own.
    pub split: &'a str,
    /// Normal or defective.
    pub label: Label,
    /// The defect's kind, where it is a defect.
    pub kind: Option<&'a str>,
    /// The image.
    pub id: &'a str,
}

/// Reads `labels/<split>/…/<id>.png`; none for any other file.
pub fn parse_label(name: &str) -> Option<ImageEntry<'_>> {
    let (split, rest) = name.strip_prefix("labels/")?.strip_suffix(".png")?.split_once('/')?;
    if let Some(id) = rest.strip_prefix("normal/") {
        return Some(ImageEntry { split, label: Label::Normal, kind: None, id });
    }
    let (kind, id) = rest.strip_prefix("defect/")?.split_once('/')?;
    Some(ImageEntry { split, label: Label::Defect, kind: Some(kind), id })
}

/// The name of a mask within the set.
pub fn label_name(split: &str, label: Label, kind: &str, id: &str) -> String {
    match label {
        Label::Normal => format!("{LABELS}/{split}/normal/{id}.png"),
        Label::Defect => format!("{LABELS}/{split}/defect/{kind}/{id}.png"),
    }
}

/// The name of an image's pixels within the set.
pub fn pixels_name(id: &str) -> String {
    format!("{PIXELS}/images/{id}.png")
}

/// The image whose pixels have that name, for names within the set or within `pixels/`.
pub fn parse_pixels(name: &str) -> Option<&str> {
    name.strip_prefix("pixels/").unwrap_or(name).strip_prefix("images/")?.strip_suffix(".png")
}

/// Which images of a set are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selection {
    /// Only this split.
    pub split: Option<String>,
    /// Only this label.
    pub label: Option<Label>,
}

impl Selection {
    /// Whether an image is meant.
    pub fn holds(&self, entry: &ImageEntry<'_>) -> bool {
        self.split.as_deref().is_none_or(|split| split == entry.split)
            && self.label.is_none_or(|label| label == entry.label)
    }
}

/// A labelled image of a set, for reading.
#[derive(Clone, Debug)]
pub struct Labelled<'a> {
    /// What its mask's name says.
    pub entry: ImageEntry<'a>,
    /// Its mask.
    pub mask: &'a File,
}

/// Lists the labelled images of a set or of its labels alone, ordered by id.
pub fn labelled(files: &Files) -> BTreeMap<&str, Labelled<'_>> {
    files
        .iter()
        .filter_map(|(name, mask)| parse_label(name).map(|entry| (entry.id, Labelled { entry, mask })))
        .collect()
}

/// Lists the images of a set or of its pixels alone, ordered by id.
pub fn pixels(files: &Files) -> BTreeMap<&str, &File> {
    files.iter().filter_map(|(name, file)| parse_pixels(name).map(|id| (id, file))).collect()
}

/// Writes a set's description into the output folder `set`.
pub fn write_preprocessing(set: &Path, preprocessing: &Preprocessing) -> Result<(), ArtifactError> {
    write_json(&set.join(SET), preprocessing)
}

/// Reads a set's description.
pub fn read_preprocessing(files: &Files) -> Result<Preprocessing, ArtifactError> {
    let file = files.get(SET).or_else(|| files.get("set.json"));
    file.ok_or(ArtifactError::MissingFile { artifact: "ImageSet", file: SET.to_owned() })?.read_json()
}

/// Decodes an image as RGB.
pub fn read_rgb(file: &File) -> Result<RgbImage, ArtifactError> {
    Ok(decode(file)?.into_rgb8())
}

/// Decodes a mask as grey levels.
pub fn read_mask(file: &File) -> Result<GrayImage, ArtifactError> {
    Ok(decode(file)?.into_luma8())
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
