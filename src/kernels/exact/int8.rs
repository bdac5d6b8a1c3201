//! The lower bound in int8, where the processor multiplies bytes: less work than a product in f32, and as rigorous. The
//! rows may be those that are measured, or their PCA codes (`pca`).
//!
//! **Quantised rows.** With `μ` near the mean of the rows, which shortens them (a product of long rows that are close
//! cancels), a row `x` becomes `x̂ = s·q`, `q` integers in the range that the processor multiplies exactly
//! ([`Int8Simd::range`]) and `s` its own step, so that `x - μ = x̂ + r`. The length of what is lost, `‖r‖`, is measured,
//! not assumed, and rounded up to `e`. A step for each row keeps a few long rows from coarsening all.
//!
//! **Bound.** For two rows `a` and `b`, by the triangle inequality
//! ```text
//! ‖a - b‖ >= ‖â - b̂‖ - e_a - e_b
//! ```
//! and `‖â - b̂‖² = s_a²·Σq_a² + s_b²·Σq_b² - 2·s_a·s_b·p`, `p = Σ_c q_ac·q_bc` an exact integer. Where `‖â - b̂‖` is
//! above `√limit + e_a + e_b`, the squared distance is above `limit`. Codes lie within error bounds of vectors whose
//! distances are no longer than the rows' (inequality (1) of `pca`), so the bounds of both are added.
//!
//! **Rounding**, `u = 2^-24`, `S = ‖â‖² + ‖b̂‖²`, so that `|2·â·b̂| <= S`:
//! - `e`: each part of `r` errs by at most `3·u·M`, `M` the largest part of `x - μ` (the differences with `μ` and
//!   with `s·q`, the product `s·q`), so the vector by `3·u·M·√d`; the sum of squares, sixteen partial sums of at most
//!   4096 terms, by less than a part in 2000.
//! - The norms err by `3·u·S` (the step squared, the sum as f32, their product) and are lowered by `16·u·S`; the term
//!   of the product errs by `2·u·S`, the difference by `2·u·S`, the limit by `u·(S + limit)`: 8 of the 16 are used.
//! - `squared_euclidean` is above `limit` where `‖a - b‖` is above `ErrorBound::farthest(limit)`, which takes the
//!   place of `√limit`. What is compared is a square of a sum of six: `32·u` more.
//! - Underflow: every sum of squares loses at most `d·2^-126`, in each `e` and in the norms: four times the root of
//!   that is added before squaring. Overflow: nothing is ruled out where a squared norm is above [`LARGEST_NORM`].

use std::ops::Range;

use rayon::prelude::*;

use super::quantise::{QuantisedRow, quantise};
use super::{Block, Candidates, Growing, LowerBound};
use crate::kernels::distance::{ErrorBound, squared_norms};
use crate::kernels::product::int8::{Int8Range, Int8Simd, LONGEST, LeftRow, TILE, Tile, WORD};
use crate::kernels::product::{int8_masks, int8_values};
use crate::kernels::sample::{mean, sample_rows};

/// Half a unit in the last place of 1.
const ROUNDING: f32 = 1.0 / 16_777_216.0;

/// Largest squared norm of a row; above it, sums could overflow.
const LARGEST_NORM: f32 = 1e30;

/// Number of sampled rows whose mean is the centre. Not tuned: the centre need only be close to the mean of all rows.
const SAMPLE: usize = 4096;

/// Number of rows that one parallel task quantises.
const BLOCK: usize = 32 * TILE;

/// Quantised rows, in tiles of [`TILE`].
pub(super) struct Int8Filter {
    simd: Int8Simd,
    range: Int8Range,
    centre: Vec<f32>,
    /// Words per row.
    width: usize,
    /// Rounding error of the exact distance.
    distance: ErrorBound,
    /// Slack added to distances (not squared): what underflow may lose and, if the rows are codes, their largest
    /// error bound.
    margin: f64,
    tiles: Vec<Tile>,
    /// The largest error `e` of the rows of each tile.
    errors: Vec<f32>,
    rows: usize,
}

/// What is kept of one quantised query, except its bytes: they are in `Block::words`, four to a `u32`.
#[derive(Clone, Copy)]
pub(super) struct Int8Query {
    /// Left operand of the products. Its limit is `-‖x̂‖²`, to which `candidates` adds the limit of a tile.
    left: LeftRow,
    /// `e`, plus the error bound if the query is a code; NaN, so that nothing is ruled out, if its numbers might
    /// overflow.
    error: f64,
    /// Distance (not squared) from the query within which a quantised row is a candidate, before the row's own `e` is
    /// added.
    threshold: f32,
}

pub(super) type Int8Queries = Block<Int8Query, u32>;

impl Int8Filter {
    /// Returns a filter without rows, to which some of `rows: [n, d]` will be added. `None` if the processor has no
    /// fast int8 products, the rows are too long, or sums could overflow. `norms` are the squared norms of the rows.
    pub(super) fn without_rows(rows: &[f32], d: usize, norms: &[f32]) -> Option<Self> {
        let simd = fast_simd(d)?;
        norms.iter().all(|&norm| norm <= LARGEST_NORM).then(|| Self::about_mean(simd, rows, d))
    }

    /// Quantises `rows: [n, d]`. `None` as in [`Self::without_rows`].
    pub(super) fn of_rows(rows: &[f32], d: usize) -> Option<Self> {
        Self::about_mean(fast_simd(d)?, rows, d).with(rows)
    }

    /// Quantises PCA codes of rows of length `d`, with these instructions, even if the processor lacks them. `codes: [n,
    /// length]` are relative to a centre; each is within `error` of its exact value. `None` if the codes are too long or
    /// sums could overflow.
    pub(super) fn of_codes(
        simd: Int8Simd,
        codes: &[f32],
        length: usize,
        d: usize,
        error: f64,
    ) -> Option<Self> {
        if length > LONGEST {
            return None;
        }
        Self::about(simd, vec![0.0; length], d, error).with(codes)
    }

    /// Returns a filter without rows whose centre is the mean of a sample of `rows: [n, d]`; with these instructions, even
    /// if the processor lacks them.
    pub(super) fn about_mean(simd: Int8Simd, rows: &[f32], d: usize) -> Self {
        Self::about(simd, mean(&sample_rows(rows, d, SAMPLE).1, d), d, 0.0)
    }

    /// Returns a filter without rows with this centre. `d` is the length of the rows that are measured, `error` the
    /// error bound of codes (0 for rows).
    fn about(simd: Int8Simd, centre: Vec<f32>, d: usize, error: f64) -> Self {
        Self {
            simd,
            range: simd.range(),
            width: centre.len().div_ceil(WORD),
            distance: ErrorBound::of_distance(d),
            margin: error + 4.0 * (d as f64 * f64::from(f32::MIN_POSITIVE)).sqrt(),
            centre,
            tiles: Vec::new(),
            errors: Vec::new(),
            rows: 0,
        }
    }

    /// Adds `rows: [n, length]` to a filter without rows, in parallel. `None` if sums could overflow.
    pub(super) fn with(mut self, rows: &[f32]) -> Option<Self> {
        let length = self.centre.len();
        let norms = squared_norms(rows, length).ok()?;
        if norms.iter().any(|&norm| norm > LARGEST_NORM) {
            return None;
        }
        let part = |rows: &[f32]| {
            let mut part = Self::about(self.simd, self.centre.clone(), 0, 0.0);
            rows.chunks_exact(length).for_each(|row| part.push(row, 0.0));
            part
        };
        let parts: Vec<Self> = rows.par_chunks(BLOCK * length).map(part).collect();
        for part in parts {
            self.tiles.extend(part.tiles);
            self.errors.extend(part.errors);
            self.rows += part.rows;
        }
        Some(self)
    }

    /// Encodes `codes: [n, length]` as [`LowerBound::encode`] does. `error(i)` bounds the error of code `i`.
    pub(super) fn encode_codes(
        &self,
        codes: &[f32],
        norms: &[f32],
        error: impl Fn(usize) -> f64,
    ) -> Int8Queries {
        let mut words = Vec::with_capacity(norms.len() * self.width + WORD);
        let rows = codes.chunks_exact(self.centre.len()).zip(norms).enumerate();
        let query = |(query, (code, &norm)): (usize, (&[f32], &f32))| {
            let QuantisedRow { sum, step, norm: quantised, error: lost } =
                quantise(code, &self.centre, self.range.left, &mut words);
            let start = -i32::from(self.range.offset) * sum;
            let left = LeftRow { start, factor: 2.0 * step, limit: -quantised };
            let is_small = norm <= LARGEST_NORM;
            let error = if is_small { f64::from(lost) + error(query) } else { f64::NAN };
            Int8Query { left, error, threshold: f32::INFINITY }
        };
        Block { queries: rows.map(query).collect(), words }
    }

    /// Estimates the distances of a query to some rows: `visit(row, estimate)`. Estimates are squared distances of the
    /// quantised rows, all without the query's own norm.
    pub(super) fn estimate(
        &self,
        queries: &Int8Queries,
        query: usize,
        rows: Range<usize>,
        mut visit: impl FnMut(usize, f32),
    ) {
        let Block { queries, words } = queries;
        let words = &words[query * self.width..][..self.width];
        let mut values = [0.0; TILE];
        for tile in rows.start / TILE..rows.end.div_ceil(TILE) {
            int8_values(self.simd, &queries[query].left, words, &self.tiles[tile], &mut values);
            let first = tile * TILE;
            for row in rows.start.max(first)..rows.end.min(first + TILE) {
                visit(row, values[row - first]);
            }
        }
    }
}

/// Returns the instructions that make int8 products of rows of this length faster than those in f32; `None` if the
/// processor has none or the rows are too long.
fn fast_simd(length: usize) -> Option<Int8Simd> {
    Int8Simd::fastest().filter(|_| length <= LONGEST)
}

impl LowerBound for Int8Filter {
    type Queries = Int8Queries;

    fn step(&self) -> usize {
        TILE
    }

    fn encode(&self, rows: Vec<f32>, norms: &[f32]) -> Int8Queries {
        self.encode_codes(&rows, norms, |_| 0.0)
    }

    fn set_limit(&self, queries: &mut Int8Queries, query: usize, limit: f32) {
        let query = &mut queries.queries[query];
        query.threshold = (self.distance.farthest(limit) + query.error + self.margin) as f32;
    }

    fn candidates(&self, queries: &Int8Queries, rows: Range<usize>, out: &mut Candidates) {
        let Block { queries, words } = queries;
        out.clear(rows.len(), queries.len());
        let tiles = rows.start / TILE..rows.end.div_ceil(TILE);
        for (tile, masks) in tiles.zip(out.masks.chunks_mut(queries.len())) {
            let error = self.errors[tile];
            out.left.clear();
            out.left.extend(queries.iter().map(|Int8Query { left, threshold, .. }| {
                let limit = (threshold + error).powi(2) * (1.0 + 32.0 * ROUNDING);
                LeftRow { limit: limit + left.limit, ..*left }
            }));
            int8_masks(self.simd, &out.left, words, &self.tiles[tile], masks);
        }
    }
}

impl Growing for Int8Filter {
    const PICK_STEP: usize = 2 * TILE;

    fn push(&mut self, row: &[f32], _: f32) {
        let mut words = Vec::with_capacity(self.width);
        let QuantisedRow { step, norm, error, .. } =
            quantise(row, &self.centre, self.range.right, &mut words);
        let lane = self.rows % TILE;
        if lane == 0 {
            self.tiles.push(Tile::new(self.width));
            self.errors.push(0.0);
        }
        let last = self.rows / TILE;
        let tile = &mut self.tiles[last];
        for (of_word, word) in tile.words.iter_mut().zip(words) {
            let bytes = word.to_le_bytes().map(|byte| byte.wrapping_add(self.range.offset));
            of_word[lane] = u32::from_le_bytes(bytes);
        }
        (tile.scale[lane], tile.norm[lane]) = (step, norm);
        self.errors[last] = self.errors[last].max(error);
        self.rows += 1;
    }

    fn retain(queries: &mut Int8Queries, is_kept: &[bool]) {
        queries.retain(is_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::distance::squared_euclidean;
    use crate::kernels::random::Rng;

    const POINTS: usize = 21;
    const PICKS: usize = 45;
    const SIMDS: [Int8Simd; 2] = [Int8Simd::Vnni, Int8Simd::Avx2];

    /// Rows of one scale, half of them close to each other, and a filter that has all of them.
    fn filtered(
        simd: Int8Simd,
        stream: &mut Rng,
        d: usize,
        scale: f64,
        offset: f64,
    ) -> (Vec<f32>, Int8Filter) {
        let mut rows: Vec<f32> =
            (0..PICKS * d).map(|_| (scale * (stream.normal() + offset)) as f32).collect();
        for row in PICKS / 2..PICKS {
            for column in 0..d {
                rows[row * d + column] = rows[column] * (1.0 + 1e-3 * stream.normal() as f32);
            }
        }
        let mut filter = Int8Filter::about_mean(simd, &rows, d);
        rows.chunks(d).for_each(|row| filter.push(row, 0.0));
        (rows, filter)
    }

    fn masks(filter: &Int8Filter, rows: &[f32], limits: &[f32]) -> Vec<u32> {
        let mut queries = filter.encode(rows.to_vec(), &vec![0.0; limits.len()]);
        limits.iter().enumerate().for_each(|(query, &limit)| filter.set_limit(&mut queries, query, limit));
        let mut candidates = Candidates::default();
        filter.candidates(&queries, 0..PICKS, &mut candidates);
        candidates.masks
    }

    #[test]
    fn no_pair_below_its_bound_is_ruled_out() {
        let mut stream = Rng::new(1, "bytes");
        let scales = [(1.0, 0.0), (1.0, 100.0), (1e-22, 0.0), (1e-42, 0.0), (1e12, 3.0)];
        for (d, (scale, offset), simd) in [1, 3, 16, 17, 128, 200]
            .into_iter()
            .flat_map(|d| scales.map(|scale| (d, scale)))
            .flat_map(|(d, scale)| SIMDS.map(|simd| (d, scale, simd)))
        {
            let (rows, filter) = filtered(simd, &mut stream, d, scale, offset);
            let points = &rows[(PICKS - POINTS) * d..];
            for (pick, of_pick) in rows.chunks(d).enumerate() {
                let next = |point: &[f32]| squared_euclidean(point, of_pick).next_up();
                let bounds: Vec<f32> = points.chunks(d).map(next).collect();
                let masks = masks(&filter, points, &bounds);
                let bits = &masks[pick / TILE * POINTS..][..POINTS];
                let is_in = |mask: &u32| mask >> (pick % TILE) & 1 == 1;
                assert!(bits.iter().all(is_in), "{simd:?} {d} {scale} {offset}");
            }
        }
    }

    #[test]
    fn pairs_well_above_their_bounds_are_ruled_out() {
        for simd in SIMDS {
            let (rows, filter) = filtered(simd, &mut Rng::new(2, "bytes"), 128, 1.0, 5.0);
            let far = squared_euclidean(&rows[..128], &rows[128..256]);
            let masks = masks(&filter, &rows[..POINTS * 128], &[0.8 * far; POINTS]);
            let pairs: u32 = masks.iter().map(|mask| mask.count_ones()).sum();
            // Themselves, and the first of them with the 23 that are close to it.
            assert_eq!(pairs as usize, POINTS + PICKS - PICKS / 2, "{simd:?}");
        }
    }

    #[test]
    fn points_that_could_overflow_are_left_to_floats() {
        assert!(Int8Filter::without_rows(&[1.0, 2e16], 1, &[1.0, 4e32]).is_none());
    }
}
