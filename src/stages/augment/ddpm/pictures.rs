//! Draws the pictures of a training: the curve of its loss, and samples beside real defects.

use std::fmt::Write;
use std::path::Path;

use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

use super::super::super::StageError;
use super::super::sources::{Sources, UnpaddedImage};
use super::Painting;
use super::patches::Window;
use crate::artifacts::image_set::write_rgb;

/// Number of samples in the picture.
pub(super) const SAMPLES: usize = 24;
/// Number of samples in a row. The row of real defects has three times as many patches.
const COLUMNS: usize = 4;
/// Scale of the patches: each pixel becomes `ZOOM` × `ZOOM` px.
const ZOOM: usize = 2;
const GAP: usize = 4;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// The window of a sample before and after inpainting.
pub(super) struct Cell {
    /// The normal surface, `[side, side, 3]`.
    pub(super) before: Vec<u8>,
    /// The mask of the defect, `[side, side]`.
    pub(super) mask: Vec<bool>,
    /// The surface with the defect, `[side, side, 3]`.
    pub(super) after: Vec<u8>,
}

/// Writes `loss.svg` and `samples.png`.
pub(super) fn draw(
    painting: &Painting,
    sources: &Sources<'_>,
    losses: &[f32],
    cells: &[Cell],
    folder: &Path,
) -> Result<(), StageError> {
    crate::artifacts::files::write(&folder.join("loss.svg"), curve(losses).as_bytes())?;
    let side = painting.architecture.side;
    Ok(write_rgb(&folder.join("samples.png"), &grid(side, &real(side, sources)?, cells))?)
}

/// Cuts patches of real defects. Each defect is in the middle of its patch if the image allows it.
fn real(side: usize, sources: &Sources<'_>) -> Result<Vec<Vec<u8>>, StageError> {
    let few = sources.defects.iter().take(3 * COLUMNS);
    few.map(|defect| {
        let &(id, file, ref one) = &sources.defective[defect.image_index];
        let image = UnpaddedImage::read(id, file, one.mask)?.image;
        let width = image.width() as usize;
        let pixel = defect.pixels[defect.pixels.len() / 2] as usize;
        let start = |pixel: usize, extent: usize| pixel.saturating_sub(side / 2).min(extent - side);
        let window =
            Window { top: start(pixel / width, image.height() as usize), left: start(pixel % width, width) };
        let level = |index: usize| {
            image.get_pixel((window.left + index % side) as u32, (window.top + index / side) as u32).0
        };
        Ok((0..side * side).flat_map(level).collect())
    })
    .collect()
}

/// Draws a row of real defects, then the samples. Each sample shows the surface, the mask and the result.
fn grid(side: usize, real: &[Vec<u8>], cells: &[Cell]) -> RgbImage {
    let (patch, columns) = (side * ZOOM, 3 * COLUMNS);
    let rows = 1 + cells.len().div_ceil(COLUMNS);
    // The three patches of a sample touch each other. A gap separates samples, a wider one the row of real defects.
    let left = |column: usize| column * patch + (column / 3 + 1) * GAP;
    let top = |row: usize| row * (patch + GAP) + GAP + if row > 0 { 3 * GAP } else { 0 };
    let size = (left(columns) as u32, (top(rows)) as u32);
    let mut picture = RgbImage::from_pixel(size.0, size.1, PAPER);
    let mut put = |levels: Vec<u8>, column: usize, row: usize| {
        let small = RgbImage::from_raw(side as u32, side as u32, levels).expect("a patch is side × side");
        let large = resize(&small, patch as u32, patch as u32, FilterType::Nearest);
        replace(&mut picture, &large, left(column) as i64, top(row) as i64);
    };
    for (column, levels) in real.iter().enumerate() {
        put(levels.clone(), column, 0);
    }
    for (number, cell) in cells.iter().enumerate() {
        let (row, column) = (1 + number / COLUMNS, number % COLUMNS * 3);
        put(cell.before.clone(), column, row);
        put(
            cell.mask.iter().flat_map(|&is_marked| [if is_marked { 255 } else { 0 }; 3]).collect(),
            column + 1,
            row,
        );
        put(cell.after.clone(), column + 2, row);
    }
    picture
}

/// Plots the loss over the steps on a logarithmic axis: dots for single steps, a line for the running mean.
fn curve(losses: &[f32]) -> String {
    const SIZE: (f64, f64) = (640.0, 360.0);
    const MARGIN: (f64, f64) = (72.0, 40.0);
    let finite = || losses.iter().map(|&loss| f64::from(loss.max(1e-6)).log10());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let span = (high - low).max(1e-3);
    let x = |step: f64| MARGIN.0 + (SIZE.0 - MARGIN.0 - 16.0) * step / (losses.len().max(2) - 1) as f64;
    let y = |level: f64| 16.0 + (SIZE.1 - 16.0 - MARGIN.1) * (high - level) / span;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        SIZE.0, SIZE.1
    );
    for tick in 0..=4 {
        let share = f64::from(tick) / 4.0;
        let (level, step) = (low + span * share, (losses.len().max(2) - 1) as f64 * share);
        let (height, value) = (y(level), 10.0_f64.powf(level));
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.3}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text>",
            MARGIN.0,
            SIZE.0 - 16.0,
            MARGIN.0 - 6.0,
            height + 4.0,
            x(step),
            SIZE.1 - MARGIN.1 + 18.0,
            step + 1.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">step</text>",
        SIZE.0 / 2.0,
        SIZE.1 - 6.0
    );
    let _ = writeln!(
        svg,
        "<text x=\"14\" y=\"{}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {0})\">loss (weighted squared \
         error)</text>",
        SIZE.1 / 2.0
    );
    // At most a thousand dots, so that the file of a long training stays small.
    for (step, level) in finite().enumerate().step_by(losses.len().div_ceil(1000).max(1)) {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1\" fill=\"#9bc\"/>",
            x(step as f64),
            y(level)
        );
    }
    let window = (losses.len() / 30).max(1);
    let points: Vec<String> = (losses.windows(window).enumerate())
        .step_by(losses.len().div_ceil(300).max(1))
        .map(|(first, few)| {
            let mean = few.iter().map(|&loss| f64::from(loss)).sum::<f64>() / window as f64;
            let step = first as f64 + (window - 1) as f64 / 2.0;
            format!("{:.1},{:.1}", x(step), y(mean.max(1e-6).log10()))
        })
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#024\" stroke-width=\"1.5\"/>\n</svg>",
        points.join(" ")
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_of_any_length_stays_within_its_frame() {
        for losses in [vec![0.5], vec![1.0, 0.5, 0.0], (1..5000).map(|step| 1.0 / step as f32).collect()] {
            let svg = curve(&losses);
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.matches("<circle").count() <= 1000);
        }
    }

    #[test]
    fn samples_are_below_real_defects() {
        let patch = |level: u8| vec![level; 8 * 8 * 3];
        let cell = || Cell { before: patch(10), mask: vec![true; 64], after: patch(20) };
        let picture = grid(8, &[patch(200)], &[cell(), cell(), cell(), cell(), cell()]);
        assert_eq!(picture.dimensions(), (12 * 16 + 5 * 4, 3 * 20 + 4 + 12));
        assert_eq!(picture.get_pixel(5, 5).0, [200; 3]);
        assert_eq!(picture.get_pixel(5, 37).0, [10; 3]);
        assert_eq!(picture.get_pixel(4 + 33, 37).0, [20; 3]);
        assert_eq!(picture.get_pixel(4 + 17, 37).0, [255; 3]);
    }
}
