//! How many normal pixels have each score: exact, in memory that stops growing with their number.
//!
//! A radix histogram of order-preserving keys (`sweep::order_key`). The upper 16 bits of a key choose a page;
//! a page lists the lower 16 bits of its pixels until the list is as large as a counter for each of its 65,536
//! keys would be, and counts from then on. Nothing is sorted but the lists of pages that stayed small.
//!
//! **Memory.** A list holds [`LISTED`] = 2¹⁸ keys of 2 bytes, so 512 KiB, as many as 65,536 counters of
//! 8 bytes; a list that doubles as it grows has at most twice its length reserved. A page that counts keeps
//! a list of [`BUFFERED`] keys, 8 KiB. So a page takes at most 4 bytes for each of its pixels, and at most
//! 520 KiB (1032 KiB while it changes over). Between a power of two and the next lie 2²³ f32 numbers, which is
//! 128 pages. Together, with the table of pages (48 bytes each):
//!
//! `3 MiB + min(4 bytes · pixels, 65 MiB · octaves)`,
//!
//! where the scores lie in so many octaves: 4 for scores from 1 to 16, however many pixels there are. That 4 is
//! what distances of patches span; the f32 format has 2 · 254 octaves, which is why the pages are made on
//! demand. 10⁹ pixels in 4 octaves take 0.26 GiB, in 30 octaves 1.9 GiB.
//!
//! **Time.** Two appends to memory that stays in the cache for each pixel: the tails of the lists, then the
//! 512 KiB of one page's counters at a time.

/// Pages: one for each value of a key's upper half.
const PAGES: usize = 1 << 16;

/// Keys that a page lists before it counts: 2 bytes each, as large as its counters (see above).
const LISTED: usize = PAGE_KEYS * size_of::<u64>() / size_of::<u16>();

/// Keys that a counting page lists before it counts them (chosen: 8 KiB; their increments then meet one page
/// only, which fits a core's second-level cache).
const BUFFERED: usize = 4096;

/// Keys of a page: one for each value of a key's lower half.
const PAGE_KEYS: usize = 1 << 16;

/// Counts of the keys given.
#[derive(Debug, Clone)]
pub(super) struct KeyCounts {
    /// By the upper half of the key: `[PAGES]`.
    pages: Vec<KeyPage>,
    total: u64,
}

/// Keys that share their upper half.
#[derive(Debug, Clone, Default)]
struct KeyPage {
    /// Lower halves not counted yet.
    listed: Vec<u16>,
    /// By the lower half: `[PAGE_KEYS]`, or empty while the page lists all it has.
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

    /// Number of keys counted.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The distinct keys, ascending, and how often each was met: at most a page of them is written out at a
    /// time.
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
