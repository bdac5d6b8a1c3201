//! Preprocesses one image with its mask, or takes it from the cache.

use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};

use super::layout::Source;
use super::pixels::{binarise, decode, resize_mask_once, resize_once, steps};
use super::spec::Preprocess;
use super::{crop, layout};
use crate::artifacts::image_set::{Label, write_mask, write_rgb};
use crate::stages::fields::{Fields, Value};
use crate::stages::{Context, Item, StageError};

/// A finished item: pixels, mask, and pixels and mask of each crop, in this order.
pub(super) struct LabelledItem {
    pub(super) item: Item,
    pub(super) label: Label,
}

/// The note of an item: the mask has no defect, before and after it was resized.
const NORMAL: &str = "normal";
/// The note of an item: the resized mask has a defect.
const DEFECT: &str = "defect";
/// The note of an item: the resized mask has lost its defect, by `mask_resize = "reference"` or `resize = "crop"`.
const VANISHED: &str = "vanished";

/// Returns the item of `source` from the cache, or computes it. `index` is the index of the source, which names its
/// scratch files.
pub(super) fn obtain(
    spec: &Preprocess,
    source: &Source<'_>,
    index: usize,
    scratch: &Path,
    context: &Context<'_>,
) -> Result<LabelledItem, StageError> {
    let fields = item_fields(spec, source);
    let item = if let Some(item) = context.items.recall(&fields) {
        item
    } else {
        let (files, note) = write(spec, source, &scratch.join(index.to_string()))?;
        context.items.keep(&fields, &files, note)?
    };
    let label = label(source, &item.note, context)?;
    Ok(LabelledItem { item, label })
}

/// Returns everything that can change a byte of the item's files, and nothing else. Name and label are left out.
fn item_fields(spec: &Preprocess, source: &Source<'_>) -> Fields {
    let mut fields = spec.pixel_fields();
    fields.insert("image".to_owned(), source.image.digest_text().into());
    if let Some(mask) = source.mask {
        fields.insert("mask".to_owned(), mask.digest_text().into());
        if let Some(crops) = spec.crops.as_ref().filter(|_| source.split == layout::TRAIN) {
            fields.insert("crops".to_owned(), Value::Table(crops.key_fields()));
        }
    }
    fields
}

/// Computes and writes the files of an item. Returns their paths and the note.
fn write(
    spec: &Preprocess,
    source: &Source<'_>,
    stem: &Path,
) -> Result<(Vec<PathBuf>, &'static str), StageError> {
    let image = decode(source.image)?.into_rgb8();
    let mask = read_mask(spec, source, &image)?;
    let is_defect = mask.iter().any(|&value| value != 0);
    let (pixels, marks, crops) = resized(spec, source, image, mask);
    let path = |name: String| stem.with_file_name(format!("{}-{name}.png", name_of(stem)));
    let mut files = vec![path("pixels".to_owned()), path("mask".to_owned())];
    write_rgb(&files[0], &pixels)?;
    write_mask(&files[1], &marks)?;
    for (number, (crop, marks)) in crops.iter().enumerate() {
        let (pixels, mask) = (path(format!("{number}-pixels")), path(format!("{number}-mask")));
        write_rgb(&pixels, crop)?;
        write_mask(&mask, marks)?;
        files.extend([pixels, mask]);
    }
    let note = match (is_defect, marks.iter().any(|&value| value != 0)) {
        (false, _) => NORMAL,
        (true, true) => DEFECT,
        (true, false) => VANISHED,
    };
    Ok((files, note))
}

fn name_of(stem: &Path) -> std::borrow::Cow<'_, str> {
    stem.file_name().unwrap_or_default().to_string_lossy()
}

/// Resizes image and mask, and cuts the crops. If there are two resize steps, crops are cut after the first, because
/// the reference implementation stores its images at that size and cuts them there.
fn resized(
    spec: &Preprocess,
    source: &Source<'_>,
    image: RgbImage,
    mask: GrayImage,
) -> (RgbImage, GrayImage, Vec<(RgbImage, GrayImage)>) {
    let mut current = (image, mask);
    let mut steps = steps(spec.resize, spec.via, spec.size).into_iter();
    let step = |(image, mask): &(RgbImage, GrayImage), (step, to)| {
        (resize_once(image, step, to), resize_mask_once(mask, spec, step, to))
    };
    if let Some(first) = steps.next() {
        current = step(&current, first);
    }
    let cut = spec.crops.as_ref().filter(|_| source.split == layout::TRAIN);
    let crops = cut.map_or_else(Vec::new, |how| crop::cut(&current.0, &current.1, how));
    for to in steps {
        current = step(&current, to);
    }
    (current.0, current.1, crops)
}

/// Reads the mask. Returns an empty mask if the layout has none, which means that the image is normal.
fn read_mask(spec: &Preprocess, source: &Source<'_>, image: &RgbImage) -> Result<GrayImage, StageError> {
    let Some(file) = source.mask else { return Ok(GrayImage::new(image.width(), image.height())) };
    let mask = decode(file)?;
    if (mask.width(), mask.height()) != image.dimensions() {
        let message = format!(
            "the mask `{}` has {}×{} px, its image `{}` has {}×{} px (height × width)",
            file.path.display(),
            mask.height(),
            mask.width(),
            source.image.path.display(),
            image.height(),
            image.width()
        );
        return Err(StageError::data(message, "a mask must have the size of its image"));
    }
    Ok(binarise(&mask, spec.mask_threshold))
}

/// Returns the label. Fails if the mask contradicts the folder or table.
fn label(source: &Source<'_>, note: &str, context: &Context<'_>) -> Result<Label, StageError> {
    let path = source.image.path.display();
    let name = |mask: &crate::artifacts::File| mask.path.display().to_string();
    match (source.label, note) {
        (None | Some(Label::Normal), NORMAL) => Ok(Label::Normal),
        (None | Some(Label::Defect), DEFECT) => Ok(Label::Defect),
        (None, _) => {
            context.progress.log(&format!(
                "`{path}`: the defect vanished when the mask was resized, so the image counts as normal"
            ));
            Ok(Label::Normal)
        }
        (Some(Label::Defect), VANISHED) => {
            context.progress.log(&format!("`{path}`: the defect vanished when the mask was resized"));
            Ok(Label::Defect)
        }
        (Some(Label::Defect), _) => Err(StageError::data(
            format!(
                "`{path}` is labelled as a defect, but no pixel of its mask `{}` is marked",
                source.mask.map_or_else(String::new, name)
            ),
            "correct the mask or the label; `mask_threshold` defines which levels are a defect",
        )),
        (Some(Label::Normal), _) => Err(StageError::data(
            format!(
                "`{path}` is labelled as normal, but its mask `{}` marks a defect",
                source.mask.map_or_else(String::new, name)
            ),
            "correct the mask or the label; `mask_threshold` defines which levels are a defect",
        )),
    }
}
