//! Bounds from a GPU: lower bounds that sort a bank's rows for `nearest`, upper bounds of distances for `coreset`.
//!
//! **Upper bounds.** The greedy search keeps for each point `i` a bound `B` and the number of picks that it has
//! `seen`. With `D` the distance to the nearest of all picks so far, as `squared_euclidean` computes it, it needs no
//! more than
//!
//! ```text
//! D(i) <= B(i) <= the distance to the nearest of the first seen(i) picks                            (1)
//! ```
//!
//! so `B` may be lowered to any upper bound of `D`, with `seen` left as it is:
//! - Points are ruled out by `B < threshold` alone, which implies `D < threshold`.
//! - A refresh measures each pick that was not seen unless its distance is proven to be at least `B`. If `D = B`, `B`
//!   is right already, and measured distances, none below `D`, leave it. If `D < B`, the nearest pick is nearer than
//!   all that were seen, by (1), so it is one of the others; its distance, `D`, is below `B`, so it is measured.
//!   Either way the refreshed bound is `D`: what was lowered in between is not taken for a distance.
//! - Where a refresh ends early, at a bound below the threshold, what it has measured and ruled out keeps (1); and a
//!   new pick only lowers `D`.
//!
//! Picks and radii are therefore the same with any upper bounds.
//!
//! Good upper bounds leave the search with points that are nearly as distant as they look: of 2,000 picks of 200,000 ×
//! 128 (groups on 40 directions, noise) the search's own part falls from 0.41 s to 0.08 s (2 Zen 4 cores,
//! 2026-11-24). The products are what that costs: 3.6 s on these cores, so a processor has no use for them.
//!
//! libtorch is optional. Its part of this folder is three functions, each of which has a twin in `absent` that
//! refuses.

#[cfg(not(feature = "torch"))]
mod absent;
#[cfg(feature = "torch")]
mod libtorch;

#[cfg(not(feature = "torch"))]
pub(super) use self::absent::{device_lower_bounds, device_upper_bounds, find_device};
#[cfg(feature = "torch")]
pub(super) use self::libtorch::{device_lower_bounds, device_upper_bounds, find_device};
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;

/// Computes upper bounds of the distances of points to picks.
pub(super) trait UpperBounds {
    /// Lowers each of `bounds: [n]` to an upper bound of the point's squared distance to its nearest pick, if that is
    /// lower. `picks` are those made since the last call. Negative bounds, which mark picked points, are not changed.
    fn lower(&mut self, picks: &[u32], bounds: &mut [f32]) -> Result<(), KernelError>;
}

/// Computes no upper bounds, for searches without a device.
pub(super) struct NoUpperBounds;

impl UpperBounds for NoUpperBounds {
    fn lower(&mut self, _: &[u32], _: &mut [f32]) -> Result<(), KernelError> {
        Ok(())
    }
}

/// A bank's rows on a device that computes lower bounds for queries.
pub(super) trait DeviceLowerBounds: Send + Sync {
    fn device(&self) -> Device;

    /// Returns how many queries one call of [`Self::lowest`] should have, for a bank of `m` rows.
    fn queries_at_once(&self, m: usize) -> usize;

    /// Finds, for each of `queries: [n, d]`, the `count` rows with the lowest lower bounds; `count` is at most `m`.
    fn lowest(
        &self,
        queries: &[f32],
        groups: Option<ExclusionGroups<'_>>,
        count: usize,
    ) -> Result<Lowest, KernelError>;
}

/// For each query, the rows with the lowest lower bounds, ascending. A bound lacks the query's own term, which is the
/// same for all rows of that query.
pub(super) struct Lowest {
    /// `[n, count]`. `-∞` if the bound cannot be computed (overflow), `∞` for a row of the query's own group.
    pub(super) bounds: Vec<f32>,
    pub(super) rows: Vec<i64>,
}

/// The groups of queries and bank rows. A group is an image; rows of the query's own image are excluded.
#[derive(Clone, Copy)]
pub(super) struct ExclusionGroups<'a> {
    pub(super) query: &'a [u32],
    pub(super) bank: &'a [u32],
}

impl ExclusionGroups<'_> {
    /// Returns whether a row belongs to another group than the query.
    pub(super) fn is_allowed(self, query: usize, row: usize) -> bool {
        self.query[query] != self.bank[row]
    }
}
