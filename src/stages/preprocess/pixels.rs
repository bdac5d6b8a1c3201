//! Resizes images and masks.

use image::{GrayImage, RgbImage};

use super::bit_mask::BitMask;
use super::spec::{MaskResize, Preprocess};
use crate::artifacts::image_set::{Preprocessing, Resize};
use crate::kernels::resize::{RowMaximum, RowResize};

/// Padding of `fit`: the mean of ImageNet in 8 bits, which is about 0 after normalisation.
const PADDING: [u8; 3] = [124, 116, 104];

fn marked(is_defect: bool) -> u8 {
    if is_defect { 255 } else { 0 }
}

/// One step of resizing an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Scales the image.
    Resize(Resize),
    /// Cuts out the centre without scaling.
    Cut,
}

/// The scaled size of an image and its position in the target.
struct TargetBox {
    height: usize,
    width: usize,
    /// Position of the upper left corner in the target: positive if the image is padded, negative if it is cut off.
    top: isize,
    left: isize,
}

impl TargetBox {
    fn new(step: Step, (h, w): (usize, usize), (to_h, to_w): (usize, usize)) -> Self {
        let middle = |to: usize, side: usize| (to as isize - side as isize).div_euclid(2);
        // `fit` uses the smaller scale factor and `crop` the larger. Integers are compared, so the result is exact.
        let is_by_height = match step {
            Step::Resize(Resize::Fit) => to_h * w <= to_w * h,
            Step::Resize(Resize::Crop) => to_h * w >= to_w * h,
            Step::Resize(Resize::Stretch | Resize::Native) => {
                return Self { height: to_h, width: to_w, top: 0, left: 0 };
            }
            Step::Cut => return Self { height: h, width: w, top: middle(to_h, h), left: middle(to_w, w) },
        };
        let scaled = |side: usize, to: usize, from: usize| ((2 * side * to + from) / (2 * from)).max(1);
        let (height, width) =
            if is_by_height { (to_h, scaled(w, to_h, h)) } else { (scaled(h, to_w, w), to_w) };
        Self { height, width, top: middle(to_h, height), left: middle(to_w, width) }
    }

    /// Copies `[height, width, C]` into a target of the given size, and pads or cuts it.
    fn copy_into_target<const C: usize>(
        &self,
        values: &[u8],
        (to_h, to_w): (usize, usize),
        padding: [u8; C],
    ) -> Vec<u8> {
        if (self.height, self.width) == (to_h, to_w) {
            return values.to_vec();
        }
        let mut laid = padding.repeat(to_h * to_w);
        for row in 0..self.height {
            let Some(to_row) = shifted(row, self.top, to_h) else { continue };
            for column in 0..self.width {
                let Some(to_column) = shifted(column, self.left, to_w) else { continue };
                let (from, to) = ((row * self.width + column) * C, (to_row * to_w + to_column) * C);
                laid[to..to + C].copy_from_slice(&values[from..from + C]);
            }
        }
        laid
    }
}

/// Returns the index of a row or column in the target, or `None` if it is outside.
fn shifted(index: usize, shift: isize, side: usize) -> Option<usize> {
    index.checked_add_signed(shift).filter(|&moved| moved < side)
}

/// Returns the resize steps with their target sizes. With `crop` and `via`, the image is scaled to `via` and the last
/// step only cuts (PatchCore on MVTec AD: 256, then 224).
pub(super) fn steps(
    resize: Resize,
    via: Option<(usize, usize)>,
    size: Option<(usize, usize)>,
) -> Vec<(Step, (usize, usize))> {
    let last = if resize == Resize::Crop && via.is_some() { Step::Cut } else { Step::Resize(resize) };
    via.map(|via| (Step::Resize(resize), via)).into_iter().chain(size.map(|size| (last, size))).collect()
}

/// Returns top, left, height and width of an image of `from` px (height, width) within the padding that `fit` adds; `None`
/// if nothing is added.
pub(super) fn inside(
    resize: Resize,
    size: Option<(usize, usize)>,
    from: (usize, usize),
) -> Option<[usize; 4]> {
    let to = size.filter(|_| resize == Resize::Fit)?;
    let TargetBox { height, width, top, left } = TargetBox::new(Step::Resize(Resize::Fit), from, to);
    ((height, width) != to).then_some([
        top.max(0) as usize,
        left.max(0) as usize,
        height.min(to.0),
        width.min(to.1),
    ])
}

/// Resizes an image as `preprocess` resized the images of a set. Can be used for new images too.
///
/// Bilinear with antialiasing. `fit` pads with the mean of ImageNet, `crop` cuts out the centre.
pub fn resize_pixels(image: &RgbImage, how: &Preprocessing) -> RgbImage {
    let steps = steps(how.resize, how.via_px, how.height_px.zip(how.width_px));
    steps.into_iter().fold(image.clone(), |image, (step, to)| resize_once(&image, step, to))
}

pub(super) fn resize_once(image: &RgbImage, step: Step, to: (usize, usize)) -> RgbImage {
    let mut rows = ImageRows::new((image.height() as usize, image.width() as usize), step, to);
    rows.push(image, 3);
    rows.finish()
}

/// Resizes an image whose rows arrive from top to bottom.
pub(super) struct ImageRows {
    from: (usize, usize),
    target_box: TargetBox,
    to: (usize, usize),
    /// The resize, and the number of channels; `None` before the first row.
    rows: Option<(RowResize, usize)>,
}

impl ImageRows {
    /// Begins one step of an image of `from` px (height, width).
    pub(super) fn new(from: (usize, usize), step: Step, to: (usize, usize)) -> Self {
        Self { from, target_box: TargetBox::new(step, from, to), to, rows: None }
    }

    /// Adds the next rows: of grey with one channel, or of RGB. All rows have the same channels.
    pub(super) fn push(&mut self, levels: &[u8], channels: usize) {
        let size = (self.target_box.height, self.target_box.width);
        let begin = || (RowResize::new(self.from, size, channels), channels);
        self.rows.get_or_insert_with(begin).0.push(levels);
    }

    /// Returns the image, after the last row.
    pub(super) fn finish(self) -> RgbImage {
        let (rows, channels) = self.rows.expect("an image has rows");
        let resized = rows.finish();
        let resized =
            if channels == 1 { resized.into_iter().flat_map(|level| [level; 3]).collect() } else { resized };
        let laid = self.target_box.copy_into_target(&resized, self.to, PADDING);
        RgbImage::from_raw(self.to.1 as u32, self.to.0 as u32, laid).expect("three levels per pixel")
    }
}

pub(super) fn resize_mask_once(
    mask: &BitMask,
    spec: &Preprocess,
    step: Step,
    to: (usize, usize),
) -> GrayImage {
    let target_box = TargetBox::new(step, mask.size(), to);
    let size = (target_box.height, target_box.width);
    let levels: Vec<u8> = match spec.mask_resize {
        MaskResize::Area => {
            let mut rows = RowMaximum::new(mask.size(), size);
            mask.rows().for_each(|row| rows.push(&row));
            rows.finish().into_iter().map(|value| marked(value != 0)).collect()
        }
        MaskResize::Reference => {
            let mut rows = RowResize::new(mask.size(), size, 1);
            mask.rows().for_each(|row| rows.push(&row));
            rows.finish().into_iter().map(|level| marked(level == 255)).collect()
        }
    };
    let laid = target_box.copy_into_target(&levels, to, [0]);
    GrayImage::from_raw(to.1 as u32, to.0 as u32, laid).expect("one level per pixel")
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn how(resize: Resize, height: usize, width: usize) -> Preprocessing {
        Preprocessing {
            height_px: Some(height),
            width_px: Some(width),
            resize,
            via_px: None,
            depth_bits: None,
        }
    }

    #[test]
    fn fit_pads_and_crop_cuts_evenly() {
        let image = RgbImage::from_pixel(20, 10, Rgb([200, 10, 10]));
        let fit = resize_pixels(&image, &how(Resize::Fit, 10, 10));
        let is_padding = |row: u32| fit.get_pixel(5, row).0 == PADDING;
        assert_eq!((0..10).filter(|&row| is_padding(row)).collect::<Vec<_>>(), [0, 1, 7, 8, 9]);
        let crop = resize_pixels(&image, &how(Resize::Crop, 10, 10));
        assert!(crop.pixels().all(|pixel| pixel.0 == [200, 10, 10]));
        let mut halves = image.clone();
        (0..10).for_each(|row| (0..5).for_each(|column| halves.put_pixel(column, row, Rgb([0, 0, 0]))));
        let cut = resize_pixels(&halves, &how(Resize::Crop, 10, 10));
        assert_eq!(cut.get_pixel(0, 0).0, [200, 10, 10], "columns 5 to 14 remain");
    }

    #[test]
    fn the_result_has_the_requested_size() {
        for kind in [Resize::Stretch, Resize::Fit, Resize::Crop] {
            for side in 1..=20 {
                let image = RgbImage::from_pixel(7, 11, Rgb([90, 90, 90]));
                let found = resize_pixels(&image, &how(kind, side, 21 - side));
                assert_eq!((found.height() as usize, found.width() as usize), (side, 21 - side), "{kind:?}");
            }
        }
    }

    #[test]
    fn grey_images_are_resized_as_their_colours() {
        let grey = GrayImage::from_fn(40, 50, |x, y| image::Luma([((x * 5) ^ (y * 3)) as u8]));
        let colours = image::DynamicImage::ImageLuma8(grey.clone()).into_rgb8();
        for step in [Step::Resize(Resize::Stretch), Step::Resize(Resize::Fit), Step::Cut] {
            let mut rows = ImageRows::new((50, 40), step, (17, 23));
            rows.push(&grey, 1);
            assert_eq!(rows.finish(), resize_once(&colours, step, (17, 23)), "{step:?}");
        }
    }

    #[test]
    fn two_steps_go_through_the_first() {
        let image = RgbImage::from_fn(40, 40, |x, y| Rgb([(x * 6) as u8, (y * 6) as u8, 0]));
        let both = Preprocessing { via_px: Some((20, 20)), ..how(Resize::Stretch, 10, 10) };
        let first = resize_pixels(&image, &how(Resize::Stretch, 20, 20));
        assert_eq!(resize_pixels(&image, &both), resize_pixels(&first, &how(Resize::Stretch, 10, 10)));
    }

    #[test]
    fn a_crop_through_a_larger_size_cuts_without_scaling() {
        let image = RgbImage::from_fn(16, 16, |x, y| Rgb([(x * 16) as u8, (y * 16) as u8, 0]));
        let cut =
            resize_pixels(&image, &Preprocessing { via_px: Some((16, 16)), ..how(Resize::Crop, 14, 14) });
        assert_eq!(
            (cut.get_pixel(0, 0), cut.get_pixel(13, 13)),
            (image.get_pixel(1, 1), image.get_pixel(14, 14))
        );
    }
}
