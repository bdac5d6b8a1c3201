//! Inverted lists: a bank's rows grouped by their nearest centroid, as in an inverted file. They give a query a good
//! first limit.
//!
//! A query looks at the list of its own nearest centroid before it looks at the bank. The `k` rows found there need
//! not be its nearest, but their distances give a limit close to the final one from the start (measured 2026-11-24 on
//! patches of `ResNet18`, 20,000 rows: a third fewer rows pass the coarse codes, half as many the fine ones). Lists
//! change speed alone.

use rayon::prelude::*;

use crate::kernels::product::inner_products;

/// Mean number of rows of a list (chosen: a few times the neighbours that are searched for).
const LIST: usize = 40;

/// Largest number of centroids (chosen).
const MOST_CENTROIDS: usize = 256;

/// Number of rows in one matrix product.
const BLOCK: usize = 512;

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
            lists.copy_from_slice(&nearest_centroids(codes, &coarse[..centroids * width], width, lower));
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

    /// Returns the rows of a list, ascending.
    pub(super) fn members(&self, list: usize) -> &[u32] {
        &self.members[self.starts[list]..self.starts[list + 1]]
    }
}

/// Returns, for each of `codes: [n, width]`, the index of the nearest centroid: the one with the least `lower -
/// 2·product`. The first if all are NaN.
pub(super) fn nearest_centroids(codes: &[f32], centroids: &[f32], width: usize, lower: &[f32]) -> Vec<usize> {
    let count = centroids.len() / width;
    let mut products = vec![0.0; codes.len() / width * count];
    inner_products(codes, centroids, width, &mut products);
    products.chunks(count).map(|products| least(products, lower)).collect()
}

fn least(products: &[f32], lower: &[f32]) -> usize {
    let mut best = (f32::INFINITY, 0);
    for (centroid, (product, lower)) in products.iter().zip(lower).enumerate() {
        let bound = lower - 2.0 * product;
        if bound < best.0 {
            best = (bound, centroid);
        }
    }
    best.1
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
        let all: usize = (0..3).map(|list| lists.members(list).len()).sum();
        assert_eq!(all, 120);
        for list in 0..3 {
            assert!(lists.members(list).is_sorted());
            for &row in lists.members(list) {
                assert!((line[row as usize] - list as f32 * 10.0).abs() <= 5.0, "row {row} in {list}");
            }
        }
    }
}
