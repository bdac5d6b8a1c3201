//! Pixels whose centre is inside of a ring, by the even-odd rule: exact, and independent of the ring's direction.

use super::{Point, Raster, edges};

/// Fills the ring row by row between its crossings with the line of pixel centres. A centre on the left edge is inside, one
/// on the right edge is not.
pub(super) fn fill(points: &[Point], raster: &mut Raster) {
    let rows = points.iter().map(|point| point[1]);
    let top = rows.clone().fold(f64::INFINITY, f64::min).floor().max(0.0) as usize;
    let bottom = rows.fold(f64::NEG_INFINITY, f64::max).ceil().max(0.0) as usize;
    let mut crossings = Vec::new();
    for row in top..bottom.min(raster.height) {
        let middle = row as f64 + 0.5;
        crossings.clear();
        crossings.extend(edges(points).filter_map(|(from, to)| crossing(from, to, middle)));
        crossings.sort_unstable_by(f64::total_cmp);
        for pair in crossings.chunks_exact(2) {
            // The first centre at or right of the one crossing, up to the last left of the other.
            let (first, end) = ((pair[0] - 0.5).ceil(), (pair[1] - 0.5).ceil());
            raster.fill_row(row as i64, first as i64, end as i64 - 1);
        }
    }
}

/// Returns where an edge crosses a row; computed from its upper end in both directions.
fn crossing(from: Point, to: Point, y: f64) -> Option<f64> {
    let (upper, lower) = if from[1] <= to[1] { (from, to) } else { (to, from) };
    let is_crossing = upper[1] <= y && y < lower[1];
    is_crossing.then(|| upper[0] + (y - upper[1]) * (lower[0] - upper[0]) / (lower[1] - upper[1]))
}
