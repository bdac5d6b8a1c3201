//! Nearest rows of a bank, exactly.
//!
//! Every patch of every image is compared with every row of a bank, so the bulk of the work is one
//! matrix product: `‖q‖² + ‖b‖² - 2·q·b` estimates all squared distances, with a margin that bounds
//! its rounding (`distance::Margin`). Rows whose lower bound is above the k-th smallest upper bound are out;
//! the few that remain are measured by [`squared_euclidean`], which alone decides. The result is
//! therefore that of brute force, ties included, for every number of threads and every block size.

use rayon::prelude::*;

use super::KernelError;
use super::distance::{Margin, STRIP, is_any_within, squared_euclidean, squared_norms};
use super::product::inner_products;

/// Bank rows in one matrix product (measured 2026-11-24 on 2 Zen 4 cores: 256 to 2048 within 10 %).
const BANK_BLOCK: usize = 512;

/// Most queries in one matrix product (same measurement); fewer where threads would have none.
const QUERY_BLOCK: usize = 256;

/// The index of "no row": a bank row that was asked for and does not exist.
pub const NO_ROW: u32 = u32::MAX;

/// For each query its `k` nearest bank rows: `[n, k]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Bank rows, the nearest first; among equal distances the lower index first.
    pub index: Vec<u32>,
    /// Plain (not squared) Euclidean distances, ascending.
    pub distance: Vec<f32>,
}

/// Rows prepared for many searches: their norms are computed once.
#[derive(Debug, Clone)]
pub struct Bank {
    rows: Vec<f32>,
    d: usize,
    lower: Vec<f32>,
    upper: Vec<f32>,
}

impl Bank {
    /// Prepares `rows: [m, d]`, row-major. Cost `m·d`.
    ///
    /// # Errors
    /// If there is no row, or one holds NaN or an infinity.
    ///
    /// # Panics
    /// If the length of `rows` is no multiple of `d`, or there are 2^32 - 1 rows or more.
    pub fn new(rows: Vec<f32>, d: usize) -> Result<Self, KernelError> {
        if rows.is_empty() {
            return Err(KernelError::EmptyBank);
        }
        let norms = squared_norms(&rows, d)?;
        assert!(norms.len() < NO_ROW as usize, "{} bank rows do not fit 32 bits", norms.len());
        let margin = Margin::new(d);
        let lower = norms.iter().map(|&norm| margin.lower(norm)).collect();
        let upper = norms.iter().map(|&norm| margin.upper(norm)).collect();
        Ok(Self { rows, d, lower, upper })
    }

    /// Returns the number of rows, `m`.
    pub fn len(&self) -> usize {
        self.lower.len()
    }

    /// Returns false: a bank without rows cannot be made.
    pub fn is_empty(&self) -> bool {
        self.lower.is_empty()
    }

    /// Returns the length of a row, `d`.
    pub fn dimension(&self) -> usize {
        self.d
    }

    /// Returns one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.d..][..self.d]
    }

    /// Returns all rows, `[m, d]`, row-major.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Finds the `min(k, m)` nearest rows of each of `queries: [n, d]`.
    ///
    /// Exact: equal to brute force with [`squared_euclidean`], ties to the lower index, distances its
    /// square root. Deterministic for every number of threads. Cost `2·n·m·d` operations at the speed
    /// of the matrix product, memory `QUERY_BLOCK·BANK_BLOCK` numbers a thread. No queries give an
    /// empty result, as does `k = 0`.
    ///
    /// # Errors
    /// If a query holds NaN or an infinity.
    ///
    /// # Panics
    /// If the length of `queries` is no multiple of `d`.
    pub fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours, KernelError> {
        self.search(queries, k.min(self.len()), |_, _| true)
    }

    /// Finds the nearest row of each query among those of another group: leave one image out.
    ///
    /// `query_group: [n]` and `bank_group: [m]` number the image that each row is from. Where every
    /// row is of the query's own group, the distance is `f32::INFINITY` and the index [`NO_ROW`].
    /// Otherwise as [`Bank::nearest`] with `k = 1`.
    ///
    /// # Errors
    /// If a query holds NaN or an infinity.
    ///
    /// # Panics
    /// If the groups have other lengths than the rows.
    pub fn nearest_excluding(
        &self,
        queries: &[f32],
        query_group: &[u32],
        bank_group: &[u32],
    ) -> Result<Neighbours, KernelError> {
        assert_eq!(queries.len(), query_group.len() * self.d, "one group for each query");
        assert_eq!(bank_group.len(), self.len(), "one group for each bank row");
        self.search(queries, 1, |query, row| query_group[query] != bank_group[row])
    }

    fn search(
        &self,
        queries: &[f32],
        k: usize,
        is_allowed: impl Fn(usize, usize) -> bool + Sync,
    ) -> Result<Neighbours, KernelError> {
        let norms = squared_norms(queries, self.d)?;
        let n = norms.len();
        let mut found = Neighbours { index: vec![NO_ROW; n * k], distance: vec![f32::INFINITY; n * k] };
        if n == 0 || k == 0 {
            return Ok(found);
        }
        let block = n.div_ceil(2 * rayon::current_num_threads()).clamp(16, QUERY_BLOCK);
        let outputs = found.index.par_chunks_mut(block * k).zip(found.distance.par_chunks_mut(block * k));
        outputs.enumerate().for_each(|(number, (index, distance))| {
            let first = number * block;
            let count = index.len() / k;
            let rows = &queries[first * self.d..][..count * self.d];
            let mut lists = self
                .shortlist(rows, &norms[first..][..count], k, |query, row| is_allowed(first + query, row));
            let places = index.chunks_mut(k).zip(distance.chunks_mut(k));
            for ((list, query), (index, distance)) in lists.iter_mut().zip(rows.chunks(self.d)).zip(places) {
                list.decide(self, query, index, distance);
            }
        });
        Ok(found)
    }

    /// Collects for each query the rows that may be among its `k` nearest.
    fn shortlist(
        &self,
        queries: &[f32],
        norms: &[f32],
        k: usize,
        is_allowed: impl Fn(usize, usize) -> bool,
    ) -> Vec<Shortlist> {
        let margin = Margin::new(self.d);
        let mut lists: Vec<_> =
            norms.iter().map(|&norm| Shortlist::new(margin.lower(norm), margin.upper(norm), k)).collect();
        let mut products = vec![0.0; norms.len() * BANK_BLOCK.min(self.len())];
        for (number, rows) in self.rows.chunks(BANK_BLOCK * self.d).enumerate() {
            let count = rows.len() / self.d;
            let products = &mut products[..norms.len() * count];
            inner_products(queries, rows, self.d, products);
            for (query, (list, products)) in lists.iter_mut().zip(products.chunks(count)).enumerate() {
                list.scan(self, number * BANK_BLOCK, products, |row| is_allowed(query, row));
            }
        }
        lists
    }
}

/// The rows that may be among the `k` nearest of one query.
struct Shortlist {
    /// The query's shares of the bounds.
    lower: f32,
    upper: f32,
    /// The `k` smallest upper bounds so far, ascending: the last is the limit.
    limits: Vec<f32>,
    /// Lower bound and index of every row that was within the limit when it was seen.
    rows: Vec<(f32, u32)>,
}

impl Shortlist {
    fn new(lower: f32, upper: f32, k: usize) -> Self {
        Self { lower, upper, limits: vec![f32::INFINITY; k], rows: Vec::new() }
    }

    fn limit(&self) -> f32 {
        self.limits[self.limits.len() - 1]
    }

    /// Looks at the products of the query with the bank rows from `first`.
    fn scan(&mut self, bank: &Bank, first: usize, products: &[f32], is_allowed: impl Fn(usize) -> bool) {
        for (number, strip) in products.chunks(STRIP).enumerate() {
            let start = first + number * STRIP;
            let lower = &bank.lower[start..][..strip.len()];
            if !is_any_within(strip, lower, self.limit() - self.lower) {
                continue;
            }
            for (offset, &product) in strip.iter().enumerate() {
                let row = start + offset;
                let bound = (self.lower + lower[offset]) - 2.0 * product;
                // A bound that overflowed to NaN rules nothing out.
                if (bound.is_nan() || bound <= self.limit()) && is_allowed(row) {
                    self.rows.push((bound, row as u32));
                    self.tighten((self.upper + bank.upper[row]) - 2.0 * product);
                }
            }
        }
    }

    fn tighten(&mut self, upper: f32) {
        if upper < self.limit() {
            let place = self.limits.partition_point(|&limit| limit <= upper);
            self.limits.pop();
            self.limits.insert(place, upper);
        }
    }

    /// Measures what is left and writes the nearest rows.
    fn decide(&mut self, bank: &Bank, query: &[f32], index: &mut [u32], distance: &mut [f32]) {
        let limit = self.limit();
        let mut measured: Vec<(f32, u32)> = self
            .rows
            .iter()
            .filter(|(bound, _)| bound.is_nan() || *bound <= limit)
            .map(|&(_, row)| (squared_euclidean(query, bank.row(row as usize)), row))
            .collect();
        measured.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for ((squared, row), (index, distance)) in measured.into_iter().zip(index.iter_mut().zip(distance)) {
            *index = row;
            *distance = squared.sqrt();
        }
    }
}

/// Finds the `min(k, m)` nearest rows of `bank: [m, d]` for each of `queries: [n, d]`; as
/// [`Bank::nearest`], for a bank that is searched once.
///
/// # Errors
/// If the bank is empty, or a row holds NaN or an infinity.
///
/// # Panics
/// If a length is no multiple of `d`.
pub fn nearest(queries: &[f32], bank: &[f32], d: usize, k: usize) -> Result<Neighbours, KernelError> {
    Bank::new(bank.to_vec(), d)?.nearest(queries, k)
}

/// Finds the nearest bank row of another group; as [`Bank::nearest_excluding`], for a bank that is
/// searched once.
///
/// # Errors
/// If the bank is empty, or a row holds NaN or an infinity.
///
/// # Panics
/// If the lengths do not agree.
pub fn nearest_excluding(
    queries: &[f32],
    query_group: &[u32],
    bank: &[f32],
    bank_group: &[u32],
    d: usize,
) -> Result<Neighbours, KernelError> {
    Bank::new(bank.to_vec(), d)?.nearest_excluding(queries, query_group, bank_group)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are promised to the bit")]
mod tests {
    use super::*;
    use crate::kernels::random::Stream;

    fn brute(queries: &[f32], bank: &[f32], d: usize, k: usize) -> Neighbours {
        let mut found = Neighbours { index: Vec::new(), distance: Vec::new() };
        for query in queries.chunks(d) {
            let mut all: Vec<(f32, u32)> = bank
                .chunks(d)
                .zip(0..)
                .map(|(row, number)| (squared_euclidean(query, row), number))
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (squared, row) in all.into_iter().take(k) {
                found.index.push(row);
                found.distance.push(squared.sqrt());
            }
        }
        found
    }

    fn normals(stream: &mut Stream, count: usize, mean: f32) -> Vec<f32> {
        (0..count).map(|_| stream.normal() as f32 + mean).collect()
    }

    /// Small whole numbers, so that many distances are equal.
    fn digits(stream: &mut Stream, count: usize) -> Vec<f32> {
        (0..count).map(|_| stream.below(3) as f32).collect()
    }

    #[test]
    fn small_sizes_equal_brute_force_with_ties() {
        let mut stream = Stream::new(1, "nearest");
        for size in 1..=20 {
            for d in [1, 2, 5, 33] {
                let (queries, bank) = (digits(&mut stream, size * d), digits(&mut stream, (21 - size) * d));
                for k in [1, 2, 5, 30] {
                    let found = nearest(&queries, &bank, d, k).unwrap();
                    assert_eq!(found, brute(&queries, &bank, d, k), "size {size}, d {d}, k {k}");
                }
            }
        }
    }

    #[test]
    fn blocks_equal_brute_force_even_far_from_the_origin() {
        let mut stream = Stream::new(2, "nearest");
        for (mean, d) in [(0.0, 40), (100.0, 40), (5.0, 300)] {
            let queries = normals(&mut stream, 70 * d, mean);
            let mut bank = normals(&mut stream, 1100 * d, mean);
            bank.copy_within(0..50 * d, 1000 * d); // duplicates
            bank[200 * d..230 * d].copy_from_slice(&queries[..30 * d]); // distance 0
            for k in [1, 9] {
                let found = nearest(&queries, &bank, d, k).unwrap();
                assert_eq!(found, brute(&queries, &bank, d, k), "mean {mean}, d {d}, k {k}");
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let mut stream = Stream::new(3, "nearest");
        let (queries, bank) = (normals(&mut stream, 100 * 16, 0.0), normals(&mut stream, 700 * 16, 0.0));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| nearest(&queries, &bank, 16, 3).unwrap())
        };
        assert_eq!(run(1), run(5));
    }

    #[test]
    fn another_group_is_searched_as_if_its_own_were_absent() {
        let mut stream = Stream::new(4, "nearest");
        let (d, rows) = (6, normals(&mut stream, 600 * 6, 0.0));
        let group: Vec<u32> = (0..600).map(|row| row / 50).collect();
        let found = nearest_excluding(&rows, &group, &rows, &group, d).unwrap();
        for query in 0..600 {
            let others: Vec<usize> = (0..600).filter(|&row| group[row] != group[query]).collect();
            let kept: Vec<f32> = others.iter().flat_map(|&row| rows[row * d..][..d].to_vec()).collect();
            let expected = brute(&rows[query * d..][..d], &kept, d, 1);
            assert_eq!(found.index[query] as usize, others[expected.index[0] as usize]);
            assert_eq!(found.distance[query], expected.distance[0]);
        }
    }

    #[test]
    fn no_other_group_gives_infinity() {
        let found = nearest_excluding(&[1.0], &[7], &[1.0, 2.0], &[7, 7], 1).unwrap();
        assert_eq!(found, Neighbours { index: vec![NO_ROW], distance: vec![f32::INFINITY] });
    }

    #[test]
    fn enormous_numbers_are_still_ordered() {
        let bank = [1e19, 3e38, -3e38, 2e19];
        let found = nearest(&[1.5e19, 3e38], &bank, 1, 4).unwrap();
        assert_eq!(found, brute(&[1.5e19, 3e38], &bank, 1, 4));
    }

    #[test]
    fn wrong_data_is_refused() {
        assert_eq!(nearest(&[1.0], &[], 1, 1), Err(KernelError::EmptyBank));
        assert_eq!(nearest(&[f32::NAN], &[1.0], 1, 1), Err(KernelError::NotFinite { row: 0 }));
        assert_eq!(nearest(&[1.0], &[1.0, f32::INFINITY], 1, 1), Err(KernelError::NotFinite { row: 1 }));
        assert!(nearest(&[], &[1.0], 1, 1).unwrap().index.is_empty());
    }
}
