//! `preprocess`: brings images and masks to one size, with labels and splits.
//!
//! The input is a folder of images in a known layout (`preprocess/layout.rs`). Works by item: an item is one image with
//! its mask. The fields of an item are everything that can change its files, so a changed image recomputes only that
//! image.
//!
//! ```text
//! images/     ImageSet of every image
//! crops/      ImageSet of the defect components of the training split, if `crops` is set
//! ```
//! Masks are resized so that no defect vanishes. An error lists all data that cannot be used, not only the first. Nothing is
//! guessed or passed over: what is read is counted by split and label, what is not read is counted with the reason, and an
//! image without a mask is normal only if its folder or table says so.

mod annotation;
mod bit_mask;
mod census;
mod crop;
mod decode;
mod depth;
mod duplicates;
mod item;
mod layout;
mod left_out;
mod marks;
mod names;
mod pixels;
mod reading;
mod spec;

use std::path::Path;

use rayon::prelude::*;

use self::item::{LabelledItem, Meaning};
use self::layout::Source;
use super::{Context, Inputs, Item, StageError};
use crate::artifacts::image_set::{
    self, Label, UNCOUNTED, UNKNOWN_KIND, label_name, pixels_name, write_padding, write_preprocessing,
};

pub use decode::{Excess, ImageFault};
pub use depth::Depth;
pub use layout::Layout;
pub use pixels::resize_pixels;
pub use reading::{Duplicates, EmptyMask, Reading};
pub use spec::{Crops, MaskResize, Preprocess};

/// Raised when outputs change for equal inputs.
///
/// 1: first. 2: EXIF orientation, depth of 16-bit images, notes of items, padding left out of masks (2026-11-28), palettes
/// of one colour (2026-11-29). 3: names of the classes of YOLO (2026-11-29).
pub const VERSION: u32 = 3;

/// Number of images between two checks for cancellation (chosen: a second of work).
const BATCH: usize = 32;

/// Name of the output with the images.
pub(super) const IMAGES: &str = "images";
/// Name of the output with the crops.
pub(super) const CROPS: &str = "crops";

/// Preprocesses the images of `input` into `output/images` and, if `crops` is set, `output/crops`.
///
/// # Errors
/// [`StageError::Data`] if the layout is unknown or ambiguous, masks are missing or do not fit, ids are not unique, a
/// split is empty, or several images cannot be used; [`StageError::Image`] if a single image cannot be decoded.
fn run(spec: &Preprocess, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let found = layout::find(&spec.reading, inputs.require("input")?, context.progress)?;
    let sources = &found.sources;
    let scratch = output.join("scratch");
    let depth = depth::resolve(spec.depth, sources, context)?;
    let items = process(spec, depth, sources, &scratch, context)?;
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(|source| StageError::io("delete", &scratch, source))?;
    }
    let all = || sources.iter().zip(&items);
    let facts = all().map(|(source, item)| (source, &item.note.masks));
    marks::report(facts, found.codes.as_ref(), spec.mask_threshold, context.progress)?;
    census::report_unmarked(spec.reading.empty_mask, sources, &items, context.progress);
    census::report_and_check(sources, &items, spec, context.progress)?;
    let kept = || all().filter(|(_, item)| item.meaning != Meaning::LeftOut);
    let pictures = kept().map(|(source, item)| (source, item.item.files[0].digest));
    duplicates::report(pictures, spec.reading.duplicates, context.progress)?;
    for (source, item) in kept() {
        add_outputs(source, item, output, context)?;
    }
    let padded = kept().filter_map(|(source, item)| Some((source.id.as_str(), item.note.inside?)));
    write_padding(&output.join(IMAGES), &padded.collect())?;
    write_preprocessing(&output.join(IMAGES), &spec.preprocessing(depth))?;
    if let Some(crops) = &spec.crops {
        write_preprocessing(&output.join(CROPS), &crops.preprocessing(depth))?;
    }
    Ok(())
}

/// Computes every item or takes it from the cache. Returns them in order.
fn process(
    spec: &Preprocess,
    depth: Option<u8>,
    sources: &[Source<'_>],
    scratch: &Path,
    context: &Context<'_>,
) -> Result<Vec<LabelledItem>, StageError> {
    item::announce(spec, depth, sources, context);
    let mut items = Vec::with_capacity(sources.len());
    let mut problems = Problems::default();
    for (batch, members) in sources.chunks(BATCH).enumerate() {
        context.check()?;
        let first = batch * BATCH;
        let results: Vec<Result<LabelledItem, StageError>> = members
            .par_iter()
            .enumerate()
            .map(|(index, source)| item::obtain(spec, depth, (first + index, source), scratch, context))
            .collect();
        for result in results {
            match result {
                Ok(item) => items.push(item),
                Err(error @ (StageError::Data { .. } | StageError::Image { .. })) => problems.push(error),
                Err(error) => return Err(error),
            }
        }
        context.progress.report((first + members.len()) as u64, sources.len() as u64, "image");
    }
    problems.finish("images cannot be used")?;
    Ok(items)
}

/// Collects the problems of the data, so that a single error can list them all.
#[derive(Default)]
pub(super) struct Problems(Vec<StageError>);

impl Problems {
    /// Adds a problem.
    pub(super) fn push(&mut self, error: StageError) {
        self.0.push(error);
    }

    /// Adds several problems.
    pub(super) fn extend(&mut self, errors: impl IntoIterator<Item = StageError>) {
        self.0.extend(errors);
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if there are problems: with the problem itself if it is the only one, else with a list of all under the
    /// heading `what`.
    pub(super) fn finish(mut self, what: &'static str) -> Result<(), StageError> {
        if self.0.len() < 2 {
            return self.0.pop().map_or(Ok(()), Err);
        }
        Err(StageError::Several { what, errors: self.0 })
    }
}

/// Adds the files of an item to the outputs: pixels, mask, then pixels and mask of each crop.
fn add_outputs(
    source: &Source<'_>,
    item: &LabelledItem,
    output: &Path,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let kind = source.kind.as_deref().unwrap_or(UNKNOWN_KIND);
    let Item { files, note: _ } = &item.item;
    let labels = |id: &str, label| label_name(&source.split, label, kind, id);
    context.items.add_output(&files[0], &format!("{IMAGES}/{}", pixels_name(&source.id)));
    match item.meaning {
        Meaning::Labelled(label) => {
            context.items.add_output(&files[1], &format!("{IMAGES}/{}", labels(&source.id, label)));
        }
        Meaning::WithoutRegion => {
            let size = image_set::read_mask(&files[1].file())?.dimensions();
            let unknown = image::GrayImage::from_pixel(size.0, size.1, image::Luma([UNCOUNTED]));
            image_set::write_mask(&output.join(IMAGES).join(labels(&source.id, Label::Defect)), &unknown)?;
        }
        Meaning::LeftOut => {}
    }
    for (number, pair) in files[2..].chunks_exact(2).enumerate() {
        let id = format!("{}_{number}", source.id);
        context.items.add_output(&pair[0], &format!("{CROPS}/{}", pixels_name(&id)));
        // A crop always shows a defect, even if the defect vanished from the image's mask in a later resize.
        context.items.add_output(&pair[1], &format!("{CROPS}/{}", labels(&id, Label::Defect)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
