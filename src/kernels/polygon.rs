//! Fills outlines as the tools that drew them do. Which pixels a polygon covers is a convention: for the square from
//! (10, 10) to (20, 20) some tools mark 100 pixels, some 121, and of a scratch of 3 px a tool may keep half.
//!
//! | rule | of | pixels of a ring |
//! |---|---|---|
//! | [`PixelRule::Coco`] | pycocotools | corners rounded to 1/5 px, then the centres inside |
//! | [`PixelRule::LabelMe`] | Pillow, which LabelMe draws with | corners truncated to pixels, level and upright edges included |
//! | [`PixelRule::OpenCv`] | `fillPoly`, which Ultralytics draws with | corners truncated to pixels, the whole border included |
//! | [`PixelRule::Centre`] | rasterio | centres inside, even-odd, exactly |
//!
//! Coordinates are x and y in pixels, with the corner of the image at (0, 0). The rules are written after the tools'
//! sources and tested against their results (`tests/golden/polygons.py`).

mod centre;
mod coco;
mod opencv;
mod pillow;

use serde::{Deserialize, Serialize};

pub use pillow::{fill_circle, fill_rectangle};

/// x and y, in pixels.
pub type Point = [f64; 2];

/// The convention by which a ring covers pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PixelRule {
    /// pycocotools (`rleFrPoly`).
    Coco,
    /// LabelMe: Pillow's `ImageDraw.polygon` with equal fill and outline.
    LabelMe,
    /// OpenCV's `fillPoly` of truncated corners.
    OpenCv,
    /// The pixels whose centre is inside.
    Centre,
}

/// A binary image that outlines are filled into.
#[derive(Debug)]
pub struct Raster {
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// `[height, width]`, row-major: 255 where marked, else 0.
    pub marks: Vec<u8>,
}

impl Raster {
    /// Creates an image without a mark.
    pub fn new(height: usize, width: usize) -> Self {
        Self { height, width, marks: vec![0; height * width] }
    }

    /// Marks the pixels `first..=last` of a row; those outside of the image are passed over.
    fn fill_row(&mut self, row: i64, first: i64, last: i64) {
        let last = last.min(self.width as i64 - 1);
        let first = first.max(0);
        if row >= 0 && row < self.height as i64 && first <= last {
            let start = row as usize * self.width;
            self.marks[start + first as usize..=start + last as usize].fill(255);
        }
    }

    /// Marks pixels by their column-major positions `start..end`.
    fn fill_columns(&mut self, start: usize, end: usize) {
        for position in start..end.min(self.marks.len()) {
            self.marks[position % self.height * self.width + position / self.height] = 255;
        }
    }
}

/// Fills the ring of a polygon: `points` in order, the last joined to the first.
///
/// Deterministic. Coordinates must be finite and of an absolute value below 2^24. Rings of fewer than three points
/// cover what the rule gives them, which may be nothing.
pub fn fill_ring(rule: PixelRule, points: &[Point], raster: &mut Raster) {
    if points.is_empty() || raster.marks.is_empty() {
        return;
    }
    match rule {
        PixelRule::Coco => coco::fill(points, raster),
        PixelRule::LabelMe => pillow::fill(points, raster),
        PixelRule::OpenCv => opencv::fill(points, raster),
        PixelRule::Centre => centre::fill(points, raster),
    }
}

/// Marks run lengths in column-major order, which begin with the number of unmarked pixels (COCO).
///
/// # Panics
/// If the lengths do not sum to the number of pixels.
pub fn fill_runs(lengths: &[u32], raster: &mut Raster) {
    let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    assert_eq!(total, raster.marks.len() as u64, "run lengths of another image");
    let mut start = 0;
    for (index, &length) in lengths.iter().enumerate() {
        let end = start + length as usize;
        if index % 2 == 1 {
            raster.fill_columns(start, end);
        }
        start = end;
    }
}

/// Fills a circle: the pixels whose centres are at most `radius` from (x, y).
pub fn fill_disc([x, y]: Point, radius: f64, raster: &mut Raster) {
    for row in 0..raster.height {
        let above = row as f64 + 0.5 - y;
        let half = (radius * radius - above * above).sqrt();
        // Not a number if the circle does not reach the row.
        if half >= 0.0 {
            let (first, last) = ((x - half - 0.5).ceil(), (x + half - 0.5).floor());
            raster.fill_row(row as i64, first as i64, last as i64);
        }
    }
}

/// Returns the points joined to their successors, the last to the first.
fn edges<T: Copy>(points: &[T]) -> impl Iterator<Item = (T, T)> {
    (0..points.len()).map(move |index| (points[index], points[(index + 1) % points.len()]))
}

#[cfg(test)]
mod tests;
