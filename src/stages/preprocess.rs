//! `preprocess`: images and masks of one size, with labels and splits.
//!
//! The input is any folder of images in a known layout (`preprocess/layout.rs`). Work goes by item: one image with
//! its mask. An item's fields are what can change its files, so that a changed image recomputes that
//! image and nothing else.
//!
//! ```text
//! images/     ImageSet of every image
//! crops/      ImageSet of the defect components of the training split, where `crops` is set
//! ```
//! Masks are resized so that no defect vanishes. Data that cannot be used are all named, not only the
//! first of them, and nothing is guessed: a missing mask is never taken for a normal image.
//!
//! KSDD2's lists for weak supervision (`split_weakly_N.pyb`) are not read: every mask of the training
//! split is used.

mod crop;
mod item;
mod layout;
mod pixels;
mod spec;
mod tables;

use std::path::Path;

use rayon::prelude::*;

use self::item::Outcome;
use self::layout::Source;
use super::{Context, Inputs, Item, StageError};
use crate::artifacts::image_set::{Label, UNKNOWN_KIND, label_name, pixels_name, write_preprocessing};

pub use pixels::resize_pixels;
pub use spec::{Crops, Layout, MaskResize, Preprocess};

/// Bumped when outputs change for equal inputs.
///
/// 1: first.
pub const VERSION: u32 = 1;

/// Images between two looks at whether the user wants to stop (chosen: a second of work).
const BATCH: usize = 32;

/// Problems that are named one by one; the rest are counted.
const NAMED_PROBLEMS: usize = 10;

/// Output of the images.
pub(super) const IMAGES: &str = "images";
/// Output of the crops.
pub(super) const CROPS: &str = "crops";

/// Preprocesses the images of `input` into `output/images` and, where asked for, `output/crops`.
///
/// # Errors
/// [`StageError::Data`] where the layout is not known or ambiguous, masks are missing or do not fit,
/// an id comes twice or a split is empty; [`StageError::Image`] where a single image cannot be decoded.
fn run(spec: &Preprocess, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let sources = layout::find(spec, inputs.require("input")?, context.progress)?;
    let scratch = output.join("scratch");
    let outcomes = process(spec, &sources, &scratch, context)?;
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(|source| StageError::io("delete", &scratch, source))?;
    }
    check_splits(&sources, &outcomes, spec)?;
    for (source, outcome) in sources.iter().zip(&outcomes) {
        place(source, outcome, context);
    }
    write_preprocessing(&output.join(IMAGES), &spec.preprocessing())?;
    if let Some(crops) = &spec.crops {
        write_preprocessing(&output.join(CROPS), &crops.preprocessing())?;
    }
    Ok(())
}

/// Makes or recalls every item, in order.
fn process(
    spec: &Preprocess,
    sources: &[Source<'_>],
    scratch: &Path,
    context: &Context<'_>,
) -> Result<Vec<Outcome>, StageError> {
    let mut outcomes = Vec::with_capacity(sources.len());
    let mut problems = Problems::default();
    for (batch, members) in sources.chunks(BATCH).enumerate() {
        context.check()?;
        let first = batch * BATCH;
        let made: Vec<Result<Outcome, StageError>> = members
            .par_iter()
            .enumerate()
            .map(|(place, source)| item::make(spec, source, first + place, scratch, context))
            .collect();
        for outcome in made {
            match outcome {
                Ok(outcome) => outcomes.push(outcome),
                Err(error @ (StageError::Data { .. } | StageError::Image { .. })) => problems.push(error),
                Err(error) => return Err(error),
            }
        }
        context.progress.report((first + members.len()) as u64, sources.len() as u64, "image");
    }
    problems.finish("images cannot be used")?;
    Ok(outcomes)
}

/// What is wrong with the data, gathered so that all of it can be mended at once.
#[derive(Default)]
pub(super) struct Problems(Vec<StageError>);

impl Problems {
    /// Adds one.
    pub(super) fn push(&mut self, error: StageError) {
        self.0.push(error);
    }

    /// Adds several.
    pub(super) fn extend(&mut self, errors: impl IntoIterator<Item = StageError>) {
        self.0.extend(errors);
    }

    /// Fails with the one problem as it is, or with all of them under the heading `what`.
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

/// An experiment needs images to learn from and images to test on, and crops need defects.
fn check_splits(sources: &[Source<'_>], outcomes: &[Outcome], spec: &Preprocess) -> Result<(), StageError> {
    let count = |split: &str, label: Label| {
        let of = sources.iter().zip(outcomes);
        of.filter(|(source, outcome)| source.split == split && outcome.label == label).count()
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
                "a layout has the splits `train` and `test`: see `layout`",
            ));
        }
    }
    if spec.crops.is_some() && count("train", Label::Defect) == 0 {
        return Err(StageError::data(
            format!("`crops` would be empty: no defect is in the training split; found {}", found.join(", ")),
            "remove `crops`",
        ));
    }
    Ok(())
}

/// Puts an item's files where they belong: pixels, mask, then a pair for each crop.
fn place(source: &Source<'_>, outcome: &Outcome, context: &Context<'_>) {
    let kind = source.kind.as_deref().unwrap_or(UNKNOWN_KIND);
    let Item { files, note: _ } = &outcome.item;
    let labels = |id: &str, label| label_name(&source.split, label, kind, id);
    context.items.add_output(&files[0], &format!("{IMAGES}/{}", pixels_name(&source.id)));
    context.items.add_output(&files[1], &format!("{IMAGES}/{}", labels(&source.id, outcome.label)));
    for (place, pair) in files[2..].chunks_exact(2).enumerate() {
        let id = format!("{}_{place}", source.id);
        context.items.add_output(&pair[0], &format!("{CROPS}/{}", pixels_name(&id)));
        // A crop is cut around a defect, even where the image's own mask vanished in a later resize.
        context.items.add_output(&pair[1], &format!("{CROPS}/{}", labels(&id, Label::Defect)));
    }
}

#[cfg(test)]
mod tests;
