//! Copies of rows in eight bits, and which pairs of rows they prove to be far apart.
//!
//! **Copies.** With `μ` near the mean of the rows, which shortens them (a product of long rows that are close
//! cancels), a row `x` becomes `x̂ = s·q`, `q` integers of at most 127 and `s` its own step, so that
//! `x - μ = x̂ + r`. The length of what is lost, `‖r‖`, is measured, not assumed, and rounded up to `e`. A step of its
//! own for each row keeps a few long rows from coarsening all.
//!
//! **Bound.** For two rows `a` and `b`, by the triangle inequality
//! ```text
//! ‖a - b‖ >= ‖â - b̂‖ - e_a - e_b
//! ```
//! and `‖â - b̂‖² = s_a²·Σq_a² + s_b²·Σq_b² - 2·s_a·s_b·p`, `p = Σ_c q_ac·q_bc` an exact integer. Where `‖â - b̂‖` is
//! above `√limit + e_a + e_b`, the squared distance is above `limit`; more is added where the rows are themselves
//! only near to others.
//!
//! **Rounding**, `u = 2^-24`, `S = ‖â‖² + ‖b̂‖²`, so that `|2·â·b̂| <= S`:
//! - `e`: each part of `r` errs by at most `3·u·M`, `M` the largest part of `x - μ` (the differences with `μ`
//!   and with `s·q`, the product `s·q`), so the vector by `3·u·M·√d`; the sum of squares, sixteen partial
//!   sums of at most 4096 terms, by less than a part in 2000.
//! - The norms err by `3·u·S` (the step squared, the sum as f32, their product) and are lowered by `16·u·S`;
//!   the term of the product errs by `2·u·S`, the difference by `2·u·S`, the limit by `u·(S + limit)`: 8 of
//!   the 16 are used.
//! - `squared_euclidean` is at least `‖a - b‖²·(1 - γ)`, `γ = (d/32 + 8)·u`, so that it is above `limit`
//!   where `‖a - b‖² > limit·(1 + 2·γ)`. What is compared is a square of a sum of five: `32·u` more.
//! - Underflow: every sum of squares loses at most `d·2^-126`, in `√limit`, in each `e` and in the norms: four
//!   times the root of that is added before squaring. Overflow: no copies are made where a squared norm is
//!   above [`LARGEST_NORM`].

use rayon::prelude::*;

use super::product::bytes::{LONGEST, Left, STRIP, Strip, WORD};
use super::product::{byte_pairs_within, is_fast_for_bytes};

/// Largest part of a copy.
const LARGEST: f32 = 127.0;

/// Half a unit in the last place of 1.
const ROUNDING: f32 = 1.0 / 16_777_216.0;

/// Squared norm of a row above which sums could overflow.
pub(crate) const LARGEST_NORM: f32 = 1e30;

/// Partial sums; words come by so many bytes.
const LANES: usize = 16;

/// Whether copies pay: the processor multiplies bytes, and a row of this length fits.
pub(crate) fn pay_for(d: usize) -> bool {
    is_fast_for_bytes() && d <= LONGEST
}

/// Copied rows, to be compared with others: those on the right of the products.
pub(crate) struct Copies {
    /// Near the mean of the rows.
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
    rows: usize,
}

/// A row's copy, beside its words.
#[derive(Clone, Copy)]
pub(crate) struct Copied {
    /// The sum of the integers.
    sum: i32,
    step: f32,
    /// `‖x̂‖²`, lowered.
    norm: f32,
    /// `e`.
    error: f32,
}

/// A copied row on the left, and how far from it a row on the right may be.
pub(crate) struct Reach {
    left: Left,
    reach: f32,
}

impl Copies {
    /// No rows yet. `d` is the length of the rows that `squared_euclidean` measures.
    pub(crate) fn new(centre: Vec<f32>, d: usize) -> Self {
        Self {
            words: centre.len().div_ceil(WORD),
            relative: 1.0 + 2.0 * (d as f32 / 32.0 + 8.0) * ROUNDING,
            absolute: 4.0 * (d as f32 * f32::MIN_POSITIVE).sqrt(),
            centre,
            strips: Vec::new(),
            errors: Vec::new(),
            rows: 0,
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: &[f32]) {
        let mut words = Vec::with_capacity(self.words);
        let copied = copy(row, &self.centre, &mut words);
        let lane = self.rows % STRIP;
        if lane == 0 {
            self.strips.push(Strip::new(self.words));
            self.errors.push(0.0);
        }
        let last = self.rows / STRIP;
        let strip = &mut self.strips[last];
        for (of_word, word) in strip.words.iter_mut().zip(words) {
            // Adding 128 to a signed byte turns its highest bit.
            of_word[lane] = word ^ 0x8080_8080;
        }
        (strip.scale[lane], strip.norm[lane]) = (copied.step, copied.norm);
        self.errors[last] = self.errors[last].max(copied.error);
        self.rows += 1;
    }

    /// Adds whole strips, `rows: [n, length]`, in parallel; as many [`Copies::push`].
    pub(crate) fn extend(&mut self, rows: &[f32]) {
        assert!(self.rows.is_multiple_of(STRIP), "a strip is begun");
        let length = self.centre.len();
        let part = |rows: &[f32]| {
            let mut part = Self {
                centre: self.centre.clone(),
                strips: Vec::new(),
                errors: Vec::new(),
                rows: 0,
                ..*self
            };
            rows.chunks_exact(length).for_each(|row| part.push(row));
            part
        };
        let parts: Vec<Self> = rows.par_chunks(32 * STRIP * length).map(part).collect();
        for part in parts {
            self.strips.extend(part.strips);
            self.errors.extend(part.errors);
            self.rows += part.rows;
        }
    }

    /// Strips of thirty-two rows.
    pub(crate) fn strips(&self) -> usize {
        self.strips.len()
    }

    /// Copies rows for the left side, `[n, length]`.
    pub(crate) fn copy(&self, rows: &[f32]) -> (Vec<Copied>, Vec<u32>) {
        let length = self.centre.len();
        let mut words = Vec::with_capacity(rows.len() / length * self.words + LANES);
        let copied = rows.chunks_exact(length).map(|row| copy(row, &self.centre, &mut words));
        (copied.collect(), words)
    }

    /// Reaches from a row to those whose measured squared distance is at most `limit`, where the copied rows may
    /// lie `slack` from what is measured.
    pub(crate) fn reach(&self, copied: &Copied, limit: f32, slack: f32) -> Reach {
        let left = Left { start: -128 * copied.sum, factor: 2.0 * copied.step, limit: -copied.norm };
        Reach { left, reach: (limit * self.relative).sqrt() + copied.error + slack + self.absolute }
    }

    /// Fills `masks: [n]`: bit `j` of `masks[i]` unless row `j` of the strip is certainly out of the reach of `i`.
    /// Bits of rows beyond the last mean nothing. `lefts` is for reuse.
    pub(crate) fn within(
        &self,
        reaches: &[Reach],
        words: &[u32],
        strip: usize,
        lefts: &mut Vec<Left>,
        masks: &mut [u32],
    ) {
        let error = self.errors[strip];
        lefts.clear();
        lefts.extend(reaches.iter().map(|Reach { left, reach }| {
            let limit = (reach + error).powi(2) * (1.0 + 32.0 * ROUNDING);
            Left { limit: limit + left.limit, ..*left }
        }));
        byte_pairs_within(lefts, words, &self.strips[strip], masks);
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
