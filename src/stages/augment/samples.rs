//! Draws the first samples, each beside its mask, so that a person sees what was made.

use std::path::Path;

use image::imageops::{FilterType, resize};
use image::{GrayImage, RgbImage};

use super::super::StageError;
use super::super::drawing::{below, beside, captioned, outlined};
use super::provenance::SampleOrigin;
use crate::artifacts::Files;
use crate::artifacts::image_set::{labelled, pixels, read_mask, read_rgb, write_rgb};

/// Path of the picture in the set.
pub(super) const PICTURE: &str = "samples.png";
/// Number of samples in the picture.
const SAMPLES: usize = 8;
/// Samples in a row.
const COLUMNS: usize = 2;
/// Sides above this many pixels are made smaller.
const MOST_PX: u32 = 320;

/// Writes `samples.png` for the set that was made.
pub(super) fn draw(set: &Path, origins: &[SampleOrigin]) -> Result<(), StageError> {
    let files = Files::of_folder(set)?;
    let (images, masks) = (pixels(&files), labelled(&files));
    let mut cells = Vec::new();
    for origin in origins.iter().filter(|origin| origin.fault.is_none()).take(SAMPLES) {
        let (Some(image), Some(mask)) = (images.get(origin.id.as_str()), masks.get(origin.id.as_str()))
        else {
            continue;
        };
        cells.push(cell(origin, &read_rgb(image)?, &read_mask(mask.mask)?));
    }
    if cells.is_empty() {
        return Ok(());
    }
    let rows: Vec<RgbImage> = cells.chunks(COLUMNS).map(beside).collect();
    Ok(write_rgb(&set.join(PICTURE), &below(&rows))?)
}

/// One sample with the outline of its mask, beside the sample as it is and the mask, under its name and its origin.
fn cell(origin: &SampleOrigin, image: &RgbImage, mask: &GrayImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let share = (f64::from(MOST_PX) / f64::from(width.max(height))).min(1.0);
    let size = |side: u32| ((f64::from(side) * share).round() as u32).max(1);
    let image = resize(image, size(width), size(height), FilterType::Triangle);
    let mask = resize(mask, size(width), size(height), FilterType::Nearest);
    let grey =
        RgbImage::from_fn(mask.width(), mask.height(), |x, y| image::Rgb([mask.get_pixel(x, y)[0]; 3]));
    let panels = [image.clone(), outlined(image, &mask), grey];
    let lines = [origin.id.clone(), format!("on {}", origin.normal), format!("from {}", origin.mask_of)];
    captioned(&beside(&panels), &lines)
}
