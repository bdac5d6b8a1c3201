//! Draws the pictures of an evaluation: the image with the outline of its mask, beside the heat map.

use std::path::Path;

use image::{Rgb, RgbImage};

use super::{Evaluate, Row, StageError, smooth};
use crate::artifacts::Files;
use crate::artifacts::image_set::{pixels, read_mask, read_rgb, write_rgb};

/// Distance between two panels in pixels.
const GAP_PX: u32 = 4;
/// Colour of the mask outline.
const OUTLINE: Rgb<u8> = Rgb([255, 40, 40]);

/// Draws the `spec.pictures` images with the highest scores into `pictures/`, highest first. All pictures share one
/// colour scale, from the lowest to the highest pixel in any of them.
pub(super) fn draw(
    spec: &Evaluate,
    folder: &Path,
    rows: &[Row<'_>],
    images: &Files,
) -> Result<(), StageError> {
    let mut strongest: Vec<&Row<'_>> = rows.iter().collect();
    strongest.sort_by(|a, b| b.scored.score.total_cmp(&a.scored.score));
    strongest.truncate(spec.pictures);
    if strongest.is_empty() {
        return Ok(());
    }
    let files = pixels(images);
    let mut maps = Vec::new();
    for row in &strongest {
        let mask = read_mask(row.labelled.mask)?;
        let size = [mask.height() as usize, mask.width() as usize];
        maps.push((mask, smooth(spec, &row.scored.map, row.grid, size)));
    }
    let all = || maps.iter().flat_map(|(_, map)| map.iter().copied());
    let low = all().fold(f32::INFINITY, f32::min);
    let high = all().fold(f32::NEG_INFINITY, f32::max);
    for (rank, (row, (mask, map))) in strongest.iter().zip(&maps).enumerate() {
        let id = row.labelled.entry.id;
        let Some(file) = files.get(id) else { continue };
        let panels = [outlined(read_rgb(file)?, mask), heat(map, mask.width(), mask.height(), low, high)];
        let name = format!("{rank:03}_{}.png", id.replace('/', "_"));
        write_rgb(&folder.join("pictures").join(name), &beside(&panels))?;
    }
    Ok(())
}

/// Draws the outline of the mask onto the image.
fn outlined(mut image: RgbImage, mask: &image::GrayImage) -> RgbImage {
    let is_set = |x: i64, y: i64| {
        x >= 0
            && y >= 0
            && x < i64::from(mask.width())
            && y < i64::from(mask.height())
            && mask.get_pixel(x as u32, y as u32)[0] > 0
    };
    for (x, y, pixel) in image.enumerate_pixels_mut() {
        let (x, y) = (i64::from(x), i64::from(y));
        let is_near = (-1..=1).any(|dy| (-1..=1).any(|dx| is_set(x + dx, y + dy)));
        if is_near && !is_set(x, y) {
            *pixel = OUTLINE;
        }
    }
    image
}

fn heat(map: &[f32], width: u32, height: u32, low: f32, high: f32) -> RgbImage {
    let range = (high - low).max(f32::MIN_POSITIVE);
    RgbImage::from_fn(width, height, |x, y| {
        let value = map[(y * width + x) as usize];
        colour((value - low) / range)
    })
}

/// Returns the colour of a value in `0..=1`: Google's Turbo colour map (Mikhailov 2019) in its published polynomial
/// approximation.
fn colour(value: f32) -> Rgb<u8> {
    let x = f64::from(value.clamp(0.0, 1.0));
    let polynomial = |c: [f64; 6]| c.iter().rev().fold(0.0, |sum, c| sum * x + c);
    let level = |c| (polynomial(c).clamp(0.0, 1.0) * 255.0).round() as u8;
    Rgb([
        level([0.135_721_38, 4.615_392_60, -42.660_322_58, 132.131_082_34, -152.942_393_96, 59.286_379_43]),
        level([0.091_402_61, 2.194_188_39, 4.842_966_58, -14.185_033_33, 4.277_298_57, 2.829_566_04]),
        level([0.106_673_30, 12.641_946_08, -60.582_048_36, 110.362_767_71, -89.903_109_12, 27.348_249_73]),
    ])
}

fn beside(panels: &[RgbImage]) -> RgbImage {
    let width = panels.iter().map(RgbImage::width).sum::<u32>() + GAP_PX * (panels.len() as u32 - 1);
    let height = panels.iter().map(RgbImage::height).max().unwrap_or(1);
    let mut picture = RgbImage::from_pixel(width, height, Rgb([255, 255, 255]));
    let mut left = 0;
    for panel in panels {
        image::imageops::replace(&mut picture, panel, i64::from(left), 0);
        left += panel.width() + GAP_PX;
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_run_from_blue_to_red() {
        let (Rgb(low), Rgb(high)) = (colour(0.1), colour(0.95));
        assert!(low[2] > low[0] && high[0] > high[2], "{low:?} {high:?}");
    }
}
