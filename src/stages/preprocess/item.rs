//! Preprocesses one image with its mask, or takes it from the cache.

use std::path::{Path, PathBuf};

use image::{GrayImage, RgbImage};
use serde::{Deserialize, Serialize};

use super::bit_mask::BitMask;
use super::decode::{DecodeLimits, Strips, is_deep};
use super::depth::Conversion;
use super::layout::Source;
use super::marks::{self, Canvas, MaskFacts};
use super::pixels::{ImageRows, Step, inside, resize_mask_once, resize_once, steps};
use super::reading::EmptyMask;
use super::spec::Preprocess;
use super::{crop, layout};
use crate::artifacts::image_set::{Label, UNCOUNTED, write_mask, write_rgb};
use crate::stages::fields::{Fields, Value};
use crate::stages::{Context, Item, StageError};

/// A finished item: pixels, mask, and pixels and mask of each crop, in this order.
pub(super) struct LabelledItem {
    pub(super) item: Item,
    pub(super) note: ItemNote,
    pub(super) meaning: Meaning,
}

/// What an item means in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The label; the mask says where the defects are.
    Labelled(Label),
    /// Defective, and nothing says where.
    WithoutRegion,
    /// It is no part of the set.
    LeftOut,
}

/// The note of an item, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ItemNote {
    /// What the mask marks.
    pub(super) marking: Marking,
    /// What is known of the masks.
    pub(super) masks: MaskFacts,
    /// Top, left, height and width of the image within its padding; `None` if it has none.
    pub(super) inside: Option<[usize; 4]>,
}

/// What a mask marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Marking {
    /// No defect, before and after it was resized.
    Normal,
    /// The resized mask has a defect.
    Defect,
    /// The resized mask has lost its defect, by `mask_resize = "reference"` or `resize = "crop"`.
    Vanished,
}

/// Reads the note of an item; `None` if it is not one of ours: another machine may have made it.
fn parse(item: &Item) -> Option<ItemNote> {
    if item.files.len() < 2 || !item.files.len().is_multiple_of(2) {
        return None;
    }
    serde_json::from_str(&item.note).ok()
}

/// Announces the items of all sources.
pub(super) fn announce(spec: &Preprocess, depth: Option<u8>, sources: &[Source<'_>], context: &Context<'_>) {
    let items: Vec<Fields> = sources.iter().map(|source| item_fields(spec, depth, source)).collect();
    context.items.announce(&spec.pixel_fields(), &items);
}

/// Returns the item of `source` from the cache, or computes it. `depth` is that of the set's images with 16 bits per
/// level. `index` is the index of the source, which names its scratch files.
pub(super) fn obtain(
    spec: &Preprocess,
    depth: Option<u8>,
    (index, source): (usize, &Source<'_>),
    scratch: &Path,
    context: &Context<'_>,
) -> Result<LabelledItem, StageError> {
    let fields = item_fields(spec, depth, source);
    let recalled = context.items.recall(&fields);
    let (item, note) = if let Some(found) = recalled.and_then(|item| parse(&item).map(|note| (item, note))) {
        found
    } else {
        let (files, note) =
            write(spec, depth, source, (&scratch.join(index.to_string()), DecodeLimits::default()))?;
        let text = serde_json::to_string(&note).expect("a note holds only numbers and words");
        (context.items.keep(&fields, &files, &text)?, note)
    };
    let meaning = meaning(spec, source, note.marking, context)?;
    Ok(LabelledItem { item, note, meaning })
}

/// Returns everything that can change a byte of the item's files, and nothing else. Name and label are left out.
fn item_fields(spec: &Preprocess, depth: Option<u8>, source: &Source<'_>) -> Fields {
    let mut fields = spec.pixel_fields();
    if let Some(bits) = depth.filter(|_| is_deep(source.image)) {
        fields.insert("depth".to_owned(), i64::from(bits).into());
    }
    fields.insert("image".to_owned(), source.image.digest_text().into());
    if let [mask] = source.masks[..] {
        fields.insert("mask".to_owned(), mask.digest_text().into());
    } else if !source.masks.is_empty() {
        let masks: Vec<String> = source.masks.iter().map(|mask| mask.digest_text()).collect();
        fields.insert("masks".to_owned(), masks.into());
    }
    if let Some(annotation) = &source.annotation {
        fields.insert("annotation".to_owned(), annotation.digest_text().into());
    }
    let cut = spec.crops.as_ref().filter(|_| source.split == layout::TRAIN && source.has_marks());
    if let Some(crops) = cut {
        fields.insert("crops".to_owned(), Value::Table(crops.key_fields()));
    }
    fields
}

/// Computes and writes the files of an item, whose paths begin with `stem`. Returns their paths and the note.
pub(super) fn write(
    spec: &Preprocess,
    depth: Option<u8>,
    source: &Source<'_>,
    (stem, limits): (&Path, DecodeLimits),
) -> Result<(Vec<PathBuf>, ItemNote), StageError> {
    let mut steps = steps(spec.resize, spec.via, spec.size).into_iter();
    let first = steps.next();
    let mut strips =
        if first.is_some() { Strips::open(source.image, limits)? } else { Strips::whole(source.image)? };
    let canvas = Canvas { size: strips.size(), is_turned: strips.is_turned() };
    let image = resized_image(&mut strips, first, Conversion::new(depth), source)?;
    let (mask, facts) = marks::read(spec.mask_threshold, source, canvas, limits)?;
    let is_defect = !mask.is_empty();
    let inside = inside(spec.resize, spec.size, mask.size());
    let mask = first.map_or_else(|| mask.to_grey(), |(step, to)| resize_mask_once(&mask, spec, step, to));
    let (pixels, mut marks, crops) = resized(spec, source, steps, (image, mask));
    let is_marked = marks.contains(&255);
    if let Some(inside) = inside {
        leave_padding_out(&mut marks, inside);
    }
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
    let marking = match (is_defect, is_marked) {
        (false, _) => Marking::Normal,
        (true, true) => Marking::Defect,
        (true, false) => Marking::Vanished,
    };
    Ok((files, ItemNote { marking, masks: facts, inside }))
}

/// Marks the pixels around the image, so that no metric counts them.
fn leave_padding_out(marks: &mut GrayImage, [top, left, height, width]: [usize; 4]) {
    let is_inside = |x: u32, y: u32| {
        (left..left + width).contains(&(x as usize)) && (top..top + height).contains(&(y as usize))
    };
    for (x, y, pixel) in marks.enumerate_pixels_mut() {
        if !is_inside(x, y) {
            pixel.0 = [UNCOUNTED];
        }
    }
}

fn name_of(stem: &Path) -> std::borrow::Cow<'_, str> {
    stem.file_name().unwrap_or_default().to_string_lossy()
}

/// Converts an image to 8 bits per level, and takes the first step of resizing it, if there is one.
fn resized_image(
    strips: &mut Strips<'_>,
    first: Option<(Step, (usize, usize))>,
    mut conversion: Conversion,
    source: &Source<'_>,
) -> Result<RgbImage, StageError> {
    let (width, height) = strips.size();
    let mut rows = first.map(|(step, to)| ImageRows::new((height as usize, width as usize), step, to));
    let mut whole = RgbImage::default();
    while let Some(strip) = strips.next()? {
        let strip = conversion.convert(strip.decoded);
        match &mut rows {
            Some(rows) => rows.push(strip.as_bytes(), strip.color().channel_count().into()),
            None => whole = strip.into_rgb8(),
        }
    }
    conversion.check(source)?;
    Ok(rows.map_or(whole, ImageRows::finish))
}

/// Takes the steps of resizing image and mask that follow the first one, and cuts the crops before them, because the
/// reference implementation stores its images at that size and cuts them there.
fn resized(
    spec: &Preprocess,
    source: &Source<'_>,
    steps: impl Iterator<Item = (Step, (usize, usize))>,
    (mut image, mut mask): (RgbImage, GrayImage),
) -> (RgbImage, GrayImage, Vec<(RgbImage, GrayImage)>) {
    let cut = spec.crops.as_ref().filter(|_| source.split == layout::TRAIN);
    let crops = cut.map_or_else(Vec::new, |how| crop::cut(&image, &mask, how));
    for (step, to) in steps {
        image = resize_once(&image, step, to);
        mask = resize_mask_once(&BitMask::of_levels(&mask), spec, step, to);
    }
    (image, mask, crops)
}

/// Returns what the image means in its set. Fails if the mask contradicts the folder or table.
fn meaning(
    spec: &Preprocess,
    source: &Source<'_>,
    marking: Marking,
    context: &Context<'_>,
) -> Result<Meaning, StageError> {
    let path = source.image.path.display();
    match (source.label, marking) {
        (None | Some(Label::Normal), Marking::Normal) => Ok(Meaning::Labelled(Label::Normal)),
        (None | Some(Label::Defect), Marking::Defect) => Ok(Meaning::Labelled(Label::Defect)),
        (None, Marking::Vanished) => {
            context.progress.log(&format!(
                "`{path}`: the defect vanished when the mask was resized, so the image counts as normal"
            ));
            Ok(Meaning::Labelled(Label::Normal))
        }
        (Some(Label::Defect), Marking::Vanished) => {
            context.progress.log(&format!("`{path}`: the defect vanished when the mask was resized"));
            Ok(Meaning::Labelled(Label::Defect))
        }
        (Some(Label::Defect), Marking::Normal) => unmarked(spec.reading.empty_mask, source),
        (Some(Label::Normal), _) => Err(StageError::data(
            format!("`{path}` is labelled as normal, but its mask `{}` marks a defect", masks(source)),
            "correct the mask or the label; `mask_threshold` defines which levels are a defect",
        )),
    }
}

/// Returns what an image means that is labelled as defective without a mark.
fn unmarked(how: EmptyMask, source: &Source<'_>) -> Result<Meaning, StageError> {
    match how {
        EmptyMask::WithoutRegion => Ok(Meaning::WithoutRegion),
        EmptyMask::Normal => Ok(Meaning::Labelled(Label::Normal)),
        EmptyMask::LeaveOut => Ok(Meaning::LeftOut),
        EmptyMask::Refuse => {
            let path = source.image.path.display();
            let what = if source.has_marks() {
                format!(
                    "`{path}` is labelled as a defect, but no pixel of its mask `{}` is marked",
                    masks(source)
                )
            } else {
                format!("`{path}` is labelled as a defect, but has no mask")
            };
            Err(StageError::data(
                what,
                "correct the mask or the label, or let `empty_mask` decide: \"without_region\", \"normal\" or \
                 \"leave_out\"",
            ))
        }
    }
}

fn masks(source: &Source<'_>) -> String {
    let annotation = source.annotation.iter().map(|annotation| annotation.file);
    let files = source.masks.iter().copied().chain(annotation);
    files.map(|file| file.path.display().to_string()).collect::<Vec<_>>().join("`, `")
}
