//! Published sets with a shape of their own.
//!
//! ```text
//! real_iad        realiad_1024/OBJECT/OK/S0001/….jpg  …/NG/CODE/S0001/….jpg  realiad_jsons/OBJECT.json
//! dagm            Train/0576.PNG  Train/Label/0595_label.PNG  Train/Label/Labels.txt  Test/…
//! magnetic_tile   MT_Blowhole/Imgs/exp1_num_108719.jpg with ….png, MT_Free is normal
//! aitex           Defect_images/0001_002_00.png  NODefect_images/ROLL/….png  Mask_images/0001_002_00_mask.png
//! ```
//! DAGM's masks are coarse ellipses, so its pixel metrics are not comparable with those of exact masks.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::folders::{drawn, drawn_note};
use super::visa::one_of;
use super::{Action, Listing, Row, Source, TEST, TRAIN, View};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;
use crate::stages::preprocess::names::{extension, is_copy, is_image, parts, without_extension};
use crate::stages::preprocess::reading::Reading;

/// Fields of layouts without a split.
const DRAWN: &[&str] = &["split_seed", "test_share", "test_share_of_defects"];

/// The image of AITEX that has no mask in the archive.
const AITEX_WITHOUT_MASK: &str = "0100_025_08";

pub(super) const REAL_IAD: Row = Row {
    name: "real_iad",
    shape: "realiad_1024/OBJECT/{OK,NG}/…, realiad_jsons/OBJECT.json",
    fields: &["split_file"],
    fits: |view, _| {
        let is_list = |name: &&str| name.starts_with("realiad_jsons") && extension(name) == "json";
        view.keys().copied().find(is_list)
    },
    action: Action::Read(read_real_iad),
};

pub(super) const DAGM: Row = Row {
    name: "dagm",
    shape: "Train/0576.PNG, Train/Label/Labels.txt, Train/Label/0595_label.PNG, and the same in Test/",
    fields: &[],
    fits: |view, _| view.keys().copied().find(|name| *name == "Train/Label/Labels.txt"),
    action: Action::Read(read_dagm),
};

pub(super) const MAGNETIC_TILE: Row = Row {
    name: "magnetic_tile",
    shape: "MT_KIND/Imgs/a.jpg with its mask MT_KIND/Imgs/a.png; MT_Free is normal; no split",
    fields: DRAWN,
    fits: |view, _| view.keys().copied().find(|name| tile(name).is_some()),
    action: Action::Read(read_magnetic_tile),
};

pub(super) const AITEX: Row = Row {
    name: "aitex",
    shape: "Defect_images/0001_002_00.png, NODefect_images/ROLL/*.png, Mask_images/0001_002_00_mask.png; no split",
    fields: DRAWN,
    fits: |view, _| view.keys().copied().find(|name| name.starts_with("Mask_images/") && is_image(name)),
    action: Action::Read(read_aitex),
};

#[derive(Deserialize)]
struct RealIad {
    meta: RealIadMeta,
    train: Vec<RealIadItem>,
    test: Vec<RealIadItem>,
}

#[derive(Deserialize)]
struct RealIadMeta {
    #[serde(default)]
    prefix: String,
    normal_class: String,
}

#[derive(Deserialize)]
struct RealIadItem {
    anomaly_class: String,
    image_path: String,
    mask_path: Option<String>,
}

/// Reads one object of Real-IAD. Its list alone gives images, splits, labels and masks. A defective part can be seen from
/// a side on which nothing is wrong: such a view has no mask.
fn read_real_iad<'a>(
    view: &View<'a>,
    reading: &Reading,
    listing: &mut Listing<'a>,
) -> Result<(), StageError> {
    let (name, file) = real_iad_list(view, reading)?;
    let list: RealIad = file.read_json()?;
    listing.lists.push(file);
    let object = without_extension(name.rsplit('/').next().unwrap_or(name)).to_owned();
    let roots: BTreeSet<&str> = view
        .keys()
        .filter_map(|name| name.split_once('/').map(|(root, _)| root))
        .filter(|root| root.starts_with("realiad_") && !root.starts_with("realiad_json"))
        .collect();
    let root = one_of(&roots, None)?;
    let prefix = list.meta.prefix.trim_matches('/').to_owned();
    let find = |path: &str| {
        let bases =
            [format!("{root}/{prefix}/{path}"), format!("{root}/{path}"), format!("{root}/{object}/{path}")];
        let clean = |base: &String| base.replace('\\', "/").replace("//", "/").replace("/./", "/");
        bases
            .iter()
            .map(clean)
            .find_map(|name| view.get_key_value(name.as_str()).map(|(name, file)| (*name, *file)))
    };
    for (split, items) in [(TRAIN, &list.train), (TEST, &list.test)] {
        for item in items {
            let is_normal = item.anomaly_class == list.meta.normal_class;
            let Some((name, image)) = find(&item.image_path) else {
                listing.problem(
                    format!("`{}` lists `{}`, which is not there", file.path.display(), item.image_path),
                    "unpack the images of the object beside the lists",
                );
                continue;
            };
            let mask = match item.mask_path.as_deref().map(|path| (path, find(path))) {
                Some((path, None)) => {
                    let message =
                        format!("`{}` lists the mask `{path}`, which is not there", file.path.display());
                    listing.problem(message, "unpack the masks of the object too");
                    continue;
                }
                found => found.and_then(|(_, found)| found).map(|(_, mask)| mask),
            };
            listing.sources.push(Source {
                id: without_extension(name.strip_prefix(&format!("{root}/")).unwrap_or(name)).to_owned(),
                split: split.to_owned(),
                label: Some(if is_normal { Label::Normal } else { Label::Defect }),
                kind: (!is_normal).then(|| item.anomaly_class.clone()),
                image,
                masks: mask.into_iter().collect(),
                annotation: None,
            });
        }
    }
    Ok(())
}

/// Returns the list of the object: `split_file`, or that of `realiad_jsons`.
fn real_iad_list<'a>(view: &View<'a>, reading: &Reading) -> Result<(&'a str, &'a File), StageError> {
    if let Some(wanted) = &reading.split_file {
        return view.get_key_value(wanted.as_str()).map(|(name, file)| (*name, *file)).ok_or_else(|| {
            StageError::data(
                format!("the input has no split file `{wanted}`"),
                "correct `split_file`, such as `realiad_jsons_sv/audiojack.json`",
            )
        });
    }
    let lists: BTreeMap<&str, &str> = view
        .keys()
        .filter(|name| name.starts_with("realiad_jsons/") && extension(name) == "json")
        .map(|&name| (without_extension(name.rsplit('/').next().unwrap_or(name)), name))
        .collect();
    let object = one_of(&lists.keys().copied().collect(), reading.category.as_deref())?;
    let name = lists[object];
    Ok((name, view[name]))
}

/// Reads a class of DAGM. Its lists decide: number, 0 or 1, image, 0, mask or 0, separated by tabs.
fn read_dagm<'a>(view: &View<'a>, _: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    for (folder, split) in [("Train", TRAIN), ("Test", TEST)] {
        let Some(&list) = view.get(format!("{folder}/Label/Labels.txt").as_str()) else { continue };
        listing.lists.push(list);
        let text = list.read()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let rows = text.lines().enumerate().map(|(number, line)| (number + 1, line));
        for (number, line) in rows.filter(|(_, line)| line.split_whitespace().count() > 1) {
            let message = |what: String| format!("`{}`, line {number}: {what}", list.path.display());
            let [_, flag @ ("0" | "1"), image, _, mask] = line.split_whitespace().collect::<Vec<_>>()[..]
            else {
                listing.problem(
                    message(format!("`{line}`")),
                    "a line must have five fields: number, 0 or 1, image, 0, mask or 0",
                );
                continue;
            };
            let file = |name: &str| view.get(format!("{folder}/{name}").as_str()).copied();
            let Some(found) = file(image) else {
                listing.problem(message(format!("there is no file `{image}`")), "add the image");
                continue;
            };
            let mark = if flag == "1" { file(&format!("Label/{mask}")) } else { None };
            if flag == "1" && mark.is_none() {
                listing.problem(message(format!("there is no mask `Label/{mask}`")), "add the mask");
                continue;
            }
            let label = if flag == "1" { Label::Defect } else { Label::Normal };
            let id = format!("{split}/{}", without_extension(image));
            listing.add(id, split, Some(label), found, mark.into_iter().collect());
        }
    }
    listing
        .notes
        .push("the masks are coarse ellipses: pixel metrics are not comparable with exact masks".to_owned());
    Ok(())
}

/// Splits `MT_Blowhole/Imgs/exp1_num_108719.jpg` into folder and file.
fn tile(name: &str) -> Option<(&str, &str)> {
    let [folder, "Imgs", file] = parts(name)[..] else { return None };
    (folder.starts_with("MT_") && is_image(file)).then_some((folder, file))
}

/// Reads the magnetic tiles: image and mask differ only in their extension.
fn read_magnetic_tile<'a>(
    view: &View<'a>,
    reading: &Reading,
    listing: &mut Listing<'a>,
) -> Result<(), StageError> {
    for (&name, &image) in view {
        let Some((folder, file)) = tile(name) else { continue };
        let (stem, is_mask) = (without_extension(name), extension(name) == "png");
        let other = format!("{stem}.{}", if is_mask { "jpg" } else { "png" });
        let other = view.get(other.as_str()).copied();
        let Some(mask) = other else {
            let what = if is_mask { "the mask" } else { "the image" };
            let missing = if is_mask { "image" } else { "mask" };
            listing.problem(
                format!("{what} `{}` has no {missing}", image.path.display()),
                "add it, or remove both",
            );
            continue;
        };
        if is_mask {
            continue;
        }
        let label = reading.label_of(folder);
        let kind = folder.trim_start_matches("MT_").to_owned();
        listing.sources.push(Source {
            id: format!("{folder}/{}", without_extension(file)),
            split: drawn(reading, image, label)?.to_owned(),
            label: Some(label),
            kind: (label == Label::Defect).then_some(kind),
            image,
            masks: vec![mask],
            annotation: None,
        });
    }
    listing.notes.push(drawn_note(reading));
    Ok(())
}

/// Reads AITEX: the code between the underscores is the kind; two images have two masks, and one has none.
fn read_aitex<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    let mut masks: BTreeMap<&str, Vec<&File>> = BTreeMap::new();
    for (name, &file) in view.iter().filter(|(name, _)| is_image(name) && !is_copy(name)) {
        if let ["Mask_images", mask] = parts(name)[..]
            && let Some((stem, _)) = without_extension(mask).rsplit_once("_mask")
        {
            masks.entry(stem).or_default().push(file);
        }
    }
    for (&name, &image) in view {
        let (label, stem) = match parts(name)[..] {
            ["Defect_images", file] if is_image(file) => (Label::Defect, without_extension(file)),
            ["NODefect_images", .., file] if is_image(file) => (Label::Normal, without_extension(file)),
            _ => continue,
        };
        let marks = if label == Label::Defect { masks.remove(stem).unwrap_or_default() } else { Vec::new() };
        if label == Label::Defect && marks.is_empty() && stem != AITEX_WITHOUT_MASK {
            listing.problem(
                format!("the image `{}` has no mask `Mask_images/{stem}_mask.png`", image.path.display()),
                "add it; `empty_mask` says what an all-black mask means",
            );
            continue;
        }
        let kind = stem.split('_').nth(1).filter(|_| label == Label::Defect);
        listing.sources.push(Source {
            id: without_extension(name).to_owned(),
            split: drawn(reading, image, label)?.to_owned(),
            label: Some(label),
            kind: kind.map(str::to_owned),
            image,
            masks: marks,
            annotation: None,
        });
    }
    listing.problems.extend(masks.into_values().flatten().map(super::no_image));
    listing.notes.push(drawn_note(reading));
    Ok(())
}
