//! Layouts in which a folder gives the split and a folder in it the label: MVTec AD and those made after it.
//!
//! ```text
//! mvtec       train/good/000.png  test/KIND/000.png  ground_truth/KIND/000_mask.png or 000.png
//! mvtec_ad_2  train/good/…  validation/good/…  test_public/{good,bad}/200_regular.png
//!             test_public/ground_truth/bad/200_regular_mask.png  test_private/…  test_private_mixed/…
//! mvtec_loco  train/good/…  validation/good/…  test/KIND/000.png  ground_truth/KIND/000/000.png 001.png …
//! autovi      train/good/…  test/KIND/0089.png  ground_truth/KIND/0089/0000.png …
//! ```
//! `good` stands for any name of a normal folder, and KIND for any other folder. `mvtec` is also the shape of MPDD,
//! GoodsAD and MANTA, of BTAD (`ok`, `ko`, masks without `_mask`) and of the prepared VisA. Without a folder
//! `ground_truth`, as in VAD, no defect has a region. Masks of MVTec LOCO and AutoVI are united for each image; the levels
//! of their pixels are codes that `defects_config.json` lists.

use std::collections::{BTreeMap, BTreeSet};

use super::annotated::labelme_pair;
use super::{Action, Listing, Row, Source, TEST, TRAIN, VALIDATION, View, nearest, no_image};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;
use crate::stages::preprocess::names::{
    folder_of, is_copy, is_defect_word, is_image, parts, without_extension,
};
use crate::stages::preprocess::reading::Reading;

/// File with the meaning of the levels of masks.
const CODES: &str = "defects_config.json";
/// Folder of the masks.
const TRUTH: &str = "ground_truth";

pub(super) const MVTEC: Row = Row {
    name: "mvtec",
    shape: "train/good, test/good, test/KIND, ground_truth/KIND (may be absent)",
    fields: &["normal_folders"],
    fits: |view, reading| {
        let is_other = |name: &str| {
            name.starts_with("test_public/")
                || name == CODES
                || several(name).is_some()
                || name.contains("/rgb/")
        };
        if view.keys().any(|name| is_other(name) || name.contains("/Ungood/")) {
            return None;
        }
        // Without masks, annotations beside the images say where the defects are.
        let has_masks = view.keys().any(|name| single(name).is_some());
        if reading.layout.is_none() && !has_masks && labelme_pair(view).is_some() {
            return None;
        }
        train_normal(view, reading)
    },
    action: Action::Read(|view, reading, listing| {
        read(view, reading, listing, &Shape { splits: &MVTEC_SPLITS, truth: single, has_kinds: true });
        Ok(())
    }),
};

pub(super) const MVTEC_AD_2: Row = Row {
    name: "mvtec_ad_2",
    shape: "train/good, validation/good, test_public/{good,bad}, test_public/ground_truth/bad",
    fields: &["normal_folders"],
    fits: |view, _| view.keys().copied().find(|name| name.starts_with("test_public/") && is_image(name)),
    action: Action::Read(|view, reading, listing| {
        let splits = [(TRAIN, TRAIN), (VALIDATION, VALIDATION), ("test_public", TEST)];
        for &name in view.keys().filter(|name| name.starts_with("test_private") && is_image(name)) {
            listing.left_out.insert(name, "without a label");
        }
        read(view, reading, listing, &Shape { splits: &splits, truth: public, has_kinds: false });
        Ok(())
    }),
};

pub(super) const MVTEC_LOCO: Row = Row {
    name: "mvtec_loco",
    shape: "train/good, validation/good, test/KIND, ground_truth/KIND/000/000.png, defects_config.json",
    fields: &["normal_folders"],
    fits: |view, _| {
        view.keys().copied().find(|name| several(name).is_some()).filter(|_| has_validation(view))
    },
    action: Action::Read(read_coded),
};

pub(super) const AUTOVI: Row = Row {
    name: "autovi",
    shape: "train/good, test/KIND, ground_truth/KIND/0089/0000.png, defects_config.json",
    fields: &["normal_folders"],
    fits: |view, _| {
        view.keys().copied().find(|name| several(name).is_some()).filter(|_| !has_validation(view))
    },
    action: Action::Read(read_coded),
};

const MVTEC_SPLITS: [(&str, &str); 3] = [(TRAIN, TRAIN), (TEST, TEST), (VALIDATION, VALIDATION)];

fn train_normal<'a>(view: &View<'a>, reading: &Reading) -> Option<&'a str> {
    view.keys().copied().find(|name| match parts(name)[..] {
        [TRAIN, folder, file] => reading.is_normal(folder) && is_image(file),
        _ => false,
    })
}

fn has_validation(view: &View<'_>) -> bool {
    view.keys().any(|name| name.starts_with("validation/"))
}

/// What differs between the layouts.
struct Shape<'s> {
    /// The folders of images with their splits.
    splits: &'s [(&'static str, &'static str)],
    /// Splits the name of a mask into kind and stem of its image.
    truth: fn(&str) -> Option<(&str, &str)>,
    /// Whether the folders of defects name kinds.
    has_kinds: bool,
}

/// `ground_truth/KIND/000_mask.png`.
fn single(name: &str) -> Option<(&str, &str)> {
    let [TRUTH, kind, file] = parts(name)[..] else { return None };
    is_image(file).then(|| (kind, without_extension(file)))
}

/// `test_public/ground_truth/bad/000_mask.png`.
fn public(name: &str) -> Option<(&str, &str)> {
    single(name.strip_prefix("test_public/")?)
}

/// `ground_truth/KIND/000/001.png`.
fn several(name: &str) -> Option<(&str, &str)> {
    let [TRUTH, kind, stem, file] = parts(name)[..] else { return None };
    is_image(file).then_some((kind, stem))
}

fn read_coded<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    if let Some(&file) = view.get(CODES) {
        listing.codes = Some(codes(file)?);
        listing.lists.push(file);
        listing.notes.push(format!(
            "the masks of an image are united; levels that `{CODES}` does not list are an error; AUPRO is that of \
             regions, not the saturated overlap of the data set's authors"
        ));
    }
    read(view, reading, listing, &Shape { splits: &MVTEC_SPLITS, truth: several, has_kinds: true });
    Ok(())
}

/// Reads the codes of defects: a list of tables with `pixel_value`.
fn codes(file: &File) -> Result<BTreeSet<u8>, StageError> {
    let list: Vec<serde_json::Value> = file.read_json()?;
    let codes = list.iter().filter_map(|defect| u8::try_from(defect.get("pixel_value")?.as_u64()?).ok());
    Ok(codes.collect())
}

fn read<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>, shape: &Shape<'_>) {
    let mut masks = masks(view, listing, shape);
    let has_masks = !masks.is_empty();
    let has_normal =
        view.keys().any(|name| parts(name).get(1).is_some_and(|folder| reading.is_normal(folder)));
    for (&name, &image) in view {
        let [folder, kind, file] = parts(name)[..] else { continue };
        let Some(&(_, split)) = shape.splits.iter().find(|(of, _)| *of == folder) else { continue };
        if !is_image(file) || kind == TRUTH || !has_normal {
            continue;
        }
        if is_copy(name) {
            listing.left_out.insert(name, "a copy");
            continue;
        }
        let stem = without_extension(file);
        let label = reading.label_of(kind);
        let masks = masks.remove(&(kind, stem)).unwrap_or_default();
        if masks.is_empty() && label == Label::Defect && has_masks {
            missing(image, kind, stem, view, listing, shape);
            continue;
        }
        let names_kind = label == Label::Defect && shape.has_kinds && !is_plain(kind, has_masks);
        listing.sources.push(Source {
            id: format!("{folder}/{kind}/{stem}"),
            split: split.to_owned(),
            label: Some(label),
            kind: names_kind.then(|| kind.to_owned()),
            image,
            masks,
            annotation: None,
        });
    }
    listing.problems.extend(masks.into_values().flatten().map(no_image));
}

/// Returns whether a folder of defects without masks only means that they are defective. With masks the name of the folder
/// is kept as a kind, as in earlier versions.
fn is_plain(folder: &str, has_masks: bool) -> bool {
    !has_masks && is_defect_word(folder)
}

/// Returns the masks by kind and stem of their image.
fn masks<'a>(
    view: &View<'a>,
    listing: &mut Listing<'a>,
    shape: &Shape<'_>,
) -> BTreeMap<(&'a str, &'a str), Vec<&'a File>> {
    let found: Vec<(&str, &str, &File)> = view
        .iter()
        .filter(|(name, _)| !is_copy(name))
        .filter_map(|(&name, &file)| (shape.truth)(name).map(|(kind, stem)| (kind, stem, file)))
        .collect();
    let first_of =
        |is_suffixed: bool| found.iter().find(|(_, stem, _)| stem.ends_with("_mask") == is_suffixed);
    if let (Some(first), Some(second)) = (first_of(true), first_of(false)) {
        let message = format!(
            "some masks end in `_mask` and some do not, such as `{}` and `{}`",
            first.2.path.display(),
            second.2.path.display()
        );
        listing.problem(message, "rename them, so that all or none of them end in `_mask`");
    }
    let mut masks: BTreeMap<(&str, &str), Vec<&File>> = BTreeMap::new();
    for (kind, stem, file) in found {
        masks.entry((kind, stem.strip_suffix("_mask").unwrap_or(stem))).or_default().push(file);
    }
    masks
}

/// Notes that a defect has no mask although others have one.
fn missing<'a>(
    image: &File,
    kind: &str,
    stem: &str,
    view: &View<'a>,
    listing: &mut Listing<'a>,
    shape: &Shape<'_>,
) {
    let masks: Vec<&str> = view.keys().copied().filter(|name| (shape.truth)(name).is_some()).collect();
    let is_suffixed = masks.iter().any(|name| without_extension(name).ends_with("_mask"));
    let root = masks.first().and_then(|name| name.find(TRUTH).map(|at| &name[..at])).unwrap_or_default();
    let wanted = format!("{root}{TRUTH}/{kind}/{stem}{}.png", if is_suffixed { "_mask" } else { "" });
    let folder = folder_of(&wanted).to_owned();
    let near = nearest(&wanted, masks.into_iter().filter(|name| folder_of(name) == folder));
    listing.problem(
        format!("the image `{}` has no mask `{wanted}`{near}", image.path.display()),
        "every defect needs a mask if some have one; `empty_mask` says what an all-black mask means",
    );
}
