//! The Gaussian projection in which distances are measured, for rows that are read block by block.

use rayon::prelude::*;

use crate::kernels::product::inner_products;
use crate::kernels::random::Rng;

/// Rows in one matrix product.
const ROW_BLOCK: usize = 256;

/// A seeded Gaussian projection from `d` to `to` dimensions.
///
/// `out[i, j] = Σ_c features[i, c] · g[j, c] / √to`, the `g` standard normal, drawn from the stream row by row (`j`,
/// then `c`). Squared distances are kept in expectation (Johnson and Lindenstrauss 1984).
pub struct Projection {
    matrix: Vec<f32>,
    d: usize,
    to: usize,
}

impl Projection {
    /// Draws a `[to, d]` matrix of independent normal numbers with variance `1/to`, which projects `d` dimensions to `to`.
    ///
    /// # Panics
    /// If a length is 0.
    pub fn new(d: usize, to: usize, stream: &mut Rng) -> Self {
        assert!(d > 0 && to > 0, "a projection from {d} to {to} dimensions");
        let scale = 1.0 / (to as f64).sqrt();
        let matrix = (0..to * d).map(|_| (stream.normal() * scale) as f32).collect();
        Self { matrix, d, to }
    }

    /// Projects the rows of every block: `[n, to]`, `n` the sum of `sizes`.
    ///
    /// `read(block)` returns the rows of that block, `[sizes[block], d]`; blocks are read and projected on all
    /// threads at once, so that memory holds the result and one block a thread. The bytes are the same for every
    /// number of threads; across machines, and for other bounds of the blocks, they may differ in the last bits,
    /// because the matrix product follows instruction set and shape. Cost `2·n·d·to`.
    ///
    /// # Errors
    /// The error of one of the blocks that could not be read.
    ///
    /// # Panics
    /// If a block has another number of rows than `sizes` says.
    pub fn apply_blocks<E: Send>(
        &self,
        sizes: &[usize],
        read: impl Fn(usize) -> Result<Vec<f32>, E> + Sync,
    ) -> Result<Vec<f32>, E> {
        let Self { matrix, d, to } = self;
        fill_blocks(sizes, *to, |block, out| {
            let features = read(block)?;
            assert_eq!(features.len(), sizes[block] * d, "block {block} has other rows than said");
            for (out, rows) in out.chunks_mut(ROW_BLOCK * to).zip(features.chunks(ROW_BLOCK * d)) {
                inner_products(rows, matrix, *d, out);
            }
            Ok(())
        })
    }
}

/// Joins the rows of every block as they are, `[n, d]`; otherwise as [`Projection::apply_blocks`].
///
/// # Errors
/// The error of one of the blocks that could not be read.
///
/// # Panics
/// If a block has another number of rows than `sizes` says.
pub fn join_blocks<E: Send>(
    sizes: &[usize],
    d: usize,
    read: impl Fn(usize) -> Result<Vec<f32>, E> + Sync,
) -> Result<Vec<f32>, E> {
    fill_blocks(sizes, d, |block, out| {
        out.copy_from_slice(&read(block)?);
        Ok(())
    })
}

/// Calls `fill(block, out)` for each block, on all threads, to write its rows, `[sizes[block], to]`; returns all
/// rows, `[n, to]`.
fn fill_blocks<E: Send>(
    sizes: &[usize],
    to: usize,
    fill: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
) -> Result<Vec<f32>, E> {
    let mut all = vec![0.0; sizes.iter().sum::<usize>() * to];
    let mut rest = all.as_mut_slice();
    let mut blocks = Vec::with_capacity(sizes.len());
    for size in sizes {
        let (block, after) = rest.split_at_mut(size * to);
        blocks.push(block);
        rest = after;
    }
    blocks.into_par_iter().enumerate().try_for_each(|(block, out)| fill(block, out))?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(stream: &mut Rng, count: usize) -> Vec<f32> {
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    fn blocks_of<'a>(
        rows: &'a [f32],
        d: usize,
        sizes: &'a [usize],
    ) -> impl Fn(usize) -> Result<Vec<f32>, usize> + Sync + use<'a> {
        move |block| {
            let start: usize = sizes[..block].iter().sum();
            Ok(rows[start * d..][..sizes[block] * d].to_vec())
        }
    }

    #[test]
    fn a_projection_keeps_squared_lengths_on_average() {
        let mut stream = Rng::new(6, "coreset");
        let (n, d, to) = (300, 200, 128);
        let features = normals(&mut stream, n * d);
        let projection = Projection::new(d, to, &mut Rng::new(1, "project"));
        let projected = projection.apply_blocks(&[n], blocks_of(&features, d, &[n])).unwrap();
        let length = |rows: &[f32]| rows.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        assert!((length(&projected) / length(&features) - 1.0).abs() < 0.05);
        assert_eq!(projected.len(), n * to);
    }

    #[test]
    fn blocks_are_projected_in_their_order() {
        let (d, to, sizes) = (9, 4, [3, 0, 700, 1]);
        let features = normals(&mut Rng::new(7, "coreset"), 704 * d);
        let projection = Projection::new(d, to, &mut Rng::new(1, "project"));
        let read = blocks_of(&features, d, &sizes);
        let projected = projection.apply_blocks(&sizes, &read).unwrap();
        for (row, out) in features.chunks(d).zip(projected.chunks(to)) {
            for (found, along) in out.iter().zip(projection.matrix.chunks(d)) {
                let plain: f32 = row.iter().zip(along).map(|(x, g)| x * g).sum();
                assert!((found - plain).abs() < 1e-4, "{found} {plain}");
            }
        }
        assert_eq!(join_blocks(&sizes, d, &read).unwrap(), features);
    }

    #[test]
    fn a_block_that_cannot_be_read_is_an_error() {
        let read = |block| if block == 2 { Err(block) } else { Ok(vec![1.0; 5]) };
        let projection = Projection::new(5, 2, &mut Rng::new(1, "project"));
        assert_eq!(projection.apply_blocks(&[1, 1, 1], read), Err(2));
        assert_eq!(join_blocks(&[1, 1, 1], 5, read), Err(2));
    }
}
