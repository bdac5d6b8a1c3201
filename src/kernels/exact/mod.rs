//! Exact search: results of brute force to the bit, at a fraction of its work.
//!
//! Two searches share this folder. [`nearest`] finds the rows of a bank that are nearest to a query; [`coreset`]
//! chooses rows by greedy k-center, for which it needs the distance of a point to its nearest pick. Both work
//! in the same way: a cheap **lower bound** of a distance rules a pair of rows out, and
//! [`squared_euclidean`](super::distance::squared_euclidean) measures the remaining pairs. It alone decides, so no
//! result depends on the bound, the processor, the device or the number of threads; all of these change speed alone.
//!
//! ```text
//! queries --encode--> block with one threshold a query <--set_limit-- best distances so far
//!                                |                                             ^
//!                     candidates (tiles of 32 rows -> bit masks) --measure_candidates
//! ```
//!
//! A [`LowerBound`] is one way to fill the masks:
//!
//! | filter | bound from | used |
//! |---|---|---|
//! | [`float::F32Filter`] | the matrix product of the rows in f32 | everywhere, also on codes |
//! | [`int8::Int8Filter`] | int8-quantised rows or codes, multiplied exactly | where the processor multiplies bytes |
//! | [`pca::PcaFilter`] | short codes along principal axes, in f32 or in int8 | by `nearest`, for banks searched often |
//!
//! A GPU bounds distances too ([`device`]): lower bounds for `nearest`, where it sorts the bank's rows by them, and
//! upper bounds for `coreset`, which leave fewer points to measure.
//!
//! Rounding is covered by [`ErrorBound`](super::distance::ErrorBound); the proof for each filter is at the head of
//! its file.

pub mod coreset;
mod device;
mod float;
mod int8;
pub mod nearest;
mod pca;
mod quantise;

use std::ops::Range;

use super::distance::measure;
use super::product::int8::{LeftRow, TILE};

/// Proves cheaply that rows are farther from queries than a limit.
trait LowerBound: Sync {
    /// A block of encoded queries, each with a threshold.
    type Queries;

    /// Returns the number of rows for one call of [`LowerBound::candidates`], a multiple of `TILE`. More rows make the
    /// matrix product faster, but limits are updated only between calls.
    fn step(&self) -> usize;

    /// Encodes `rows: [n, d]` as queries; `norms` are their squared norms. No limit is set yet, so nothing is ruled
    /// out.
    fn encode(&self, rows: Vec<f32>, norms: &[f32]) -> Self::Queries;

    /// Sets the limit of a query: rows at a larger squared distance, as `squared_euclidean` computes it, need not be
    /// candidates.
    fn set_limit(&self, queries: &mut Self::Queries, query: usize, limit: f32);

    /// Finds the candidates among some of the filter's rows. The range starts at a multiple of `TILE`.
    fn candidates(&self, queries: &Self::Queries, rows: Range<usize>, out: &mut Candidates);

    /// Returns `k` allowed rows that are likely to be near the query; their distances give its first limit. Empty if
    /// such rows are not known.
    fn likely_rows(
        &self,
        _queries: &Self::Queries,
        _query: usize,
        _k: usize,
        _is_allowed: impl Fn(usize) -> bool,
    ) -> Vec<usize> {
        Vec::new()
    }
}

/// A filter that changes during a greedy search: picks are added as rows, and points that are ruled out leave the
/// queries.
trait Growing: LowerBound {
    /// Number of picks in one step. A point that one pick rules out is still compared with the others of the step.
    const PICK_STEP: usize;

    /// Adds a row; `norm` is its squared norm.
    fn push(&mut self, row: &[f32], norm: f32);

    /// Removes the queries that are not kept. The others stay in order.
    fn retain(queries: &mut Self::Queries, is_kept: &[bool]);
}

/// Encoded queries: a summary of each, and the numbers of all, equally many for each.
struct Block<Q, W> {
    queries: Vec<Q>,
    /// `[n, words]`: the numbers that are multiplied.
    words: Vec<W>,
}

impl<Q: Copy, W: Copy> Block<Q, W> {
    fn retain(&mut self, is_kept: &[bool]) {
        let width = self.words.len() / self.queries.len();
        let mut kept = 0;
        for index in (0..is_kept.len()).filter(|&index| is_kept[index]) {
            if kept < index {
                self.queries[kept] = self.queries[index];
                self.words.copy_within(index * width..(index + 1) * width, kept * width);
            }
            kept += 1;
        }
        self.queries.truncate(kept);
        self.words.truncate(kept * width);
    }
}

/// The pairs that a filter did not rule out, and buffers that are reused between calls.
#[derive(Default)]
struct Candidates {
    /// `[tiles, n]`: bit `j` of `masks[t, i]` is cleared if row `j` of tile `t` is certainly beyond the limit of
    /// query `i`. Bits beyond the last row have no meaning.
    masks: Vec<u32>,
    queries: usize,
    products: Vec<f32>,
    left: Vec<LeftRow>,
}

impl Candidates {
    fn clear(&mut self, rows: usize, queries: usize) {
        self.queries = queries;
        self.masks.clear();
        self.masks.resize(rows.div_ceil(TILE) * queries, 0);
    }

    /// Yields (query, first row of the tile, mask) for each mask with candidates. `first` is the first row that was
    /// compared.
    fn iter(&self, first: usize) -> impl Iterator<Item = (usize, usize, u32)> {
        let tiles = self.masks.chunks(self.queries).enumerate();
        tiles.flat_map(move |(tile, masks)| {
            let masks = masks.iter().enumerate().filter(|(_, mask)| **mask != 0);
            masks.map(move |(query, &mask)| (query, first + tile * TILE, mask))
        })
    }
}

/// Measures the candidates of one query in a tile, in ascending order: `visit(row, squared distance)`.
///
/// `rows: [m, d]` are all rows, `first` is the tile's first. Rows that are not allowed are not measured.
fn measure_candidates(
    query: &[f32],
    rows: &[f32],
    (first, mask): (usize, u32),
    is_allowed: impl Fn(usize) -> bool,
    visit: impl FnMut(usize, f32),
) {
    let m = rows.len() / query.len();
    let candidates = set_bits(mask).map(|bit| first + bit).filter(|&row| row < m && is_allowed(row));
    measure(query, rows, candidates.map(|row| (row, row)), visit);
}

/// Yields the indices of the set bits, ascending.
fn set_bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(bit)
    })
}
