//! The training data of the network: patches of the training split, each with a mask and a hole.

use image::RgbImage;
use rayon::prelude::*;

use super::super::super::StageError;
use super::super::motions::position;
use super::super::sources::{Sources, UnpaddedImage};
use super::super::{Augment, Motions};
use super::Painting;
use crate::kernels::diffusion::{IMAGE_CHANNELS, TrainingBatch, dilate};
use crate::kernels::random::Rng;

/// The upper left corner of a square window of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) top: usize,
    pub(super) left: usize,
}

impl Window {
    /// Draws a window of `side` px that contains a pixel, in the middle half of the window if the image allows it.
    pub(super) fn around(
        rng: &mut Rng,
        (row, column): (usize, usize),
        side: usize,
        (height, width): (usize, usize),
    ) -> Self {
        let mut start = |pixel: usize, extent: usize| {
            let before = side / 4 + rng.below(side / 2);
            pixel.saturating_sub(before).min(extent - side)
        };
        Self { top: start(row, height), left: start(column, width) }
    }

    /// Cuts the window out of `[height, width]` values.
    pub(super) fn cut<T: Copy>(self, values: &[T], width: usize, side: usize) -> Vec<T> {
        let row = |row: usize| &values[(self.top + row) * width + self.left..][..side];
        (0..side).flat_map(|index| row(index).iter().copied()).collect()
    }

    /// Returns the pixels of the window as `[3, side, side]`, from -1 to 1.
    pub(super) fn pixels(self, image: &RgbImage, side: usize) -> Vec<f32> {
        let level = |channel: usize, index: usize| {
            let (row, column) = (self.top + index / side, self.left + index % side);
            f32::from(image.get_pixel(column as u32, row as u32).0[channel]) / 127.5 - 1.0
        };
        (0..IMAGE_CHANNELS)
            .flat_map(|channel| (0..side * side).map(move |index| level(channel, index)))
            .collect()
    }
}

/// Returns height and width of an image. Fails if a patch does not fit into it.
pub(super) fn size_of(id: &str, image: &RgbImage, side: usize) -> Result<(usize, usize), StageError> {
    let (height, width) = (image.height() as usize, image.width() as usize);
    if height < side || width < side {
        return Err(StageError::data(
            format!("`{id}` has {height}×{width} px, but a patch of `ddpm` has {side}×{side} px"),
            "lower `side` of the stage, or preprocess to a larger size",
        ));
    }
    Ok((height, width))
}

/// A training patch. The mask marks the defect, the hole the pixels to inpaint.
struct Patch {
    image: Vec<f32>,
    mask: Vec<bool>,
    hole: Vec<bool>,
}

impl Patch {
    /// Mirrors the patch left to right.
    fn mirror(&mut self, side: usize) {
        self.image.chunks_exact_mut(side).for_each(<[f32]>::reverse);
        for plane in [&mut self.mask, &mut self.hole] {
            plane.chunks_exact_mut(side).for_each(<[bool]>::reverse);
        }
    }

    /// Mirrors the patch top to bottom.
    fn flip(&mut self, side: usize) {
        fn flip<T: Copy>(plane: &mut [T], side: usize) {
            for row in 0..side / 2 {
                let (above, below) = plane.split_at_mut((side - 1 - row) * side);
                above[row * side..][..side].swap_with_slice(&mut below[..side]);
            }
        }
        for channel in self.image.chunks_exact_mut(side * side) {
            flip(channel, side);
        }
        flip(&mut self.mask, side);
        flip(&mut self.hole, side);
    }
}

/// Draws training patches. Holds the decoded defective images.
pub(super) struct Patches<'a> {
    sources: &'a Sources<'a>,
    defective: Vec<(RgbImage, Vec<bool>)>,
    motions: &'a Motions,
    side: usize,
    blend: usize,
    normal_share: f64,
}

impl<'a> Patches<'a> {
    pub(super) fn new(
        painting: &Painting,
        spec: &'a Augment,
        sources: &'a Sources<'a>,
    ) -> Result<Self, StageError> {
        let side = painting.architecture.side;
        let read = |(id, image, one): &(
            &str,
            &crate::artifacts::File,
            crate::artifacts::image_set::Labelled<'_>,
        )| {
            let surface = UnpaddedImage::read(id, image, one.mask)?;
            size_of(id, &surface.image, side)?;
            Ok((surface.image, surface.mask.iter().map(|&value| value > 0).collect()))
        };
        let defective: Result<Vec<_>, StageError> = sources.defective.par_iter().map(read).collect();
        Ok(Self {
            sources,
            defective: defective?,
            motions: &spec.motions,
            side,
            blend: painting.blend,
            normal_share: painting.normal_share,
        })
    }

    /// Draws the batch of a training step. It depends only on the seed and the step. The diffusion times are spread
    /// evenly (Kingma et al. 2021, appendix I.1), which reduces the variance of the loss.
    pub(super) fn batch(
        &self,
        seed: u64,
        step: usize,
        count: usize,
        times: usize,
    ) -> Result<TrainingBatch, StageError> {
        let mut rng = Rng::new(seed, &format!("ddpm step {step}"));
        let offset = rng.uniform();
        let mut batch = TrainingBatch::default();
        for index in 0..count {
            let is_normal = rng.uniform() < self.normal_share;
            let mut patch = if is_normal { self.normal(&mut rng)? } else { self.defect(&mut rng) };
            if rng.below(2) == 1 && self.motions.flip {
                patch.mirror(self.side);
            }
            if rng.below(2) == 1 && self.motions.flip {
                patch.flip(self.side);
            }
            let number = |&is_marked: &bool| f32::from(is_marked);
            batch.images.extend(patch.image);
            batch.masks.extend(patch.mask.iter().map(number));
            batch.holes.extend(patch.hole.iter().map(number));
            let share = ((index as f64 + offset) / count as f64).min(1.0);
            batch.times.push(((share * times as f64) as usize).min(times - 1));
        }
        batch.noise = (0..batch.images.len()).map(|_| rng.normal() as f32).collect();
        Ok(batch)
    }

    /// Draws a patch around a random pixel of a random defect.
    fn defect(&self, rng: &mut Rng) -> Patch {
        let defect = &self.sources.defects[rng.below(self.sources.defects.len())];
        let (image, mask) = &self.defective[defect.image_index];
        let (height, width) = (image.height() as usize, image.width() as usize);
        let pixel = defect.pixels[rng.below(defect.pixels.len())] as usize;
        let window = Window::around(rng, (pixel / width, pixel % width), self.side, (height, width));
        let mask = window.cut(mask, width, self.side);
        Patch { image: window.pixels(image, self.side), hole: dilate(&mask, self.side, self.blend), mask }
    }

    /// Draws a patch of a normal image with an empty mask. The hole has the shape of a random defect.
    fn normal(&self, rng: &mut Rng) -> Result<Patch, StageError> {
        let &(id, file, ref one) = &self.sources.normals[rng.below(self.sources.normals.len())];
        let image = UnpaddedImage::read(id, file, one.mask)?.image;
        let size = size_of(id, &image, self.side)?;
        let defect = &self.sources.defects[rng.below(self.sources.defects.len())];
        let (_, moved) = self.motions.draw(rng, &defect.patch, 0.0, size);
        let (top, left) = position(rng, &moved, size);
        let marked = moved.marked(size.0, size.1, top, left);
        let pixel = any_marked(rng, &marked);
        let window = Window::around(rng, (pixel / size.1, pixel % size.1), self.side, size);
        let shape = window.cut(&marked, size.1, self.side);
        Ok(Patch {
            image: window.pixels(&image, self.side),
            hole: dilate(&shape, self.side, self.blend),
            mask: vec![false; shape.len()],
        })
    }
}

/// Draws the index of a marked pixel. Returns 0 if no pixel is marked, and draws nothing.
pub(super) fn any_marked(rng: &mut Rng, marked: &[bool]) -> usize {
    let pixels: Vec<usize> = (0..marked.len()).filter(|&pixel| marked[pixel]).collect();
    if pixels.is_empty() { 0 } else { pixels[rng.below(pixels.len())] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_its_pixel_and_stays_within_the_image() {
        let mut rng = Rng::new(1, "windows");
        for _ in 0..1000 {
            let (row, column) = (rng.below(100), rng.below(70));
            let Window { top, left } = Window::around(&mut rng, (row, column), 64, (100, 70));
            assert!(top + 64 <= 100 && left + 64 <= 70);
            assert!((top..top + 64).contains(&row) && (left..left + 64).contains(&column));
        }
    }

    #[test]
    fn image_mask_and_hole_are_mirrored_and_flipped_together() {
        let mut patch = Patch {
            image: (0..48).map(|index| index as f32).collect(),
            mask: (0..16).map(|index| index == 1).collect(),
            hole: (0..16).map(|index| index < 3).collect(),
        };
        patch.mirror(4);
        let image = |patch: &Patch, index: usize| patch.image[index] as u32;
        assert!(patch.mask[2] && patch.hole[1] && image(&patch, 2) == 1 && image(&patch, 16 + 3) == 16);
        patch.flip(4);
        assert!(
            patch.mask[14] && patch.hole[13] && image(&patch, 14) == 1 && image(&patch, 32 + 12 + 3) == 32
        );
    }
}
