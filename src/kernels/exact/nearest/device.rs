//! The search with a device: it finds the rows with the lowest lower bounds, and the CPU measures them.
//!
//! With `e = lower(b) - 2·q·b` from the device, `lower(q) + e` is at most the distance as `squared_euclidean`
//! computes it (`ErrorBound`). The device selects the rows of least `e`, a few more than the neighbours that are
//! searched for; they are measured in that order until the bound of the next is above the `k`-th distance. Then all
//! others are farther, ties included. A query whose rows end before that is searched again with more of them, in the
//! end with all: so is one whose bounds overflow. The result is that of brute force, whatever the device's order of
//! sums.

use rayon::prelude::*;

use super::Neighbours;
use crate::kernels::KernelError;
use crate::kernels::distance::squared_to_centre;
use crate::kernels::exact::device::{DeviceLowerBounds, ExclusionGroups, Lowest};

/// Number of rows selected beyond the `k` neighbours (chosen, untested on a GPU: the error bound lets a few rows in
/// between).
const SPARE: usize = 16;

/// Factor by which the number of selected rows grows for a query that needs more.
const GROWTH: usize = 8;

/// A bank whose lower bounds come from a device.
#[derive(Clone, Copy)]
pub(super) struct DeviceBank<'a> {
    pub(super) rows: &'a [f32],
    pub(super) d: usize,
    pub(super) bounds: &'a dyn DeviceLowerBounds,
}

/// The nearest rows of one query as (squared distance, row), ascending; `None` if more rows must be measured.
type Hits = Option<Vec<(f32, u32)>>;

impl DeviceBank<'_> {
    /// Finds the `k` nearest rows of each of `queries: [n, d]`; `lower: [n]` are the bound terms of the queries.
    pub(super) fn search(
        self,
        queries: &[f32],
        lower: &[f32],
        k: usize,
        groups: Option<ExclusionGroups<'_>>,
    ) -> Result<Neighbours, KernelError> {
        let mut neighbours = Neighbours::none(lower.len(), k);
        let block = self.bounds.queries_at_once(self.len());
        for first in (0..lower.len()).step_by(block) {
            let mut open: Vec<usize> = (first..lower.len().min(first + block)).collect();
            let mut count = k + SPARE;
            while !open.is_empty() {
                count = count.min(self.len());
                let hits = self.search_among(queries, lower, k, groups, &open, count)?;
                open = write(&open, hits, k, &mut neighbours);
                count *= GROWTH;
            }
        }
        Ok(neighbours)
    }

    fn len(self) -> usize {
        self.rows.len() / self.d
    }

    /// Searches the queries with the indices `open` among the `count` rows of lowest lower bound of each.
    fn search_among(
        self,
        queries: &[f32],
        lower: &[f32],
        k: usize,
        groups: Option<ExclusionGroups<'_>>,
        open: &[usize],
        count: usize,
    ) -> Result<Vec<Hits>, KernelError> {
        let rows: Vec<&[f32]> = open.iter().map(|&query| &queries[query * self.d..][..self.d]).collect();
        let rows = rows.concat();
        let of_open: Option<Vec<u32>> =
            groups.map(|groups| open.iter().map(|&query| groups.query[query]).collect());
        let open_groups =
            groups.zip(of_open.as_ref()).map(|(groups, query)| ExclusionGroups { query, ..groups });
        let Lowest { bounds, rows: candidates } = self.bounds.lowest(&rows, open_groups, count)?;
        let candidates = bounds.par_chunks(count).zip(candidates.par_chunks(count));
        let searches = open.par_iter().zip(rows.par_chunks(self.d)).zip(candidates);
        searches
            .map(|((&query, row), candidates)| {
                let is_allowed = |other: usize| groups.is_none_or(|groups| groups.is_allowed(query, other));
                self.measure(row, lower[query], k, candidates, is_allowed)
            })
            .collect()
    }

    /// Measures candidates until the lower bound of the next is above the `k`-th smallest distance.
    fn measure(
        self,
        query: &[f32],
        lower: f32,
        k: usize,
        (bounds, rows): (&[f32], &[i64]),
        is_allowed: impl Fn(usize) -> bool,
    ) -> Result<Hits, KernelError> {
        // In f64, where this last addition rounds nothing that counts.
        let whole = |bound: f32| f64::from(lower) + f64::from(bound);
        let mut near: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
        let mut limit = f64::INFINITY;
        for (&bound, &row) in bounds.iter().zip(rows) {
            if whole(bound) > limit {
                return Ok(Some(near));
            }
            if !is_allowed(row as usize) {
                continue;
            }
            let mut squared = [0.0];
            squared_to_centre(&self.rows[row as usize * self.d..][..self.d], self.d, query, &mut squared);
            let measured = (squared[0], row as u32);
            if whole(bound) > f64::from(measured.0) {
                return Err(self.wrong_bound());
            }
            near.insert(near.partition_point(|pair| *pair < measured), measured);
            near.truncate(k);
            if let Some(last) = near.get(k - 1) {
                limit = f64::from(last.0);
            }
        }
        let last = bounds[bounds.len() - 1];
        // After ∞ come only rows of the query's own group, unless the query's own numbers overflow.
        let is_done = rows.len() == self.len() || (last == f32::INFINITY && lower.is_finite());
        Ok((is_done || whole(last) > limit).then_some(near))
    }

    /// The error if a lower bound is above the measured distance. The check costs one comparison per measured row. It
    /// proves nothing, but will sooner or later catch a device that rounds more than it claims.
    fn wrong_bound(self) -> KernelError {
        let reason = "a lower bound is above the distance: its products are not f32".to_owned();
        KernelError::Device { device: self.bounds.device(), reason }
    }
}

/// Writes the results of the queries `open` and returns the queries that have to be searched again.
fn write(open: &[usize], hits: Vec<Hits>, k: usize, neighbours: &mut Neighbours) -> Vec<usize> {
    let mut again = Vec::new();
    for (&query, hits) in open.iter().zip(hits) {
        let Some(hits) = hits else {
            again.push(query);
            continue;
        };
        for (rank, (squared, row)) in hits.into_iter().enumerate() {
            neighbours.index[query * k + rank] = row;
            neighbours.distance[query * k + rank] = squared.sqrt();
        }
    }
    again
}
