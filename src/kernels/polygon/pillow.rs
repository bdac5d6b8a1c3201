//! The pixels of outlines as LabelMe has them: drawn by Pillow's `ImageDraw` with equal fill and outline, after `Draw.c` of
//! Pillow 13. Coordinates are truncated to pixels.

use super::{Point, Raster};

/// An edge between two corners.
#[derive(Clone, Copy)]
struct Edge {
    /// The corner that comes first in the ring.
    x: i64,
    y: i64,
    left: i64,
    right: i64,
    top: i64,
    bottom: i64,
    /// Columns a row. Pillow computes in single precision, and its results depend on it.
    slope: f32,
}

impl Edge {
    fn new([x0, y0]: [i64; 2], [x1, y1]: [i64; 2]) -> Self {
        let slope = if y0 == y1 { 0.0 } else { (x1 - x0) as f32 / (y1 - y0) as f32 };
        let (left, right) = (x0.min(x1), x0.max(x1));
        Self { x: x0, y: y0, left, right, top: y0.min(y1), bottom: y0.max(y1), slope }
    }

    /// The position in a row.
    fn at(&self, row: i64) -> f32 {
        (row - self.y) as f32 * self.slope + self.x as f32
    }

    fn is_end(&self, row: i64) -> bool {
        row == self.top || row == self.bottom
    }
}

fn truncated(points: &[Point]) -> Vec<[i64; 2]> {
    points.iter().map(|&[x, y]| [x as i64, y as i64]).collect()
}

/// Fills the ring of a polygon.
pub(super) fn fill(points: &[Point], raster: &mut Raster) {
    let edges = edges(&truncated(points));
    let (level, sloping): (Vec<Edge>, Vec<Edge>) = edges.iter().partition(|edge| edge.top == edge.bottom);
    for edge in level {
        raster.fill_row(edge.top, edge.left, edge.right);
    }
    let top = edges.iter().map(|edge| edge.top).min().unwrap_or(0).max(0);
    let bottom = edges.iter().map(|edge| edge.bottom).max().unwrap_or(0).min(raster.height as i64);
    for row in top..=bottom {
        let mut crossings = crossings(&sloping, row, bottom);
        crossings.sort_unstable_by(f32::total_cmp);
        for pair in crossings.chunks_exact(2) {
            raster.fill_row(row, rounded_up(pair[0]), rounded_down(pair[1]));
        }
    }
}

/// Returns the edges of a ring. Level edges that continue in the same direction are one.
fn edges(corners: &[[i64; 2]]) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::with_capacity(corners.len());
    for (index, pair) in corners.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let before = index.checked_sub(1).map(|before| corners[before]);
        if let (Some(before), Some(last)) = (before, edges.last_mut())
            && before[1] == from[1]
            && from[1] == to[1]
        {
            if to[0] > from[0] && from[0] > before[0] {
                last.right = to[0];
                continue;
            }
            if to[0] < from[0] && from[0] < before[0] {
                last.left = to[0];
                continue;
            }
        }
        edges.push(Edge::new(from, to));
    }
    if let [first, .., last] = *corners
        && first != last
    {
        edges.push(Edge::new(last, first));
    }
    edges
}

/// Returns where the edges cross a row. An edge that ends above the polygon's last row counts twice there, so that the row
/// has pairs.
fn crossings(edges: &[Edge], row: i64, bottom: i64) -> Vec<f32> {
    let mut found = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        if !(edge.top..=edge.bottom).contains(&row) {
            continue;
        }
        let x = edge.at(row);
        if row == edge.bottom && row < bottom {
            found.extend([x, x]);
        } else if edge.is_end(row) && edge.slope != 0.0 {
            found.push(at_corner(edge, &edges[..index], row, x));
        } else {
            found.push(x);
        }
    }
    found
}

/// Returns the crossing of an edge that ends in this row: moved towards its next row if an earlier edge ends at the same
/// pixel and both lead far to the same side, so that flat corners stay connected.
fn at_corner(edge: &Edge, earlier: &[Edge], row: i64, x: f32) -> f32 {
    for other in earlier.iter().filter(|other| other.is_end(row) && other.slope != 0.0) {
        if x.round() as i64 != other.at(row).round() as i64 {
            continue;
        }
        let next = if row == edge.bottom { row - 1 } else { row + 1 };
        if !(other.top..=other.bottom).contains(&next) {
            continue;
        }
        let (one, two) = (edge.at(next), other.at(next));
        return if x > one + 1.0 && x > two + 1.0 {
            one.max(two).round() + 1.0
        } else if x < one - 1.0 && x < two - 1.0 {
            one.min(two).round() - 1.0
        } else {
            x
        };
    }
    x
}

/// Rounds to the nearest number, halves away from 0.
fn rounded_up(value: f32) -> i64 {
    let size = (f64::from(value.abs() + 0.5)).floor() as i64;
    if value >= 0.0 { size } else { -size }
}

/// Rounds to the nearest number, halves towards 0.
fn rounded_down(value: f32) -> i64 {
    let size = (f64::from(value.abs() - 0.5)).ceil() as i64;
    if value >= 0.0 { size } else { -size }
}

/// Fills a rectangle between two corners, both included, as LabelMe does.
pub fn fill_rectangle([a, b]: [Point; 2], raster: &mut Raster) {
    let corners = truncated(&[a, b]);
    let [left, right] = [corners[0][0].min(corners[1][0]), corners[0][0].max(corners[1][0])];
    let [top, bottom] = [corners[0][1].min(corners[1][1]), corners[0][1].max(corners[1][1])];
    for row in top.max(0)..=bottom.min(raster.height as i64 - 1) {
        raster.fill_row(row, left, right);
    }
}

/// Fills a circle around `centre` through `rim`, as LabelMe does: the ellipse of Pillow in the box of the circle, whose
/// corners are truncated to pixels. Cost: the radius.
pub fn fill_circle(centre: Point, rim: Point, raster: &mut Raster) {
    let radius = ((centre[0] - rim[0]).powi(2) + (centre[1] - rim[1]).powi(2)).sqrt();
    let corners =
        truncated(&[[centre[0] - radius, centre[1] - radius], [centre[0] + radius, centre[1] + radius]]);
    let ([left, top], [right, bottom]) = (corners[0], corners[1]);
    let (width, height) = (right - left, bottom - top);
    // Twice the distance from the centre line of the box, and half of the row's length there, doubled.
    for (y, x) in quarter(width, height) {
        let half = |sum: i64| sum / 2;
        let [first, last] = [left + half(width - x), left + half(width + x)];
        raster.fill_row(top + half(height + y), first, last);
        raster.fill_row(top + half(height - y), first, last);
    }
}

/// Returns the widest point of each row of a quarter of the ellipse with the axes `a` and `b`, in a grid of step 2:
/// of three neighbours, the border continues with the one that is nearest to the curve.
fn quarter(a: i64, b: i64) -> Vec<(i64, i64)> {
    let (a2, b2) = (i128::from(a * a), i128::from(b * b));
    let distance = |x: i64, y: i64| (a2 * i128::from(y * y) + b2 * i128::from(x * x) - a2 * b2).abs();
    let (mut x, mut y) = (a, b % 2);
    let mut rows = vec![(y, x)];
    while (x, y) != (a % 2, b) {
        let mut next = (x, y + 2);
        if x > 1 {
            for candidate in [(x - 2, y + 2), (x - 2, y)] {
                if distance(next.0, next.1) > distance(candidate.0, candidate.1) {
                    next = candidate;
                }
            }
        }
        if next.1 > y {
            rows.push((next.1, next.0));
        }
        (x, y) = next;
    }
    rows
}
