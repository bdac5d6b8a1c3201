//! The candidate heap: the points of the largest bounds, from which rounds are admitted.

use rayon::prelude::*;

use super::greedy::sort_key;

/// Points to admit from. Bounds only fall, so no point outside rises above the threshold.
#[derive(Default)]
pub(super) struct CandidateHeap {
    points: Vec<u32>,
    /// No other point has a key of this or more.
    threshold: u64,
}

impl CandidateHeap {
    /// Returns the keys of the largest `count` points, in any order; at least one, unless all points are picked. If
    /// the heap has fewer left, it is filled with `refill` points.
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

/// Returns the point of a key.
pub(super) fn point_of(key: u64) -> u32 {
    !(key as u32)
}

fn truncate_to_largest(keys: &mut Vec<u64>, count: usize) {
    if keys.len() > count {
        keys.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
        keys.truncate(count);
    }
}
