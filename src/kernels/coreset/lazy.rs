//! Greedy k-center that measures a point only when it could be picked.
//!
//! A point's distance to its nearest pick only falls, so what was last known of it bounds what it is.
//! The search goes in rounds:
//! 0. **lower** all bounds to the ceilings that a GPU has for them (`ceilings`), where there is one;
//! 1. **admit** the points with the largest bounds, a few thousand; every other point is below the
//!    lowest of them, the floor. They come from a pool, which is filled for several rounds at a time;
//! 2. **refresh** them against the picks that they have not seen. Blocks of points by blocks of picks
//!    go through a screen, which rules out nearly all pairs; what is left is measured by
//!    `squared_euclidean`. A point that falls below the floor is left, with the number of picks it has
//!    seen;
//! 3. **pick** the farthest while it is not below the floor (so no point outside can be farther),
//!    measuring those still above the floor against each new pick.
//!
//! What it costs, and what did not pay (features of KSDD by `resnet18`, projected to 128; 2026-11-24, CPU
//! seconds of the picks, 10 % of 148,960 rows):
//! - the screen by a product in f32: 4.5; by bytes, with the pool: 1.8. At KSDD2's size (1,167,600 rows, 1 %)
//!   a fifth of all pairs is screened, and one pair of 500 of those is measured.
//! - Triangle inequality between picks (none within twice a point's bound of its own pick need be looked at):
//!   rules out 2 % of the pairs. The radius is not small beside the distances between picks (3.1 to 4.3).
//! - Rotation by variance, then the first 31 dimensions and the length of the rest: leaves 13 to 18 % of
//!   the pairs (63 dimensions: 4 to 6 %), where 2 % are within the radius. Bytes leave about those 2 % for
//!   a quarter of the work.
//! - Half precision: the product crate widens it to f32, so it saves memory alone, which is not what limits.
//!
//! Places are compared by (distance, lower index first), so ties are those of the textbook. Nothing
//! here depends on the number of threads but the speed.

use rayon::prelude::*;

use super::Picks;
use super::ceilings::Ceilings;
use super::screen::Screen;
use crate::kernels::KernelError;
use crate::kernels::distance::{squared_simd, squared_to_centre};
use crate::kernels::product::bytes::STRIP;

/// Points admitted in the first round, and the bounds within which later rounds adapt.
const ADMITTED: usize = 1024;
const ADMITTED_LEAST: usize = 256;
const ADMITTED_MOST: usize = 16_384;

/// Picks a round should yield: below the first more points are admitted, above the second fewer.
const PICKS_FEW: usize = 16;
const PICKS_MANY: usize = 128;

/// Points screened together by one task.
const POINT_BLOCK: usize = 128;

/// Points measured against a new pick by one task.
const ALIVE_BLOCK: usize = 1024;

/// Classes of bounds, by value, that admission counts.
const CLASSES: usize = 2048;

/// Rounds that the pool is filled for.
const POOL_ROUNDS: usize = 32;

/// Points classified by one task.
const CLASS_BLOCK: usize = 65_536;

/// The bound of a point that was picked: below every distance.
const PICKED: f32 = -1.0;

/// The order of points: by bound, then the lower index first. 0 is below every point not picked.
fn place(bound: f32, point: u32) -> u64 {
    if bound < 0.0 { 0 } else { (u64::from(bound.to_bits()) + 1) << 32 | u64::from(!point) }
}

/// The state of a search.
pub(super) struct Search<'a, S> {
    points: &'a [f32],
    d: usize,
    norms: &'a [f32],
    screen: S,
    /// Squared distance of each point to the nearest of the picks that it has seen, or less: at least the
    /// distance to the nearest of all (`ceilings`).
    bounds: Vec<f32>,
    /// How many picks each point has seen.
    seen: Vec<u32>,
    picks: Vec<u32>,
    /// Picks that the ceilings know of.
    told: usize,
    /// Rows of the picks, side by side, where a point finds them sooner.
    pick_rows: Vec<f32>,
    round: Round,
    admitted: usize,
    /// Points to admit from: no other has a bound of `pool_least` or more.
    pool: Vec<u32>,
    pool_least: f32,
}

/// The points of a round that are not below its floor.
struct Round {
    /// Rows of the admitted points, `[admitted, d]`.
    rows: Vec<f32>,
    alive: Vec<Alive>,
    floor: u64,
    picks: usize,
}

#[derive(Clone, Copy)]
struct Alive {
    slot: u32,
    point: u32,
    bound: f32,
}

impl<'a, S: Screen> Search<'a, S> {
    /// Starts from `bounds`, which are the distances to the pick `first` where there is one.
    pub(super) fn new(
        points: &'a [f32],
        d: usize,
        norms: &'a [f32],
        bounds: Vec<f32>,
        first: Option<usize>,
        screen: S,
    ) -> Self {
        let seen = vec![u32::from(first.is_some()); bounds.len()];
        let round = Round { rows: Vec::new(), alive: Vec::new(), floor: u64::MAX, picks: 0 };
        let mut search = Self {
            points,
            d,
            norms,
            screen,
            bounds,
            seen,
            picks: Vec::new(),
            told: 0,
            pick_rows: Vec::new(),
            round,
            admitted: ADMITTED,
            pool: Vec::new(),
            pool_least: 0.0,
        };
        if let Some(first) = first {
            search.add_pick(first as u32);
        }
        search
    }

    pub(super) fn run(
        mut self,
        count: usize,
        ceilings: &mut dyn Ceilings,
        progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Picks, KernelError> {
        let mut radii = Vec::with_capacity(count);
        loop {
            if !self.picks.is_empty() && !progress(self.picks.len()) {
                return Err(KernelError::Cancelled);
            }
            let farthest = self.farthest(ceilings)?;
            if !self.picks.is_empty() {
                radii.push(farthest.map_or(0.0, |(_, bound)| bound.sqrt()));
            }
            match farthest {
                Some((point, _)) if self.picks.len() < count => self.pick(point),
                _ => return Ok(Picks { rows: self.picks, radii }),
            }
        }
    }

    /// Returns the point farthest from all picks, unless all are picked.
    fn farthest(&mut self, ceilings: &mut dyn Ceilings) -> Result<Option<(u32, f32)>, KernelError> {
        loop {
            let farthest = self.round.alive.iter().max_by_key(|alive| place(alive.bound, alive.point));
            if let Some(alive) = farthest {
                return Ok(Some((alive.point, alive.bound)));
            }
            if self.picks.len() == self.bounds.len() {
                return Ok(None);
            }
            ceilings.lower(&self.picks[self.told..], &mut self.bounds)?;
            self.told = self.picks.len();
            self.start_round();
        }
    }

    fn start_round(&mut self) {
        if self.round.picks < PICKS_FEW {
            self.admitted = (self.admitted * 2).min(ADMITTED_MOST);
        } else if self.round.picks > PICKS_MANY {
            self.admitted = (self.admitted / 2).max(ADMITTED_LEAST);
        }
        let (points, floor) = self.admit();
        let fresh = self.refresh(&points, floor);
        let mut round = Round { rows: Vec::new(), alive: Vec::new(), floor, picks: 0 };
        for (point, bound, seen) in fresh {
            self.bounds[point as usize] = bound;
            self.seen[point as usize] = seen;
            if place(bound, point) >= floor {
                let slot = round.alive.len() as u32;
                round.alive.push(Alive { slot, point, bound });
                round.rows.extend_from_slice(row(self.points, self.d, point));
            }
        }
        self.round = round;
    }

    /// Returns at least one point, those of the largest bounds, and the lowest place among them.
    fn admit(&mut self) -> (Vec<u32>, u64) {
        let mut places = self.pool_places();
        if places.len() < self.admitted && self.pool.len() < self.bounds.len() {
            self.fill_pool();
            places = self.pool_places();
        }
        if places.len() > self.admitted {
            places.select_nth_unstable_by(self.admitted - 1, |a, b| b.cmp(a));
            places.truncate(self.admitted);
        }
        let floor = places.iter().copied().min().unwrap_or(u64::MAX);
        (places.into_iter().map(|place| !(place as u32)).collect(), floor)
    }

    /// Places of the points of the pool that are not below its floor yet, above those of all other points.
    fn pool_places(&mut self) -> Vec<u64> {
        let (bounds, least) = (&self.bounds, self.pool_least);
        self.pool.retain(|&point| bounds[point as usize] >= least);
        self.pool.iter().map(|&point| place(bounds[point as usize], point)).collect()
    }

    /// Gathers the points of the largest bounds, enough for several rounds: bounds only fall, so none from
    /// outside comes above the least that was gathered.
    fn fill_pool(&mut self) {
        let largest = self.bounds.par_chunks(CLASS_BLOCK).map(largest_of).reduce(|| PICKED, f32::max);
        // Ascends with the bound; all fall into class 0 where the scale is not a number.
        let scale = (CLASSES - 1) as f32 / largest;
        let class = |bound: f32| ((bound * scale) as usize).min(CLASSES - 1);
        let counts = self.count_classes(class);
        let mut least = CLASSES - 1;
        let mut sum = counts[least];
        while sum < POOL_ROUNDS * self.admitted && least > 0 {
            least -= 1;
            sum += counts[least];
        }
        let collect = |(block, bounds): (usize, &[f32])| {
            let first = block * CLASS_BLOCK;
            let chosen = move |&(_, &bound): &(usize, &f32)| bound >= 0.0 && class(bound) >= least;
            let places = bounds.iter().enumerate().filter(chosen);
            places.map(|(offset, _)| (first + offset) as u32).collect::<Vec<u32>>()
        };
        let blocks: Vec<Vec<u32>> = self.bounds.par_chunks(CLASS_BLOCK).enumerate().map(collect).collect();
        self.pool = blocks.concat();
        let bounds = self.pool.iter().map(|&point| self.bounds[point as usize]);
        self.pool_least = bounds.fold(f32::INFINITY, f32::min);
    }

    fn count_classes(&self, class: impl Fn(f32) -> usize + Sync) -> Vec<usize> {
        let count = |bounds: &[f32]| {
            let mut counts = vec![0_usize; CLASSES];
            for &bound in bounds {
                if bound >= 0.0 {
                    counts[class(bound)] += 1;
                }
            }
            counts
        };
        let add = |mut sum: Vec<usize>, counts: Vec<usize>| {
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            sum
        };
        self.bounds.par_chunks(CLASS_BLOCK).map(count).reduce(|| vec![0; CLASSES], add)
    }

    /// Returns (point, bound, picks seen) of `points`: exact, or below the floor.
    fn refresh(&self, points: &[u32], floor: u64) -> Vec<(u32, f32, u32)> {
        let mut order: Vec<(u32, u32)> =
            points.iter().map(|&point| (self.seen[point as usize], point)).collect();
        order.sort_unstable();
        let blocks = order.par_chunks(POINT_BLOCK);
        blocks.flat_map_iter(|block| self.refresh_block(block, floor)).collect()
    }

    fn refresh_block(&self, block: &[(u32, u32)], floor: u64) -> Vec<(u32, f32, u32)> {
        let total = self.picks.len();
        let mut done = Vec::with_capacity(block.len());
        let mut open = self.open(block);
        let mut masks = Vec::new();
        // Sorted by picks seen: the first has seen the fewest. Seeing a pick twice changes nothing.
        let mut start = block[0].0 as usize / STRIP * STRIP;
        while start < total && !open.points.is_empty() {
            let end = (start + S::STEP).min(total);
            self.screen.fill(&open.copies, &open.words, &open.bounds, start..end, &mut masks);
            self.tighten(&mut open, start, &masks);
            open.close(|point, bound| {
                let is_below = place(bound, point) < floor;
                if is_below {
                    done.push((point, bound, (end as u32).max(self.seen[point as usize])));
                }
                is_below
            });
            start = end;
        }
        let rest = open.points.into_iter().zip(open.bounds);
        done.extend(rest.map(|(point, bound)| (point, bound, total as u32)));
        done
    }

    fn open(&self, block: &[(u32, u32)]) -> Open<S> {
        let points: Vec<u32> = block.iter().map(|&(_, point)| point).collect();
        // Gathered before anything is computed of them: short work a row lets the memory fetch many at once.
        let mut rows = Vec::with_capacity(points.len() * self.d);
        for &point in &points {
            rows.extend_from_slice(row(self.points, self.d, point));
        }
        let of = |values: &[f32]| points.iter().map(|&point| values[point as usize]).collect::<Vec<f32>>();
        let (copies, words) = self.screen.open(rows, &of(self.norms));
        let bounds = of(&self.bounds);
        Open { points, bounds, copies, words }
    }

    /// Lowers each bound to the distance to the nearest of the picks of its masks, if that is less.
    fn tighten(&self, open: &mut Open<S>, start: usize, masks: &[u32]) {
        for (strip, masks) in masks.chunks(open.points.len()).enumerate() {
            let first = start + strip * STRIP;
            let picks = &self.pick_rows[first * self.d..];
            let places = masks.iter().enumerate().filter(|(_, mask)| **mask != 0);
            for (place, &mask) in places {
                let row = row(self.points, self.d, open.points[place]);
                let bound = &mut open.bounds[place];
                *bound = bound.min(nearest_of(row, picks, mask));
            }
        }
    }

    /// Takes a point of the round, and measures what is left of the round against it.
    fn pick(&mut self, point: u32) {
        self.add_pick(point);
        self.round.picks += 1;
        let (d, total) = (self.d, self.picks.len());
        let (Round { rows, alive, floor, .. }, bounds, seen) =
            (&mut self.round, &mut self.bounds, &mut self.seen);
        let centre = &self.pick_rows[(total - 1) * d..];
        if alive.len() > ALIVE_BLOCK {
            alive.par_chunks_mut(ALIVE_BLOCK).for_each(|alive| approach(alive, rows, d, centre));
        } else {
            approach(alive, rows, d, centre);
        }
        alive.retain(|&Alive { point: other, bound, .. }| {
            let stays = other != point && place(bound, other) >= *floor;
            if !stays && other != point {
                bounds[other as usize] = bound;
                seen[other as usize] = total as u32;
            }
            stays
        });
    }

    fn add_pick(&mut self, point: u32) {
        self.bounds[point as usize] = PICKED;
        self.picks.push(point);
        let row = row(self.points, self.d, point);
        self.pick_rows.extend_from_slice(row);
        self.screen.add_pick(row, self.norms[point as usize]);
    }
}

fn row(points: &[f32], d: usize, point: u32) -> &[f32] {
    &points[point as usize * d..][..d]
}

fn largest_of(bounds: &[f32]) -> f32 {
    bounds.iter().copied().fold(PICKED, f32::max)
}

/// Lowers each bound to the distance to `centre`, if that is less, with the machine's widest vectors.
fn approach(alive: &mut [Alive], rows: &[f32], d: usize, centre: &[f32]) {
    pulp::Arch::new().dispatch(Approach { alive, rows, d, centre });
}

struct Approach<'a> {
    alive: &'a mut [Alive],
    rows: &'a [f32],
    d: usize,
    centre: &'a [f32],
}

impl pulp::WithSimd for Approach<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        for alive in self.alive {
            let row = &self.rows[alive.slot as usize * self.d..][..self.d];
            alive.bound = alive.bound.min(squared_simd(simd, row, self.centre));
        }
    }
}

/// Returns the distance to the nearest of the picks of a mask, those that there are.
fn nearest_of(row: &[f32], picks: &[f32], mut mask: u32) -> f32 {
    let mut nearest = f32::INFINITY;
    while mask != 0 {
        let place = mask.trailing_zeros() as usize * row.len();
        mask &= mask - 1;
        if let Some(pick) = picks.get(place..place + row.len()) {
            let mut distance = [0.0];
            squared_to_centre(pick, row.len(), row, &mut distance);
            nearest = nearest.min(distance[0]);
        }
    }
    nearest
}

/// The points of a block that may still be above the floor, one place each in every list.
struct Open<S: Screen> {
    points: Vec<u32>,
    bounds: Vec<f32>,
    copies: Vec<S::Point>,
    words: Vec<S::Word>,
}

impl<S: Screen> Open<S> {
    /// Removes the points for which `is_done`, keeping the order.
    fn close(&mut self, mut is_done: impl FnMut(u32, f32) -> bool) {
        let Self { points, bounds, copies, words } = self;
        let width = words.len() / points.len();
        let mut kept = 0;
        for place in 0..points.len() {
            if is_done(points[place], bounds[place]) {
                continue;
            }
            if kept < place {
                (points[kept], bounds[kept], copies[kept]) = (points[place], bounds[place], copies[place]);
                words.copy_within(place * width..(place + 1) * width, kept * width);
            }
            kept += 1;
        }
        points.truncate(kept);
        bounds.truncate(kept);
        copies.truncate(kept);
        words.truncate(kept * width);
    }
}
