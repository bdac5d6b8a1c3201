//! Inverted lists: a bank's rows grouped by their nearest centroid, as in an inverted file. They give a query a good
//! first limit.
//!
//! A query looks at the lists of its nearest centroids before it looks at the bank. The `k` rows found there need not be
//! its nearest, but their distances give a limit close to the final one from the start (measured 2026-11-24 on patches of
//! `ResNet18`, 20,000 rows: with one list, a third fewer rows pass the coarse codes, half as many the fine ones). Lists
//! change speed alone.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::product::inner_products;

/// Mean number of rows of a list (chosen: a few times the neighbours that are searched for).
const LIST: usize = 40;

/// Largest number of centroids (chosen).
const MOST_CENTROIDS: usize = 256;

/// Number of rows in one matrix product.
const BLOCK: usize = 512;

/// Number of lists that a query looks at, where their rows are compared in int8 (measured 2026-11-29 on patches of
/// `ResNet18`, 20,000 rows: 4 in all 108 ms of a processor, 8 123 ms, 16 131 ms).
pub(super) const PROBES: usize = 4;

/// The rows of each list; the centroids are the bank's first rows.
pub(super) struct InvertedLists {
    /// List `i` is `members[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    members: Vec<u32>,
}

impl InvertedLists {
    /// Groups rows by their nearest centroid according to coarse codes: `coarse: [m, width]`, bound terms `lower:
    /// [m]`.
    pub(super) fn of(coarse: &[f32], width: usize, lower: &[f32]) -> Self {
        let m = lower.len();
        let centroids = (m / LIST).clamp(1, MOST_CENTROIDS);
        let mut list_of = vec![0; m];
        let blocks = list_of.par_chunks_mut(BLOCK).zip(coarse.par_chunks(BLOCK * width));
        blocks.for_each(|(lists, codes)| {
            let nearest = nearest_centroids(codes, &coarse[..centroids * width], width, lower);
            lists.iter_mut().zip(nearest).for_each(|(list, [nearest, ..])| *list = nearest as usize);
        });
        let mut starts = vec![0; centroids + 1];
        for &list in &list_of {
            starts[list + 1] += 1;
        }
        for list in 0..centroids {
            starts[list + 1] += starts[list];
        }
        let mut members: Vec<u32> = (0..m as u32).collect();
        members.sort_by_key(|&row| list_of[row as usize]);
        Self { starts, members }
    }

    /// Returns the number of centroids.
    pub(super) fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the rows of all lists, list by list, ascending in each.
    pub(super) fn members(&self) -> &[u32] {
        &self.members
    }

    /// Returns the range of a list in `members`.
    pub(super) fn list(&self, list: usize) -> Range<usize> {
        self.starts[list]..self.starts[list + 1]
    }
}

/// Returns, for each of `codes: [n, width]`, the indices of the nearest centroids: those with the least `lower -
/// 2·product`, the nearest first. Beyond the last centroid, or where products are NaN, indices are those of the first.
pub(super) fn nearest_centroids(
    codes: &[f32],
    centroids: &[f32],
    width: usize,
    lower: &[f32],
) -> Vec<[u32; PROBES]> {
    let count = centroids.len() / width;
    let mut products = vec![0.0; codes.len() / width * count];
    inner_products(codes, centroids, width, &mut products);
    products.chunks(count).map(|products| least(products, lower)).collect()
}

fn least(products: &[f32], lower: &[f32]) -> [u32; PROBES] {
    let (mut bounds, mut nearest) = ([f32::INFINITY; PROBES], [0; PROBES]);
    for (centroid, (product, lower)) in products.iter().zip(lower).enumerate() {
        let bound = lower - 2.0 * product;
        if bound < bounds[PROBES - 1] {
            insert_sorted(&mut bounds, &mut nearest, bound, centroid as u32);
        }
    }
    nearest
}

/// Puts a distance and its item among those that are held in ascending order, after equal ones; the last are dropped.
#[inline]
fn insert_sorted<T>(distances: &mut [f32], items: &mut [T], distance: f32, item: T) {
    let rank = distances.iter().take_while(|&&other| other <= distance).count();
    distances[rank..].rotate_right(1);
    items[rank..].rotate_right(1);
    (distances[rank], items[rank]) = (distance, item);
}

/// Stands for a row that was not found yet.
const NONE: usize = usize::MAX;

/// The rows of a query's lists with the nearest codes so far.
pub(super) struct NearestCodes {
    distances: Vec<f32>,
    rows: Vec<usize>,
}

impl NearestCodes {
    pub(super) fn new(k: usize) -> Self {
        Self { distances: vec![f32::INFINITY; k], rows: vec![NONE; k] }
    }

    /// Inserts a row if it is allowed, nearer than the last one, and not there yet: lists may repeat.
    #[inline]
    pub(super) fn insert(&mut self, distance: f32, row: usize, is_allowed: impl Fn(usize) -> bool) {
        let k = self.rows.len();
        if distance < self.distances[k - 1] && !self.rows.contains(&row) && is_allowed(row) {
            insert_sorted(&mut self.distances, &mut self.rows, distance, row);
        }
    }

    /// Returns the `k` nearest rows; empty if there are fewer.
    pub(super) fn rows(self) -> Vec<usize> {
        if self.rows.contains(&NONE) { Vec::new() } else { self.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_the_list_of_its_nearest_centroid() {
        // Centroids at 0, 10 and 20 of a line, whose bound terms are their squared norms.
        let line: Vec<f32> =
            (0..120).map(|row| if row < 3 { row as f32 * 10.0 } else { row as f32 % 23.0 }).collect();
        let lower: Vec<f32> = line.iter().map(|x| x * x).collect();
        let lists = InvertedLists::of(&line, 1, &lower);
        assert_eq!(lists.count(), 3);
        assert_eq!(lists.members().len(), 120);
        for list in 0..3 {
            let members = &lists.members()[lists.list(list)];
            assert!(members.is_sorted());
            for &row in members {
                assert!((line[row as usize] - list as f32 * 10.0).abs() <= 5.0, "row {row} in {list}");
            }
        }
    }
}
