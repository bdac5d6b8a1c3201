//! The Gaussian projection in which distances are measured, for rows that are read block by block.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::product::panel::{PANEL, multiply};
use crate::kernels::random::Rng;

/// Rows that are multiplied with one panel before the next.
const ROW_BLOCK: usize = 84;

/// Values between two rows in a block: a cache line, so that rows do not share few sets of the first-level cache.
const GAP: usize = 16;

/// A seeded Gaussian projection from `d` to `to` dimensions.
///
/// `out[i, j] = Σ_c features[i, c] · g[j, c] / √to`, the `g` standard normal, drawn from the stream row by row (`j`,
/// then `c`). Squared distances are kept in expectation (Johnson and Lindenstrauss 1984).
pub struct Projection {
    /// `[⌈to / PANEL⌉, d]`: the matrix in panels, each element the numbers of `PANEL` dimensions; 0 beyond the last.
    panels: Vec<[f32; PANEL]>,
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
        let mut panels = vec![[0.0; PANEL]; to.div_ceil(PANEL) * d];
        for dimension in 0..to {
            for numbers in &mut panels[dimension / PANEL * d..][..d] {
                numbers[dimension % PANEL] = (stream.normal() * scale) as f32;
            }
        }
        Self { panels, d, to }
    }

    /// Projects the rows of every block: `[n, to]`, `n` the sum of `sizes`.
    ///
    /// `read(block)` returns the rows of that block, `[sizes[block], d]`; blocks are read and projected on all
    /// threads at once, so that memory holds the result and one block a thread. Each number is summed in ascending order
    /// of `c` by fused multiply-adds, so the bytes are the same on every machine, for every number of threads and every
    /// division into blocks. Cost `2·n·d·to`.
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
        fill_blocks(sizes, self.to, |block, out| {
            let features = read(block)?;
            assert_eq!(features.len(), sizes[block] * self.d, "block {block} has other rows than said");
            pulp::Arch::new().dispatch(ProjectRows { projection: self, rows: &features, out });
            Ok(())
        })
    }
}

/// Projects `rows: [n, d]` into `out: [n, to]`.
struct ProjectRows<'a> {
    projection: &'a Projection,
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for ProjectRows<'_> {
    type Output = ();

    /// Chooses tiles of the products that fill the vector registers.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 14, 2>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 6, 4>(simd),
            _ => self.run::<S, 1, 1>(simd),
        }
    }
}

impl ProjectRows<'_> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `with_simd`")]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let Projection { panels, d, to } = self.projection;
        let stride = d + GAP;
        let mut block = vec![0.0; ROW_BLOCK * stride];
        let mut products = [0.0; ROW_BLOCK * PANEL];
        let blocks = self.out.chunks_mut(ROW_BLOCK * to).zip(self.rows.chunks(ROW_BLOCK * d));
        for (out, rows) in blocks {
            for (row, copy) in rows.chunks_exact(*d).zip(block.chunks_exact_mut(stride)) {
                copy[..*d].copy_from_slice(row);
            }
            let products = &mut products[..rows.len() / d * PANEL];
            for (panel, weights) in panels.chunks_exact(*d).enumerate() {
                multiply::<S, ROWS, VECTORS>(simd, &block, stride, [weights, &[]], products);
                let first = panel * PANEL;
                let count = PANEL.min(to - first);
                for (out, products) in out.chunks_exact_mut(*to).zip(products.chunks_exact(PANEL)) {
                    out[first..first + count].copy_from_slice(&products[..count]);
                }
            }
        }
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

    /// Projects by the definition, in the promised order of sums.
    fn naive(features: &[f32], d: usize, to: usize, stream: &mut Rng) -> Vec<f32> {
        let scale = 1.0 / (to as f64).sqrt();
        let matrix: Vec<f32> = (0..to * d).map(|_| (stream.normal() * scale) as f32).collect();
        let dot =
            |row: &[f32], along: &[f32]| row.iter().zip(along).fold(0.0, |sum, (x, g)| x.mul_add(*g, sum));
        features.chunks(d).flat_map(|row| matrix.chunks(d).map(move |along| dot(row, along))).collect()
    }

    /// The projection of a block by each vector width that this machine has.
    fn by_every_width(projection: &Projection, rows: &[f32]) -> Vec<Vec<f32>> {
        let mut found = Vec::new();
        let mut run = |project: &dyn Fn(ProjectRows<'_>)| {
            let mut out = vec![f32::NAN; rows.len() / projection.d * projection.to];
            project(ProjectRows { projection, rows, out: &mut out });
            found.push(out);
        };
        run(&|block| pulp::Arch::new().dispatch(block));
        run(&|block| block.with_simd(pulp::Scalar::new()));
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = pulp::x86::V3::try_new() {
            run(&|block| Simd::vectorize(avx2, block));
        }
        found
    }

    #[test]
    fn every_vector_width_gives_the_bits_of_the_definition() {
        let mut stream = Rng::new(8, "coreset");
        for (d, to) in [(1, 1), (2, 5), (17, 31), (40, 32), (33, 33), (600, 128)] {
            for n in (1..=20).chain([83, 84, 85, 200]) {
                let features = normals(&mut stream, n * d);
                let expected = naive(&features, d, to, &mut Rng::new(1, "project"));
                let projection = Projection::new(d, to, &mut Rng::new(1, "project"));
                for found in by_every_width(&projection, &features) {
                    assert!(found == expected, "n {n}, d {d}, to {to}");
                }
            }
        }
    }

    #[test]
    fn the_division_into_blocks_changes_no_bit() {
        let (d, to, n) = (9, 40, 704);
        let features = normals(&mut Rng::new(7, "coreset"), n * d);
        let projection = Projection::new(d, to, &mut Rng::new(1, "project"));
        let expected = naive(&features, d, to, &mut Rng::new(1, "project"));
        for sizes in [vec![n], vec![3, 0, 700, 1], vec![1; n]] {
            let read = blocks_of(&features, d, &sizes);
            assert!(projection.apply_blocks(&sizes, &read).unwrap() == expected, "{sizes:?}");
            assert_eq!(join_blocks(&sizes, d, &read).unwrap(), features);
        }
    }

    #[test]
    fn a_block_that_cannot_be_read_is_an_error() {
        let read = |block| if block == 2 { Err(block) } else { Ok(vec![1.0; 5]) };
        let projection = Projection::new(5, 2, &mut Rng::new(1, "project"));
        assert_eq!(projection.apply_blocks(&[1, 1, 1], read), Err(2));
        assert_eq!(join_blocks(&[1, 1, 1], 5, read), Err(2));
    }
}
