//! The samples: a hole of a moved mask's shape in a random normal image, painted by the trained network.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::RgbImage;
use rayon::prelude::*;

use super::super::super::fields::Fields;
use super::super::super::{Context, Item, StageError};
use super::super::motions::position;
use super::super::provenance::{self, Origin};
use super::super::sources::{Defect, Sources};
use super::super::{Augment, id_of};
use super::patches::{Window, any_marked, size_of};
use super::training::Trained;
use super::{Painting, failed, pictures};
use crate::artifacts::File;
use crate::artifacts::image_set::read_rgb;
use crate::kernels::cutpaste::DefectTransform;
use crate::kernels::diffusion::{
    Ddim, Denoiser, InpaintCondition, Sampling, Schedule, blend, dilate, feather, inpaint,
};
use crate::kernels::random::Rng;

/// Samples between two looks at whether the user wants to stop.
const BATCH: usize = 8;

/// Draws of a mask before one is taken that is small in its window.
const DRAWS: usize = 8;

/// What a sample will be.
struct Draft<'a> {
    seed: u64,
    normal: &'a str,
    surface: RgbImage,
    defect: &'a Defect<'a>,
    motion: DefectTransform,
    top: isize,
    left: isize,
    window: Window,
    /// The mask within the window.
    mask: Vec<bool>,
    /// What the noise is drawn from.
    stream: Rng,
}

/// Paints the samples into `set`, in parallel; the bytes do not depend on the number of threads, and the first of
/// many samples are those of few.
pub(super) fn sample(
    painting: &Painting,
    spec: &Augment,
    sources: &Sources<'_>,
    trained: &Trained,
    set: &Path,
    context: &Context<'_>,
) -> Result<Vec<Origin>, StageError> {
    let fail = failed("cannot paint with the diffusion model");
    let painter =
        Denoiser::new(&painting.architecture, &trained.parameters, painting.device).map_err(fail)?;
    let painter = Mutex::new(painter);
    let share = || painter.lock().unwrap_or_else(PoisonError::into_inner).share();
    let fields = fields(painting, spec, sources, trained);
    let (seeds, mut origins, mut shown) = (spec.seeds(context.seed), Vec::new(), Vec::new());
    for (batch, members) in seeds.chunks(BATCH).enumerate() {
        context.check()?;
        let first = batch * BATCH;
        let made: Result<Vec<_>, StageError> = members
            .par_iter()
            .enumerate()
            .map_init(share, |painter, (place, &seed)| {
                let id = id_of("ddpm", first + place);
                one(painting, spec, sources, painter, &fields, (seed, &id), set, context)
            })
            .collect();
        for (origin, cell) in made? {
            origins.push(origin);
            if shown.len() < pictures::SAMPLES {
                shown.push(cell);
            }
        }
        context.progress.report((first + members.len()) as u64, spec.count as u64, "image");
    }
    let [network, losses] = &trained.files;
    context.items.add_output(network, "images/training/network.safetensors");
    context.items.add_output(losses, "images/training/loss.csv");
    pictures::draw(painting, sources, &trained.losses, &shown, &set.join("training"))?;
    Ok(origins)
}

/// What every sample depends on, apart from its seed.
fn fields(painting: &Painting, spec: &Augment, sources: &Sources<'_>, trained: &Trained) -> Fields {
    let mut fields = painting.sampling_fields();
    spec.motions.add_fields(&mut fields);
    fields.insert("item".to_owned(), "sample".into());
    fields.insert("network".to_owned(), trained.digest.to_string().into());
    fields.insert("blend".to_owned(), painting.blend.into());
    fields.insert("side".to_owned(), painting.architecture.side.into());
    fields.insert("device".to_owned(), painting.device.class().into());
    let digests: Vec<String> = sources.digests().collect();
    fields.insert("data".to_owned(), digests.into());
    fields
}

/// One sample, placed in the set: painted, or found again.
#[expect(clippy::too_many_arguments, reason = "what all samples share, and what is this one's")]
fn one(
    painting: &Painting,
    spec: &Augment,
    sources: &Sources<'_>,
    painter: &Denoiser,
    fields: &Fields,
    (seed, id): (u64, &str),
    set: &Path,
    context: &Context<'_>,
) -> Result<(Origin, pictures::Cell), StageError> {
    let mut draft = Draft::new(painting, spec, sources, seed)?;
    let mut fields = fields.clone();
    fields.insert("seed".to_owned(), seed.to_string().into());
    let item = match context.items.recall(&fields) {
        Some(item) => item,
        None => draft.keep(painting, painter, &fields, id, set, context)?,
    };
    let [image, mask] = item.files.as_slice() else {
        return Err(StageError::data(
            format!("the cache holds {} files of the sample `{id}`, not 2", item.files.len()),
            "run with --force for this stage",
        ));
    };
    let [image_name, mask_name] = provenance::names(id);
    context.items.add_output(image, &format!("images/{image_name}"));
    context.items.add_output(mask, &format!("images/{mask_name}"));
    let cell = draft.cell(painting, &image.file())?;
    Ok((draft.origin(id), cell))
}

impl<'a> Draft<'a> {
    fn new(
        painting: &Painting,
        spec: &Augment,
        sources: &'a Sources<'a>,
        seed: u64,
    ) -> Result<Self, StageError> {
        let side = painting.architecture.side;
        let mut stream = Rng::new(seed, "ddpm");
        let (normal, file) = sources.normals[stream.below(sources.normals.len())];
        let surface = read_rgb(file)?;
        let size = size_of(normal, &surface, side)?;
        let mut tries = 0;
        loop {
            let defect = &sources.defects[stream.below(sources.defects.len())];
            let (motion, moved) = spec.motions.draw(&mut stream, &defect.patch, 0.0, size);
            let (top, left) = position(&mut stream, &moved, size);
            let marked = moved.marked(size.0, size.1, top, left);
            let pixel = any_marked(&mut stream, &marked);
            let window = Window::around(&mut stream, (pixel / size.1, pixel % size.1), side, size);
            let mut mask = window.cut(&marked, size.1, side);
            trim(&mut mask, window, side, size, painting.blend + 1);
            let area = mask.iter().filter(|&&is_marked| is_marked).count();
            tries += 1;
            if area >= spec.motions.min_area || area > 0 && tries >= DRAWS {
                return Ok(Self { seed, normal, surface, defect, motion, top, left, window, mask, stream });
            }
            if tries >= 100 * DRAWS {
                return Err(StageError::data(
                    format!("no defect leaves a pixel in the middle of a patch of {side} px"),
                    "lower `blend`, or raise `side`",
                ));
            }
        }
    }

    /// Paints it and keeps it.
    fn keep(
        &mut self,
        painting: &Painting,
        painter: &Denoiser,
        fields: &Fields,
        id: &str,
        set: &Path,
        context: &Context<'_>,
    ) -> Result<Item, StageError> {
        let (image, mask) = self.paint(painting, painter)?;
        let [image_name, mask_name] = provenance::write(set, id, &image, mask)?;
        context.items.keep(fields, &[set.join(image_name), set.join(mask_name)], "")
    }

    /// The painted image, and the mask of all of it.
    fn paint(&mut self, painting: &Painting, painter: &Denoiser) -> Result<(RgbImage, Vec<u8>), StageError> {
        let side = painting.architecture.side;
        let number = |&is_marked: &bool| f32::from(is_marked);
        let mask: Vec<f32> = self.mask.iter().map(number).collect();
        let hole: Vec<f32> = dilate(&self.mask, side, painting.blend).iter().map(number).collect();
        let surface = self.window.pixels(&self.surface, side);
        let schedule = Schedule::new(painting.recipe.noise, painting.recipe.times);
        let prediction = painting.recipe.prediction;
        let ddim = Ddim::new(&schedule, prediction, painting.sampling_steps, painting.eta);
        let sampling = Sampling { ddim, guidance: painting.guidance };
        let condition = InpaintCondition { image: &surface, mask: &mask, hole: &hole };
        let painted = inpaint(painter, &sampling, &condition, &mut self.stream)
            .map_err(failed("cannot paint with the diffusion model"))?;
        let mut patch = self.cut(&self.surface, side);
        blend(&mut patch, &painted, &feather(&self.mask, side, painting.blend));
        let mut image = self.surface.clone();
        let mut whole = vec![0; (image.width() * image.height()) as usize];
        for place in 0..side * side {
            let (row, column) = (self.window.top + place / side, self.window.left + place % side);
            let pixel = [patch[place * 3], patch[place * 3 + 1], patch[place * 3 + 2]];
            image.put_pixel(column as u32, row as u32, image::Rgb(pixel));
            whole[row * image.width() as usize + column] = if self.mask[place] { 255 } else { 0 };
        }
        Ok((image, whole))
    }

    /// The window's levels, `[side, side, 3]`.
    fn cut(&self, image: &RgbImage, side: usize) -> Vec<u8> {
        let pixel = |place: usize| {
            let (row, column) = (self.window.top + place / side, self.window.left + place % side);
            image.get_pixel(column as u32, row as u32).0
        };
        (0..side * side).flat_map(pixel).collect()
    }

    fn cell(&self, painting: &Painting, painted: &File) -> Result<pictures::Cell, StageError> {
        let side = painting.architecture.side;
        let after = read_rgb(painted)?;
        Ok(pictures::Cell {
            before: self.cut(&self.surface, side),
            mask: self.mask.clone(),
            after: self.cut(&after, side),
        })
    }

    fn origin(&self, id: &str) -> Origin {
        Origin {
            id: id.to_owned(),
            normal: self.normal.to_owned(),
            mask_of: self.defect.image.to_owned(),
            component: self.defect.component,
            seed: self.seed,
            motion: self.motion,
            top: self.top,
            left: self.left,
            settings: format!("window_top={} window_left={}", self.window.top, self.window.left),
        }
    }
}

/// Clears a mask near the window's edges, where what is painted could not fade; at the image's own edges it may
/// reach them.
fn trim(mask: &mut [bool], window: Window, side: usize, (height, width): (usize, usize), border: usize) {
    let range = |from: usize, extent: usize| {
        let low = if from == 0 { 0 } else { border };
        let high = if from + side == extent { side } else { side.saturating_sub(border) };
        low..high
    };
    let (rows, columns) = (range(window.top, height), range(window.left, width));
    for (place, is_marked) in mask.iter_mut().enumerate() {
        *is_marked &= rows.contains(&(place / side)) && columns.contains(&(place % side));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_away_from_edges_that_are_not_the_images() {
        let kept = |window: Window| {
            let mut mask = vec![true; 64];
            trim(&mut mask, window, 8, (20, 8), 2);
            mask.iter().filter(|&&is_marked| is_marked).count()
        };
        assert_eq!(
            kept(Window { top: 4, left: 0 }),
            4 * 8,
            "as wide as the image, in the midst of its height"
        );
        assert_eq!(kept(Window { top: 0, left: 0 }), 6 * 8);
        assert_eq!(kept(Window { top: 12, left: 0 }), 6 * 8);
    }
}
