//! Choosing the rows of a bank: greedy k-center and two other samplers.
//!
//! The greedy algorithm is that of Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
//! Approach", ICLR 2018, as PatchCore uses it (Roth et al., CVPR 2022, Algorithm 1): the next pick is the point
//! farthest from all picks so far. The private module `greedy` computes it faster than its textbook form and promises
//! the same picks; the tests hold the textbook form. A GPU provides upper bounds of all distances (`device`), which
//! leave less to measure and change no pick.

mod greedy;
mod heap;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::greedy::Search;
use super::device::{NoUpperBounds, UpperBounds, device_upper_bounds, find_device};
use super::float::F32Filter;
use super::int8::Int8Filter;
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;
use crate::kernels::distance::{squared_norms, squared_to_centre};
pub use crate::kernels::projection::{Projection, join_blocks};
use crate::kernels::random::Rng;

/// Number of rows whose distances to a centre one parallel task measures.
const ROW_BLOCK: usize = 256;

/// The rows chosen by a greedy sampler, in the order of choosing.
#[derive(Debug, Clone, PartialEq)]
pub struct Picks {
    /// Indices of the chosen rows, all different.
    pub rows: Vec<u32>,
    /// `radii[i]`: the largest distance of a point to its nearest pick after pick `i` (covering radius), plain
    /// Euclidean, in the space that was searched; it never grows.
    pub radii: Vec<f32>,
}

/// Returns the size of a bank: `max(min_size, 1, ⌊n·ratio⌋)`, at most `n`.
pub fn bank_size(n: usize, ratio: f64, min_size: usize) -> usize {
    ((n as f64 * ratio).floor() as usize).max(min_size).max(1).min(n)
}

/// Chooses `count` of `n` rows at random, all different, in ascending order.
///
/// # Panics
/// If `count` is greater than `n`, or `n` does not fit 32 bits.
pub fn random_rows(n: usize, count: usize, stream: &mut Rng) -> Vec<u32> {
    assert!(u32::try_from(n).is_ok(), "{n} rows do not fit 32 bits");
    stream.choose(n, count).into_iter().map(|row| row as u32).collect()
}

/// The points to choose from, and the GPU that bounds their distances, if one is used.
#[derive(Debug)]
pub struct Points<'a> {
    rows: &'a [f32],
    d: usize,
    norms: Vec<f32>,
    device: Device,
}

impl<'a> Points<'a> {
    /// Creates the points from `rows: [n, d]`, row-major. Cost `n·d`.
    ///
    /// # Errors
    /// If a row holds NaN or an infinity.
    ///
    /// # Panics
    /// If the length of `rows` is no multiple of `d`, or `n` does not fit 32 bits.
    pub fn new(rows: &'a [f32], d: usize) -> Result<Self, KernelError> {
        Ok(Self { rows, d, norms: norms_for(rows, d)?, device: Device::Cpu })
    }

    /// Creates the points from rows, and copies them to a device that bounds their distances; on [`Device::Cpu`] the
    /// same as [`Points::new`].
    ///
    /// Picks and radii have the same bits on every device. A choice needs the points' `4·n·d` bytes of the device's
    /// memory and at most one gigabyte more, and `2·n·count·d` operations there.
    ///
    /// # Errors
    /// As [`Points::new`] and [`require_device`]. A later choice fails if the device fails.
    ///
    /// # Panics
    /// As [`Points::new`].
    pub fn on(device: Device, rows: &'a [f32], d: usize) -> Result<Self, KernelError> {
        require_device(device)?;
        Ok(Self { device, ..Self::new(rows, d)? })
    }

    /// Chooses `count` of the points by greedy k-center from the row `first`.
    ///
    /// Pick `i + 1` is the point with the largest squared distance ([`squared_euclidean`]) to its nearest pick; among
    /// equal distances the lowest index. A picked row is not picked again, so that once all distances are 0 the
    /// remaining rows follow in ascending order. Exact: the picks and radii are those of the textbook algorithm to
    /// the bit, for every number of threads and every device.
    ///
    /// `progress` is called with the number of picks after each; if it returns false, the search stops. Cost at most
    /// `2·n·count·d` operations in matrix products (less where bounds rule points out), memory `16·n` bytes besides
    /// the points.
    ///
    /// [`squared_euclidean`]: super::super::distance::squared_euclidean
    ///
    /// # Errors
    /// If `progress` returned false, or the device of [`Points::on`] fails.
    ///
    /// # Panics
    /// If `count` is not in `1..=n`, or `first` is no row.
    pub fn k_center_greedy(
        &self,
        first: usize,
        count: usize,
        progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Picks, KernelError> {
        assert!(first < self.norms.len(), "the first pick is row {first} of {}", self.norms.len());
        let bounds = squared_distances(self.rows, self.d, &self.rows[first * self.d..][..self.d]);
        self.search(bounds, Some(first), count, progress)
    }

    /// Chooses `count` of the points as `ApproximateGreedyCoresetSampler` of patchcore-inspection does.
    ///
    /// A point's distance starts as its mean distance to `anchors` random points (10 there), as if that were its
    /// distance to a pick; then greedy k-center goes on, the first pick included. Ties go to the lower index, a
    /// picked row is not picked again (there it can be). The radii are the greedy algorithm's own distances, which
    /// the anchors keep below the covering radius at first. Cost as [`Points::k_center_greedy`].
    ///
    /// # Errors
    /// If `progress` returned false, or the device of [`Points::on`] fails.
    ///
    /// # Panics
    /// If `count` is not in `1..=n`, or `anchors` is 0.
    pub fn approximate_greedy(
        &self,
        count: usize,
        anchors: usize,
        stream: &mut Rng,
        progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Picks, KernelError> {
        assert!(anchors > 0, "an approximate coreset needs anchors");
        let chosen = stream.choose(self.norms.len(), anchors.min(self.norms.len()));
        let bounds = squared_mean_distances(self.rows, self.d, &chosen);
        self.search(bounds, None, count, progress)
    }

    fn search(
        &self,
        bounds: Vec<f32>,
        first: Option<usize>,
        count: usize,
        progress: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Picks, KernelError> {
        let Self { rows, d, norms, device } = self;
        let n = norms.len();
        assert!((1..=n).contains(&count), "{count} of {n} rows were asked for");
        let mut upper: Box<dyn UpperBounds> = match device {
            Device::Cpu => Box::new(NoUpperBounds),
            Device::Cuda(_) => device_upper_bounds(*device, rows, *d, norms)?,
        };
        let upper = &mut *upper;
        if let Some(filter) = Int8Filter::without_rows(rows, *d, norms) {
            return Search::new(rows, *d, norms, bounds, first, filter).run(count, upper, progress);
        }
        let filter = F32Filter::new(Vec::new(), &[], *d);
        Search::new(rows, *d, norms, bounds, first, filter).run(count, upper, progress)
    }
}

/// Checks that a device can bound distances. There is no fallback to the CPU.
///
/// # Errors
/// If this build supports only the CPU, or the device does not exist, fails, or does not compute its products in f32.
pub fn require_device(device: Device) -> Result<(), KernelError> {
    match device {
        Device::Cpu => Ok(()),
        Device::Cuda(_) => find_device(device),
    }
}

fn norms_for(points: &[f32], d: usize) -> Result<Vec<f32>, KernelError> {
    assert!(d > 0 && points.len().is_multiple_of(d), "{} numbers are no rows of {d}", points.len());
    let norms = |(block, rows): (usize, &[f32])| {
        squared_norms(rows, d).map_err(|error| match error {
            KernelError::NotFinite { row } => KernelError::NotFinite { row: block * ROW_BLOCK + row },
            other => other,
        })
    };
    let blocks: Vec<_> = points.par_chunks(ROW_BLOCK * d).enumerate().map(norms).collect();
    // In order, so that the first row that is not finite is named.
    let norms = blocks.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    let n = norms.len();
    assert!(u32::try_from(n).is_ok(), "{n} rows do not fit 32 bits");
    Ok(norms)
}

fn squared_distances(points: &[f32], d: usize, centre: &[f32]) -> Vec<f32> {
    let mut distances = vec![0.0; points.len() / d];
    distances
        .par_chunks_mut(ROW_BLOCK)
        .zip(points.par_chunks(ROW_BLOCK * d))
        .for_each(|(out, rows)| squared_to_centre(rows, d, centre, out));
    distances
}

fn squared_mean_distances(points: &[f32], d: usize, anchors: &[usize]) -> Vec<f32> {
    let mut sums = vec![0.0_f64; points.len() / d];
    for anchor in anchors {
        let distances = squared_distances(points, d, &points[anchor * d..][..d]);
        sums.iter_mut().zip(distances).for_each(|(sum, squared)| *sum += f64::from(squared).sqrt());
    }
    sums.into_iter().map(|sum| (sum / anchors.len() as f64).powi(2) as f32).collect()
}
