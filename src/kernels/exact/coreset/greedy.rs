//! Greedy k-center that measures a point only when it could be picked.
//!
//! A point's distance to its nearest pick never grows, so its last known value is an upper bound (`bounds`). The search
//! goes in rounds:
//! 0. **lower** all bounds to the upper bounds that a GPU has computed, if there is one (`device`);
//! 1. **admit** the points with the largest bounds, a few thousand; every other point is below the lowest of them,
//!    the threshold. They come from a candidate heap, which is filled for several rounds at a time;
//! 2. **refresh** them: compare them with the picks that they were not compared with yet (not *seen*). Blocks of points
//!    by blocks of picks go through a lower bound (`LowerBound`), which rules out nearly all pairs; the others are
//!    measured by `squared_euclidean`. A point that falls below the threshold is dropped; the number of picks that it
//!    has seen is kept;
//! 3. **pick** the farthest point while it is not below the threshold (so no point outside can be farther). The points
//!    that are still not below it, the active set, are measured against each new pick.
//!
//! What it costs, and what did not pay (features of KSDD by `resnet18`, projected to 128; 2026-11-24, CPU seconds of
//! the picks, 10 % of 148,960 rows):
//! - the lower bound in f32: 4.5; in int8, with the candidate heap: 1.8. At KSDD2's size (1,167,600 rows, 1 %) a
//!   fifth of all pairs is compared, and one pair of 500 of those is measured.
//! - Triangle inequality between picks (none within twice a point's bound of its own pick need be looked at): rules
//!   out 2 % of the pairs. The radius is not small beside the distances between picks (3.1 to 4.3).
//! - Rotation by variance, then the first 31 dimensions and the length of the rest: leaves 13 to 18 % of the pairs
//!   (63 dimensions: 4 to 6 %), where 2 % are within the radius. Int8 leaves about those 2 % for a quarter of the
//!   work.
//! - Half precision: the product crate widens it to f32, so it saves memory alone, which is not the bottleneck.
//!
//! Points are ordered by (distance, lower index first), so ties are those of the textbook. Nothing here depends on
//! the number of threads except the speed.

use rayon::prelude::*;

use super::Picks;
use super::heap::{CandidateHeap, point_of};
use crate::kernels::KernelError;
use crate::kernels::distance::measure;
use crate::kernels::exact::device::UpperBounds;
use crate::kernels::exact::{Candidates, Growing, measure_candidates};
use crate::kernels::product::int8::TILE;

/// Number of points admitted in the first round, and the limits (`LEAST`, `MOST`) within which later rounds adapt it.
const ADMITTED: usize = 1024;
const ADMITTED_LEAST: usize = 256;
const ADMITTED_MOST: usize = 16_384;

/// Number of picks that a round should yield: after fewer than `PICKS_FEW`, the next round admits more points; after
/// more than `PICKS_MANY`, fewer.
const PICKS_FEW: usize = 16;
const PICKS_MANY: usize = 128;

/// Number of points that one parallel task compares with the picks.
const POINT_BLOCK: usize = 128;

/// Number of points whose distances to a new pick one parallel task measures.
const ACTIVE_BLOCK: usize = 1024;

/// Number of rounds for which the candidate heap is filled.
const HEAP_ROUNDS: usize = 32;

/// The bound of a picked point: it is below every distance, so that the point is not picked again.
const PICKED: f32 = -1.0;

/// Returns the key by which points are ordered: by bound, then the lower index first. 0 for a picked point, which is
/// below every other.
pub(super) fn sort_key(bound: f32, point: u32) -> u64 {
    if bound < 0.0 { 0 } else { (u64::from(bound.to_bits()) + 1) << 32 | u64::from(!point) }
}

/// The state of a greedy search.
pub(super) struct Search<'a, F> {
    points: &'a [f32],
    d: usize,
    norms: &'a [f32],
    filter: F,
    /// `[n]`: upper bound of each point's squared distance to its nearest pick: the distance to the nearest of the
    /// picks that the point was compared with, or a smaller upper bound from a device. [`PICKED`] for picks.
    bounds: Vec<f32>,
    /// `[n]`: number of picks, in their order, that each point was compared with.
    seen: Vec<u32>,
    picks: Vec<u32>,
    /// Number of picks that the device's upper bounds include.
    synced: usize,
    /// Rows of the picks, copied next to each other for faster access: `[picks, d]`.
    pick_rows: Vec<f32>,
    round: Round,
    admitted: usize,
    heap: CandidateHeap,
}

/// The points of a round that are not below its threshold (the active set).
struct Round {
    /// Rows of the admitted points, `[admitted, d]`.
    rows: Vec<f32>,
    active: Vec<ActivePoint>,
    threshold: u64,
    picks: usize,
}

#[derive(Clone, Copy)]
struct ActivePoint {
    /// Index of the point in the round's rows.
    slot: u32,
    point: u32,
    bound: f32,
}

/// A point after a refresh. Its bound is the exact distance to the nearest pick, or is below the threshold.
struct Refreshed {
    point: u32,
    bound: f32,
    seen: u32,
}

/// The points of a block that may still be above the threshold.
struct BlockState<F: Growing> {
    points: Vec<u32>,
    bounds: Vec<f32>,
    queries: F::Queries,
}

impl<'a, F: Growing> Search<'a, F> {
    /// Starts a search. `bounds: [n]` are squared distances: to the pick `first` if there is one. `filter` must have
    /// no rows.
    pub(super) fn new(
        points: &'a [f32],
        d: usize,
        norms: &'a [f32],
        bounds: Vec<f32>,
        first: Option<usize>,
        filter: F,
    ) -> Self {
        let mut search = Self {
            points,
            d,
            norms,
            filter,
            seen: vec![u32::from(first.is_some()); bounds.len()],
            bounds,
            picks: Vec::new(),
            synced: 0,
            pick_rows: Vec::new(),
            round: Round { rows: Vec::new(), active: Vec::new(), threshold: u64::MAX, picks: 0 },
            admitted: ADMITTED,
            heap: CandidateHeap::default(),
        };
        if let Some(first) = first {
            search.add_pick(first as u32);
        }
        search
    }

    pub(super) fn run(
        mut self,
        count: usize,
        upper: &mut dyn UpperBounds,
        progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Picks, KernelError> {
        let mut radii = Vec::with_capacity(count);
        loop {
            if !self.picks.is_empty() && !progress(self.picks.len()) {
                return Err(KernelError::Cancelled);
            }
            let farthest = self.farthest(upper)?;
            if !self.picks.is_empty() {
                radii.push(farthest.map_or(0.0, |(_, bound)| bound.sqrt()));
            }
            match farthest {
                Some((point, _)) if self.picks.len() < count => self.pick(point),
                _ => return Ok(Picks { rows: self.picks, radii }),
            }
        }
    }

    /// Returns the point farthest from all picks with its squared distance; `None` if all points are picked.
    fn farthest(&mut self, upper: &mut dyn UpperBounds) -> Result<Option<(u32, f32)>, KernelError> {
        loop {
            let farthest = self.round.active.iter().max_by_key(|active| sort_key(active.bound, active.point));
            if let Some(active) = farthest {
                return Ok(Some((active.point, active.bound)));
            }
            if self.picks.len() == self.bounds.len() {
                return Ok(None);
            }
            upper.lower(&self.picks[self.synced..], &mut self.bounds)?;
            self.synced = self.picks.len();
            self.start_round();
        }
    }

    fn start_round(&mut self) {
        if self.round.picks < PICKS_FEW {
            self.admitted = (self.admitted * 2).min(ADMITTED_MOST);
        } else if self.round.picks > PICKS_MANY {
            self.admitted = (self.admitted / 2).max(ADMITTED_LEAST);
        }
        let keys = self.heap.largest(&self.bounds, self.admitted, HEAP_ROUNDS * self.admitted);
        let threshold = keys.iter().copied().min().unwrap_or(u64::MAX);
        let points: Vec<u32> = keys.into_iter().map(point_of).collect();
        let mut round = Round { rows: Vec::new(), active: Vec::new(), threshold, picks: 0 };
        for Refreshed { point, bound, seen } in self.refresh(&points, threshold) {
            self.bounds[point as usize] = bound;
            self.seen[point as usize] = seen;
            if sort_key(bound, point) >= threshold {
                let slot = round.active.len() as u32;
                round.active.push(ActivePoint { slot, point, bound });
                round.rows.extend_from_slice(row(self.points, self.d, point));
            }
        }
        self.round = round;
    }

    /// Brings points up to date with all picks, or until they are below the threshold.
    fn refresh(&self, points: &[u32], threshold: u64) -> Vec<Refreshed> {
        let mut order: Vec<(u32, u32)> =
            points.iter().map(|&point| (self.seen[point as usize], point)).collect();
        order.sort_unstable();
        let blocks = order.par_chunks(POINT_BLOCK);
        blocks.flat_map_iter(|block| self.refresh_block(block, threshold)).collect()
    }

    fn refresh_block(&self, block: &[(u32, u32)], threshold: u64) -> Vec<Refreshed> {
        let total = self.picks.len();
        let mut done = Vec::with_capacity(block.len());
        let mut state = self.block_state(block);
        let mut candidates = Candidates::default();
        // Sorted by picks seen: the first has seen the fewest. Seeing a pick twice changes nothing.
        let mut start = block[0].0 as usize / TILE * TILE;
        while start < total && !state.points.is_empty() {
            let end = (start + F::PICK_STEP).min(total);
            self.filter.candidates(&state.queries, start..end, &mut candidates);
            self.tighten(&mut state, start, &candidates);
            let BlockState { points, bounds, .. } = &state;
            let pairs = points.iter().zip(bounds);
            let is_kept: Vec<bool> =
                pairs.map(|(&point, &bound)| sort_key(bound, point) >= threshold).collect();
            for (index, _) in is_kept.iter().enumerate().filter(|(_, is_kept)| !**is_kept) {
                let (point, bound) = (points[index], bounds[index]);
                done.push(Refreshed { point, bound, seen: (end as u32).max(self.seen[point as usize]) });
            }
            state.retain(&is_kept);
            start = end;
        }
        let rest = state.points.into_iter().zip(state.bounds);
        done.extend(rest.map(|(point, bound)| Refreshed { point, bound, seen: total as u32 }));
        done
    }

    fn block_state(&self, block: &[(u32, u32)]) -> BlockState<F> {
        let points: Vec<u32> = block.iter().map(|&(_, point)| point).collect();
        // Gathered before anything is computed of them: short work a row lets the memory fetch many at once.
        let mut rows = Vec::with_capacity(points.len() * self.d);
        for &point in &points {
            rows.extend_from_slice(row(self.points, self.d, point));
        }
        let of = |values: &[f32]| points.iter().map(|&point| values[point as usize]).collect::<Vec<f32>>();
        let mut queries = self.filter.encode(rows, &of(self.norms));
        let bounds = of(&self.bounds);
        for (query, &bound) in bounds.iter().enumerate() {
            self.filter.set_limit(&mut queries, query, bound);
        }
        BlockState { points, bounds, queries }
    }

    /// Lowers each bound to the smallest distance to a candidate. The candidates are picks from number `start` on.
    fn tighten(&self, state: &mut BlockState<F>, start: usize, candidates: &Candidates) {
        for (query, first, mask) in candidates.iter(start) {
            let row = row(self.points, self.d, state.points[query]);
            let mut bound = state.bounds[query];
            let all = |_| true;
            measure_candidates(row, &self.pick_rows, (first, mask), all, |_, squared| {
                bound = bound.min(squared);
            });
            if bound < state.bounds[query] {
                state.bounds[query] = bound;
                self.filter.set_limit(&mut state.queries, query, bound);
            }
        }
    }

    /// Picks a point of the round, lowers the bounds of the other active points by their distances to it, and drops
    /// those that fall below the threshold.
    fn pick(&mut self, point: u32) {
        self.add_pick(point);
        self.round.picks += 1;
        let (d, total) = (self.d, self.picks.len());
        let (Round { rows, active, threshold, .. }, bounds, seen) =
            (&mut self.round, &mut self.bounds, &mut self.seen);
        let centre = &self.pick_rows[(total - 1) * d..];
        if active.len() > ACTIVE_BLOCK {
            active.par_chunks_mut(ACTIVE_BLOCK).for_each(|active| approach(active, rows, centre));
        } else {
            approach(active, rows, centre);
        }
        active.retain(|&ActivePoint { point: other, bound, .. }| {
            let is_kept = other != point && sort_key(bound, other) >= *threshold;
            if !is_kept && other != point {
                bounds[other as usize] = bound;
                seen[other as usize] = total as u32;
            }
            is_kept
        });
    }

    fn add_pick(&mut self, point: u32) {
        self.bounds[point as usize] = PICKED;
        self.picks.push(point);
        let row = row(self.points, self.d, point);
        self.pick_rows.extend_from_slice(row);
        self.filter.push(row, self.norms[point as usize]);
    }
}

impl<F: Growing> BlockState<F> {
    fn retain(&mut self, is_kept: &[bool]) {
        let mut of_points = is_kept.iter();
        self.points.retain(|_| of_points.next().is_some_and(|&is_kept| is_kept));
        let mut of_bounds = is_kept.iter();
        self.bounds.retain(|_| of_bounds.next().is_some_and(|&is_kept| is_kept));
        F::retain(&mut self.queries, is_kept);
    }
}

fn row(points: &[f32], d: usize, point: u32) -> &[f32] {
    &points[point as usize * d..][..d]
}

/// Lowers each bound to the distance to `centre`, if that is less.
fn approach(active: &mut [ActivePoint], rows: &[f32], centre: &[f32]) {
    let items = active.iter_mut().map(|active| (active.slot as usize, active));
    measure(centre, rows, items, |active, squared| active.bound = active.bound.min(squared));
}
