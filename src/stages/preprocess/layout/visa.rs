//! `visa`: VisA as it is downloaded, one object of it.
//!
//! ```text
//! candle/Data/Images/Normal/0000.JPG   candle/Data/Images/Anomaly/000.JPG   candle/Data/Masks/Anomaly/000.png
//! split_csv/1cls.csv                   object,split,label,image,mask
//! ```
//! Normal and defective images share file names. Levels of masks are classes of defects, from 1. The split is that of
//! `split_csv/1cls.csv` or of `split_file`; without such a file, it is drawn.

use std::collections::{BTreeMap, BTreeSet};

use super::folders::{drawn, drawn_note};
use super::{Action, Listing, Row, TEST, TRAIN, View};
use crate::artifacts::File;
use crate::artifacts::image_set::Label;
use crate::stages::StageError;
use crate::stages::preprocess::names::{is_image, parts, without_extension};
use crate::stages::preprocess::reading::Reading;

/// The split of one-class methods.
const SPLIT: &str = "split_csv/1cls.csv";

pub(super) const VISA: Row = Row {
    name: "visa",
    shape: "OBJECT/Data/Images/{Normal,Anomaly}/000.JPG, OBJECT/Data/Masks/Anomaly/000.png, split_csv/1cls.csv",
    fields: &["split_file", "split_seed", "test_share", "test_share_of_defects"],
    fits: |view, _| view.keys().copied().find(|name| image_of(name).is_some()),
    action: Action::Read(read),
};

/// Splits `candle/Data/Images/Anomaly/000.JPG` into object (empty at the top), label and file.
fn image_of(name: &str) -> Option<(&str, Label, &str)> {
    let (object, rest) = match parts(name)[..] {
        ["Data", "Images", folder, file] => ("", (folder, file)),
        [object, "Data", "Images", folder, file] => (object, (folder, file)),
        _ => return None,
    };
    let label = match rest.0 {
        "Normal" => Label::Normal,
        "Anomaly" => Label::Defect,
        _ => return None,
    };
    is_image(rest.1).then_some((object, label, rest.1))
}

/// A split that was shipped: its file, and split and label of each image by path.
type Shipped<'a> = (&'a File, BTreeMap<String, (String, Label)>);

fn read<'a>(view: &View<'a>, reading: &Reading, listing: &mut Listing<'a>) -> Result<(), StageError> {
    let objects: BTreeSet<&str> = view.keys().filter_map(|name| Some(image_of(name)?.0)).collect();
    let object = one_of(&objects, reading.category.as_deref())?;
    let shipped = shipped(view, reading, object)?;
    let masks: BTreeMap<&str, &File> = view
        .iter()
        .filter(|(name, _)| name.contains("Data/Masks/Anomaly/") && is_image(name))
        .map(|(&name, &file)| (without_extension(name), file))
        .collect();
    for (&name, &image) in view {
        let Some((_, label, file)) = image_of(name).filter(|(of, ..)| *of == object) else { continue };
        let split = match &shipped {
            None => drawn(reading, image, label)?.to_owned(),
            Some(shipped) => match listed(shipped, name, image, label, listing) {
                Some(split) => split,
                None => continue,
            },
        };
        let base = if object.is_empty() { String::new() } else { format!("{object}/") };
        let stem = without_extension(file);
        let mask = masks.get(format!("{base}Data/Masks/Anomaly/{stem}").as_str());
        if label == Label::Defect && mask.is_none() {
            listing.problem(
                format!(
                    "the image `{}` has no mask `{base}Data/Masks/Anomaly/{stem}.png`",
                    image.path.display()
                ),
                "every defect needs a mask; `empty_mask` says what an all-black mask means",
            );
            continue;
        }
        let folder = if label == Label::Defect { "Anomaly" } else { "Normal" };
        let masks = mask.filter(|_| label == Label::Defect).into_iter().copied().collect();
        listing.add(format!("{folder}/{stem}"), &split, Some(label), image, masks);
    }
    listing.codes = Some((1..=u8::MAX).collect());
    match &shipped {
        Some((file, _)) => listing.lists.push(file),
        None => listing.notes.push(drawn_note(reading)),
    }
    Ok(())
}

fn shipped<'a>(view: &View<'a>, reading: &Reading, object: &str) -> Result<Option<Shipped<'a>>, StageError> {
    let name = reading.split_file.as_deref().unwrap_or(SPLIT);
    match view.get(name) {
        Some(&file) => Ok(Some((file, splits(file, object)?))),
        None if reading.split_file.is_some() => Err(StageError::data(
            format!("the input has no split file `{name}`"),
            "correct `split_file`: it is relative to the folder of the data set",
        )),
        None => Ok(None),
    }
}

/// Returns the split that the file lists for an image; `None` if it does not, or with another label.
fn listed<'a>(
    (table, rows): &Shipped<'a>,
    name: &'a str,
    image: &File,
    label: Label,
    listing: &mut Listing<'a>,
) -> Option<String> {
    let Some((split, listed)) = rows.get(name) else {
        listing.left_out.insert(name, "not in the split file");
        return None;
    };
    if *listed != label {
        listing.problem(
            format!("`{}` and `{}` disagree on a label", table.path.display(), image.path.display()),
            "correct the folder or the table",
        );
        return None;
    }
    Some(split.clone())
}

/// Returns the wanted name, or the only one.
pub(super) fn one_of<'n>(names: &BTreeSet<&'n str>, wanted: Option<&str>) -> Result<&'n str, StageError> {
    let found = names.iter().copied().find(|name| Some(*name) == wanted);
    if let Some(found) = found.or_else(|| names.first().copied().filter(|_| names.len() == 1)) {
        return Ok(found);
    }
    let listed: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    Err(StageError::data(
        format!("the input holds several sets: {}", listed.join(", ")),
        format!("choose one, such as `category = \"{}\"`", names.first().unwrap_or(&"…")),
    ))
}

/// Returns split and label of each image of the object, by its path.
fn splits(file: &File, object: &str) -> Result<BTreeMap<String, (String, Label)>, StageError> {
    let broken = |what: String| {
        StageError::data(
            format!("cannot read the split file `{}`: {what}", file.path.display()),
            "its first line must be `object,split,label,image,mask`",
        )
    };
    let bytes = file.read()?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let header = reader.headers().map_err(|error| broken(error.to_string()))?.clone();
    let column = |name: &str| {
        header.iter().position(|column| column == name).ok_or_else(|| broken(format!("no column `{name}`")))
    };
    let columns = [column("object")?, column("split")?, column("label")?, column("image")?];
    let mut rows = BTreeMap::new();
    for row in reader.records() {
        let row = row.map_err(|error| broken(error.to_string()))?;
        let [of, split, label, image] = columns.map(|column| row.get(column).unwrap_or_default());
        if of != object && !object.is_empty() {
            continue;
        }
        let label = match label {
            "normal" => Label::Normal,
            "anomaly" => Label::Defect,
            other => return Err(broken(format!("the label `{other}`"))),
        };
        if ![TRAIN, TEST].contains(&split) {
            return Err(broken(format!("the split `{split}`")));
        }
        rows.insert(image.replace('\\', "/"), (split.to_owned(), label));
    }
    Ok(rows)
}
