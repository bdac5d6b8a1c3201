//! The search by copies of eight bits, where the processor multiplies them: four times the rows a second of a
//! product in f32, and what is left is few enough to be measured at once.
//!
//! What is copied are the rows themselves, less a row near their mean, or their fine codes (`screen`), which are a
//! third as long. A code lies within its slack of one whose distances are no longer than the rows' (inequality
//! (1) of `screen`), so that the slacks of both are added to the reach (`copies`).

use super::axes::mean;
use super::screen::spread;
use super::search::List;
use crate::kernels::copies::{Copied, Copies, LARGEST_NORM, Reach, pay_for};
use crate::kernels::distance::{squared_norm, squared_simd};
use crate::kernels::product::bytes::STRIP;

/// Rows that the centre is the mean of (chosen: it only has to be near).
const SAMPLE: usize = 1024;

/// A bank's rows, or their codes, in eight bits.
pub(super) struct ByteBank {
    copies: Copies,
    length: usize,
    /// The largest of the codes.
    slack: f32,
}

/// Queries of a block: their rows, and what of them is copied.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) rows: &'a [f32],
    pub(super) codes: &'a [f32],
}

impl ByteBank {
    /// Copies rows of length `d` as they are.
    pub(super) fn of_rows(rows: &[f32], d: usize) -> Option<Self> {
        pay_for(d).then(|| Self::of(rows, d, mean(&spread(rows, d, SAMPLE).1, d), 0.0))?
    }

    /// Copies codes of rows of length `d`: `[m, length]`, already about a centre.
    pub(super) fn of_codes(codes: &[f32], length: usize, d: usize, slack: f64) -> Option<Self> {
        pay_for(length).then(|| Self::of(codes, d, vec![0.0; length], slack))?
    }

    /// The same on every processor, fast or not; none where sums could overflow.
    pub(super) fn of(codes: &[f32], d: usize, centre: Vec<f32>, slack: f64) -> Option<Self> {
        let length = centre.len();
        if !fit(codes, length) {
            return None;
        }
        let mut copies = Copies::new(centre, d);
        copies.extend(codes);
        Some(Self { copies, length, slack: (slack as f32).next_up() })
    }

    /// Whether queries can be asked by their copies.
    pub(super) fn takes(&self, codes: &[f32]) -> bool {
        fit(codes, self.length)
    }

    /// Measures, for each list, every row that may be within its limit: `rows: [m, d]` those of the bank, `slack`
    /// that of each query's code.
    pub(super) fn search(
        &self,
        rows: &[f32],
        d: usize,
        asked: Asked<'_>,
        slack: impl Fn(usize) -> f64,
        lists: &mut [List],
        is_allowed: impl Fn(usize, usize) -> bool,
    ) {
        let (copied, words) = self.copies.copy(asked.codes);
        let reach_of = |query: usize, copied: &Copied, limit: f32| {
            self.copies.reach(copied, limit, self.slack + (slack(query) as f32).next_up())
        };
        let pairs = copied.iter().zip(lists.iter()).enumerate();
        let mut reaches: Vec<Reach> =
            pairs.map(|(query, (copied, list))| reach_of(query, copied, list.limit())).collect();
        let (mut lefts, mut masks) = (Vec::with_capacity(lists.len()), vec![0; lists.len()]);
        for strip in 0..self.copies.strips() {
            self.copies.within(&reaches, &words, strip, &mut lefts, &mut masks);
            let first = strip * STRIP;
            let strip_rows = &rows[first * d..];
            for (query, &mask) in masks.iter().enumerate().filter(|(_, mask)| **mask != 0) {
                let list = &mut lists[query];
                let before = list.limit();
                let row_of_query = &asked.rows[query * d..][..d];
                let is_allowed = |row: usize| is_allowed(query, row);
                let measure = Measure { strip_rows, d, row_of_query, first, mask, list, is_allowed };
                pulp::Arch::new().dispatch(measure);
                if lists[query].limit() < before {
                    reaches[query] = reach_of(query, &copied[query], lists[query].limit());
                }
            }
        }
    }
}

/// Measures the rows of a mask, in ascending order.
struct Measure<'a, F> {
    strip_rows: &'a [f32],
    d: usize,
    row_of_query: &'a [f32],
    first: usize,
    mask: u32,
    list: &'a mut List,
    is_allowed: F,
}

impl<F: Fn(usize) -> bool> pulp::WithSimd for Measure<'_, F> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, simd: S) {
        let Self { strip_rows, d, row_of_query, first, mut mask, list, is_allowed } = self;
        while mask != 0 {
            let place = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            // Bits beyond the last row mean nothing.
            let Some(row) = strip_rows.get(place * d..(place + 1) * d) else { return };
            if is_allowed(first + place) {
                let squared = squared_simd(simd, row_of_query, row);
                if squared <= list.limit() {
                    list.insert(squared, (first + place) as u32);
                }
            }
        }
    }
}

fn fit(codes: &[f32], length: usize) -> bool {
    codes.chunks_exact(length).all(|code| squared_norm(code) <= f64::from(LARGEST_NORM))
}
