//! `folders`: classified folders without a split, the most usual shape of an own data set.
//!
//! ```text
//! good/…  bad/…                     or OK/ NG/, ok/ scratch/ dent/ …: one normal folder, and others
//! masks/scratch/000.png             optional: the masks of scratch/000.*, with or without `_mask`
//! ```
//! The label is the folder. The split is drawn: `test_share` of the normal images, `test_share_of_defects` of the others,
//! each by the bytes of the image and `split_seed`.

use std::collections::{BTreeMap, BTreeSet};

use super::annotated::labelme_pair;
use super::{Action, Listing, Row, Source, TEST, TRAIN, View, no_image};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;
use crate::stages::preprocess::names::{is_copy, is_defect_word, is_image, without_extension};
use crate::stages::preprocess::reading::Reading;

/// Names of folders of masks, in lower case.
const MASKS: [&str; 8] =
    ["mask", "masks", "gt", "ground_truth", "label", "labels", "ann", "segmentationclass"];
/// Folders that speak for another layout.
const OTHERS: [&str; 9] =
    ["train", "test", "valid", "val", "validation", "test_public", "mask_images", "images", "annotations"];

pub(super) const FOLDERS: Row = Row {
    name: "folders",
    shape: "good/*.png and bad/*.png, or any names of which one means normal; no split",
    fields: &["normal_folders", "split_seed", "test_share", "test_share_of_defects"],
    fits,
    action: Action::Read(read),
};

fn is_masks(folder: &str) -> bool {
    MASKS.contains(&folder.to_lowercase().as_str())
}

fn fits<'a>(view: &View<'a>, reading: &Reading) -> Option<&'a str> {
    let images = view.keys().copied().filter(|name| is_image(name));
    let folders: BTreeSet<&str> = images.filter_map(|name| Some(name.split_once('/')?.0)).collect();
    let is_other =
        |folder: &&&str| OTHERS.contains(&folder.to_lowercase().as_str()) || folder.starts_with("MT_");
    let (normal, rest): (Vec<&str>, Vec<&str>) =
        folders.iter().filter(|folder| !is_masks(folder)).partition(|folder| reading.is_normal(folder));
    let has_one = if reading.normal_folders.is_empty() { normal.len() == 1 } else { !normal.is_empty() };
    if !has_one || rest.is_empty() || folders.iter().any(|folder| is_other(&folder)) {
        return None;
    }
    // An AITEX set or a category of Real-IAD has further folders in these.
    let is_nested = |name: &str| name.starts_with("OK/S") || name.starts_with("NG/");
    if rest == ["NG"] && view.keys().any(|name| is_nested(name) && name.matches('/').count() > 2) {
        return None;
    }
    // Without masks, annotations beside the images say where the defects are.
    let has_masks = folders.iter().any(|folder| is_masks(folder));
    if reading.layout.is_none() && !has_masks && labelme_pair(view).is_some() {
        return None;
    }
    view.keys().copied().find(|name| is_image(name) && name.starts_with(&format!("{}/", normal[0])))
}

fn read<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    let mut masks = masks(view);
    let has_masks = !masks.is_empty();
    for (&name, &image) in view {
        let Some((folder, rest)) = name.split_once('/') else { continue };
        if !is_image(name) || is_masks(folder) {
            continue;
        }
        if is_copy(name) {
            listing.left_out.insert(name, "a copy");
            continue;
        }
        let label = reading.label_of(folder);
        let key = format!("{folder}/{}", without_extension(rest));
        let masks: Vec<&File> = masks.remove(key.as_str()).into_iter().collect();
        if masks.is_empty() && label == Label::Defect && has_masks {
            listing.problem(
                format!("the image `{}` has no mask `{key}`", image.path.display()),
                "every defect needs a mask if some have one; `empty_mask` says what an all-black mask means",
            );
            continue;
        }
        let is_kind = label == Label::Defect && !is_defect_word(folder);
        listing.sources.push(Source {
            id: key,
            split: drawn(reading, image, label)?.to_owned(),
            label: Some(label),
            kind: is_kind.then(|| folder.to_owned()),
            image,
            masks,
            annotation: None,
        });
    }
    listing.problems.extend(masks.into_values().map(no_image));
    listing.notes.push(drawn_note(reading));
    Ok(())
}

/// Draws the split of an image.
pub(super) fn drawn(reading: &Reading, image: &File, label: Label) -> Result<&'static str, StageError> {
    Ok(if reading.is_for_testing(image, label)? { TEST } else { TRAIN })
}

/// Says how the split was drawn.
pub(super) fn drawn_note(reading: &Reading) -> String {
    format!(
        "the data set has no split: `test_share` = {} of the normal and `test_share_of_defects` = {} of the defective \
         images are for testing, drawn by content with `split_seed` = {}",
        reading.test_share, reading.test_share_of_defects, reading.split_seed
    )
}

/// Returns the masks by folder and stem of their image, without `_mask`.
fn masks<'a>(view: &View<'a>) -> BTreeMap<String, &'a File> {
    let mut masks = BTreeMap::new();
    for (&name, &file) in view.iter().filter(|(name, _)| is_image(name) && !is_copy(name)) {
        let Some((folder, rest)) = name.split_once('/') else { continue };
        if is_masks(folder) {
            let stem = without_extension(rest);
            masks.insert(stem.strip_suffix("_mask").unwrap_or(stem).to_owned(), file);
        }
    }
    masks
}
