//! Nearest rows of a bank, exactly.
//!
//! Every patch of every image is compared with every row of a bank. One matrix product of short codes gives a
//! lower bound of all distances (`screen`); the few rows that it does not rule out are measured by
//! [`squared_euclidean`], which alone decides (`search`). The result is therefore that of brute force, ties
//! included, for every number of threads and every choice below.
//!
//! Where the processor multiplies bytes, copies of the codes in eight bits take their place, and copies of the
//! rows themselves that of the rows (`bytes`): a quarter of the work, and as rigorous.
//!
//! Codes have to be made first. A bank makes them once searches without them, where the rows themselves are the
//! codes, have cost as much as that; so it never spends more than twice what the better choice would have. It
//! keeps to the rows for good where a trial on some queries says that codes rule out too little (`pilot`).
//!
//! On a GPU (`Bank::on`) libtorch sorts out the rows of least lower bound instead (`device`, `torch`); the
//! processor measures them, so that the result is the same to the bit.
//!
//! [`squared_euclidean`]: super::distance::squared_euclidean

#[cfg(not(feature = "torch"))]
mod absent;
mod axes;
mod bytes;
mod cells;
mod device;
mod pilot;
mod screen;
mod search;
#[cfg(test)]
mod tests;
#[cfg(feature = "torch")]
mod torch;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

#[cfg(not(feature = "torch"))]
use self::absent::Torch;
use self::bytes::ByteBank;
use self::cells::Cells;
use self::device::{DeviceBank, Groups};
use self::screen::{Screen, Slack, share};
use self::search::search_block;
#[cfg(feature = "torch")]
use self::torch::Torch;
use super::KernelError;
use super::backbone::Device;
use super::distance::{Margin, squared_norms};

/// Most queries in one matrix product (measured 2026-11-24 on 2 Zen 4 cores: 128 and 256 alike); fewer where
/// threads would have none.
const QUERY_BLOCK: usize = 256;

/// Queries after which a bank without codes copies its rows in eight bits, which costs about as much as
/// searching for ten (chosen).
const BYTES_AFTER: usize = 32;

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

/// Rows prepared for many searches: norms are computed once, codes once they pay.
pub struct Bank {
    rows: Vec<f32>,
    d: usize,
    lower: Vec<f32>,
    /// Queries searched for so far.
    asked: AtomicUsize,
    screen: OnceLock<Option<Screen>>,
    /// The rows in eight bits, where these pay.
    bytes: OnceLock<Option<ByteBank>>,
    /// Of a bank on a device.
    torch: Option<Torch>,
}

impl fmt::Debug for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bank").field("m", &self.len()).field("d", &self.d).finish_non_exhaustive()
    }
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
        let lower = shares(&norms, d);
        Ok(Self {
            rows,
            d,
            lower,
            asked: AtomicUsize::new(0),
            screen: OnceLock::new(),
            bytes: OnceLock::new(),
            torch: None,
        })
    }

    /// Prepares `rows: [m, d]` for searches on a device; on [`Device::Cpu`] as [`Bank::new`].
    ///
    /// The results are the same bits on every device. Beside the bank's `4·m·d` bytes, a search takes at most a
    /// gigabyte of the device's memory. Searches of several threads take turns.
    ///
    /// # Errors
    /// As [`Bank::new`]; and if the device is not there, fails, or its products are not f32: the processor never
    /// steps in.
    ///
    /// # Panics
    /// As [`Bank::new`].
    pub fn on(device: Device, rows: Vec<f32>, d: usize) -> Result<Self, KernelError> {
        let bank = Self::new(rows, d)?;
        if device == Device::Cpu { Ok(bank) } else { bank.through_libtorch(device) }
    }

    fn through_libtorch(self, device: Device) -> Result<Self, KernelError> {
        let torch = Torch::new(device, &self.rows, self.d, &self.lower)?;
        Ok(Self { torch: Some(torch), ..self })
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
    /// of the matrix product, less where short codes rule most rows out, which a later search of the
    /// same bank makes; memory half a megabyte a thread, and the codes, at most two thirds of the rows' own.
    /// On a device: [`Bank::on`]. No queries give an empty result, as does `k = 0`.
    ///
    /// [`squared_euclidean`]: super::distance::squared_euclidean
    ///
    /// # Errors
    /// If a query holds NaN or an infinity, or the device of [`Bank::on`] fails.
    ///
    /// # Panics
    /// If the length of `queries` is no multiple of `d`.
    pub fn nearest(&self, queries: &[f32], k: usize) -> Result<Neighbours, KernelError> {
        self.search(queries, k.min(self.len()), None, |_, _| true)
    }

    /// Finds the nearest row of each query among those of another group: leave one image out.
    ///
    /// `query_group: [n]` and `bank_group: [m]` number the image that each row is from. Where every
    /// row is of the query's own group, the distance is `f32::INFINITY` and the index [`NO_ROW`].
    /// Otherwise as [`Bank::nearest`] with `k = 1`.
    ///
    /// # Errors
    /// If a query holds NaN or an infinity, or the device of [`Bank::on`] fails.
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
        let groups = Groups { query: query_group, bank: bank_group };
        self.search(queries, 1, Some(&groups), |query, row| query_group[query] != bank_group[row])
    }

    /// `groups` and `is_allowed` say the same, to the device and to the processor.
    fn search(
        &self,
        queries: &[f32],
        k: usize,
        groups: Option<&Groups<'_>>,
        is_allowed: impl Fn(usize, usize) -> bool + Sync,
    ) -> Result<Neighbours, KernelError> {
        let norms = squared_norms(queries, self.d)?;
        if norms.is_empty() || k == 0 {
            return Ok(Neighbours { index: Vec::new(), distance: Vec::new() });
        }
        if let Some(torch) = &self.torch {
            let bank = DeviceBank { rows: &self.rows, d: self.d, torch };
            return bank.search(queries, &shares(&norms, self.d), k, groups);
        }
        let asked = self.asked.fetch_add(norms.len(), Ordering::Relaxed).saturating_add(norms.len());
        let plain_cost = asked.saturating_mul(self.rows.len());
        if self.screen.get().is_none() && plain_cost >= Screen::cost(self.len(), self.d) {
            let made = Screen::prepare(&self.rows, queries, self.d, k, &is_allowed);
            // Another thread may have been first; either serves.
            let _ = self.screen.set(made);
        }
        let screen = self.screen.get().and_then(Option::as_ref);
        if screen.is_none() && asked >= BYTES_AFTER && self.bytes.get().is_none() {
            // As above: whoever is first; waiting here could wait for a task below this one.
            let _ = self.bytes.set(ByteBank::of_rows(&self.rows, self.d));
        }
        let bytes = self.bytes.get().and_then(Option::as_ref);
        Ok(self.search_by(screen, bytes, queries, &norms, k, is_allowed))
    }

    /// Searches with codes, or with the rows themselves as codes that do not err.
    fn search_by(
        &self,
        screen: Option<&Screen>,
        bytes: Option<&ByteBank>,
        queries: &[f32],
        norms: &[f32],
        k: usize,
        is_allowed: impl Fn(usize, usize) -> bool + Sync,
    ) -> Neighbours {
        let (n, d) = (norms.len(), self.d);
        let mut found = Neighbours { index: vec![NO_ROW; n * k], distance: vec![f32::INFINITY; n * k] };
        let block = n.div_ceil(2 * rayon::current_num_threads()).clamp(16, QUERY_BLOCK);
        let outputs = found.index.par_chunks_mut(block * k).zip(found.distance.par_chunks_mut(block * k));
        outputs.enumerate().for_each(|(number, (index, distance))| {
            let first = number * block;
            let count = index.len() / k;
            let rows = &queries[first * d..][..count * d];
            let is_allowed = |query, row| is_allowed(first + query, row);
            if let Some(screen) = screen {
                let codes = screen.encode(rows);
                let (bank, queries) = (screen.bank(&self.rows), screen.view(rows, &codes));
                search_block(screen.bytes(), bank, queries, k, is_allowed, index, distance);
            } else {
                let lower = shares(&norms[first..][..count], d);
                let (bank, queries) = (View::plain(&self.rows, d, &self.lower), View::plain(rows, d, &lower));
                search_block(bytes, bank, queries, k, is_allowed, index, distance);
            }
        });
        found
    }
}

/// Rows with their codes.
#[derive(Clone, Copy)]
struct View<'a> {
    rows: &'a [f32],
    d: usize,
    coarse: &'a [f32],
    width: usize,
    /// Shares of the lower bounds of the coarse codes' distances.
    lower: &'a [f32],
    /// Longer codes, for what the coarse ones leave.
    fine: &'a [f32],
    fine_width: usize,
    /// One of each row, or of a bank the largest alone, or none where codes do not err.
    slack: &'a [Slack],
    /// Of a bank with codes.
    cells: Option<&'a Cells>,
}

impl<'a> View<'a> {
    /// Rows that are their own codes: the fine ones, of no length, rule nothing out.
    fn plain(rows: &'a [f32], d: usize, lower: &'a [f32]) -> Self {
        Self { rows, d, coarse: rows, width: d, lower, fine: &[], fine_width: 0, slack: &[], cells: None }
    }
}

fn shares(norms: &[f32], d: usize) -> Vec<f32> {
    let margin = Margin::new(d);
    norms.iter().map(|&norm| share(&margin, f64::from(norm))).collect()
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
