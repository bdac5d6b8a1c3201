//! The pixels of a ring as pycocotools has them (`rleFrPoly` of its `maskApi.c`), bit for bit.
//!
//! Corners are rounded to a grid of 1/5 px, and edges are drawn on that grid. Where the border passes from one pixel
//! column into the next, its row is a position in column-major order at which inside and outside change.

use super::{Point, Raster, edges};

/// Grid points in a pixel.
const SCALE: f64 = 5.0;

/// Fills the ring.
pub(super) fn fill(points: &[Point], raster: &mut Raster) {
    // C truncates towards 0, as `as` does.
    let rounded = |value: f64| (SCALE * value + 0.5) as i32;
    let corners: Vec<[i32; 2]> = points.iter().map(|&[x, y]| [rounded(x), rounded(y)]).collect();
    let mut border = Vec::new();
    for (from, to) in edges(&corners) {
        add_edge(from, to, &mut border);
    }
    let mut changes: Vec<usize> =
        border.windows(2).filter_map(|pair| change(pair[0], pair[1], raster)).collect();
    changes.sort_unstable();
    changes.push(raster.marks.len());
    for pair in changes.chunks_exact(2) {
        raster.fill_columns(pair[0], pair[1]);
    }
}

/// Adds the grid points of an edge, from its first to its last. The slope is applied from the end with the smaller
/// coordinate, so that both directions give the same points.
fn add_edge(from: [i32; 2], to: [i32; 2], border: &mut Vec<[i32; 2]>) {
    let [dx, dy] = [(to[0] - from[0]).abs(), (to[1] - from[1]).abs()];
    let is_flat = dx >= dy;
    // Position along and across the edge's main direction.
    let turned = |[x, y]: [i32; 2]| if is_flat { [x, y] } else { [y, x] };
    let (from, to) = (turned(from), turned(to));
    let is_backward = from[0] > to[0];
    let (low, high) = if is_backward { (to, from) } else { (from, to) };
    let length = high[0] - low[0];
    let slope = f64::from(high[1] - low[1]) / f64::from(length);
    for step in 0..=length {
        let step = if is_backward { length - step } else { step };
        // A single point has no slope; its row is never read, because its column is that of its neighbours.
        let across =
            if length == 0 { low[1] } else { (f64::from(low[1]) + slope * f64::from(step) + 0.5) as i32 };
        border.push(turned([low[0] + step, across]));
    }
}

/// Returns the column-major position at which two successive points of the border change from outside to inside or back;
/// `None` if they do not pass into another pixel column of the image.
fn change(from: [i32; 2], to: [i32; 2], raster: &Raster) -> Option<usize> {
    if from[0] == to[0] {
        return None;
    }
    let in_pixels = |grid: i32| (f64::from(grid) + 0.5) / SCALE - 0.5;
    let column = in_pixels(if to[0] < from[0] { to[0] } else { to[0] - 1 });
    if column.fract() != 0.0 || column < 0.0 || column > raster.width as f64 - 1.0 {
        return None;
    }
    let row = in_pixels(to[1].min(from[1])).clamp(0.0, raster.height as f64).ceil();
    Some(column as usize * raster.height + row as usize)
}
