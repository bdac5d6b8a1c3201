//! The pixels of a ring as OpenCV's `fillPoly` has them (8-connected border, no shift), after `drawing.cpp` of 4.12.
//!
//! Corners are truncated to pixels, as `astype(int)` does. Every edge is drawn as a line of pixels, and rows are filled
//! between the edges in 16-bit fixed point.

use super::{Point, Raster, edges};

/// Bits after the point of a horizontal position.
const SHIFT: u32 = 16;

/// Codes of points above and below the image.
const BESIDE_ROWS: i64 = 0b1100;

/// An edge that crosses rows: those from `top` up to, and without, `bottom`. `x` is its position in row `top`.
struct Edge {
    top: i64,
    bottom: i64,
    x: i64,
    slope: i64,
}

/// Fills the ring.
pub(super) fn fill(points: &[Point], raster: &mut Raster) {
    let corners: Vec<[i64; 2]> = points.iter().map(|&[x, y]| [x as i64, y as i64]).collect();
    // OpenCV begins with the edge that closes the ring; the result does not depend on it.
    let crossing: Vec<Edge> = edges(&corners).filter_map(|(from, to)| draw_edge(from, to, raster)).collect();
    let first = crossing.iter().map(|edge| edge.top).min().unwrap_or(0).max(0);
    let last = crossing.iter().map(|edge| edge.bottom).max().unwrap_or(0).min(raster.height as i64);
    for row in first..last {
        let active = crossing.iter().filter(|edge| edge.top <= row && row < edge.bottom);
        let mut xs: Vec<i64> = active.map(|edge| edge.x + (row - edge.top) * edge.slope).collect();
        xs.sort_unstable();
        for pair in xs.chunks_exact(2) {
            raster.fill_row(row, (pair[0] + (1 << SHIFT) - 1) >> SHIFT, pair[1] >> SHIFT);
        }
    }
}

/// Draws an edge as a line. Returns it if it crosses rows.
fn draw_edge(from: [i64; 2], to: [i64; 2], raster: &mut Raster) -> Option<Edge> {
    let clipped = clip(from, to, raster);
    if let (a, b, true) = clipped {
        draw_line(a, b, raster);
    }
    // An edge that leaves the image has the slope of the part inside.
    let ([x0, y0], [x1, y1]) = (clipped.0, clipped.1);
    let (y0, y1) = if y0 == y1 { (from[1], to[1]) } else { (y0, y1) };
    if from[1] == to[1] {
        return None;
    }
    let (x0, x1) = (x0 << SHIFT, x1 << SHIFT);
    let slope = (x1 - x0) / (y1 - y0);
    Some(if from[1] < to[1] {
        Edge { top: from[1], bottom: to[1], x: x0 + (from[1] - y0) * slope, slope }
    } else {
        Edge { top: to[1], bottom: from[1], x: x1 + (to[1] - y1) * slope, slope }
    })
}

/// Cuts a line to the image. Returns its ends after the cut, and whether a part is inside.
fn clip(mut a: [i64; 2], mut b: [i64; 2], raster: &Raster) -> ([i64; 2], [i64; 2], bool) {
    let (right, bottom) = (raster.width as i64 - 1, raster.height as i64 - 1);
    let beside = |x: i64| i64::from(x < 0) + 2 * i64::from(x > right);
    let code = |[x, y]: [i64; 2]| beside(x) + 4 * i64::from(y < 0) + 8 * i64::from(y > bottom);
    let (mut of_a, mut of_b) = (code(a), code(b));
    // Moves an end along the line to the coordinate `to` of the axis `along`.
    let moved = |end: [i64; 2], a: [i64; 2], b: [i64; 2], along: usize, to: i64| {
        let across = 1 - along;
        let by = (to - end[along]) as f64 * (b[across] - a[across]) as f64 / (b[along] - a[along]) as f64;
        let mut cut = end;
        (cut[across], cut[along]) = (end[across] + by as i64, to);
        cut
    };
    let needs_cut = |of_a: i64, of_b: i64| of_a & of_b == 0 && of_a | of_b != 0;
    if needs_cut(of_a, of_b) {
        if of_a & BESIDE_ROWS != 0 {
            a = moved(a, a, b, 1, if of_a < 8 { 0 } else { bottom });
            of_a = beside(a[0]);
        }
        if of_b & BESIDE_ROWS != 0 {
            b = moved(b, a, b, 1, if of_b < 8 { 0 } else { bottom });
            of_b = beside(b[0]);
        }
        if needs_cut(of_a, of_b) {
            if of_a != 0 {
                a = moved(a, a, b, 0, if of_a == 1 { 0 } else { right });
                of_a = 0;
            }
            if of_b != 0 {
                b = moved(b, a, b, 0, if of_b == 1 { 0 } else { right });
                of_b = 0;
            }
        }
    }
    (a, b, of_a | of_b == 0)
}

/// Draws a line within the image, from left to right (Bresenham).
fn draw_line(a: [i64; 2], b: [i64; 2], raster: &mut Raster) {
    let (a, b) = if b[0] < a[0] { (b, a) } else { (a, b) };
    let (dx, dy, down) = (b[0] - a[0], (b[1] - a[1]).abs(), (b[1] - a[1]).signum());
    let (long, short) = (dx.max(dy), dx.min(dy));
    let [mut x, mut y] = a;
    let mut error = long - 2 * short;
    for _ in 0..=long {
        raster.fill_row(y, x, x);
        let is_aside = error < 0;
        error += if is_aside { 2 * long - 2 * short } else { -2 * short };
        if dy > dx {
            (x, y) = (x + i64::from(is_aside), y + down);
        } else {
            (x, y) = (x + 1, y + if is_aside { down } else { 0 });
        }
    }
}
