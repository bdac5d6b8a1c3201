//! The candidate heap: the points with the largest bounds, from which each round admits its points.

use rayon::prelude::*;

use super::greedy::sort_key;

/// The points with the largest bounds. Bounds only fall, so no other point can rise above the threshold.
#[derive(Default)]
pub(super) struct CandidateHeap {
    points: Vec<u32>,
    /// All points outside the heap have keys below this.
    threshold: u64,
}

impl CandidateHeap {
    /// Returns the `count` largest keys, in any order; at least one, unless all points are picked. If the heap has
    /// fewer points left, it is filled again with the `refill` points of largest bounds.
    pub(super) fn largest(&mut self, bounds: &[f32], count: usize, refill: usize) -> Vec<u64> {
        let mut keys = self.keys(bounds);
        if keys.len() < count && self.points.len() < bounds.len() {
            keys = self.fill(bounds, refill);
        }
        truncate_to_largest(&mut keys, count);
        keys
    }

    /// Drops points that fell below the threshold and returns the keys of the others.
    fn keys(&mut self, bounds: &[f32]) -> Vec<u64> {
        let threshold = self.threshold.max(1);
        let key = |point: u32| sort_key(bounds[point as usize], point);
        self.points.retain(|&point| key(point) >= threshold);
        self.points.iter().map(|&point| key(point)).collect()
    }

    fn fill(&mut self, bounds: &[f32], count: usize) -> Vec<u64> {
        let key = |(point, &bound): (usize, &f32)| sort_key(bound, point as u32);
        let mut keys: Vec<u64> = bounds.par_iter().enumerate().map(key).collect();
        truncate_to_largest(&mut keys, count);
        keys.retain(|&key| key > 0);
        self.threshold = keys.iter().copied().min().unwrap_or(u64::MAX);
        self.points = keys.iter().map(|&key| point_of(key)).collect();
        keys
    }
}

/// Returns the point that [`sort_key`] made a key of.
pub(super) fn point_of(key: u64) -> u32 {
    !(key as u32)
}

fn truncate_to_largest(keys: &mut Vec<u64>, count: usize) {
    if keys.len() > count {
        keys.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
        keys.truncate(count);
    }
}
