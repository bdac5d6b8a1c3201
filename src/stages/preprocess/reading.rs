//! The fields of a `preprocess` stage that say how its input is read: layout, split, labels, empty masks, duplicates.

use serde::{Deserialize, Serialize};

use super::annotation::RULES;
use super::layout::Layout;
use super::names;
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::digest::Digest;
use crate::kernels::polygon::PixelRule;
use crate::kernels::random::Rng;
use crate::stages::StageError;
use crate::stages::fields::{Fields, Reader, name_of};

/// Share of the normal images that are for testing if the data set has no split (chosen; anomalib: 0.2).
const TEST_SHARE: f64 = 0.3;
/// The same for defective images: all of them, because only a second bank needs some in the training split.
const TEST_SHARE_OF_DEFECTS: f64 = 1.0;

/// What becomes of an image that is labelled as defective, but whose mask marks nothing or is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmptyMask {
    /// It is defective, and no pixel metric counts its pixels.
    WithoutRegion,
    /// It is normal.
    Normal,
    /// It is not part of the set.
    LeaveOut,
    /// It is an error.
    Refuse,
}

const EMPTY_MASKS: [(&str, EmptyMask); 4] = [
    ("without_region", EmptyMask::WithoutRegion),
    ("normal", EmptyMask::Normal),
    ("leave_out", EmptyMask::LeaveOut),
    ("refuse", EmptyMask::Refuse),
];

/// What happens if the same picture is in the training and in the test split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Duplicates {
    /// A warning.
    Warn,
    /// An error.
    Refuse,
}

const DUPLICATES: [(&str, Duplicates); 2] = [("warn", Duplicates::Warn), ("refuse", Duplicates::Refuse)];

/// Fields that only some layouts read. A row of the table of layouts names those that it reads.
const OF_LAYOUTS: [&str; 9] = [
    "csv",
    "defect_classes",
    "fold",
    "normal_folders",
    "polygon_rule",
    "split_file",
    "split_seed",
    "test_share",
    "test_share_of_defects",
];

/// How the input is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Layout of the input; `None` if it is detected.
    pub layout: Option<Layout>,
    /// Path of the table of a `csv` layout, relative to the input.
    pub csv: String,
    /// For a `ksdd` layout: which third of the folders is for testing.
    pub fold: usize,
    /// The folder of one category, if the input holds several.
    pub category: Option<String>,
    /// Path of the shipped list of the split, relative to the input. `None` for that of the layout.
    pub split_file: Option<String>,
    /// Names of the folders of normal images. If empty, they are recognised by their names.
    pub normal_folders: Vec<String>,
    /// Classes of annotations that are defects. If empty, all are.
    pub defect_classes: Vec<String>,
    /// How polygons become pixels; `None` for the rule of their format.
    pub polygon_rule: Option<PixelRule>,
    /// Share of the normal images that are for testing if the data set has no split.
    pub test_share: f64,
    /// The same for defective images.
    pub test_share_of_defects: f64,
    /// Seed of that split.
    pub split_seed: u64,
    /// What becomes of a defective image whose mask marks nothing.
    pub empty_mask: EmptyMask,
    /// What happens if the same picture is in both splits.
    pub duplicates: Duplicates,
}

impl Reading {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let layout = reader.choice("layout", &Layout::choices(), Some("auto"));
        if let Some(layout) = layout {
            check_layout_fields(reader, layout);
        }
        Self {
            layout,
            csv: reader.text("csv").unwrap_or_else(|| "images.csv".to_owned()),
            fold: reader.integer("fold", 0..=2, Some(0)) as usize,
            category: reader.text("category"),
            split_file: reader.text("split_file"),
            normal_folders: reader.text_or_texts("normal_folders"),
            defect_classes: reader.text_or_texts("defect_classes"),
            polygon_rule: reader.choice("polygon_rule", &RULES, Some("auto")),
            test_share: reader.float("test_share", 0.0..=1.0, Some(TEST_SHARE)),
            test_share_of_defects: reader.float(
                "test_share_of_defects",
                0.0..=1.0,
                Some(TEST_SHARE_OF_DEFECTS),
            ),
            split_seed: reader.integer("split_seed", 0..=i64::MAX, Some(0)) as u64,
            empty_mask: reader.choice("empty_mask", &EMPTY_MASKS, Some("without_region")),
            duplicates: reader.choice("duplicates", &DUPLICATES, Some("warn")),
        }
    }

    /// Returns the fields of the key. `csv` and `fold` enter only if the layout may read them. The fields that came later
    /// enter only if they do not have their default, so that keys without them stayed as they were.
    pub(super) fn key_fields(&self) -> Fields {
        let Self {
            layout,
            csv,
            fold,
            category,
            split_file,
            normal_folders,
            defect_classes,
            polygon_rule,
            test_share,
            test_share_of_defects,
            split_seed,
            empty_mask,
            duplicates,
        } = self;
        let mut all = Fields::new();
        let may_read = |field: &str| layout.is_none_or(|layout| layout.reads(field));
        let mut add = |name: &str, is_in: bool, value: crate::stages::fields::Value| {
            if is_in {
                all.insert(name.to_owned(), value);
            }
        };
        add("layout", true, layout.map_or("auto", Layout::name).into());
        add("csv", may_read("csv"), csv.as_str().into());
        add("fold", may_read("fold"), (*fold).into());
        add("category", category.is_some(), category.as_deref().unwrap_or_default().into());
        add("split_file", split_file.is_some(), split_file.as_deref().unwrap_or_default().into());
        add("normal_folders", !normal_folders.is_empty(), normal_folders.clone().into());
        add("defect_classes", !defect_classes.is_empty(), defect_classes.clone().into());
        add("polygon_rule", polygon_rule.is_some(), name_of(&RULES, polygon_rule).into());
        add("test_share", differs(*test_share, TEST_SHARE), (*test_share).into());
        let of_defects = *test_share_of_defects;
        add("test_share_of_defects", differs(of_defects, TEST_SHARE_OF_DEFECTS), of_defects.into());
        add("split_seed", *split_seed != 0, (*split_seed).into());
        let is_default = *empty_mask == EmptyMask::WithoutRegion;
        add("empty_mask", !is_default, name_of(&EMPTY_MASKS, empty_mask).into());
        add("duplicates", *duplicates != Duplicates::Warn, name_of(&DUPLICATES, duplicates).into());
        all
    }

    /// Returns whether a folder holds normal images.
    pub(super) fn is_normal(&self, folder: &str) -> bool {
        if self.normal_folders.is_empty() {
            names::is_normal_word(folder)
        } else {
            self.normal_folders.iter().any(|normal| normal == folder)
        }
    }

    /// Returns the label that a folder gives to its images.
    pub(super) fn label_of(&self, folder: &str) -> Label {
        if self.is_normal(folder) { Label::Normal } else { Label::Defect }
    }

    /// Returns whether an image of a data set without a split is for testing. This depends on its bytes and the seed
    /// alone: adding, removing or renaming an image moves no other one, and copies are on the same side.
    ///
    /// # Errors
    /// [`StageError::Io`] if the file cannot be read.
    pub(super) fn is_for_testing(&self, image: &File, label: Label) -> Result<bool, StageError> {
        let digest = match image.digest {
            Some(digest) => digest,
            None => {
                Digest::of_file(&image.path).map_err(|source| StageError::io("read", &image.path, source))?
            }
        };
        let share = match label {
            Label::Normal => self.test_share,
            Label::Defect => self.test_share_of_defects,
        };
        Ok(Rng::new(self.split_seed, &format!("split {digest}")).uniform() < share)
    }
}

fn differs(number: f64, default: f64) -> bool {
    number.to_bits() != default.to_bits()
}

/// Refuses fields that the given layout does not read.
fn check_layout_fields(reader: &mut Reader<'_>, layout: Layout) {
    for name in OF_LAYOUTS {
        if reader.has(name) && !layout.reads(name) {
            let message = format!("`{name}` has no meaning with `layout = \"{}\"`", layout.name());
            let owners: Vec<String> = Layout::all()
                .filter(|layout| layout.reads(name))
                .map(|of| format!("`{}`", of.name()))
                .collect();
            let help = format!("remove it; the layouts that read it: {}", owners.join(", "));
            reader.problem(name, "unused_field", message, Some(help));
        }
    }
}
