//! The two sets of Kolektor. Every image has a mask, which decides on its label.
//!
//! ```text
//! ksdd2    train/NNNNN.png  train/NNNNN_GT.png                     the same in test/
//! ksdd     kosNN/PartM.jpg  kosNN/PartM_label.bmp
//! ```
//! The archive of KSDD2 has two copies, `train/10301 (copy).png` and `train/10301_GT (copy).png`, which are left out.
//! Its lists for weak supervision (`split_weakly_N.pyb`) are pickles and are not read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, Listing, Row, TEST, TRAIN, View, no_image};
use crate::artifacts::File;
use crate::stages::preprocess::names::{is_copy, is_image, parts, without_extension};
use crate::stages::preprocess::reading::Reading;

/// Number of folds of `ksdd`, as its authors use.
const FOLDS: usize = 3;

pub(super) const KSDD2: Row = Row {
    name: "ksdd2",
    shape: "train/1.png with train/1_GT.png, and the same in test/",
    fields: &[],
    fits: |view, _| {
        view.keys().copied().find(|name| flat(name).is_some_and(|(_, stem)| stem.ends_with("_GT")))
    },
    action: Action::Read(|view, _, listing| {
        read_ksdd2(view, listing);
        Ok(())
    }),
};

pub(super) const KSDD: Row = Row {
    name: "ksdd",
    shape: "kos01/Part0.jpg with kos01/Part0_label.bmp",
    fields: &["fold"],
    fits: |view, _| view.keys().copied().find(|name| part_of_kos(name).is_some()),
    action: Action::Read(|view, reading, listing| {
        read_ksdd(view, reading, listing);
        Ok(())
    }),
};

/// Splits `train/10000.png` into split and stem.
fn flat(name: &str) -> Option<(&str, &str)> {
    let [split, file] = parts(name)[..] else { return None };
    ([TRAIN, TEST].contains(&split) && is_image(file)).then(|| (split, without_extension(file)))
}

fn read_ksdd2<'a>(view: &View<'a>, listing: &mut Listing<'a>) {
    let mut named = Vec::new();
    for (&name, &file) in view {
        let Some((split, stem)) = flat(name) else { continue };
        if is_copy(name) {
            listing.left_out.insert(name, "a copy");
        } else {
            named.push((split, stem, file));
        }
    }
    add_pairs(&named, ("_GT", "png"), str::to_owned, listing);
}

/// Pairs images and masks of a folder by their stems.
fn add_pairs<'a>(
    files: &[(&'a str, &'a str, &'a File)],
    (suffix, extension): (&str, &str),
    split: impl Fn(&str) -> String,
    listing: &mut Listing<'a>,
) {
    let mut masks: BTreeMap<(&str, &str), &File> = BTreeMap::new();
    for &(folder, stem, file) in files {
        if let Some(of) = stem.strip_suffix(suffix) {
            masks.insert((folder, of), file);
        }
    }
    for &(folder, stem, image) in files.iter().filter(|(_, stem, _)| !stem.ends_with(suffix)) {
        match masks.remove(&(folder, stem)) {
            Some(mask) => {
                listing.add(format!("{folder}/{stem}"), &split(folder), None, image, vec![mask]);
            }
            None => listing.problem(
                format!("the image `{}` has no mask `{stem}{suffix}.{extension}`", image.path.display()),
                "every image of this layout needs a mask; the mask of a normal image is all black",
            ),
        }
    }
    listing.problems.extend(masks.into_values().map(no_image));
}

/// Splits `kos01/Part0.jpg` into folder and stem.
fn part_of_kos(name: &str) -> Option<(&str, &str)> {
    let [folder, file] = parts(name)[..] else { return None };
    let is_part = folder.starts_with("kos") && file.starts_with("Part") && is_image(file);
    is_part.then(|| (folder, without_extension(file)))
}

/// Reads KSDD. Each folder holds the images of one physical part, so all images of a part are in the same split: of the
/// sorted folders, every third is for testing, starting with number `fold`.
fn read_ksdd<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) {
    let files: Vec<(&str, &str, &File)> = view
        .iter()
        .filter_map(|(name, file)| part_of_kos(name).map(|(kos, stem)| (kos, stem, *file)))
        .collect();
    let items: BTreeSet<&str> = files.iter().map(|&(kos, ..)| kos).collect();
    let tested: BTreeSet<&str> = items.into_iter().skip(reading.fold).step_by(FOLDS).collect();
    let split = |kos: &str| if tested.contains(kos) { TEST } else { TRAIN }.to_owned();
    add_pairs(&files, ("_label", "bmp"), split, listing);
}
