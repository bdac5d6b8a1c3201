//! The screen by copies of eight bits.
//!
//! **Copies.** With `μ` near the mean of the points, which shortens them (a product of long rows that are
//! close cancels), a row `x` becomes `x̂ = s·q`, `q` integers of at most 127 and `s` its own step, so that
//! `x - μ = x̂ + r`. The length of what is lost, `‖r‖`, is measured, not assumed, and rounded up to `e`.
//!
//! **Bound.** For a point `a` and a pick `b`, by the triangle inequality
//! ```text
//! ‖a - b‖ >= ‖â - b̂‖ - e_a - e_b
//! ```
//! and `‖â - b̂‖² = s_a²·Σq_a² + s_b²·Σq_b² - 2·s_a·s_b·p`, `p = Σ_c q_ac·q_bc` an exact integer. The pair
//! need not be measured where `‖â - b̂‖ >= √bound + e_a + e_b`.
//!
//! **Rounding**, `u = 2^-24`, `S = ‖â‖² + ‖b̂‖²`, so that `|2·â·b̂| <= S`:
//! - `e`: each part of `r` errs by at most `3·u·M`, `M` the largest part of `x - μ` (the differences with `μ`
//!   and with `s·q`, the product `s·q`), so the vector by `3·u·M·√d`; the sum of squares, sixteen partial
//!   sums of at most 4096 terms, by less than a part in 2000.
//! - The norms err by `3·u·S` (the step squared, the sum as f32, their product) and are lowered by `16·u·S`;
//!   the term of the product errs by `2·u·S`, the difference by `2·u·S`, the limit by `u·(S + limit)`: 8 of
//!   the 16 are used.
//! - `squared_euclidean` is at least `‖a - b‖²·(1 - γ)`, `γ = (d/32 + 8)·u`, so that it is `bound` or more
//!   where `‖a - b‖² >= bound·(1 + 2·γ)`. The limit itself is a square of a sum of four: `32·u` more.
//! - Underflow: every sum of squares loses at most `d·2^-126`, in `√bound`, in each `e` and in the norms: four
//!   times the root of that is added before squaring. Overflow: no copies are made where a squared norm is
//!   above `1e30`; the screen in f32 has to do.
//!
//! A step of its own for each row keeps a few long rows from coarsening all.

use std::ops::Range;

use super::screen::Screen;
use crate::kernels::product::bytes::{LONGEST, Left, STRIP, Strip, WORD};
use crate::kernels::product::{byte_pairs_within, is_fast_for_bytes};

/// Largest part of a copy.
const LARGEST: f32 = 127.0;

/// Half a unit in the last place of 1.
const ROUNDING: f32 = 1.0 / 16_777_216.0;

/// Squared norm above which sums could overflow.
const LARGEST_NORM: f32 = 1e30;

/// Points of which the mean is taken (chosen: it only has to be near).
const SAMPLE: usize = 4096;

/// Partial sums.
const LANES: usize = 16;

/// See the module.
pub(super) struct Bytes {
    /// Near the mean of the points.
    centre: Vec<f32>,
    /// Words a copy.
    words: usize,
    /// `1 + 2·γ`.
    relative: f32,
    /// What underflow may have lost of a distance.
    absolute: f32,
    strips: Vec<Strip>,
    /// The largest `e` of each strip.
    errors: Vec<f32>,
    picks: usize,
}

/// A point: what stands beside the integers of its copy.
#[derive(Clone, Copy)]
pub(super) struct Copied {
    /// The sum of the integers.
    sum: i32,
    step: f32,
    /// `‖x̂‖²`, lowered.
    norm: f32,
    error: f32,
}

impl Bytes {
    /// `None` where the processor does not multiply bytes, or the rows are too long.
    pub(super) fn new(points: &[f32], d: usize, norms: &[f32]) -> Option<Self> {
        (is_fast_for_bytes() && norms.iter().all(|&norm| norm <= LARGEST_NORM) && d <= LONGEST)
            .then(|| Self::of(points, d))
    }

    /// The same on every processor, fast or not.
    pub(super) fn of(points: &[f32], d: usize) -> Self {
        let n = points.len() / d;
        Self {
            centre: mean_of_some(points, d, n.div_ceil(SAMPLE)),
            words: d.div_ceil(WORD),
            relative: 1.0 + 2.0 * (d as f32 / 32.0 + 8.0) * ROUNDING,
            absolute: 4.0 * (d as f32 * f32::MIN_POSITIVE).sqrt(),
            strips: Vec::new(),
            errors: Vec::new(),
            picks: 0,
        }
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
        let mut words = Vec::with_capacity(self.words);
        let pick = copy(row, &self.centre, &mut words);
        let lane = self.picks % STRIP;
        if lane == 0 {
            self.strips.push(Strip::new(self.words));
            self.errors.push(0.0);
        }
        let last = self.picks / STRIP;
        let strip = &mut self.strips[last];
        for (of_word, word) in strip.words.iter_mut().zip(words) {
            // Adding 128 to a signed byte turns its highest bit.
            of_word[lane] = word ^ 0x8080_8080;
        }
        (strip.scale[lane], strip.norm[lane]) = (pick.step, pick.norm);
        self.errors[last] = self.errors[last].max(pick.error);
        self.picks += 1;
    }

    fn open(&self, rows: Vec<f32>, norms: &[f32]) -> (Vec<Copied>, Vec<u32>) {
        let mut words = Vec::with_capacity(norms.len() * self.words + LANES);
        let copies = rows.chunks(self.centre.len()).map(|row| copy(row, &self.centre, &mut words));
        (copies.collect(), words)
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
        let reach = |(point, bound): (&Copied, &f32)| {
            let left = Left { start: -128 * point.sum, factor: 2.0 * point.step, limit: -point.norm };
            (left, (bound * self.relative).sqrt() + point.error + self.absolute)
        };
        let reaches: Vec<(Left, f32)> = points.iter().zip(bounds).map(reach).collect();
        let mut lefts = Vec::with_capacity(points.len());
        for (strip, masks) in strips.zip(masks.chunks_mut(points.len())) {
            lefts.clear();
            lefts.extend(reaches.iter().map(|(left, reach)| {
                let limit = (reach + self.errors[strip]).powi(2) * (1.0 + 32.0 * ROUNDING);
                Left { limit: limit + left.limit, ..*left }
            }));
            byte_pairs_within(&lefts, words, &self.strips[strip], masks);
        }
    }
}

/// Copies a row to the end of `words`, four integers a word, zeros at the end.
fn copy(row: &[f32], centre: &[f32], words: &mut Vec<u32>) -> Copied {
    let start = words.len();
    words.resize(start + row.len().div_ceil(LANES) * LANES / WORD, 0);
    let copied = pulp::Arch::new().dispatch(CopyRow { row, centre, words: &mut words[start..] });
    words.truncate(start + row.len().div_ceil(WORD));
    copied
}

struct CopyRow<'a> {
    row: &'a [f32],
    centre: &'a [f32],
    words: &'a mut [u32],
}

impl pulp::WithSimd for CopyRow<'_> {
    type Output = Copied;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Copied {
        let Self { row, centre, words } = self;
        let (row, rest) = row.as_chunks::<LANES>();
        let (centre, centre_rest) = centre.as_chunks::<LANES>();
        let last = [padded(rest), padded(centre_rest)];
        let mut largest = [0.0_f32; LANES];
        for (row, centre) in row.iter().zip(centre).chain([(&last[0], &last[1])]) {
            for lane in 0..LANES {
                let size = (row[lane] - centre[lane]).abs();
                largest[lane] = if size > largest[lane] { size } else { largest[lane] };
            }
        }
        let largest = fold_lanes(largest, |a, b| if a > b { a } else { b });
        let mut copier = Copier::new(largest);
        let (words, words_rest) = words.as_chunks_mut::<{ LANES / WORD }>();
        for ((row, centre), words) in row.iter().zip(centre).zip(&mut *words) {
            *words = copier.part(row, centre);
        }
        if let Some(words) = words.get_mut(row.len()) {
            *words = copier.part(&last[0], &last[1]);
        }
        debug_assert!(words_rest.is_empty(), "words come by the register");
        copier.finish(row.len() * LANES + rest.len())
    }
}

/// Folds halves onto each other.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `CopyRow`")]
fn fold_lanes<T: Copy>(mut lanes: [T; LANES], fold: impl Fn(T, T) -> T) -> T {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = fold(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

fn padded(rest: &[f32]) -> [f32; LANES] {
    std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(0.0))
}

/// Turns a row into integers, sixteen at a time.
struct Copier {
    largest: f32,
    step: f32,
    inverse: f32,
    sums: [i32; LANES],
    squares: [i32; LANES],
    lost: [f32; LANES],
}

impl Copier {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `CopyRow`")]
    fn new(largest: f32) -> Self {
        let inverse = if largest > 0.0 { LARGEST / largest } else { 0.0 };
        let step = largest / LARGEST;
        Self { largest, step, inverse, sums: [0; LANES], squares: [0; LANES], lost: [0.0; LANES] }
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `CopyRow`")]
    fn part(&mut self, row: &[f32; LANES], centre: &[f32; LANES]) -> [u32; LANES / WORD] {
        let mut bytes = [0_u8; LANES];
        for lane in 0..LANES {
            let centred = row[lane] - centre[lane];
            let integer = (centred * self.inverse).round_ties_even();
            let rest = centred - self.step * integer;
            // Out of range only where a row overflowed; then `lost` is no number, which rules nothing out.
            let integer = (integer as i32).clamp(-127, 127);
            bytes[lane] = integer as u8;
            self.sums[lane] += integer;
            self.squares[lane] += integer * integer;
            self.lost[lane] += rest * rest;
        }
        pulp::cast(bytes)
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `CopyRow`")]
    fn finish(self, d: usize) -> Copied {
        let lost = fold_lanes(self.lost, |a, b| a + b).sqrt();
        let norm = self.step * self.step * fold_lanes(self.squares, |a, b| a + b) as f32;
        Copied {
            sum: fold_lanes(self.sums, |a, b| a + b),
            step: self.step,
            norm: norm - norm * (16.0 * ROUNDING),
            error: 1.001 * lost + 4.0 * ROUNDING * self.largest * (d as f32).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::distance::squared_euclidean;
    use crate::kernels::random::Stream;

    const POINTS: usize = 21;
    const PICKS: usize = 45;

    /// Rows of one scale, half of them close to each other, and the screen that has the first as its picks.
    fn screened(stream: &mut Stream, d: usize, scale: f64, offset: f64) -> (Vec<f32>, Bytes) {
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
        let mut stream = Stream::new(1, "bytes");
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
        let (rows, screen) = screened(&mut Stream::new(2, "bytes"), 128, 1.0, 5.0);
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
