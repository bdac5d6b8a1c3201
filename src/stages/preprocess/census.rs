//! Counts what was read, by split and label, and checks that it is enough.

use std::collections::BTreeMap;

use super::item::{LabelledItem, Meaning};
use super::layout::{Source, TEST, TRAIN};
use super::reading::EmptyMask;
use super::spec::Preprocess;
use crate::artifacts::image_set::Label;
use crate::stages::{Progress, StageError};
use crate::text::counted;

/// Number of images that a warning names.
const NAMED_IMAGES: usize = 3;

/// The counts of a split: normal, defective, and of the defective ones those without a region.
#[derive(Clone, Copy, Default)]
struct Counts {
    normal: usize,
    defect: usize,
    without_region: usize,
}

impl Counts {
    fn text(self, split: &str) -> String {
        let Self { normal, defect, without_region } = self;
        let region = if without_region > 0 && without_region < defect {
            format!(", {without_region} of them without a region")
        } else if without_region > 0 {
            " without a region".to_owned()
        } else {
            String::new()
        };
        format!("`{split}` with {normal} normal and {}{region}", counted(defect, "defective image"))
    }
}

/// Notes the counts. Checks that the splits `train` and `test` have images, and that there are defects to crop if `crops`
/// is set.
pub(super) fn report_and_check(
    sources: &[Source<'_>],
    items: &[LabelledItem],
    spec: &Preprocess,
    progress: &dyn Progress,
) -> Result<(), StageError> {
    let mut splits: BTreeMap<&str, Counts> = BTreeMap::new();
    for (source, item) in sources.iter().zip(items).filter(|(_, item)| item.meaning != Meaning::LeftOut) {
        let counts = splits.entry(&source.split).or_default();
        match item.meaning {
            Meaning::Labelled(Label::Normal) => counts.normal += 1,
            Meaning::Labelled(Label::Defect) => counts.defect += 1,
            Meaning::WithoutRegion => {
                counts.defect += 1;
                counts.without_region += 1;
            }
            Meaning::LeftOut => {}
        }
    }
    let found: Vec<String> = splits.iter().map(|(split, counts)| counts.text(split)).collect();
    let found = found.join(", ");
    progress.note(&format!("read: {found}"));
    for split in [TRAIN, TEST] {
        if !splits.contains_key(split) {
            return Err(StageError::data(
                format!("no image is in the split `{split}`; found {found}"),
                "the data set needs the splits `train` and `test`: see `layout`, and `test_share` for data without a split",
            ));
        }
    }
    let of_train = splits[TRAIN];
    if spec.crops.is_some() && of_train.defect == of_train.without_region {
        return Err(StageError::data(
            format!("`crops` would be empty: the training split has no defect with a region; found {found}"),
            "remove `crops`",
        ));
    }
    Ok(())
}

/// Warns of defective images without a mark in a set that has masks.
pub(super) fn report_unmarked(
    how: EmptyMask,
    sources: &[Source<'_>],
    items: &[LabelledItem],
    progress: &dyn Progress,
) {
    let is_unmarked = |(source, item): &(&Source<'_>, &LabelledItem)| {
        source.label == Some(Label::Defect) && item.note.marking == super::item::Marking::Normal
    };
    let unmarked: Vec<&Source<'_>> =
        sources.iter().zip(items).filter(is_unmarked).map(|(source, _)| source).collect();
    let has_masks = items.iter().any(|item| item.note.masks.level_count > 0);
    if unmarked.is_empty() {
        return;
    }
    let names: Vec<String> = unmarked
        .iter()
        .take(NAMED_IMAGES)
        .map(|source| format!("`{}`", source.image.path.display()))
        .collect();
    let more = if unmarked.len() > NAMED_IMAGES { ", …" } else { "" };
    let what = match how {
        EmptyMask::WithoutRegion => {
            "they are defective without a region, and no pixel metric counts their pixels"
        }
        EmptyMask::Normal => "they count as normal",
        EmptyMask::LeaveOut => "they are left out",
        EmptyMask::Refuse => return,
    };
    let line = format!(
        "no mask marks a defect in {} labelled as defective ({}{more}): {what} (`empty_mask`)",
        counted(unmarked.len(), "image"),
        names.join(", ")
    );
    if has_masks || how != EmptyMask::WithoutRegion { progress.warn(&line) } else { progress.note(&line) }
}
