//! The search with a device: it names the rows of least lower bound, and the processor measures them.
//!
//! With `e = lower(b) - 2·q·b` from the device, `lower(q) + e` is at most the distance as `squared_euclidean`
//! computes it (`Margin`). The device sorts out the rows of least `e`, a few more than the neighbours that are asked
//! for; they are measured in that order until the bound of the next is above the `k`-th distance. Then all others
//! are farther, ties included. A query whose rows end before that asks again, for more of them, at the end for all:
//! so does one whose bounds overflow. The result is that of brute force, whatever the device's order of sums.

use rayon::prelude::*;

use super::{NO_ROW, Neighbours, Torch};
use crate::kernels::KernelError;
use crate::kernels::distance::squared_to_centre;

/// Rows asked for beyond the neighbours (chosen, untested on a GPU: the margin lets a few rows in between).
const SPARE: usize = 16;

/// How many times more are asked for where they end too early.
const GROWTH: usize = 8;

/// For each query some rows, in ascending order of `lower`: all that a row has of its lower bound but the query's
/// share.
pub(super) struct Least {
    /// `[n, count]`; what cannot be compared is `-∞`, a row of the query's own group `∞`.
    pub(super) lower: Vec<f32>,
    pub(super) rows: Vec<i64>,
}

/// The image that each row is from: rows of a query's own are left out.
pub(super) struct Groups<'a> {
    pub(super) query: &'a [u32],
    pub(super) bank: &'a [u32],
}

/// A bank as the search sees it.
#[derive(Clone, Copy)]
pub(super) struct DeviceBank<'a> {
    pub(super) rows: &'a [f32],
    pub(super) d: usize,
    pub(super) torch: &'a Torch,
}

/// The nearest rows of one query, by distance and then by number, or none where more rows have to be seen.
type Found = Option<Vec<(f32, u32)>>;

impl DeviceBank<'_> {
    /// Finds the `k` nearest rows of each of `queries: [n, d]`; `shares: [n]` are their shares of lower bounds.
    pub(super) fn search(
        self,
        queries: &[f32],
        shares: &[f32],
        k: usize,
        groups: Option<&Groups<'_>>,
    ) -> Result<Neighbours, KernelError> {
        let n = shares.len();
        let mut found = Neighbours { index: vec![NO_ROW; n * k], distance: vec![f32::INFINITY; n * k] };
        let block = Torch::block(self.len());
        for first in (0..n).step_by(block) {
            let mut open: Vec<usize> = (first..n.min(first + block)).collect();
            let mut count = k + SPARE;
            while !open.is_empty() {
                count = count.min(self.len());
                let nearest = self.ask(queries, shares, k, groups, &open, count)?;
                open = write(&open, nearest, k, &mut found);
                count *= GROWTH;
            }
        }
        Ok(found)
    }

    fn len(self) -> usize {
        self.rows.len() / self.d
    }

    /// Searches for some of the queries among the `count` rows of least lower bound of each.
    fn ask(
        self,
        queries: &[f32],
        shares: &[f32],
        k: usize,
        groups: Option<&Groups<'_>>,
        open: &[usize],
        count: usize,
    ) -> Result<Vec<Found>, KernelError> {
        let rows: Vec<&[f32]> = open.iter().map(|&query| &queries[query * self.d..][..self.d]).collect();
        let rows = rows.concat();
        let own: Option<Vec<u32>> =
            groups.map(|groups| open.iter().map(|&query| groups.query[query]).collect());
        let groups = groups.zip(own.as_ref()).map(|(groups, query)| Groups { query, bank: groups.bank });
        let Least { lower, rows: candidates } = self.torch.least(&rows, groups.as_ref(), count)?;
        let asked = rows.par_chunks(self.d).zip(lower.par_chunks(count).zip(candidates.par_chunks(count)));
        asked
            .enumerate()
            .map(|(place, (row, candidates))| {
                let group = own.as_ref().map(|own| own[place]);
                let is_allowed = |other: usize| {
                    groups.as_ref().zip(group).is_none_or(|(groups, group)| groups.bank[other] != group)
                };
                self.measure(row, shares[open[place]], k, candidates, is_allowed)
            })
            .collect()
    }

    /// Measures candidates until the lower bound of the next is above the `k`-th distance.
    fn measure(
        self,
        query: &[f32],
        share: f32,
        k: usize,
        (lower, rows): (&[f32], &[i64]),
        is_allowed: impl Fn(usize) -> bool,
    ) -> Result<Found, KernelError> {
        // In f64, where this last addition rounds nothing that counts.
        let bound = |lower: f32| f64::from(share) + f64::from(lower);
        let mut near: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
        let mut limit = f64::INFINITY;
        for (&lower, &row) in lower.iter().zip(rows) {
            if bound(lower) > limit {
                return Ok(Some(near));
            }
            if !is_allowed(row as usize) {
                continue;
            }
            let mut squared = [0.0];
            squared_to_centre(&self.rows[row as usize * self.d..][..self.d], self.d, query, &mut squared);
            let measured = (squared[0], row as u32);
            if bound(lower) > f64::from(measured.0) {
                return Err(self.wrong_bound());
            }
            let place = near.partition_point(|pair| *pair < measured);
            near.insert(place, measured);
            near.truncate(k);
            if let Some(last) = near.get(k - 1) {
                limit = f64::from(last.0);
            }
        }
        let last = lower[lower.len() - 1];
        // After ∞ come only rows of the query's own group, unless the query's own numbers overflow.
        let is_done = rows.len() == self.len() || (last == f32::INFINITY && share.is_finite());
        Ok((is_done || bound(last) > limit).then_some(near))
    }

    /// Costs one comparison a measured row, and no proof: but a device that rounds more than it says is caught
    /// sooner or later.
    fn wrong_bound(self) -> KernelError {
        let reason = "a lower bound is above the distance: its products are not f32".to_owned();
        KernelError::Device { device: self.torch.device(), reason }
    }
}

/// Writes what was found and returns the queries that have to ask again.
fn write(open: &[usize], nearest: Vec<Found>, k: usize, found: &mut Neighbours) -> Vec<usize> {
    let mut again = Vec::new();
    for (&query, near) in open.iter().zip(nearest) {
        let Some(near) = near else {
            again.push(query);
            continue;
        };
        for (place, (squared, row)) in near.into_iter().enumerate() {
            found.index[query * k + place] = row;
            found.distance[query * k + place] = squared.sqrt();
        }
    }
    again
}
