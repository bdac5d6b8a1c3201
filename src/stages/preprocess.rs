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
//! Masks are resized so that no defect vanishes. An error lists all data that cannot be used, not only the first.
//! Nothing is guessed: an image without a mask does not count as normal.
//!
//! The lists of KSDD2 for weak supervision (`split_weakly_N.pyb`) are not read: every mask of the training split is
//! used.

mod crop;
mod item;
mod layout;
mod pixels;
mod spec;
mod tables;

use std::path::Path;

use rayon::prelude::*;

use self::item::LabelledItem;
use self::layout::Source;
use super::{Context, Inputs, Item, StageError};
use crate::artifacts::image_set::{Label, UNKNOWN_KIND, label_name, pixels_name, write_preprocessing};

pub use pixels::resize_pixels;
pub use spec::{Crops, Layout, MaskResize, Preprocess};

/// Raised when outputs change for equal inputs.
///
/// 1: first.
pub const VERSION: u32 = 1;

/// Number of images between two checks for cancellation (chosen: a second of work).
const BATCH: usize = 32;

/// Number of problems that a message lists. Further problems are only counted.
const NAMED_PROBLEMS: usize = 10;

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
    let sources = layout::find(spec, inputs.require("input")?, context.progress)?;
    let scratch = output.join("scratch");
    let items = process(spec, &sources, &scratch, context)?;
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(|source| StageError::io("delete", &scratch, source))?;
    }
    check_splits(&sources, &items, spec)?;
    for (source, item) in sources.iter().zip(&items) {
        add_outputs(source, item, context);
    }
    write_preprocessing(&output.join(IMAGES), &spec.preprocessing())?;
    if let Some(crops) = &spec.crops {
        write_preprocessing(&output.join(CROPS), &crops.preprocessing())?;
    }
    Ok(())
}

/// Computes every item or takes it from the cache. Returns them in order.
fn process(
    spec: &Preprocess,
    sources: &[Source<'_>],
    scratch: &Path,
    context: &Context<'_>,
) -> Result<Vec<LabelledItem>, StageError> {
    let mut items = Vec::with_capacity(sources.len());
    let mut problems = Problems::default();
    for (batch, members) in sources.chunks(BATCH).enumerate() {
        context.check()?;
        let first = batch * BATCH;
        let results: Vec<Result<LabelledItem, StageError>> = members
            .par_iter()
            .enumerate()
            .map(|(index, source)| item::obtain(spec, source, first + index, scratch, context))
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

    /// Fails if there are problems: with the problem itself if it is the only one, else with a list of all under the
    /// heading `what`.
    pub(super) fn finish(mut self, what: &str) -> Result<(), StageError> {
        if self.0.len() < 2 {
            return self.0.pop().map_or(Ok(()), Err);
        }
        let mut lines = vec![format!("{} {what}:", self.0.len())];
        lines.extend(self.0.iter().take(NAMED_PROBLEMS).map(|error| {
            match std::error::Error::source(error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }
        }));
        if self.0.len() > NAMED_PROBLEMS {
            lines.push(format!("and {} more", self.0.len() - NAMED_PROBLEMS));
        }
        let message = lines.join("\n  ");
        let help = self.0.iter().find_map(StageError::help).map(str::to_owned);
        Err(StageError::Data { message, help })
    }
}

/// Checks that the splits `train` and `test` have images, and that there are defects to crop if `crops` is set.
fn check_splits(sources: &[Source<'_>], items: &[LabelledItem], spec: &Preprocess) -> Result<(), StageError> {
    let count = |split: &str, label: Label| {
        let images = sources.iter().zip(items);
        images.filter(|(source, item)| source.split == split && item.label == label).count()
    };
    let mut splits: Vec<&str> = sources.iter().map(|source| source.split.as_str()).collect();
    splits.sort_unstable();
    splits.dedup();
    let found: Vec<String> = splits
        .iter()
        .map(|split| {
            let (normal, defect) = (count(split, Label::Normal), count(split, Label::Defect));
            format!("`{split}` with {normal} normal and {defect} defective images")
        })
        .collect();
    for split in ["train", "test"] {
        if !splits.contains(&split) {
            return Err(StageError::data(
                format!("no image is in the split `{split}`; found {}", found.join(", ")),
                "the data set needs the splits `train` and `test`: see `layout`",
            ));
        }
    }
    if spec.crops.is_some() && count("train", Label::Defect) == 0 {
        return Err(StageError::data(
            format!("`crops` would be empty: the training split has no defect; found {}", found.join(", ")),
            "remove `crops`",
        ));
    }
    Ok(())
}

/// Adds the files of an item to the outputs: pixels, mask, then pixels and mask of each crop.
fn add_outputs(source: &Source<'_>, item: &LabelledItem, context: &Context<'_>) {
    let kind = source.kind.as_deref().unwrap_or(UNKNOWN_KIND);
    let Item { files, note: _ } = &item.item;
    let labels = |id: &str, label| label_name(&source.split, label, kind, id);
    context.items.add_output(&files[0], &format!("{IMAGES}/{}", pixels_name(&source.id)));
    context.items.add_output(&files[1], &format!("{IMAGES}/{}", labels(&source.id, item.label)));
    for (number, pair) in files[2..].chunks_exact(2).enumerate() {
        let id = format!("{}_{number}", source.id);
        context.items.add_output(&pair[0], &format!("{CROPS}/{}", pixels_name(&id)));
        // A crop always shows a defect, even if the defect vanished from the image's mask in a later resize.
        context.items.add_output(&pair[1], &format!("{CROPS}/{}", labels(&id, Label::Defect)));
    }
}

#[cfg(test)]
mod tests;
