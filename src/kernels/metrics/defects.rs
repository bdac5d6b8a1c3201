//! The number of defective pixels with each score, and their weight in the regions: exact, in memory bounded by the
//! number of distinct scores.
//!
//! A pixel of a region of r pixels has weight 1/r, so that each region has weight 1. Weights are integers in units of
//! 2⁻⁹⁶, rounded down. The rounding error is below 2⁻⁹⁶ per pixel and below 2⁻⁶⁴ per region (of at most 2³² pixels),
//! a thousandth of the last bit of an f64. Integer sums do not depend on the order. 2³² regions fit into 128 bits.
//!
//! Pixels are buffered with 8 bytes each, at most [`WAITING`] of them, then sorted and merged into one entry of
//! 32 bytes per distinct score.
//!
//! **Memory.** `32 MiB + 64 bytes · distinct scores of defective pixels`, since an entry exists twice during a merge.
//! There are at most as many distinct scores as defective pixels, and at most 2²³ per octave.

use rayon::prelude::*;

/// Pixels that are buffered before a merge. Chosen: 32 MiB, so that ten million defective pixels take three merges.
const WAITING: usize = 1 << 22;

/// The weight of a region, in units of 2⁻⁹⁶.
const REGION: u128 = 1 << 96;

/// The defective pixels with one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ScoreLevel {
    /// `sweep::order_key` of the score.
    pub(super) key: u32,
    /// Number of pixels with that score.
    pub(super) pixels: u64,
    /// Sum of their weights, in units of 2⁻⁹⁶.
    weight: u128,
}

/// The defective pixels of a test set, by score.
#[derive(Debug, Clone, Default)]
pub(super) struct DefectLevels {
    /// Pixels not yet merged: the key in the upper half, the number of pixels of the region in the lower half.
    waiting: Vec<u64>,
    /// Ascending by key.
    levels: Vec<ScoreLevel>,
    total: u64,
    regions: u64,
}

/// A sum of weights over pixels of one or more regions.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overlap(u128);

impl Overlap {
    pub(super) fn add(&mut self, level: &ScoreLevel) {
        self.0 += level.weight;
    }

    /// Returns the mean over regions of the fraction of the region that was added.
    pub(super) fn mean(self, regions: u64) -> f64 {
        self.0 as f64 / (u128::from(regions) as f64 * REGION as f64)
    }
}

impl ScoreLevel {
    /// Merges pixels with the same key.
    fn of(tied: &[u64]) -> Self {
        let weight = |&pixel: &u64| REGION / u128::from(pixel as u32);
        let key = (tied[0] >> 32) as u32;
        Self { key, pixels: tied.len() as u64, weight: tied.iter().map(weight).sum() }
    }

    fn with(self, other: Self) -> Self {
        Self { key: self.key, pixels: self.pixels + other.pixels, weight: self.weight + other.weight }
    }
}

impl DefectLevels {
    /// Adds one pixel of a region of `region_pixels` pixels.
    pub(super) fn add(&mut self, key: u32, region_pixels: u32) {
        if self.waiting.len() == WAITING {
            self.merge_waiting();
        }
        self.waiting.push(u64::from(key) << 32 | u64::from(region_pixels));
        self.total += 1;
    }

    /// Adds to the number of regions.
    pub(super) fn add_regions(&mut self, regions: u64) {
        self.regions += regions;
    }

    /// Returns the number of pixels.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the number of regions.
    pub(super) fn regions(&self) -> u64 {
        self.regions
    }

    /// Returns the distinct scores, ascending.
    pub(super) fn levels(&mut self) -> &[ScoreLevel] {
        self.merge_waiting();
        &self.levels
    }

    /// Merges the waiting pixels into the levels. Cost: O(w log w) for w waiting pixels, in parallel, and one pass
    /// over the levels.
    fn merge_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.waiting.par_sort_unstable();
        let is_tied = |a: &u64, b: &u64| a >> 32 == b >> 32;
        let mut merged = Vec::with_capacity(self.levels.len() + self.waiting.chunk_by(is_tied).count());
        let mut before = self.levels.iter().copied().peekable();
        for fresh in self.waiting.chunk_by(is_tied).map(ScoreLevel::of) {
            while let Some(lower) = before.next_if(|level| level.key < fresh.key) {
                merged.push(lower);
            }
            let same = before.next_if(|level| level.key == fresh.key);
            merged.push(same.map_or(fresh, |level| level.with(fresh)));
        }
        merged.extend(before);
        self.levels = merged;
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn merging_by_parts_is_merging_at_once() {
        let mut rng = Rng::new(1, "defects");
        for count in 0..=20 {
            let pixels: Vec<(u32, u32)> =
                (0..count).map(|_| (rng.below(7) as u32, 1 + rng.below(9) as u32)).collect();
            let (mut parts, mut whole) = (DefectLevels::default(), DefectLevels::default());
            for &(key, region) in &pixels {
                parts.add(key, region);
                parts.merge_waiting();
            }
            pixels.iter().rev().for_each(|&(key, region)| whole.add(key, region));
            assert_eq!(parts.levels(), whole.levels());
            assert!(whole.levels().is_sorted_by(|a, b| a.key < b.key));
            assert_eq!(whole.levels().iter().map(|level| level.pixels).sum::<u64>(), count);
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the mean is promised to the bit")]
    fn a_region_weighs_1() {
        for size in [1, 3, 7, 1000, 999_983] {
            let mut pixels = DefectLevels::default();
            (0..size).for_each(|pixel| pixels.add(pixel % 5, size));
            let mut overlap = Overlap::default();
            pixels.levels().iter().for_each(|level| overlap.add(level));
            assert_eq!(overlap.mean(1), 1.0, "{size}");
            assert_eq!(overlap.mean(4), 0.25);
        }
    }
}
