//! The number of normal pixels with each score: exact, in memory that does not grow with the number of pixels
//! beyond a bound.
//!
//! A radix histogram of order-preserving keys (`sweep::order_key`). The upper 16 bits of a key select a page. A page
//! lists the lower 16 bits of its keys until the list is as large as an array of counters for its 65,536 possible
//! keys; from then on it counts. Only the lists of pages that stay small are ever sorted.
//!
//! **Memory.** A list holds up to [`LISTED`] = 2¹⁸ keys of 2 bytes, which is 512 KiB, the size of 65,536 counters of
//! 8 bytes. A growing list reserves at most twice its length. A counting page keeps a list of [`BUFFERED`] keys,
//! 8 KiB. So a page takes at most 4 bytes per pixel, and at most 520 KiB (1032 KiB while it switches from listing to
//! counting). An octave (from a power of two to the next) has 2²³ f32 values, or 128 pages. With the table of
//! pages (48 bytes each) the total is at most
//!
//! `3 MiB + min(4 bytes · pixels, 65 MiB · octaves)`,
//!
//! where `octaves` is the number of octaves that the scores span: 4 for scores from 1 to 16. Distances of patches
//! span about 4. The f32 format has 2 · 254 octaves, so pages are allocated on demand. 10⁹ pixels take 0.26 GiB in
//! 4 octaves and 1.9 GiB in 30.
//!
//! **Time.** Two cache-friendly appends per pixel: first to the tails of the lists, then to the 512 KiB of counters
//! of one page at a time.

/// Number of pages: one per value of a key's upper half.
const PAGES: usize = 1 << 16;

/// Length at which a page changes from a list of keys to counters: both then take the same memory.
const LISTED: usize = PAGE_KEYS * size_of::<u64>() / size_of::<u16>();

/// Keys that a counting page buffers before it increments its counters. Chosen: 8 KiB; a flush touches the counters
/// of one page only, which fit into a core's second-level cache.
const BUFFERED: usize = 4096;

/// Possible keys of a page: one per value of a key's lower half.
const PAGE_KEYS: usize = 1 << 16;

/// Counts how often each key was added.
#[derive(Debug, Clone)]
pub(super) struct KeyCounts {
    /// `[PAGES]`, indexed by the upper half of the key.
    pages: Vec<KeyPage>,
    total: u64,
}

/// The counts of the keys with the same upper half.
#[derive(Debug, Clone, Default)]
struct KeyPage {
    /// Lower halves of the keys that are not counted yet.
    listed: Vec<u16>,
    /// `[PAGE_KEYS]`, indexed by the lower half; empty while the page only lists.
    counts: Vec<u64>,
}

impl Default for KeyCounts {
    fn default() -> Self {
        Self { pages: vec![KeyPage::default(); PAGES], total: 0 }
    }
}

impl KeyCounts {
    /// Counts one key.
    pub(super) fn add(&mut self, key: u32) {
        self.pages[(key >> 16) as usize].add(key as u16);
        self.total += 1;
    }

    /// Returns the number of keys counted.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns the distinct keys, ascending, with their counts. At most one page of them is in memory at a time.
    pub(super) fn levels(&self) -> impl DoubleEndedIterator<Item = (u32, u64)> {
        self.pages.iter().enumerate().flat_map(|(upper, page)| {
            let whole = move |(lower, count)| ((upper as u32) << 16 | u32::from(lower), count);
            page.levels().into_iter().map(whole)
        })
    }
}

impl KeyPage {
    fn add(&mut self, lower: u16) {
        let room = if self.counts.is_empty() { LISTED } else { BUFFERED };
        if self.listed.len() >= room {
            self.count();
        }
        self.listed.push(lower);
    }

    /// Moves the list into the counters.
    fn count(&mut self) {
        if self.counts.is_empty() {
            self.counts = vec![0; PAGE_KEYS];
        }
        count_into(&mut self.counts, &self.listed);
        self.listed.clear();
        self.listed.shrink_to(BUFFERED);
    }

    fn levels(&self) -> Vec<(u16, u64)> {
        if self.counts.is_empty() {
            let mut sorted = self.listed.clone();
            sorted.sort_unstable();
            return sorted.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u64)).collect();
        }
        let mut counts = self.counts.clone();
        count_into(&mut counts, &self.listed);
        (0..=u16::MAX).zip(counts).filter(|&(_, count)| count > 0).collect()
    }
}

fn count_into(counts: &mut [u64], listed: &[u16]) {
    for &lower in listed {
        counts[usize::from(lower)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;
    use std::collections::BTreeMap;

    fn check(keys: &[u32]) -> KeyCounts {
        let (mut found, mut expected) = (KeyCounts::default(), BTreeMap::new());
        for &key in keys {
            found.add(key);
            *expected.entry(key).or_insert(0_u64) += 1;
        }
        assert!(found.levels().eq(expected.clone()));
        assert!(found.levels().rev().eq(expected.into_iter().rev()));
        assert_eq!(found.total(), keys.len() as u64);
        found
    }

    #[test]
    fn counts_are_those_of_a_map() {
        let mut rng = Rng::new(1, "counts");
        for count in 0..=20 {
            let few: Vec<u32> = (0..count).map(|_| rng.below(10) as u32 * 0x1999_9999).collect();
            check(&few);
        }
        check(&[0, u32::MAX, 0, 0xFFFF, 0x1_0000]);
    }

    #[test]
    fn a_page_that_lists_counts_and_buffers_loses_nothing() {
        let mut rng = Rng::new(2, "counts");
        for more in [0, 1, BUFFERED, BUFFERED + 1, 3 * BUFFERED + 7] {
            let key = |_| 0x3F80_0000 | (rng.below(PAGE_KEYS) * rng.below(2)) as u32;
            let found = check(&(0..LISTED + more).map(key).collect::<Vec<_>>());
            let page = &found.pages[0x3F80];
            assert_eq!(page.counts.is_empty(), more == 0);
            assert!(page.listed.capacity() * 2 + page.counts.capacity() * 8 <= 520 << 10);
        }
    }
}
