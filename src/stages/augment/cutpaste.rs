//! `cutpaste`: transforms real defects and pastes them onto normal images.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::fields::{Fields, Reader};
use super::super::{Context, StageError};
use super::motions::position;
use super::provenance::{SampleOrigin, write};
use super::sources::{Sources, UnpaddedImage};
use super::{Augment, id_of};
use crate::artifacts::Files;
use crate::kernels::cutpaste::TargetImage;
use crate::kernels::random::Rng;

/// Number of samples between two checks for cancellation.
const BATCH: usize = 32;

/// How defects are pasted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pasting {
    /// Width of the soft border around a pasted defect, in px.
    pub blend: usize,
    /// The contrast is multiplied by a random factor between `1 - colour` and `1 + colour`. Li et al. jitter colours by
    /// 0.1.
    pub colour: f64,
}

impl Pasting {
    /// The fields that only this method reads, or reads with another default.
    pub(super) const FIELDS: [&str; 2] = ["blend", "colour"];

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            blend: reader.integer("blend", 0..=64, Some(2)) as usize,
            colour: reader.float("colour", 0.0..=1.0, Some(0.1)),
        }
    }

    pub(super) fn add_fields(&self, all: &mut Fields) {
        let Self { blend, colour } = self;
        all.insert("blend".to_owned(), (*blend).into());
        all.insert("colour".to_owned(), (*colour).into());
    }

    /// Writes the samples into `set`. They are generated in parallel, each from its own seed, so the bytes do not
    /// depend on the number of threads.
    pub(super) fn run(
        &self,
        spec: &Augment,
        files: &Files,
        set: &Path,
        context: &Context<'_>,
    ) -> Result<Vec<SampleOrigin>, StageError> {
        let sources = Sources::read(spec, self.blend, files, context)?;
        let seeds = spec.seeds(context.seed);
        let mut origins = Vec::with_capacity(spec.count);
        for (batch, members) in seeds.chunks(BATCH).enumerate() {
            context.check()?;
            let first = batch * BATCH;
            let generated: Result<Vec<SampleOrigin>, StageError> = members
                .par_iter()
                .enumerate()
                .map(|(index, &seed)| {
                    self.generate(spec, seed, &sources, set, id_of("cutpaste", first + index))
                })
                .collect();
            origins.extend(generated?);
            context.progress.report((first + members.len()) as u64, spec.count as u64, "image");
        }
        Ok(origins)
    }

    /// Generates one sample and writes it.
    fn generate(
        &self,
        spec: &Augment,
        seed: u64,
        sources: &Sources<'_>,
        set: &Path,
        id: String,
    ) -> Result<SampleOrigin, StageError> {
        let mut rng = Rng::new(seed, "cutpaste");
        let &(normal, file, ref one) = &sources.normals[rng.below(sources.normals.len())];
        let defect = &sources.defects[rng.below(sources.defects.len())];
        let surface = UnpaddedImage::read(normal, file, one.mask)?;
        let (mut image, (height, width)) = (surface.image.clone(), surface.size());
        let (motion, moved) = spec.motions.draw(&mut rng, &defect.patch, self.colour, (height, width));
        let (top, left) = position(&mut rng, &moved, (height, width));
        let mask = moved.paste(&mut TargetImage { height, width, pixels: &mut image }, top, left);
        let marked = (0..mask.len()).filter(|&pixel| mask[pixel] == u8::MAX);
        let fault = sources.fault(&surface.image, &image, marked);
        if fault.is_none() {
            let (image, mask) = surface.padded(image, mask);
            write(set, &id, &image, mask)?;
        }
        Ok(SampleOrigin {
            id,
            normal: normal.to_owned(),
            mask_of: defect.image.to_owned(),
            component: defect.component,
            seed,
            motion,
            top,
            left,
            settings: format!("contrast={:.4}", motion.contrast),
            region: surface.region(),
            fault,
        })
    }
}
