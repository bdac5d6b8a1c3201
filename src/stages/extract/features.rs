//! The features of one image set: those of known images from their items, those of others from the network.

use std::collections::BTreeMap;
use std::path::Path;

use super::network::{load_backbone, weights_input};
use super::{Extract, check, pipeline};
use crate::artifacts::feature_set::{self, Block, block_name, write_block};
use crate::artifacts::files::write_json;
use crate::artifacts::{File, image_set};
use crate::kernels::embedding::PatchGrid;
use crate::stages::fields::{Fields, Value};
use crate::stages::{Context, Inputs, Item, Stage, StageError};

/// An image whose features are not cached: its id, its pixels and the fields of its item.
pub(super) type Missing<'a> = (&'a str, &'a File, Fields);

/// Computes the features of the set `images` and writes them into `features/`.
pub(super) fn run(
    spec: &Extract,
    inputs: &Inputs,
    output: &Path,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let images = inputs.require("images")?;
    let (digest, file) = weights_input(spec, inputs)?;
    let extraction = spec.extraction(image_set::read_preprocessing(images)?, digest.clone());
    let padding = Padding { boxes: image_set::read_padding(images)?, how: extraction.preprocessing.clone() };
    write_json(&output.join("features").join(feature_set::DESCRIPTION), &extraction)?;
    let pixels = image_set::pixels(images);
    let mut finished = Finished { context, count: 0, total: pixels.len() as u64 };
    let mut items = Vec::with_capacity(pixels.len());
    let shared = shared_fields(spec, &digest);
    for (id, file) in &pixels {
        let mut fields = shared.clone();
        fields.insert("pixels".to_owned(), Value::Text(file.digest_text()));
        padding.add_fields(id, &mut fields);
        items.push(fields);
    }
    context.items.announce(&shared, &items);
    let mut missing = Vec::new();
    for ((id, file), fields) in pixels.into_iter().zip(items) {
        context.check()?;
        // An item has one file, its block; another machine may have made it.
        match context.items.recall(&fields).filter(|item| item.files.len() == 1) {
            Some(item) => finished.add_output(id, &item),
            None => missing.push((id, file, fields)),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let backbone = load_backbone(spec, file, context)?;
    pipeline::run(spec, &backbone, &missing, context, |(id, _, fields), grid| {
        let path = output.join(block_name(id));
        check::finite(id, &grid.data, spec.storage)?;
        write_block(&path, &padding.block(id, grid), spec.storage)?;
        finished.add_output(id, &context.items.keep(fields, &[path], "")?);
        Ok(())
    })
}

/// The padding around the images of a set, of which a block has no features.
struct Padding {
    /// Top, left, height and width of padded images, by id.
    boxes: BTreeMap<String, [usize; 4]>,
    how: image_set::Preprocessing,
}

impl Padding {
    /// Adds the box of a padded image to the fields of its item.
    fn add_fields(&self, id: &str, fields: &mut Fields) {
        if let Some([top, left, height, width]) = self.boxes.get(id) {
            fields.insert("inside".to_owned(), format!("{top} {left} {height} {width}").into());
        }
    }

    fn block(&self, id: &str, grid: PatchGrid) -> Block {
        let PatchGrid { height, width, dimension, data } = grid;
        match (self.boxes.get(id), self.how.height_px.zip(self.how.width_px)) {
            (Some(&inside), Some(size)) => Block::of_padded([height, width, dimension], &data, inside, size),
            _ => Block { height, width, d: dimension, data, frame: None },
        }
    }
}

/// Adds finished blocks to the output and reports progress.
struct Finished<'a> {
    context: &'a Context<'a>,
    count: u64,
    total: u64,
}

impl Finished<'_> {
    fn add_output(&mut self, id: &str, item: &Item) {
        for file in &item.files {
            self.context.items.add_output(file, &format!("features/{}", block_name(id)));
        }
        self.count += 1;
        self.context.progress.report(self.count, self.total, "image");
    }
}

/// The fields of every item, to which its pixels are added.
fn shared_fields(spec: &Extract, weights: &str) -> Fields {
    let mut all = spec.key_fields();
    all.insert("weights".to_owned(), weights.into());
    all
}
