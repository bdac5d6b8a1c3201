//! Pastes a defect of one image onto another (after Li et al. 2021, `CutPaste`, CVPR).
//!
//! There are two deviations from the paper, to get realistic defects. Only the pixels of a real defect are pasted, not
//! a rectangle. And the pasted pixels keep their contrast to the surrounding surface instead of their grey levels, so
//! that a crack of a bright surface is a crack on a dark surface, too.

/// A defect and the surface around it, cut out of an image.
#[derive(Debug, Clone)]
pub struct DefectPatch {
    height: usize,
    width: usize,
    /// RGB levels: `[height, width, 3]`.
    pixels: Vec<u8>,
    /// `[height, width]`: 1 on the defect, 0 elsewhere.
    mask: Vec<f32>,
    /// `[height, width]`: opacity of the patch, 1 on the defect and decreasing to 0 around it.
    alpha: Vec<f32>,
    /// `[height, width]`: 1 on the normal surface around the defect, 0 on the defect and on other defects.
    ring: Vec<f32>,
}

/// How a defect is transformed before it is pasted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DefectTransform {
    /// Rotation, in degrees.
    pub angle: f64,
    /// Scale factor.
    pub scale: f64,
    /// Whether the defect is mirrored left to right before it is rotated.
    pub flip: bool,
    /// Factor of the contrast to the surrounding surface.
    pub contrast: f64,
}

/// A defect after a [`DefectTransform`].
#[derive(Debug, Clone)]
pub struct TransformedDefect {
    width: usize,
    pixels: Vec<f32>,
    mask: Vec<bool>,
    alpha: Vec<f32>,
    ring: Vec<f32>,
    contrast: f32,
}

/// The image that a defect is pasted onto, modified in place.
pub struct TargetImage<'a> {
    /// Height of the image, in px.
    pub height: usize,
    /// Width of the image, in px.
    pub width: usize,
    /// RGB levels: `[height, width, 3]`.
    pub pixels: &'a mut [u8],
}

/// Fraction of a pixel that a transformed defect must cover for the pixel to be marked. Chosen such that lines of
/// 1 px stay connected when rotated.
const MARKED_SHARE: f32 = 0.25;

/// Width, in px beyond the soft border, of the ring around a defect in which the level of the surface is measured
/// (chosen).
const RING: usize = 3;

impl DefectPatch {
    /// Cuts the component with these `pixels` (row-major indices) out of `image: [height, width, 3]`.
    ///
    /// `mask: [height, width]` is nonzero on every defect of the image. `blend` is the width of the soft border in px.
    /// Cost: the pixels of the component times `(blend + 3)²`.
    ///
    /// # Panics
    /// If the shapes do not agree, or the component is empty.
    pub fn cut(image: &[u8], mask: &[u8], width: usize, pixels: &[u32], blend: usize) -> Self {
        assert_eq!(
            image.len(),
            mask.len() * 3,
            "an image of {} and a mask of {} values",
            image.len(),
            mask.len()
        );
        assert!(!pixels.is_empty(), "a component without pixels");
        let height = mask.len() / width;
        let margin = blend + RING;
        let rows = || pixels.iter().map(|&pixel| pixel as usize / width);
        let columns = || pixels.iter().map(|&pixel| pixel as usize % width);
        let around = |least: Option<usize>, most: Option<usize>, side: usize| {
            (least.unwrap_or(0).saturating_sub(margin), (most.unwrap_or(0) + margin + 1).min(side))
        };
        let (top, bottom) = around(rows().min(), rows().max(), height);
        let (left, right) = around(columns().min(), columns().max(), width);
        let mut patch = Self::empty(bottom - top, right - left);
        for row in top..bottom {
            let (from, to) = (row * width + left, row * width + right);
            patch.pixels.extend_from_slice(&image[from * 3..to * 3]);
        }
        for (row, column) in rows().zip(columns()) {
            patch.mask[(row - top) * patch.width + column - left] = 1.0;
            patch.spread(row - top, column - left, blend);
        }
        for row in top..bottom {
            for column in left..right {
                if mask[row * width + column] != 0 {
                    patch.clear_ring(row - top, column - left);
                }
            }
        }
        patch
    }

    /// Removes a marked pixel and its neighbours from the ring: the blurred edge of a defect is not normal surface.
    fn clear_ring(&mut self, row: usize, column: usize) {
        for near_row in row.saturating_sub(1)..(row + 2).min(self.height) {
            for near_column in column.saturating_sub(1)..(column + 2).min(self.width) {
                self.ring[near_row * self.width + near_column] = 0.0;
            }
        }
    }

    fn empty(height: usize, width: usize) -> Self {
        let zeros = vec![0.0; height * width];
        Self { height, width, pixels: Vec::new(), mask: zeros.clone(), alpha: zeros.clone(), ring: zeros }
    }

    /// Extends the soft border and the ring by those of one defect pixel.
    fn spread(&mut self, row: usize, column: usize, blend: usize) {
        let margin = blend + RING;
        for near_row in row.saturating_sub(margin)..(row + margin + 1).min(self.height) {
            for near_column in column.saturating_sub(margin)..(column + margin + 1).min(self.width) {
                let squared = row.abs_diff(near_row).pow(2) + column.abs_diff(near_column).pow(2);
                let alpha = 1.0 - (squared as f32).sqrt() / (blend + 1) as f32;
                let index = near_row * self.width + near_column;
                self.alpha[index] = self.alpha[index].max(alpha);
                if squared <= margin * margin {
                    self.ring[index] = 1.0;
                }
            }
        }
    }

    /// Mirrors, scales and rotates the defect about its centre, with bilinear interpolation, into the smallest box
    /// that holds it. The identity transform keeps the mask.
    pub fn transformed(&self, motion: &DefectTransform) -> TransformedDefect {
        let radians = motion.angle.to_radians();
        let (sine, cosine) =
            if motion.angle == 0.0 { (0.0, 1.0) } else { (libm::sin(radians), libm::cos(radians)) };
        let (h, w) = (self.height as f64 * motion.scale, self.width as f64 * motion.scale);
        let height = (h * cosine.abs() + w * sine.abs() - 1e-9).ceil().max(1.0) as usize;
        let width = (w * cosine.abs() + h * sine.abs() - 1e-9).ceil().max(1.0) as usize;
        let mut moved = TransformedDefect {
            width,
            pixels: Vec::with_capacity(height * width * 3),
            mask: Vec::with_capacity(height * width),
            alpha: Vec::with_capacity(height * width),
            ring: Vec::with_capacity(height * width),
            contrast: motion.contrast as f32,
        };
        for index in 0..height * width {
            let y = (index / width) as f64 + 0.5 - height as f64 / 2.0;
            let x = (index % width) as f64 + 0.5 - width as f64 / 2.0;
            let (back_y, back_x) = (cosine * y - sine * x, sine * y + cosine * x);
            let back_x = if motion.flip { -back_x } else { back_x };
            let from_y = back_y / motion.scale + self.height as f64 / 2.0 - 0.5;
            let from_x = back_x / motion.scale + self.width as f64 / 2.0 - 0.5;
            self.sample(from_y, from_x, &mut moved);
        }
        moved
    }

    /// Appends one pixel to `moved`, sampled at (y, x) of the patch. Outside the patch the opacity is 0.
    fn sample(&self, y: f64, x: f64, moved: &mut TransformedDefect) {
        let (row, column) = (y.floor(), x.floor());
        let (v, u) = ((y - row) as f32, (x - column) as f32);
        let (mut levels, mut mask, mut alpha, mut ring) = ([0.0; 3], 0.0, 0.0, 0.0);
        let mut inside = 0.0;
        for (down, right, share) in [
            (0.0, 0.0, (1.0 - v) * (1.0 - u)),
            (0.0, 1.0, (1.0 - v) * u),
            (1.0, 0.0, v * (1.0 - u)),
            (1.0, 1.0, v * u),
        ] {
            let (row, column) = (row + down, column + right);
            let is_inside =
                row >= 0.0 && column >= 0.0 && row < self.height as f64 && column < self.width as f64;
            if !is_inside {
                continue;
            }
            let index = row as usize * self.width + column as usize;
            for (level, &value) in levels.iter_mut().zip(&self.pixels[index * 3..]) {
                *level += share * f32::from(value);
            }
            inside += share;
            mask += share * self.mask[index];
            alpha += share * self.alpha[index];
            ring += share * self.ring[index];
        }
        moved.pixels.extend(levels.map(|level| if inside > 0.0 { level / inside } else { 0.0 }));
        moved.mask.push(mask >= MARKED_SHARE);
        moved.alpha.push(if inside > 0.0 { alpha } else { 0.0 });
        // A pixel belongs to the ring only if all of its sources do.
        moved.ring.push(if ring >= 1.0 - 1e-6 { 1.0 } else { 0.0 });
    }
}

impl TransformedDefect {
    /// Returns the bounding box of the marked pixels as (top, left, bottom, right); `None` if no pixel is marked.
    pub fn extent(&self) -> Option<(usize, usize, usize, usize)> {
        let marked =
            || self.mask.iter().enumerate().filter(|&(_, &is_marked)| is_marked).map(|(index, _)| index);
        let top = marked().map(|index| index / self.width).min()?;
        let left = marked().map(|index| index % self.width).min()?;
        let bottom = marked().map(|index| index / self.width).max()? + 1;
        let right = marked().map(|index| index % self.width).max()? + 1;
        Some((top, left, bottom, right))
    }

    /// Returns the mask, `[height, width]`, that pasting with the corner at (`top`, `left`) would give. The corner may
    /// be outside the image.
    pub fn marked(&self, height: usize, width: usize, top: isize, left: isize) -> Vec<bool> {
        let mut marked = vec![false; height * width];
        for (from, to) in self.overlap(height, width, top, left) {
            marked[to] |= self.mask[from];
        }
        marked
    }

    /// Returns (index in the defect, index in the image) of the defect's pixels that are inside the image.
    fn overlap(
        &self,
        height: usize,
        width: usize,
        top: isize,
        left: isize,
    ) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.alpha.len()).filter_map(move |from| {
            let row = (from / self.width).checked_add_signed(top).filter(|&row| row < height)?;
            let column = (from % self.width).checked_add_signed(left).filter(|&column| column < width)?;
            Some((from, row * width + column))
        })
    }

    /// Pastes the defect with its corner at (`top`, `left`), which may be outside the image, and returns the mask:
    /// `[height, width]`, 0 or 255.
    ///
    /// `pasted = image + alpha · (contrast · (patch − ring of patch) + ring of image − image)`, where a ring stands for
    /// its mean level, per channel.
    ///
    /// # Panics
    /// If the target's pixels are not `[height, width, 3]`.
    pub fn paste(&self, target: &mut TargetImage<'_>, top: isize, left: isize) -> Vec<u8> {
        let (height, width) = (target.height, target.width);
        assert_eq!(target.pixels.len(), height * width * 3, "the target is not [{height}, {width}, 3]");
        let overlap: Vec<(usize, usize)> = self.overlap(height, width, top, left).collect();
        let (own, new) = self.rings(target.pixels, &overlap);
        let mut mask = vec![0; height * width];
        for (from, to) in overlap {
            if self.mask[from] {
                mask[to] = 255;
            }
            for channel in 0..3 {
                let level = &mut target.pixels[to * 3 + channel];
                let wanted = self.contrast * (self.pixels[from * 3 + channel] - own[channel]) + new[channel];
                let old = f32::from(*level);
                *level = (old + self.alpha[from] * (wanted - old) + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
        mask
    }

    /// Returns the mean level of the ring in the patch and in the image. If the ring is empty, both are 0, so that the
    /// defect keeps its levels.
    fn rings(&self, pixels: &[u8], overlap: &[(usize, usize)]) -> ([f32; 3], [f32; 3]) {
        let (mut own, mut new, mut sum) = ([0.0; 3], [0.0; 3], 0.0);
        for &(from, to) in overlap {
            let share = f64::from(self.ring[from]);
            sum += share;
            for channel in 0..3 {
                own[channel] += share * f64::from(self.pixels[from * 3 + channel]);
                new[channel] += share * f64::from(pixels[to * 3 + channel]);
            }
        }
        let mean = |total: [f64; 3]| total.map(|total| if sum > 0.0 { (total / sum) as f32 } else { 0.0 });
        (mean(own), mean(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: DefectTransform = DefectTransform { angle: 0.0, scale: 1.0, flip: false, contrast: 1.0 };

    /// Returns an image of one level with a darker L of three pixels at (8, 6), its mask and its component.
    fn scene(level: u8) -> (Vec<u8>, Vec<u8>, Vec<u32>) {
        let component = vec![8 * 20 + 6, 9 * 20 + 6, 9 * 20 + 7];
        let (mut image, mut mask) = (vec![level; 20 * 20 * 3], vec![0; 20 * 20]);
        for &pixel in &component {
            mask[pixel as usize] = 255;
            image[pixel as usize * 3..pixel as usize * 3 + 3].fill(level - 40);
        }
        (image, mask, component)
    }

    fn paste(moved: &TransformedDefect, level: u8, top: isize, left: isize) -> (Vec<u8>, Vec<u8>) {
        let mut pixels = vec![level; 20 * 20 * 3];
        let mask = moved.paste(&mut TargetImage { height: 20, width: 20, pixels: &mut pixels }, top, left);
        (pixels, mask)
    }

    #[test]
    fn an_unmoved_defect_is_pasted_as_it_was_with_its_contrast() {
        let (image, mask, component) = scene(150);
        let moved = DefectPatch::cut(&image, &mask, 20, &component, 0).transformed(&STILL);
        let (top, left, bottom, right) = moved.extent().unwrap();
        assert_eq!((bottom - top, right - left), (2, 2));
        let (pixels, found) = paste(&moved, 90, 8 - top as isize, 6 - left as isize);
        assert_eq!(found, mask);
        for (index, &marked) in mask.iter().enumerate() {
            assert_eq!(pixels[index * 3], if marked == 0 { 90 } else { 50 }, "pixel {index}");
        }
    }

    #[test]
    fn a_quarter_turn_and_a_mirror_move_each_pixel() {
        let (image, mask, component) = scene(150);
        let patch = DefectPatch::cut(&image, &mask, 20, &component, 0);
        let shape = |motion: DefectTransform| {
            let moved = patch.transformed(&motion);
            let (top, left, ..) = moved.extent().unwrap();
            let (_, mask) = paste(&moved, 90, -(top as isize), -(left as isize));
            [mask[0], mask[1], mask[20], mask[21]].map(|value| value / 255)
        };
        assert_eq!(shape(STILL), [1, 0, 1, 1]);
        assert_eq!(shape(DefectTransform { flip: true, ..STILL }), [0, 1, 1, 1]);
        assert_eq!(shape(DefectTransform { angle: 90.0, ..STILL }), [1, 1, 1, 0]);
        assert_eq!(shape(DefectTransform { angle: 180.0, ..STILL }), [1, 1, 0, 1]);
    }

    #[test]
    fn a_soft_border_fades_and_is_not_marked() {
        let (image, mask, component) = scene(150);
        let moved = DefectPatch::cut(&image, &mask, 20, &component, 2)
            .transformed(&DefectTransform { contrast: 2.0, ..STILL });
        let (top, left, ..) = moved.extent().unwrap();
        let (pixels, found) = paste(&moved, 90, 8 - top as isize, 6 - left as isize);
        assert_eq!(found, mask);
        assert_eq!(pixels[(8 * 20 + 6) * 3], 10, "twice the contrast");
        assert_eq!(pixels[0], 90);
    }

    #[test]
    fn thin_lines_survive_every_turn() {
        let component: Vec<u32> = (3..17).map(|column| 10 * 20 + column).collect();
        let (image, mut mask) = (vec![100; 20 * 20 * 3], vec![0; 400]);
        for &pixel in &component {
            mask[pixel as usize] = 1;
        }
        let patch = DefectPatch::cut(&image, &mask, 20, &component, 1);
        for angle in 0..180 {
            let moved = patch.transformed(&DefectTransform { angle: f64::from(angle), ..STILL });
            let marked = moved.mask.iter().filter(|&&is_marked| is_marked).count();
            assert!((12..=32).contains(&marked), "{marked} pixels at {angle}°");
            let found = crate::kernels::components::components(
                &moved.mask.iter().map(|&is_marked| u8::from(is_marked)).collect::<Vec<_>>(),
                moved.mask.len() / moved.width,
                moved.width,
            );
            assert_eq!(found.len(), 1, "in one piece at {angle}°");
        }
    }

    #[test]
    fn what_lies_outside_the_image_is_cut_off() {
        let (image, mask, component) = scene(150);
        let moved = DefectPatch::cut(&image, &mask, 20, &component, 3).transformed(&STILL);
        for index in [-30, -3, 0, 18, 40] {
            let (_, found) = paste(&moved, 90, index, index);
            assert!(found.len() == 400);
        }
    }
}
