//! The screen by copies of eight bits: the picks on the right, the points on the left; see `copies` for
//! what a copy loses, and for the bound.

use std::ops::Range;

use super::screen::Screen;
use crate::kernels::copies::{Copied, Copies, LARGEST_NORM, Reach, pay_for};
use crate::kernels::product::bytes::STRIP;

/// Points of which the mean is taken (chosen: it only has to be near).
const SAMPLE: usize = 4096;

/// The picks made so far.
pub(super) struct Bytes(Copies);

impl Bytes {
    /// `None` where the processor does not multiply bytes, or the rows are too long; the screen in f32 has to do.
    pub(super) fn new(points: &[f32], d: usize, norms: &[f32]) -> Option<Self> {
        (pay_for(d) && norms.iter().all(|&norm| norm <= LARGEST_NORM)).then(|| Self::of(points, d))
    }

    /// The same on every processor, fast or not.
    pub(super) fn of(points: &[f32], d: usize) -> Self {
        let n = points.len() / d;
        Self(Copies::new(mean_of_some(points, d, n.div_ceil(SAMPLE)), d))
    }
}

/// The mean of every `step`-th row.
fn mean_of_some(points: &[f32], d: usize, step: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; d];
    let rows = points.chunks_exact(d).step_by(step);
    let count = rows.len() as f64;
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

impl Screen for Bytes {
    type Word = u32;
    type Point = Copied;

    const STEP: usize = 2 * STRIP;

    fn add_pick(&mut self, row: &[f32], _: f32) {
        self.0.push(row);
    }

    fn open(&self, rows: Vec<f32>, _: &[f32]) -> (Vec<Copied>, Vec<u32>) {
        self.0.copy(&rows)
    }

    fn fill(
        &self,
        points: &[Copied],
        words: &[u32],
        bounds: &[f32],
        picks: Range<usize>,
        masks: &mut Vec<u32>,
    ) {
        let strips = picks.start / STRIP..picks.end.div_ceil(STRIP);
        masks.clear();
        masks.resize(strips.len() * points.len(), 0);
        let pairs = points.iter().zip(bounds);
        let reaches: Vec<Reach> = pairs.map(|(point, &bound)| self.0.reach(point, bound, 0.0)).collect();
        let mut lefts = Vec::with_capacity(points.len());
        for (strip, masks) in strips.zip(masks.chunks_mut(points.len())) {
            self.0.within(&reaches, words, strip, &mut lefts, masks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::distance::squared_euclidean;
    use crate::kernels::random::Rng;

    const POINTS: usize = 21;
    const PICKS: usize = 45;

    /// Rows of one scale, half of them close to each other, and the screen that has the first as its picks.
    fn screened(stream: &mut Rng, d: usize, scale: f64, offset: f64) -> (Vec<f32>, Bytes) {
        let mut rows: Vec<f32> =
            (0..PICKS * d).map(|_| (scale * (stream.normal() + offset)) as f32).collect();
        for row in PICKS / 2..PICKS {
            for column in 0..d {
                rows[row * d + column] = rows[column] * (1.0 + 1e-3 * stream.normal() as f32);
            }
        }
        let mut screen = Bytes::of(&rows, d);
        rows.chunks(d).for_each(|row| screen.add_pick(row, 0.0));
        (rows, screen)
    }

    fn masks(screen: &Bytes, rows: &[f32], bounds: &[f32]) -> Vec<u32> {
        let (copies, words) = screen.open(rows.to_vec(), &vec![0.0; bounds.len()]);
        let mut masks = Vec::new();
        screen.fill(&copies, &words, bounds, 0..PICKS, &mut masks);
        masks
    }

    #[test]
    fn no_pair_below_its_bound_is_ruled_out() {
        let mut stream = Rng::new(1, "bytes");
        for d in [1, 3, 16, 17, 128, 200] {
            for (scale, offset) in [(1.0, 0.0), (1.0, 100.0), (1e-22, 0.0), (1e-42, 0.0), (1e12, 3.0)] {
                let (rows, screen) = screened(&mut stream, d, scale, offset);
                let points = &rows[(PICKS - POINTS) * d..];
                for (pick, of_pick) in rows.chunks(d).enumerate() {
                    let next = |point: &[f32]| squared_euclidean(point, of_pick).next_up();
                    let bounds: Vec<f32> = points.chunks(d).map(next).collect();
                    let masks = masks(&screen, points, &bounds);
                    let bits = &masks[pick / STRIP * POINTS..][..POINTS];
                    assert!(bits.iter().all(|mask| mask >> (pick % STRIP) & 1 == 1), "{d} {scale} {offset}");
                }
            }
        }
    }

    #[test]
    fn pairs_well_above_their_bounds_are_ruled_out() {
        let (rows, screen) = screened(&mut Rng::new(2, "bytes"), 128, 1.0, 5.0);
        let far = squared_euclidean(&rows[..128], &rows[128..256]);
        let masks = masks(&screen, &rows[..POINTS * 128], &[0.8 * far; POINTS]);
        let pairs: u32 = masks.iter().map(|mask| mask.count_ones()).sum();
        // Themselves, and the first of them with the 23 that are close to it.
        assert_eq!(pairs as usize, POINTS + PICKS - PICKS / 2);
    }

    #[test]
    fn points_that_could_overflow_are_left_to_floats() {
        assert!(Bytes::new(&[1.0, 2e16], 1, &[1.0, 4e32]).is_none());
    }
}
