//! Bins of the score, and what one image has in each: small enough to be summed again for every resample of the
//! bootstrap.
//!
//! Half of the bin edges are quantiles of the defective pixels, half of the normal ones, each taken exactly from
//! the counts of `PixelScores`. So with B bins asked for, none holds more than ⌈n / (B/2)⌉ of the n pixels of
//! either class, but for bins of one score. Quantiles of all pixels together would leave but a few bins to the
//! defective percent, and with them average precision. A score that lies on both sides of a border gets a bin of
//! its own, and so does every score of a class that has no more than B/2 of them: then ties, and sets with few
//! defective pixels, are exact.
//!
//! Bins see no order among the scores within them. What that costs is bounded in `statistics`.

use super::MetricError;
use super::pixel_keys::visit_pixels;

/// Pages of edges: one for each value of a key's upper half.
const PAGES: usize = 1 << 16;

/// Intervals of the score that pixels are counted in: at most `2 B + 1` of them.
#[derive(Debug, Clone)]
pub struct ScoreBins {
    /// Ascending: bin b holds the keys from edge b - 1 to below edge b.
    edges: Vec<u32>,
    /// Edges before those of each upper half: `[PAGES + 1]`, so that a pixel compares with few of them.
    starts: Vec<usize>,
}

/// The pixels of one image, counted in bins: 4 bytes a bin, and 12 more where the image has defects.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBins {
    /// Normal pixels: `[bins]`.
    pub(super) negatives: Vec<u32>,
    pub(super) defects: Option<DefectBins>,
}

/// The defective pixels of one image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DefectBins {
    pub(super) regions: u64,
    /// Defective pixels: `[bins]`.
    pub(super) positives: Vec<u32>,
    /// Sum over regions of the share of the region: `[bins]`.
    pub(super) overlaps: Vec<f64>,
}

impl ScoreBins {
    /// Makes the bins between edges in any order.
    pub(super) fn new(mut edges: Vec<u32>) -> Self {
        edges.sort_unstable();
        edges.dedup();
        let starts = (0..=PAGES).map(|upper| edges.partition_point(|&edge| (edge as usize >> 16) < upper));
        Self { starts: starts.collect(), edges }
    }

    /// Number of bins.
    pub(super) fn len(&self) -> usize {
        self.edges.len() + 1
    }

    /// Whether a bin holds one score only: `[bins]`. The outer bins are open.
    pub(super) fn ties(&self) -> Vec<bool> {
        let inner = self.edges.windows(2).map(|pair| pair[1] - pair[0] == 1);
        let mut ties: Vec<bool> = std::iter::once(false).chain(inner).collect();
        ties.resize(self.len(), false);
        ties
    }

    /// Counts the pixels of one image; images may be counted side by side. As `PixelScores::add` in shapes,
    /// refusals and panics. Cost: O(height · width), and a few comparisons a pixel.
    pub fn count(
        &self,
        map: &[f32],
        mask: &[u8],
        height: usize,
        width: usize,
    ) -> Result<ImageBins, MetricError> {
        let bins = self.len();
        let (mut negatives, mut positives, mut overlaps) = (vec![0; bins], Vec::new(), Vec::new());
        let defective = |key, region_pixels| {
            positives.resize(bins, 0);
            overlaps.resize(bins, 0.0);
            positives[self.bin(key)] += 1;
            overlaps[self.bin(key)] += 1.0 / f64::from(region_pixels);
        };
        let normal = |key| negatives[self.bin(key)] += 1;
        let regions = visit_pixels(map, mask, [height, width], normal, defective)?;
        let defects = (regions > 0).then_some(DefectBins { regions, positives, overlaps });
        Ok(ImageBins { negatives, defects })
    }

    fn bin(&self, key: u32) -> usize {
        let upper = (key >> 16) as usize;
        let (start, end) = (self.starts[upper], self.starts[upper + 1]);
        start + self.edges[start..end].partition_point(|&edge| edge <= key)
    }
}

/// The inner borders of `parts` equal parts of a class of `total` pixels, given as its distinct keys, ascending,
/// and how many pixels have each. A border lies halfway between its neighbours; where these are equal, borders
/// lie on either side of them. As few different keys as parts get a bin each.
pub(super) fn class_edges<Levels: Iterator<Item = (u32, u64)>>(
    levels: impl Fn() -> Levels,
    total: u64,
    parts: usize,
) -> Vec<u32> {
    let around = |key: u32| [key, key.saturating_add(1)];
    if levels().take(parts + 1).count() <= parts {
        return levels().flat_map(|(key, _)| around(key)).collect();
    }
    // More distinct keys than parts: the first border has a pixel below it.
    let border = |part: usize| (u128::from(total) * part as u128 / parts as u128) as u64;
    let (mut edges, mut part, mut start, mut below) = (Vec::new(), 1, 0, 0);
    for (key, count) in levels() {
        let end = start + count;
        while part < parts && border(part) < end {
            if border(part) == start {
                edges.push(key - (key - below) / 2);
            } else {
                edges.extend(around(key));
            }
            part += 1;
        }
        (start, below) = (end, key);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn no_bin_but_a_tied_one_holds_more_than_its_part() {
        let mut rng = Rng::new(1, "bins");
        for total in 1..=60 {
            for parts in 1..=20 {
                let mut keys: Vec<u32> = (0..total).map(|_| rng.below(total) as u32 * 3).collect();
                keys.sort_unstable();
                let levels = || keys.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u64));
                let bins = ScoreBins::new(class_edges(levels, total as u64, parts));
                let mut counts = vec![0; bins.len()];
                for &key in &keys {
                    counts[bins.bin(key)] += 1;
                }
                for (count, is_tie) in counts.into_iter().zip(bins.ties()) {
                    assert!(is_tie || count <= total.div_ceil(parts), "{total} in {parts}: {count}");
                }
            }
        }
    }

    #[test]
    fn a_key_is_found_between_its_edges() {
        let bins = ScoreBins::new(vec![u32::MAX, 0x3F80_0001, 0x3F80_0000, 0x4000_0000, 5]);
        let keys = [0, 4, 5, 0x3F7F_FFFF, 0x3F80_0000, 0x3F80_0001, 0x4000_0000, u32::MAX - 1, u32::MAX];
        assert_eq!(keys.map(|key| bins.bin(key)), [0, 0, 1, 1, 2, 3, 4, 4, 5]);
        assert_eq!(bins.ties(), [false, false, true, false, false, false]);
    }

    #[test]
    fn a_map_that_is_not_finite_is_refused() {
        let refused = ScoreBins::new(vec![1]).count(&[f32::NAN], &[0], 1, 1).err();
        assert!(matches!(refused, Some(MetricError::NotFinite { index: 0, .. })));
    }
}
