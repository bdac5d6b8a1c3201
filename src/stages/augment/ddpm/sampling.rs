//! Generates the samples: the trained network inpaints a hole in a random normal image. The hole has the shape of a
//! transformed mask.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use image::RgbImage;
use rayon::prelude::*;

use super::super::super::fields::Fields;
use super::super::super::{Context, Item, StageError};
use super::super::faults::Fault;
use super::super::motions::position;
use super::super::provenance::{self, SampleOrigin};
use super::super::sources::{Defect, Sources, UnpaddedImage};
use super::super::{Augment, id_of};
use super::patches::{Window, any_marked, size_of};
use super::training::Trained;
use super::{Painting, failed, pictures};
use crate::kernels::cutpaste::DefectTransform;
use crate::kernels::diffusion::{
    Ddim, Denoiser, InpaintCondition, Sampling, Schedule, blend, dilate, feather, inpaint,
};
use crate::kernels::random::Rng;

/// Number of samples between two checks for cancellation.
const BATCH: usize = 8;

/// Number of masks that are drawn for a sample. The last is accepted even if it has fewer than `min_area` pixels in
/// its window.
const DRAWS: usize = 8;

/// The random choices for a sample, made before it is inpainted.
struct Draft<'a> {
    seed: u64,
    normal: &'a str,
    surface: UnpaddedImage,
    defect: &'a Defect<'a>,
    motion: DefectTransform,
    top: isize,
    left: isize,
    window: Window,
    /// Whether each pixel of the window is inside the mask: `[side, side]`.
    mask: Vec<bool>,
    /// The generator of the noise.
    rng: Rng,
}

/// Writes the samples into `set`. They are generated in parallel, each from its own seed, so the bytes do not depend on
/// the number of threads, and a larger `count` does not change the first samples.
pub(super) fn sample(
    painting: &Painting,
    spec: &Augment,
    sources: &Sources<'_>,
    trained: &Trained,
    set: &Path,
    context: &Context<'_>,
) -> Result<Vec<SampleOrigin>, StageError> {
    let fail = failed("cannot sample from the diffusion model");
    let denoiser =
        Denoiser::new(&painting.architecture, &trained.parameters, painting.target).map_err(fail)?;
    let denoiser = Mutex::new(denoiser);
    let share = || denoiser.lock().unwrap_or_else(PoisonError::into_inner).share();
    let fields = fields(painting, spec, sources, trained);
    let (seeds, mut origins, mut shown) = (spec.seeds(context.seed), Vec::new(), Vec::new());
    for (batch, members) in seeds.chunks(BATCH).enumerate() {
        context.check()?;
        let first = batch * BATCH;
        let generated: Result<Vec<_>, StageError> = members
            .par_iter()
            .enumerate()
            .map_init(share, |denoiser, (index, &seed)| {
                let id = id_of("ddpm", first + index);
                obtain(painting, spec, sources, denoiser, &fields, (seed, &id), set, context)
            })
            .collect();
        for (origin, cell) in generated? {
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

/// Returns the fields that all samples depend on. The seed is added for each sample.
fn fields(painting: &Painting, spec: &Augment, sources: &Sources<'_>, trained: &Trained) -> Fields {
    let mut fields = painting.sampling_fields();
    spec.motions.add_fields(&mut fields);
    fields.insert("item".to_owned(), "sample".into());
    fields.insert("network".to_owned(), trained.digest.to_string().into());
    fields.insert("blend".to_owned(), painting.blend.into());
    fields.insert("side".to_owned(), painting.architecture.side.into());
    fields.extend(painting.target_fields());
    let digests: Vec<String> = sources.digests().collect();
    fields.insert("data".to_owned(), digests.into());
    fields
}

/// Takes one sample from the cache or generates it, and adds it to the output.
#[expect(clippy::too_many_arguments, reason = "what all samples share, and the seed and id of this one")]
fn obtain(
    painting: &Painting,
    spec: &Augment,
    sources: &Sources<'_>,
    denoiser: &Denoiser,
    fields: &Fields,
    (seed, id): (u64, &str),
    set: &Path,
    context: &Context<'_>,
) -> Result<(SampleOrigin, pictures::Cell), StageError> {
    let mut draft = Draft::new(painting, spec, sources, seed)?;
    let mut fields = fields.clone();
    fields.insert("seed".to_owned(), seed.to_string().into());
    let item = match context.items.recall(&fields) {
        Some(item) => item,
        None => draft.keep(painting, denoiser, &fields, id, set, context)?,
    };
    let (surface, marked) = (&draft.surface, draft.marked(painting));
    let (painted, fault) = provenance::add_output(id, &item.files, surface, marked, sources, context)?;
    let cell = draft.cell(painting, &painted);
    Ok((draft.origin(id, fault), cell))
}

impl<'a> Draft<'a> {
    fn new(
        painting: &Painting,
        spec: &Augment,
        sources: &'a Sources<'a>,
        seed: u64,
    ) -> Result<Self, StageError> {
        let side = painting.architecture.side;
        let mut rng = Rng::new(seed, "ddpm");
        let &(normal, file, ref one) = &sources.normals[rng.below(sources.normals.len())];
        let surface = UnpaddedImage::read(normal, file, one.mask)?;
        let size = size_of(normal, &surface.image, side)?;
        let mut tries = 0;
        loop {
            let defect = &sources.defects[rng.below(sources.defects.len())];
            let (motion, moved) = spec.motions.draw(&mut rng, &defect.patch, 0.0, size);
            let (top, left) = position(&mut rng, &moved, size);
            let marked = moved.marked(size.0, size.1, top, left);
            let pixel = any_marked(&mut rng, &marked);
            let window = Window::around(&mut rng, (pixel / size.1, pixel % size.1), side, size);
            let mut mask = window.cut(&marked, size.1, side);
            trim(&mut mask, window, side, size, painting.blend + 1);
            let area = mask.iter().filter(|&&is_marked| is_marked).count();
            tries += 1;
            if area >= spec.motions.min_area || area > 0 && tries >= DRAWS {
                return Ok(Self { seed, normal, surface, defect, motion, top, left, window, mask, rng });
            }
            if tries >= 100 * DRAWS {
                return Err(StageError::data(
                    format!("no defect mask has a pixel in the middle of a patch of {side} px"),
                    "lower `blend`, or raise `side`",
                ));
            }
        }
    }

    /// Inpaints the sample and stores it in the cache.
    fn keep(
        &mut self,
        painting: &Painting,
        denoiser: &Denoiser,
        fields: &Fields,
        id: &str,
        set: &Path,
        context: &Context<'_>,
    ) -> Result<Item, StageError> {
        let (image, mask) = self.inpaint(painting, denoiser)?;
        let [image_name, mask_name] = provenance::write(set, id, &image, mask)?;
        context.items.keep(fields, &[set.join(image_name), set.join(mask_name)], "")
    }

    /// Inpaints the sample. Returns the image with its padding, and its mask.
    fn inpaint(
        &mut self,
        painting: &Painting,
        denoiser: &Denoiser,
    ) -> Result<(RgbImage, Vec<u8>), StageError> {
        let side = painting.architecture.side;
        let number = |&is_marked: &bool| f32::from(is_marked);
        let mask: Vec<f32> = self.mask.iter().map(number).collect();
        let hole: Vec<f32> = dilate(&self.mask, side, painting.blend).iter().map(number).collect();
        let surface = self.window.pixels(&self.surface.image, side);
        let schedule = Schedule::new(painting.recipe.noise, painting.recipe.times);
        let prediction = painting.recipe.prediction;
        let ddim = Ddim::new(&schedule, prediction, painting.sampling_steps, painting.eta);
        let sampling = Sampling { ddim, guidance: painting.guidance };
        let condition = InpaintCondition { image: &surface, mask: &mask, hole: &hole };
        let painted = inpaint(denoiser, &sampling, &condition, &mut self.rng)
            .map_err(failed("cannot sample from the diffusion model"))?;
        let mut patch = self.cut(&self.surface.image, side);
        blend(&mut patch, &painted, &feather(&self.mask, side, painting.blend));
        let mut image = self.surface.image.clone();
        let mut whole = vec![0; (image.width() * image.height()) as usize];
        for index in 0..side * side {
            let (row, column) = (self.window.top + index / side, self.window.left + index % side);
            let pixel = [patch[index * 3], patch[index * 3 + 1], patch[index * 3 + 2]];
            image.put_pixel(column as u32, row as u32, image::Rgb(pixel));
            whole[row * image.width() as usize + column] = if self.mask[index] { 255 } else { 0 };
        }
        Ok(self.surface.padded(image, whole))
    }

    /// Cuts the window out of an image: `[side, side, 3]`.
    fn cut(&self, image: &RgbImage, side: usize) -> Vec<u8> {
        let pixel = |index: usize| {
            let (row, column) = (self.window.top + index / side, self.window.left + index % side);
            image.get_pixel(column as u32, row as u32).0
        };
        (0..side * side).flat_map(pixel).collect()
    }

    /// Returns the marked pixels, as row-major indices in the image without padding.
    fn marked(&self, painting: &Painting) -> impl Iterator<Item = usize> + Clone {
        let (side, width) = (painting.architecture.side, self.surface.size().1);
        let marked = (0..self.mask.len()).filter(|&index| self.mask[index]);
        marked.map(move |index| (self.window.top + index / side) * width + self.window.left + index % side)
    }

    fn cell(&self, painting: &Painting, painted: &RgbImage) -> pictures::Cell {
        let side = painting.architecture.side;
        pictures::Cell {
            before: self.cut(&self.surface.image, side),
            mask: self.mask.clone(),
            after: self.cut(painted, side),
        }
    }

    fn origin(&self, id: &str, fault: Option<Fault>) -> SampleOrigin {
        SampleOrigin {
            id: id.to_owned(),
            normal: self.normal.to_owned(),
            mask_of: self.defect.image.to_owned(),
            component: self.defect.component,
            seed: self.seed,
            motion: self.motion,
            top: self.top,
            left: self.left,
            settings: format!("window_top={} window_left={}", self.window.top, self.window.left),
            region: self.surface.region(),
            fault,
        }
    }
}

/// Clears a mask near the edges of the window, where the inpainted border could not fade out. At edges of the image the
/// mask may reach the edge.
fn trim(mask: &mut [bool], window: Window, side: usize, (height, width): (usize, usize), border: usize) {
    let range = |from: usize, extent: usize| {
        let low = if from == 0 { 0 } else { border };
        let high = if from + side == extent { side } else { side.saturating_sub(border) };
        low..high
    };
    let (rows, columns) = (range(window.top, height), range(window.left, width));
    for (index, is_marked) in mask.iter_mut().enumerate() {
        *is_marked &= rows.contains(&(index / side)) && columns.contains(&(index % side));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_a_distance_from_window_edges_inside_the_image() {
        let kept = |window: Window| {
            let mut mask = vec![true; 64];
            trim(&mut mask, window, 8, (20, 8), 2);
            mask.iter().filter(|&&is_marked| is_marked).count()
        };
        assert_eq!(
            kept(Window { top: 4, left: 0 }),
            4 * 8,
            "as wide as the image, in the middle of its height"
        );
        assert_eq!(kept(Window { top: 0, left: 0 }), 6 * 8);
        assert_eq!(kept(Window { top: 12, left: 0 }), 6 * 8);
    }
}
