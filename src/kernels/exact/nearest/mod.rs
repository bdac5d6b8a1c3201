//! Nearest rows of a bank, exactly.
//!
//! Every patch of every image is compared with every row of a bank. A lower bound rules most rows out; the rest is
//! measured by [`squared_euclidean`], which alone decides (`block`). The result is therefore that of brute force,
//! ties included, for every number of threads and every choice below.
//!
//! Three lower bounds are used, the best that a bank has: codes along principal axes, int8-quantised rows, the rows
//! in f32. Codes and int8 rows have to be computed first. A bank computes codes once searches without them have cost as
//! much as computing them, so that the total is at most twice that of the better choice. It computes no codes if
//! a trial with some queries shows that they rule out too little.
//!
//! On a GPU ([`SearchBank::on`]) libtorch selects the rows with the lowest lower bounds instead (`device`); the CPU
//! measures them, so that the result is the same to the bit.
//!
//! [`squared_euclidean`]: super::super::distance::squared_euclidean

mod block;
mod device;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use self::block::search_block;
use self::device::DeviceBank;
use super::LowerBound;
use super::device::{DeviceLowerBounds, ExclusionGroups, device_lower_bounds};
use super::float::F32Filter;
use super::int8::Int8Filter;
use super::pca::PcaFilter;
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;
use crate::kernels::distance::squared_norms;
use crate::kernels::product::int8::Int8Simd;

/// Largest number of queries in one block (measured 2026-11-24 on 2 Zen 4 cores: 128 and 256 alike). Blocks are
/// smaller if there are too few queries for all threads.
const QUERY_BLOCK: usize = 256;

/// Number of queries after which a bank without codes quantises its rows to int8, which costs about as much as
/// searching for ten (chosen).
const INT8_AFTER: usize = 32;

/// Stands for "no row" where there are fewer allowed rows than neighbours.
pub const NO_ROW: u32 = u32::MAX;

/// Returns about how many multiplications the codes of a bank of `rows` rows of length `d` take. They are made once the
/// searches have cost as much without them.
pub fn code_cost(rows: usize, d: usize) -> usize {
    PcaFilter::cost(rows, d)
}

/// Returns the instructions by which this processor multiplies int8 rows, in searches and in coresets: `vnni` or `avx2`;
/// `None` if bounds are computed in f32.
pub fn int8_instructions() -> Option<&'static str> {
    Int8Simd::fastest().map(Int8Simd::name)
}

/// The `k` nearest bank rows of each query: `[n, k]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    /// Indices of bank rows, nearest first; among equal distances, lower index first.
    pub index: Vec<u32>,
    /// Plain (not squared) Euclidean distances, ascending.
    pub distance: Vec<f32>,
}

impl Neighbours {
    fn none(n: usize, k: usize) -> Self {
        Self { index: vec![NO_ROW; n * k], distance: vec![f32::INFINITY; n * k] }
    }
}

/// Rows prepared for many searches: norms are computed once, codes and int8 once they pay.
pub struct SearchBank {
    rows: F32Filter,
    /// Number of queries searched for so far.
    queries_seen: AtomicUsize,
    /// PCA codes of the rows, once made; `None` inside if they do not pay.
    pca: OnceLock<Option<PcaFilter>>,
    /// The rows in int8, once made; `None` inside if that does not pay.
    int8: OnceLock<Option<Int8Filter>>,
    /// The rows on a device; `None` for a bank on the CPU.
    device: Option<Box<dyn DeviceLowerBounds>>,
}

impl fmt::Debug for SearchBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SearchBank")
            .field("m", &self.len())
            .field("d", &self.dimension())
            .finish_non_exhaustive()
    }
}

impl SearchBank {
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
        Ok(Self {
            rows: F32Filter::new(rows, &norms, d),
            queries_seen: AtomicUsize::new(0),
            pca: OnceLock::new(),
            int8: OnceLock::new(),
            device: None,
        })
    }

    /// Prepares `rows: [m, d]` for searches on a device; on [`Device::Cpu`] as [`SearchBank::new`].
    ///
    /// The results are the same bits on every device. Beside the bank's `4·m·d` bytes, a search takes at most a
    /// gigabyte of the device's memory. Searches of several threads take turns.
    ///
    /// # Errors
    /// As [`SearchBank::new`]; and if the device does not exist, fails, or does not compute its products in f32.
    /// There is no fallback to the CPU.
    ///
    /// # Panics
    /// As [`SearchBank::new`].
    pub fn on(device: Device, rows: Vec<f32>, d: usize) -> Result<Self, KernelError> {
        let bank = Self::new(rows, d)?;
        if device == Device::Cpu { Ok(bank) } else { bank.with_bounds_of(device) }
    }

    fn with_bounds_of(self, device: Device) -> Result<Self, KernelError> {
        let bounds = device_lower_bounds(device, self.rows(), self.dimension(), self.rows.lower())?;
        Ok(Self { device: Some(bounds), ..self })
    }

    /// Returns the number of rows, `m`.
    pub fn len(&self) -> usize {
        self.rows.lower().len()
    }

    /// Returns false: a bank without rows cannot be made.
    pub fn is_empty(&self) -> bool {
        self.rows.lower().is_empty()
    }

    /// Returns the length of a row, `d`.
    pub fn dimension(&self) -> usize {
        self.rows.dimension()
    }

    /// Returns one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.rows()[index * self.dimension()..][..self.dimension()]
    }

    /// Returns all rows, `[m, d]`, row-major.
    pub fn rows(&self) -> &[f32] {
        self.rows.rows()
    }

    /// Finds the `min(k, m)` nearest rows of each of `queries: [n, d]`.
    ///
    /// Exact: equal to brute force with [`squared_euclidean`], ties to the lower index, distances its square root.
    /// Deterministic for every number of threads. Cost `2·n·m·d` operations at the speed of the matrix product, less
    /// where codes rule most rows out; a later search of the same bank may compute them. Memory: a megabyte per
    /// thread, and the codes, at most five sixths of the memory of the rows. On a device: [`SearchBank::on`]. The result
    /// is empty if there are no queries or `k` is 0.
    ///
    /// [`squared_euclidean`]: crate::kernels::distance::squared_euclidean
    ///
    /// # Errors
    /// If a query holds NaN or an infinity, or the device of [`SearchBank::on`] fails.
    ///
    /// # Panics
    /// If the length of `queries` is no multiple of `d`.
    pub fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours, KernelError> {
        self.search(queries, k.min(self.len()), None)
    }

    /// Finds, for each query, the nearest row of another group (leave one image out).
    ///
    /// `query_group: [n]` and `bank_group: [m]` number the image of each row. If all rows belong to the query's own
    /// group, the distance is `f32::INFINITY` and the index [`NO_ROW`]. Otherwise as [`SearchBank::nearest`] with `k
    /// = 1`.
    ///
    /// # Errors
    /// If a query holds NaN or an infinity, or the device of [`SearchBank::on`] fails.
    ///
    /// # Panics
    /// If `query_group` or `bank_group` is not as long as its rows.
    pub fn nearest_excluding(
        &self,
        queries: &[f32],
        query_group: &[u32],
        bank_group: &[u32],
    ) -> Result<Neighbours, KernelError> {
        assert_eq!(queries.len(), query_group.len() * self.dimension(), "one group for each query");
        assert_eq!(bank_group.len(), self.len(), "one group for each bank row");
        self.search(queries, 1, Some(ExclusionGroups { query: query_group, bank: bank_group }))
    }

    fn search(
        &self,
        queries: &[f32],
        k: usize,
        groups: Option<ExclusionGroups<'_>>,
    ) -> Result<Neighbours, KernelError> {
        let norms = squared_norms(queries, self.dimension())?;
        if norms.is_empty() || k == 0 {
            return Ok(Neighbours::none(0, k));
        }
        if let Some(bounds) = self.device.as_deref() {
            let bank = DeviceBank { rows: self.rows(), d: self.dimension(), bounds };
            return bank.search(queries, &self.rows.lower_of(&norms), k, groups);
        }
        let is_allowed =
            |query, row| groups.is_none_or(|groups: ExclusionGroups| groups.is_allowed(query, row));
        self.prepare(queries, k, is_allowed);
        let queries = (queries, norms.as_slice());
        if let Some(Some(pca)) = self.pca.get() {
            return Ok(self.search_with(pca, queries, k, is_allowed));
        }
        Ok(match self.int8.get() {
            Some(Some(int8)) => self.search_with(int8, queries, k, is_allowed),
            _ => self.search_with(&self.rows, queries, k, is_allowed),
        })
    }

    /// Makes PCA codes or int8 rows as soon as they pay.
    fn prepare(&self, queries: &[f32], k: usize, is_allowed: impl Fn(usize, usize) -> bool) {
        let (rows, d) = (self.rows(), self.dimension());
        let n = queries.len() / d;
        let seen = self.queries_seen.fetch_add(n, Ordering::Relaxed).saturating_add(n);
        if self.pca.get().is_none() && seen.saturating_mul(rows.len()) >= PcaFilter::cost(self.len(), d) {
            // Another thread may have been first; either result serves. Waiting for it could wait for a task below
            // this one.
            let _ = self.pca.set(PcaFilter::calibrated(rows, queries, d, k, is_allowed));
        }
        let has_codes = matches!(self.pca.get(), Some(Some(_)));
        if !has_codes && seen >= INT8_AFTER && self.int8.get().is_none() {
            // As above.
            let _ = self.int8.set(Int8Filter::of_rows(rows, d));
        }
    }

    /// Searches with a lower bound, in parallel blocks of queries. `(queries, norms)` are the queries and their
    /// squared norms.
    fn search_with(
        &self,
        filter: &impl LowerBound,
        (queries, norms): (&[f32], &[f32]),
        k: usize,
        is_allowed: impl Fn(usize, usize) -> bool + Sync,
    ) -> Neighbours {
        let (n, d) = (norms.len(), self.dimension());
        let mut neighbours = Neighbours::none(n, k);
        let block = n.div_ceil(2 * rayon::current_num_threads()).clamp(16, QUERY_BLOCK);
        let index = neighbours.index.par_chunks_mut(block * k);
        let outputs = index.zip(neighbours.distance.par_chunks_mut(block * k));
        let inputs = queries.par_chunks(block * d).zip(norms.par_chunks(block));
        inputs.zip(outputs).enumerate().for_each(|(number, (block_queries, (index, distance)))| {
            let is_allowed = |query, row| is_allowed(number * block + query, row);
            search_block(filter, (self.rows(), d), block_queries, is_allowed, index, distance);
        });
        neighbours
    }
}
