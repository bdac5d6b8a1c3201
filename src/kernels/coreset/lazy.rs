//! Greedy k-center that measures a point only when it could be picked.
//!
//! A point's distance to its nearest pick only falls, so what was last known of it bounds what it is.
//! The search goes in rounds:
//! 1. **admit** the points with the largest bounds, a few thousand; every other point is below the
//!    lowest of them, the floor;
//! 2. **refresh** them against the picks that they have not seen. Blocks of points by blocks of picks
//!    go through a matrix product, whose estimate, less its error margin, rules out nearly all pairs;
//!    what is left is measured by `squared_euclidean`. A point that falls below the floor is left, with
//!    the number of picks it has seen;
//! 3. **pick** the farthest while it is not below the floor (so no point outside can be farther),
//!    measuring those still above the floor against each new pick.
//!
//! Places are compared by (distance, lower index first), so ties are those of the textbook. Nothing
//! here depends on the number of threads but the speed.

use rayon::prelude::*;

use super::Picks;
use crate::kernels::KernelError;
use crate::kernels::distance::{Margin, STRIP, is_any_within, squared_euclidean, squared_inline};
use crate::kernels::product::inner_products;

/// Points admitted in the first round, and the bounds within which later rounds adapt.
const ADMITTED: usize = 1024;
const ADMITTED_LEAST: usize = 256;
const ADMITTED_MOST: usize = 16_384;

/// Picks a round should yield: below the first more points are admitted, above the second fewer.
const PICKS_FEW: usize = 16;
const PICKS_MANY: usize = 128;

/// Points and picks in one matrix product.
const POINT_BLOCK: usize = 128;
const PICK_BLOCK: usize = 128;

/// Points measured against a new pick by one task.
const ALIVE_BLOCK: usize = 1024;

/// Classes of bounds, by value, that admission counts.
const CLASSES: usize = 2048;

/// Points classified by one task.
const CLASS_BLOCK: usize = 65_536;

/// The bound of a point that was picked: below every distance.
const PICKED: f32 = -1.0;

/// The order of points: by bound, then the lower index first. 0 is below every point not picked.
fn place(bound: f32, point: u32) -> u64 {
    if bound < 0.0 { 0 } else { (u64::from(bound.to_bits()) + 1) << 32 | u64::from(!point) }
}

/// The state of a search.
pub(super) struct Search<'a> {
    points: &'a [f32],
    d: usize,
    norms: &'a [f32],
    margin: Margin,
    /// Squared distance of each point to the nearest of the picks that it has seen.
    bounds: Vec<f32>,
    /// How many picks each point has seen.
    seen: Vec<u32>,
    picks: Vec<u32>,
    pick_rows: Vec<f32>,
    pick_lower: Vec<f32>,
    round: Round,
    admitted: usize,
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

impl<'a> Search<'a> {
    /// Starts from `bounds`, which are the distances to the pick `first` where there is one.
    pub(super) fn new(
        points: &'a [f32],
        d: usize,
        norms: &'a [f32],
        bounds: Vec<f32>,
        first: Option<usize>,
    ) -> Self {
        let seen = vec![u32::from(first.is_some()); bounds.len()];
        let round = Round { rows: Vec::new(), alive: Vec::new(), floor: u64::MAX, picks: 0 };
        let mut search = Self {
            points,
            d,
            norms,
            margin: Margin::new(d),
            bounds,
            seen,
            picks: Vec::new(),
            pick_rows: Vec::new(),
            pick_lower: Vec::new(),
            round,
            admitted: ADMITTED,
        };
        if let Some(first) = first {
            search.add_pick(first as u32);
        }
        search
    }

    pub(super) fn run(
        mut self,
        count: usize,
        progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Picks, KernelError> {
        let mut radii = Vec::with_capacity(count);
        loop {
            if !self.picks.is_empty() && !progress(self.picks.len()) {
                return Err(KernelError::Cancelled);
            }
            let farthest = self.farthest();
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
    fn farthest(&mut self) -> Option<(u32, f32)> {
        loop {
            let farthest = self.round.alive.iter().max_by_key(|alive| place(alive.bound, alive.point));
            if let Some(alive) = farthest {
                return Some((alive.point, alive.bound));
            }
            if self.picks.len() == self.bounds.len() {
                return None;
            }
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
    fn admit(&self) -> (Vec<u32>, u64) {
        let largest = self.bounds.par_chunks(CLASS_BLOCK).map(largest_of).reduce(|| PICKED, f32::max);
        // Ascends with the bound; all fall into class 0 where the scale is not a number.
        let scale = (CLASSES - 1) as f32 / largest;
        let class = |bound: f32| (bound * scale) as usize;
        let counts = self.count_classes(class);
        let mut least = CLASSES - 1;
        let mut sum = counts[least];
        while sum < self.admitted && least > 0 {
            least -= 1;
            sum += counts[least];
        }
        let collect = |(block, bounds): (usize, &[f32])| {
            let first = block * CLASS_BLOCK;
            let chosen = move |&(_, &bound): &(usize, &f32)| bound >= 0.0 && class(bound) >= least;
            let places = bounds.iter().enumerate().filter(chosen);
            places.map(|(offset, &bound)| place(bound, (first + offset) as u32)).collect::<Vec<u64>>()
        };
        let blocks: Vec<Vec<u64>> = self.bounds.par_chunks(CLASS_BLOCK).enumerate().map(collect).collect();
        let mut places = blocks.concat();
        if places.len() > 2 * self.admitted {
            places.select_nth_unstable_by(self.admitted - 1, |a, b| b.cmp(a));
            places.truncate(self.admitted);
        }
        let floor = places.iter().copied().min().unwrap_or(u64::MAX);
        (places.into_iter().map(|place| !(place as u32)).collect(), floor)
    }

    fn count_classes(&self, class: impl Fn(f32) -> usize + Sync) -> Vec<usize> {
        let count = |bounds: &[f32]| {
            let mut counts = vec![0_usize; CLASSES];
            for &bound in bounds {
                if bound >= 0.0 {
                    counts[class(bound).min(CLASSES - 1)] += 1;
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
        let (d, total) = (self.d, self.picks.len());
        let mut done = Vec::with_capacity(block.len());
        let mut open: Vec<(u32, f32)> =
            block.iter().map(|&(_, point)| (point, self.bounds[point as usize])).collect();
        let mut rows: Vec<f32> = Vec::with_capacity(block.len() * d);
        for &(point, _) in &open {
            rows.extend_from_slice(row(self.points, d, point));
        }
        let mut products = vec![0.0; block.len() * PICK_BLOCK];
        // Sorted by picks seen: the first has seen the fewest. Seeing a pick twice changes nothing.
        let mut start = block[0].0 as usize;
        while start < total && !open.is_empty() {
            let end = (start + PICK_BLOCK).min(total);
            let products = &mut products[..open.len() * (end - start)];
            inner_products(&rows, &self.pick_rows[start * d..end * d], d, products);
            let lines = products.chunks(end - start).zip(rows.chunks(d));
            for ((point, bound), (products, row)) in open.iter_mut().zip(lines) {
                *bound = self.tighten(*bound, self.norms[*point as usize], row, start, products);
            }
            close(&mut open, &mut rows, d, |point, bound| {
                let is_below = place(bound, point) < floor;
                if is_below {
                    let seen = (end as u32).max(self.seen[point as usize]);
                    done.push((point, bound, seen));
                }
                is_below
            });
            start = end;
        }
        done.extend(open.into_iter().map(|(point, bound)| (point, bound, total as u32)));
        done
    }

    /// Lowers a point's bound to its distance to the nearest of the picks from `start`, if that is less.
    fn tighten(&self, mut bound: f32, norm: f32, row: &[f32], start: usize, products: &[f32]) -> f32 {
        let own = self.margin.lower(norm);
        for (number, strip) in products.chunks(STRIP).enumerate() {
            let first = start + number * STRIP;
            let lower = &self.pick_lower[first..][..strip.len()];
            if !is_any_within(strip, lower, bound - own) {
                continue;
            }
            for (offset, (&product, &lower)) in strip.iter().zip(lower).enumerate() {
                let estimate = (own + lower) - 2.0 * product;
                if estimate <= bound || estimate.is_nan() {
                    let pick = &self.pick_rows[(first + offset) * self.d..][..self.d];
                    bound = bound.min(squared_euclidean(row, pick));
                }
            }
        }
        bound
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
        self.pick_rows.extend_from_slice(row(self.points, self.d, point));
        self.pick_lower.push(self.margin.lower(self.norms[point as usize]));
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
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for alive in self.alive {
            let row = &self.rows[alive.slot as usize * self.d..][..self.d];
            alive.bound = alive.bound.min(squared_inline(row, self.centre));
        }
    }
}

/// Removes the points for which `is_done`, and their rows, keeping the order.
fn close(
    open: &mut Vec<(u32, f32)>,
    rows: &mut Vec<f32>,
    d: usize,
    mut is_done: impl FnMut(u32, f32) -> bool,
) {
    let mut kept = 0;
    for index in 0..open.len() {
        let (point, bound) = open[index];
        if is_done(point, bound) {
            continue;
        }
        if kept < index {
            open[kept] = open[index];
            rows.copy_within(index * d..(index + 1) * d, kept * d);
        }
        kept += 1;
    }
    open.truncate(kept);
    rows.truncate(kept * d);
}
