//! How much an artifact holds: the work of the stages that read it follows from this.
//!
//! A size is measured from the listing of an artifact that exists, or expected from the fields of the stages that
//! will make it. Files are not read, but for the headers of a few images if nothing else gives their number of pixels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::ImageFormat;

use super::Artifact;
use super::feature_set::parse_block;
use super::image_set::{ImageEntry, Label, Selection, parse_label};
use crate::kernels::sample::evenly_spaced;

/// Number of images whose headers are read.
const SAMPLED_HEADERS: usize = 8;

/// Extensions of JPEG files that [`ImageFormat`] does not know.
const JPEG: [&str; 2] = ["jpe", "jfif"];
/// Ends of the names of masks, without extension, in the layouts that `preprocess` reads.
const MASK_ENDS: [&str; 3] = ["_GT", "_label", "_mask"];
/// Folders of masks.
const MASK_FOLDERS: [&str; 6] = ["ground_truth", "masks", "mask", "labels", "label", "gt"];
/// Folders of normal images.
const NORMAL_FOLDERS: [&str; 4] = ["good", "ok", "normal", "defect_free"];

/// Folders of splits.
const SPLITS: [&str; 3] = ["train", "test", "validation"];
/// Share of the images that are for training, if folders do not say it (KSDD: two thirds of the parts).
const TRAINING_SHARE: f64 = 2.0 / 3.0;
/// Share of the images with defects, if folders do not say it (KSDD2: 0.11).
const DEFECT_SHARE: f64 = 0.11;

/// How much an artifact holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Size {
    /// Bytes of its files; `None` before it exists.
    pub bytes: Option<f64>,
    /// Its images, or the features of its images; `None` if it has none, or they are unknown.
    pub images: Option<ImageCounts>,
    /// The rows of a bank, or of the banks of a model; `None` if it has none, or they are unknown.
    pub rows: Option<RowCount>,
}

/// The images of an artifact, or the features of images.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageCounts {
    /// How many there are, by split and label.
    pub classes: Vec<ImageClass>,
    /// Pixels of an image, or patches of its features.
    pub positions: f64,
    /// Numbers of a pixel or patch.
    pub channels: f64,
}

/// Images of one split and label.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageClass {
    /// `train`, `test`, or a split that the user defined.
    pub split: String,
    /// The label.
    pub label: Label,
    /// The number of images, or its expected value.
    pub count: f64,
}

/// The rows of a bank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowCount {
    /// The number of rows, or its expected value.
    pub count: f64,
    /// The number of banks that hold them.
    pub banks: f64,
    /// Numbers of a row.
    pub channels: f64,
}

/// The files of an artifact that exists.
pub struct FileList<'a> {
    /// Name and bytes of each file.
    pub files: Vec<(&'a str, u64)>,
    /// Returns the path of a file's content, by its name.
    pub path_of: &'a dyn Fn(&str) -> Option<PathBuf>,
}

impl Size {
    /// Returns the size of images that do not exist yet.
    pub fn of_images(images: ImageCounts) -> Self {
        Self { images: Some(images), ..Self::default() }
    }

    /// Returns the size of rows that do not exist yet.
    pub fn of_rows(rows: RowCount) -> Self {
        Self { rows: Some(rows), ..Self::default() }
    }

    /// Returns how many numbers it holds; `None` if unknown.
    pub fn numbers(&self) -> Option<f64> {
        let images = self.images.as_ref().map(|images| images.total() * images.positions * images.channels);
        let rows = self.rows.map(|rows| rows.count * rows.channels);
        images.or(rows)
    }

    /// Measures an artifact. `expected` is its size as its stage expects it, which says what a listing does not.
    pub fn measure(artifact: Artifact, listing: &FileList<'_>, expected: Option<&Self>) -> Self {
        let images = expected.and_then(|expected| expected.images.as_ref());
        let rows = expected.and_then(|expected| expected.rows);
        let bytes = Some(listing.files.iter().map(|&(_, bytes)| bytes as f64).sum());
        match artifact {
            Artifact::ImageSet => Self { bytes, images: image_set(listing, images), rows: None },
            Artifact::FeatureSet => {
                Self { bytes, images: images.map(|images| features(listing, images)), rows: None }
            }
            Artifact::Bank | Artifact::Model => {
                Self { bytes, images: None, rows: rows.map(|rows| bank_rows(listing, rows)) }
            }
            Artifact::Files | Artifact::Scores | Artifact::Any => {
                Self { bytes, images: loose_images(listing, images), rows: None }
            }
        }
    }
}

impl RowCount {
    /// Returns the rows of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self { count: self.count + other.count, banks: self.banks + other.banks, ..self }
    }
}

impl ImageCounts {
    /// Returns the number of images.
    pub fn total(&self) -> f64 {
        self.classes.iter().map(|class| class.count).sum()
    }

    /// Returns the number of images that a selection holds.
    pub fn selected(&self, selection: &Selection) -> f64 {
        let holds = |class: &&ImageClass| {
            let ImageClass { split, label, count: _ } = class;
            selection.holds(&ImageEntry { split, label: *label, kind: None, id: "" })
        };
        self.classes.iter().filter(holds).map(|class| class.count).sum()
    }
}

/// Returns whether a file is an image of a kind that this build reads, by its name.
pub fn is_image_name(name: &str) -> bool {
    let Some((_, end)) = name.rsplit('/').next().and_then(|file| file.rsplit_once('.')) else { return false };
    let end = end.to_ascii_lowercase();
    JPEG.contains(&end.as_str())
        || ImageFormat::from_extension(&end).is_some_and(|format| format.reading_enabled())
}

/// Counts the labels of an image set.
fn image_set(listing: &FileList<'_>, expected: Option<&ImageCounts>) -> Option<ImageCounts> {
    let mut counts: BTreeMap<(&str, Label), f64> = BTreeMap::new();
    for entry in listing.files.iter().filter_map(|&(name, _)| parse_label(name)) {
        *counts.entry((entry.split, entry.label)).or_default() += 1.0;
    }
    let positions = expected.map(|expected| expected.positions).or_else(|| {
        let names = listing.files.iter().map(|&(name, _)| name);
        mean_pixels(names.filter(|name| name.starts_with("pixels/") && is_image_name(name)), listing.path_of)
    })?;
    Some(ImageCounts { classes: classes(counts), positions, channels: 3.0 })
}

fn classes(counts: BTreeMap<(&str, Label), f64>) -> Vec<ImageClass> {
    let class =
        |((split, label), count): ((&str, Label), f64)| ImageClass { split: split.to_owned(), label, count };
    counts.into_iter().map(class).collect()
}

/// Scales the expected classes to the number of blocks.
fn features(listing: &FileList<'_>, expected: &ImageCounts) -> ImageCounts {
    let blocks = listing.files.iter().filter(|(name, _)| parse_block(name).is_some()).count() as f64;
    let factor = blocks / expected.total().max(1.0);
    let class = |class: &ImageClass| ImageClass { count: class.count * factor, ..class.clone() };
    ImageCounts { classes: expected.classes.iter().map(class).collect(), ..*expected }
}

/// Divides the bytes of the rows by those of one: `channels` numbers, its image and its patch, four bytes each.
fn bank_rows(listing: &FileList<'_>, expected: RowCount) -> RowCount {
    let banks: Vec<f64> = listing
        .files
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .map(|&(_, bytes)| bytes as f64)
        .collect();
    let count = banks.iter().sum::<f64>() / (4.0 * expected.channels + 8.0);
    RowCount { count, banks: banks.len() as f64, ..expected }
}

/// Counts the images of a folder in any layout, by the names of its files and folders.
fn loose_images(listing: &FileList<'_>, expected: Option<&ImageCounts>) -> Option<ImageCounts> {
    let names = || listing.files.iter().map(|&(name, _)| name).filter(|name| is_loose_image(name));
    let count = names().count() as f64;
    if let Some(expected) = expected.filter(|expected| (expected.total() - count).abs() < 0.5) {
        return Some(expected.clone());
    }
    let positions = mean_pixels(names(), listing.path_of)?;
    let is_sorted = names().any(is_normal);
    let mut counts = BTreeMap::new();
    for name in names() {
        for (split, of_split) in splits(name) {
            for (label, of_label) in labels(name, is_sorted) {
                *counts.entry((split, label)).or_default() += of_split * of_label;
            }
        }
    }
    Some(ImageCounts { classes: classes(counts), positions, channels: 3.0 })
}

/// Whether a file is an image and, by its name, no mask.
fn is_loose_image(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let mut folders = name.split('/');
    is_image_name(name)
        && !MASK_ENDS.iter().any(|end| stem.ends_with(end))
        && folders.all(|part| !MASK_FOLDERS.contains(&part) && !part.starts_with('.') && part != "__MACOSX")
}

/// The share of an image that counts for each split.
fn splits(name: &str) -> Vec<(&'static str, f64)> {
    match name.split('/').find_map(|part| SPLITS.into_iter().find(|split| *split == part)) {
        Some(split) => vec![(split, 1.0)],
        None => vec![("train", TRAINING_SHARE), ("test", 1.0 - TRAINING_SHARE)],
    }
}

/// Whether a folder says that an image is normal.
fn is_normal(name: &str) -> bool {
    name.split('/').any(|part| NORMAL_FOLDERS.iter().any(|folder| folder.eq_ignore_ascii_case(part)))
}

/// The share of an image that counts for each label. `is_sorted`: normal images have folders of their own.
fn labels(name: &str, is_sorted: bool) -> Vec<(Label, f64)> {
    match (is_sorted, is_normal(name)) {
        (true, true) => vec![(Label::Normal, 1.0)],
        (true, false) => vec![(Label::Defect, 1.0)],
        (false, _) => vec![(Label::Normal, 1.0 - DEFECT_SHARE), (Label::Defect, DEFECT_SHARE)],
    }
}

/// The mean number of pixels of a sample of images; `None` without an image that can be read.
fn mean_pixels<'a>(
    names: impl Iterator<Item = &'a str>,
    path_of: &dyn Fn(&str) -> Option<PathBuf>,
) -> Option<f64> {
    let names: Vec<&str> = names.collect();
    let sample = evenly_spaced(names.len(), SAMPLED_HEADERS).map(|index| names[index]);
    let pixels: Vec<f64> = sample.filter_map(|name| pixels_of(&path_of(name)?)).collect();
    (!pixels.is_empty()).then(|| pixels.iter().sum::<f64>() / pixels.len() as f64)
}

/// The number of pixels of an image, from its header.
fn pixels_of(path: &Path) -> Option<f64> {
    let reader = image::ImageReader::open(path).ok()?.with_guessed_format().ok()?;
    let (width, height) = reader.into_dimensions().ok()?;
    Some(f64::from(width) * f64::from(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::image_set::write_rgb;

    fn selection(split: &str, label: Option<Label>) -> Selection {
        Selection { split: Some(split.to_owned()), label }
    }

    fn measure(artifact: Artifact, names: &[&str], expected: Option<&Size>) -> Size {
        let folder = tempfile::tempdir().unwrap();
        let picture = folder.path().join("picture.png");
        write_rgb(&picture, &image::RgbImage::new(6, 4)).unwrap();
        let files = names.iter().map(|&name| (name, 100)).collect();
        Size::measure(artifact, &FileList { files, path_of: &|_| Some(picture.clone()) }, expected)
    }

    #[test]
    fn images_are_counted_by_split_and_label_and_masks_are_none() {
        let names =
            ["d/train/1.png", "d/train/1_GT.png", "d/test/2.JPG", "d/test/2_GT.png", "d/read.me", ".x/3.png"];
        let size = measure(Artifact::Files, &names, None);
        let images = size.images.unwrap();
        assert!((images.total() - 2.0).abs() < 1e-12 && (images.positions - 24.0).abs() < 1e-12);
        assert!((images.selected(&selection("train", None)) - 1.0).abs() < 1e-12);
        assert!((images.selected(&selection("test", Some(Label::Defect))) - DEFECT_SHARE).abs() < 1e-12);
        assert_eq!(size.bytes, Some(600.0));

        let mvtec =
            ["train/good/1.png", "test/good/2.png", "test/crack/3.png", "ground_truth/crack/3_mask.png"];
        let images = measure(Artifact::Files, &mvtec, None).images.unwrap();
        let counted = |split: &str, label| images.selected(&selection(split, Some(label)));
        assert!((counted("test", Label::Defect) - 1.0).abs() < 1e-12);
        assert!(
            (counted("train", Label::Normal) - 1.0).abs() < 1e-12 && counted("train", Label::Defect) < 1e-12
        );

        let set = ["pixels/set.json", "pixels/images/1.png", "labels/train/defect/any/1.png"];
        let images = measure(Artifact::ImageSet, &set, None).images.unwrap();
        assert!((images.selected(&selection("train", Some(Label::Defect))) - 1.0).abs() < 1e-12);
        assert_eq!(measure(Artifact::Files, &["weights.pth"], None).images, None);
    }

    #[test]
    fn a_listing_corrects_what_was_expected() {
        let class = ImageClass { split: "train".to_owned(), label: Label::Normal, count: 10.0 };
        let images = ImageCounts { classes: vec![class], positions: 12.0, channels: 4.0 };
        let expected = Size::of_images(images);
        let blocks = ["features.json", "blocks/1.safetensors", "blocks/2.safetensors"];
        let features = measure(Artifact::FeatureSet, &blocks, Some(&expected));
        assert_eq!(features.numbers(), Some(2.0 * 12.0 * 4.0));
        assert_eq!(measure(Artifact::FeatureSet, &blocks, None).images, None, "patches are in no listing");

        let rows = Size::of_rows(RowCount { count: 1.0, banks: 1.0, channels: 23.0 });
        let model = measure(
            Artifact::Model,
            &["model.json", "normal.safetensors", "defect.safetensors"],
            Some(&rows),
        );
        assert_eq!(model.rows, Some(RowCount { count: 2.0, banks: 2.0, channels: 23.0 }));
    }
}
