//! Histograms of each image's pixel scores, small enough to be summed again for every resample of the bootstrap.
//!
//! Half of the bin edges are quantiles of the defective pixels, half are quantiles of the normal pixels, both taken
//! exactly from the counts of `PixelScores`. So if B bins are requested, no bin holds more than ⌈n / (B/2)⌉ of the n
//! pixels of either class, except for bins of a single score. Quantiles of all pixels together would leave only a
//! few bins to the defective pixels (about 1 % of all), and average precision would be inaccurate. A score on both
//! sides of an edge gets a bin of its own, and so does every score of a class with at most B/2 distinct scores. So
//! ties, and sets with few defective pixels, are exact.
//!
//! The order of the scores within a bin is lost. `statistics` bounds the error that this causes.

use super::MetricError;
use super::pixel_keys::visit_pixels;

/// Number of values of a key's upper half.
const PAGES: usize = 1 << 16;

/// The bins of a histogram of scores: at most `2 B + 1` for B requested bins.
#[derive(Debug, Clone)]
pub struct ScoreBins {
    /// Keys, ascending: bin b holds the keys from edge b - 1 (inclusive) to edge b (exclusive).
    edges: Vec<u32>,
    /// `[PAGES + 1]`: for each upper half of a key, the number of edges with a lower one. A look-up then searches
    /// only the edges with the same upper half.
    starts: Vec<usize>,
}

/// The histogram of one image: 4 bytes per bin, and 12 more if the image has defective pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageBins {
    /// Number of normal pixels: `[bins]`.
    pub(super) negatives: Vec<u32>,
    /// Histogram of the defective pixels; `None` if the image has none.
    pub(super) defects: Option<DefectBins>,
}

/// The histogram of the defective pixels of one image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DefectBins {
    pub(super) regions: u64,
    /// Number of defective pixels: `[bins]`.
    pub(super) positives: Vec<u32>,
    /// Sum over regions of the fraction of the region's pixels: `[bins]`.
    pub(super) overlaps: Vec<f64>,
}

impl ScoreBins {
    /// Creates the bins for edges given in any order.
    pub(super) fn new(mut edges: Vec<u32>) -> Self {
        edges.sort_unstable();
        edges.dedup();
        let starts = (0..=PAGES).map(|upper| edges.partition_point(|&edge| (edge as usize >> 16) < upper));
        Self { starts: starts.collect(), edges }
    }

    /// Returns the number of bins.
    pub(super) fn len(&self) -> usize {
        self.edges.len() + 1
    }

    /// Returns whether each bin holds a single score: `[bins]`. The first and the last bin never do.
    pub(super) fn ties(&self) -> Vec<bool> {
        let inner = self.edges.windows(2).map(|pair| pair[1] - pair[0] == 1);
        let mut ties: Vec<bool> = std::iter::once(false).chain(inner).collect();
        ties.resize(self.len(), false);
        ties
    }

    /// Counts the pixels of one image. Shapes, errors and panics are those of `PixelScores::add`. Images may be
    /// counted in parallel. Cost: O(height · width), with a few comparisons per pixel.
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

/// Returns the edges that divide a class of `total` pixels into `parts` equal parts. `levels` yields the distinct
/// keys, ascending, with the number of pixels that have each.
///
/// An edge lies halfway between the two neighbouring pixels; if these have the same key, there is one edge on each
/// side of that key. If there are at most `parts` distinct keys, each gets a bin of its own.
pub(super) fn class_edges<Levels: Iterator<Item = (u32, u64)>>(
    levels: impl Fn() -> Levels,
    total: u64,
    parts: usize,
) -> Vec<u32> {
    let around = |key: u32| [key, key.saturating_add(1)];
    if levels().take(parts + 1).count() <= parts {
        return levels().flat_map(|(key, _)| around(key)).collect();
    }
    // There are more distinct keys than parts, so the first border has a pixel below it.
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
