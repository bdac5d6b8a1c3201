//! The search of one block of queries with a lower bound.
//!
//! A filter rules out only rows that are certainly farther than `k` rows already measured. The others are measured by
//! `squared_euclidean`, which alone decides.

use super::NO_ROW;
use crate::kernels::distance::measure;
use crate::kernels::exact::{Candidates, LowerBound, measure_candidates};
use crate::kernels::product::int8::TILE;

/// For each of `queries: [n, d]`, writes the indices and distances of its `k` nearest rows of `bank: [m, d]`, nearest
/// first, into `index` and `distance`, both `[n, k]`. `is_allowed(query, row)` excludes rows.
pub(super) fn search_block<F: LowerBound>(
    filter: &F,
    (bank, d): (&[f32], usize),
    (queries, norms): (&[f32], &[f32]),
    is_allowed: impl Fn(usize, usize) -> bool,
    index: &mut [u32],
    distance: &mut [f32],
) {
    let k = index.len() / norms.len();
    let mut block = filter.encode(queries.to_vec(), norms);
    let mut lists: Vec<CandidateList> = norms.iter().map(|_| CandidateList::new(k)).collect();
    for (query, (list, row)) in lists.iter_mut().zip(queries.chunks(d)).enumerate() {
        let likely = filter.likely_rows(&block, query, k, |row| is_allowed(query, row));
        if let Some(limit) = largest_distance(row, bank, &likely) {
            list.limit = limit;
            filter.set_limit(&mut block, query, limit);
        }
    }
    let mut candidates = Candidates::default();
    let (mut first, m) = (0, bank.len() / d);
    while first < m {
        // The first tile alone, because queries may have no limit yet.
        let end = m.min(first + if first == 0 { TILE } else { filter.step() });
        filter.candidates(&block, first..end, &mut candidates);
        for (query, tile, mask) in candidates.iter(first) {
            let list = &mut lists[query];
            let before = list.limit;
            let is_allowed = |row| is_allowed(query, row);
            let row = &queries[query * d..][..d];
            measure_candidates(row, bank, (tile, mask), is_allowed, |row, squared| list.insert(squared, row));
            if list.limit < before {
                filter.set_limit(&mut block, query, list.limit);
            }
        }
        first = end;
    }
    for ((list, index), distance) in lists.iter().zip(index.chunks_mut(k)).zip(distance.chunks_mut(k)) {
        index.copy_from_slice(&list.rows);
        distance.iter_mut().zip(&list.squared).for_each(|(distance, squared)| *distance = squared.sqrt());
    }
}

/// Returns the largest squared distance of the query to these rows; `None` if there are no rows.
fn largest_distance(query: &[f32], bank: &[f32], rows: &[usize]) -> Option<f32> {
    let mut largest = None;
    measure(query, bank, rows.iter().map(|&row| (row, ())), |(), squared| {
        largest = Some(largest.unwrap_or(0.0_f32).max(squared));
    });
    largest
}

/// The nearest rows of one query so far, by distance and then by index.
struct CandidateList {
    squared: Vec<f32>,
    rows: Vec<u32>,
    /// Upper bound of the `k`-th smallest squared distance: at least `k` rows were measured within it; infinity
    /// before that.
    limit: f32,
}

impl CandidateList {
    fn new(k: usize) -> Self {
        Self { squared: vec![f32::INFINITY; k], rows: vec![NO_ROW; k], limit: f32::INFINITY }
    }

    /// Inserts a row if it is nearer than the last one, or as near and has a lower index.
    fn insert(&mut self, squared: f32, row: usize) {
        if squared > self.limit {
            return;
        }
        let row = row as u32;
        let is_before = |(x, of): (&f32, &u32)| (*x, *of) < (squared, row);
        let rank = self.squared.iter().zip(&self.rows).take_while(|&pair| is_before(pair)).count();
        let k = self.rows.len();
        if rank < k {
            self.squared[rank..].rotate_right(1);
            self.rows[rank..].rotate_right(1);
            (self.squared[rank], self.rows[rank]) = (squared, row);
            self.limit = self.limit.min(self.squared[k - 1]);
        }
    }
}
