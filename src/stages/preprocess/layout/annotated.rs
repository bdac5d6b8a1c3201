//! Images with annotation files: regions are outlined, not painted.
//!
//! ```text
//! coco      train/_annotations.coco.json with the images beside it, or annotations/instances_train.json, annotations.json,
//!           coco.json with the images anywhere
//! labelme   a.jpg with a.json beside it; or a.json elsewhere, which names its image
//! yolo      images/train/a.jpg with labels/train/a.txt, or train/images/a.jpg with train/labels/a.txt
//! ```
//! A folder `train`, `test`, `val`, `valid` or `validation` gives the split, for COCO also the name of the list; without
//! one the split is drawn. The annotation gives the label. A folder of normal images does too, and an annotation that
//! contradicts it is an error. An image that is in no list, or that has no JSON, has no label.

use std::collections::{BTreeMap, BTreeSet};

use super::folders::{drawn, drawn_note};
use super::{Action, Listing, Row, Source, TEST, TRAIN, VALIDATION, View, nearest, only_folder};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;
use crate::stages::preprocess::annotation::{
    Annotation, ClassNames, Classes, CocoFile, read_class_names, read_labelme, read_yolo, resolved,
};
use crate::stages::preprocess::names::{extension, folder_of, is_copy, is_image, parts, without_extension};
use crate::stages::preprocess::reading::Reading;

const FIELDS: &[&str] = &[
    "defect_classes",
    "normal_folders",
    "polygon_rule",
    "split_seed",
    "test_share",
    "test_share_of_defects",
];

pub(super) const COCO: Row = Row {
    name: "coco",
    shape: "images with *.coco.json, annotations/instances_*.json, annotations.json or coco.json",
    fields: FIELDS,
    fits: |view, _| coco_lists(view).first().copied(),
    action: Action::Read(read_coco),
};

pub(super) const LABELME: Row = Row {
    name: "labelme",
    shape: "a.jpg with the annotation a.json beside it",
    fields: FIELDS,
    fits: |view, reading| {
        if only_folder(view).is_some_and(|folder| split_of(folder).is_none() && !reading.is_normal(folder)) {
            return None;
        }
        let is_chosen = reading.layout.is_some();
        let any = || view.keys().copied().find(|name| extension(name) == "json");
        if is_chosen { any() } else { labelme_pair(view) }
    },
    action: Action::Read(read_labelme_folders),
};

pub(super) const YOLO: Row = Row {
    name: "yolo",
    shape: "images/…/a.jpg with labels/…/a.txt",
    fields: FIELDS,
    fits: |view, _| {
        let has_images = view.keys().any(|name| parts(name).contains(&"images") && is_image(name));
        view.keys().copied().find(|name| has_images && is_yolo_label(name))
    },
    action: Action::Read(read_yolo_folders),
};

/// Returns a JSON that lies beside an image of its name.
pub(super) fn labelme_pair<'a>(view: &View<'a>) -> Option<&'a str> {
    let images: BTreeSet<&str> =
        view.keys().filter(|name| is_image(name)).map(|name| without_extension(name)).collect();
    let is_pair = |name: &&str| extension(name) == "json" && images.contains(without_extension(name));
    view.keys().copied().find(is_pair)
}

/// Returns the annotation files, those of the most usual names.
fn coco_lists<'a>(view: &View<'a>) -> Vec<&'a str> {
    let is_list: [fn(&str) -> bool; 3] = [
        |file| file.ends_with(".coco.json") || file.starts_with("instances_"),
        |file| file == "annotations.json" || file == "coco.json",
        |_| false,
    ];
    let json = || view.keys().copied().filter(|name| extension(name) == "json");
    let named = is_list.iter().map(|is_list| {
        json().filter(|name| is_list(name.rsplit('/').next().unwrap_or(name))).collect::<Vec<_>>()
    });
    let in_folder = json().filter(|name| folder_of(name).ends_with("annotations")).collect();
    named.chain([in_folder]).find(|lists| !lists.is_empty()).unwrap_or_default()
}

fn is_yolo_label(name: &str) -> bool {
    parts(name).contains(&"labels")
        && extension(name) == "txt"
        && name.rsplit('/').next() != Some("classes.txt")
}

/// Returns the split that a word names, also followed by a number (`train2017`).
fn split_of(word: &str) -> Option<&'static str> {
    match word.to_lowercase().trim_end_matches(|letter: char| letter.is_ascii_digit()) {
        "train" | "training" => Some(TRAIN),
        "test" | "testing" => Some(TEST),
        "val" | "valid" | "validation" => Some(VALIDATION),
        _ => None,
    }
}

fn split_of_folders(name: &str) -> Option<&'static str> {
    folder_of(name).split('/').find_map(split_of)
}

/// An image whose split may have to be drawn.
struct Found<'a> {
    name: &'a str,
    image: &'a File,
    split: Option<&'static str>,
    annotation: Option<Annotation<'a>>,
}

/// Adds images with their labels and splits.
fn add_all<'a>(
    found: Vec<Found<'a>>,
    reading: &Reading,
    listing: &mut Listing<'a>,
) -> Result<(), StageError> {
    let has_splits = found.iter().any(|one| one.split.is_some());
    for Found { name, image, split, annotation } in found {
        let is_normal = folder_of(name).split('/').any(|folder| reading.is_normal(folder));
        let label = annotation.as_ref().map_or(Label::Normal, Annotation::label);
        let label = if is_normal { Label::Normal } else { label };
        let split = match split {
            Some(split) => split,
            None if has_splits => {
                let message = format!("`{}` is in no split, and other images are", image.path.display());
                listing.problem(message, "move it into a folder `train` or `test`, or remove it");
                continue;
            }
            None => drawn(reading, image, label)?,
        };
        let kind = annotation.as_ref().and_then(Annotation::kind).filter(|_| label == Label::Defect);
        let id = without_extension(name).to_owned();
        let (split, masks) = (split.to_owned(), Vec::new());
        listing.sources.push(Source { id, split, label: Some(label), kind, image, masks, annotation });
    }
    if !has_splits {
        listing.notes.push(drawn_note(reading));
    }
    let with_boxes: Vec<&Source<'_>> = listing
        .sources
        .iter()
        .filter(|source| source.annotation.as_ref().is_some_and(|of| of.box_count > 0))
        .collect();
    if let Some(first) = with_boxes.first() {
        listing.warnings.push(format!(
            "{} images, such as `{}`, have defects with a box and no polygon: they are defective without a region",
            with_boxes.len(),
            first.image.path.display()
        ));
    }
    Ok(())
}

/// Returns the images of the view by the last part of their names.
fn by_file<'a>(view: &View<'a>) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut images: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in view.keys().copied().filter(|name| is_image(name)) {
        images.entry(name.rsplit('/').next().unwrap_or(name)).or_default().push(name);
    }
    images
}

/// Returns the image that a list means: relative to its folder, else the only one whose path ends so. The error
/// describes the problem.
pub(super) fn image_of<'a>(
    written: &str,
    list: &str,
    images: &BTreeMap<&'a str, Vec<&'a str>>,
) -> Result<&'a str, String> {
    let written = written.replace('\\', "/");
    let beside = resolved(folder_of(list), &written);
    let ending = written.trim_start_matches(['.', '/']);
    let candidates = images.get(ending.rsplit('/').next().unwrap_or(ending)).map_or(&[][..], Vec::as_slice);
    if let Some(name) = candidates.iter().find(|name| Some(**name) == beside.as_deref()) {
        return Ok(name);
    }
    let ends: Vec<&str> = candidates
        .iter()
        .copied()
        .filter(|name| name.strip_suffix(ending).is_some_and(|rest| rest.is_empty() || rest.ends_with('/')))
        .collect();
    // Copies of one name in folders of several splits: the list's own split decides.
    let of_split: Vec<&str> =
        ends.iter().copied().filter(|name| split_of_list(list) == split_of_folders(name)).collect();
    match (&ends[..], &of_split[..]) {
        ([only], _) | (_, [only]) => Ok(only),
        ([], _) => {
            let all = images.values().flatten().copied();
            Err(format!("lists `{written}`, which is not there{}", nearest(ending, all)))
        }
        ([first, second, ..], _) => Err(format!("lists `{written}`, which may be `{first}` or `{second}`")),
    }
}

/// Returns the split of a list: from its folders, or a word of its name.
fn split_of_list(name: &str) -> Option<&'static str> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let words = file.split(|letter: char| !letter.is_alphanumeric());
    split_of_folders(name).or_else(|| words.into_iter().find_map(split_of))
}

fn read_coco<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    let (images, mut classes) = (by_file(view), Classes::new(reading));
    let mut found: BTreeMap<&str, Found<'a>> = BTreeMap::new();
    for list in coco_lists(view) {
        let file = view[list];
        listing.lists.push(file);
        let mut problems = Vec::new();
        let annotations = CocoFile::read(file, reading, &mut classes, &mut problems)?.0;
        listing.problems.extend(problems);
        for (written, annotation) in annotations {
            let name = match image_of(&written, list, &images) {
                Ok(name) => name,
                Err(what) => {
                    let message = format!("`{}` {what}", file.path.display());
                    listing.problem(message, "unpack the images beside the list, or correct its `file_name`");
                    continue;
                }
            };
            let split = split_of_list(list).or_else(|| split_of_folders(name));
            let one = Found { name, image: view[name], split, annotation: Some(annotation) };
            if found.insert(name, one).is_some() {
                listing.problem(
                    format!(
                        "`{}` is listed twice, again in `{}`",
                        view[name].path.display(),
                        file.path.display()
                    ),
                    "an image must be in one list",
                );
            }
        }
    }
    for &name in view.keys().filter(|name| is_image(name) && !found.contains_key(*name)) {
        listing.left_out.insert(name, "not in the annotation file");
    }
    listing.notes.extend(classes.finish()?);
    add_all(found.into_values().collect(), reading, listing)
}

fn read_labelme_folders<'a>(
    view: &View<'a>,
    reading: &Reading,
    listing: &mut Listing<'a>,
) -> Result<(), StageError> {
    let mut classes = Classes::new(reading);
    let mut annotations: BTreeMap<&str, Annotation<'a>> = BTreeMap::new();
    let by_stem: BTreeMap<&str, &str> =
        view.keys().filter(|name| is_image(name)).map(|&name| (without_extension(name), name)).collect();
    for (&name, &file) in view.iter().filter(|(name, _)| extension(name) == "json" && !is_copy(name)) {
        let mut problems = Vec::new();
        let (annotation, written) = read_labelme(file, reading, &mut classes, &mut problems)?;
        listing.problems.extend(problems);
        listing.lists.push(file);
        let beside = by_stem.get(without_extension(name)).copied();
        let named = written.and_then(|written| resolved(folder_of(name), &written));
        let named = named.and_then(|named| view.get_key_value(named.as_str())).map(|(named, _)| *named);
        let message = match (beside, named) {
            (Some(beside), Some(named)) if beside != named => {
                format!("`{}` lies beside `{beside}` and names `{named}`", file.path.display())
            }
            (None, None) => format!("the image of the annotation `{}` is not there", file.path.display()),
            (Some(image), _) | (None, Some(image)) => match annotations.insert(image, annotation) {
                None => continue,
                Some(_) => format!("`{image}` has two annotations, one of them `{}`", file.path.display()),
            },
        };
        listing.problem(message, "correct its `imagePath`, or remove it");
    }
    let mut found = Vec::new();
    for (&name, &image) in view.iter().filter(|(name, _)| is_image(name)) {
        let annotation = annotations.remove(name);
        if is_copy(name) {
            listing.left_out.insert(name, "a copy");
        } else if annotation.is_none() && !folder_of(name).split('/').any(|folder| reading.is_normal(folder))
        {
            listing.problem(
                format!("the image `{}` has no annotation", image.path.display()),
                "save one without shapes if it is normal, or move it into a folder of normal images (`normal_folders`)",
            );
        } else {
            found.push(Found { name, image, split: split_of_folders(name), annotation });
        }
    }
    listing.notes.extend(classes.finish()?);
    add_all(found, reading, listing)
}

fn read_yolo_folders<'a>(
    view: &View<'a>,
    reading: &Reading,
    listing: &mut Listing<'a>,
) -> Result<(), StageError> {
    let mut classes = Classes::new(reading).with_names(class_names(view, listing)?);
    let mut labels: BTreeMap<&str, &'a File> =
        view.iter().filter(|(name, _)| is_yolo_label(name)).map(|(&name, &file)| (name, file)).collect();
    let (mut found, mut without) = (Vec::new(), 0);
    for (&name, &image) in view.iter().filter(|(name, _)| is_image(name) && parts(name).contains(&"images")) {
        if is_copy(name) {
            listing.left_out.insert(name, "a copy");
            continue;
        }
        let label = label_file(name);
        let annotation = match labels.remove(label.as_str()) {
            None => {
                without += 1;
                None
            }
            Some(file) => {
                let mut problems = Vec::new();
                listing.lists.push(file);
                let annotation = read_yolo(file, reading, &mut classes, &mut problems)?;
                listing.problems.extend(problems);
                Some(annotation)
            }
        };
        found.push(Found { name, image, split: split_of_folders(name), annotation });
    }
    for file in labels.into_values() {
        let message = format!("the annotation `{}` has no image", file.path.display());
        listing.problem(message, "remove it, or add its image");
    }
    if without > 0 {
        listing
            .warnings
            .push(format!("{without} images have no annotation file: they are normal, as in YOLO"));
    }
    listing.notes.extend(classes.finish()?);
    add_all(found, reading, listing)
}

/// Returns the names of the classes of YOLO, with a file that has them; `None` if no YAML file has names.
fn class_names<'a>(
    view: &View<'a>,
    listing: &mut Listing<'a>,
) -> Result<Option<(ClassNames, &'a File)>, StageError> {
    let mut found: Option<(ClassNames, &File)> = None;
    for (_, &file) in view.iter().filter(|(name, _)| ["yaml", "yml"].contains(&extension(name).as_str())) {
        let Some(names) = read_class_names(file)? else { continue };
        listing.lists.push(file);
        match &found {
            None => found = Some((names, file)),
            Some((first, other)) if *first != names => {
                let (one, other) = (other.path.display(), file.path.display());
                listing.problem(
                    format!("`{one}` and `{other}` have different `names` of classes"),
                    "remove the file that is not of these annotations",
                );
            }
            Some(_) => {}
        }
    }
    Ok(found)
}

/// Returns the name of the annotation of an image: the last folder `images` is `labels`.
fn label_file(name: &str) -> String {
    let mut parts = parts(without_extension(name));
    if let Some(part) = parts.iter_mut().rev().find(|part| **part == "images") {
        *part = "labels";
    }
    format!("{}.txt", parts.join("/"))
}
