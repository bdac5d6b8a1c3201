//! Ceilings from libtorch's device: every point against every pick, by matrix products.
//!
//! `upper(x) + upper(c) - 2·x·c` is at least the distance as `squared_euclidean` computes it ([`Margin`]). The
//! device keeps for each point the least of it over all picks. A point or pick whose norm might overflow has no
//! ceiling and gives none.

use rayon::prelude::*;
use tch::{Kind, TchError, Tensor};

use super::ceilings::Ceilings;
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;
use crate::kernels::distance::Margin;
use crate::kernels::libtorch::{PRODUCTS, download, failed, find, upload};

/// Most picks in one product (chosen, untested on a GPU: a round rarely has more).
const PICKS: usize = 1024;

/// Bounds lowered by one task.
const BOUND_BLOCK: usize = 65_536;

/// Squared norm from which the sum of two might overflow.
const LARGEST_NORM: f32 = f32::from_bits((127 + 124) << 23);

/// The points on the device.
pub(super) struct Torch {
    device: Device,
    place: tch::Device,
    /// `[n, d]`
    points: Tensor,
    /// The points' shares of upper bounds, `[n]`.
    upper: Tensor,
    /// The least upper bound of each point so far, `[n]`.
    least: Tensor,
    /// Whether a point has a share.
    has_share: Vec<bool>,
}

impl Torch {
    /// Brings `points: [n, d]` to the device, with their squared norms.
    pub(super) fn new(device: Device, points: &[f32], d: usize, norms: &[f32]) -> Result<Self, KernelError> {
        let place = find(device)?;
        Self::at(device, place, points, d, norms).map_err(|error| failed(device, &error))
    }

    fn at(
        device: Device,
        place: tch::Device,
        points: &[f32],
        d: usize,
        norms: &[f32],
    ) -> Result<Self, TchError> {
        let margin = Margin::new(d);
        let has_share: Vec<bool> = norms.iter().map(|&norm| norm < LARGEST_NORM).collect();
        let share = |(&norm, &is_small): (&f32, &bool)| if is_small { margin.upper(norm) } else { f32::NAN };
        let upper: Vec<f32> = norms.iter().zip(&has_share).map(share).collect();
        Ok(Self {
            device,
            place,
            points: upload(points, d, place)?,
            upper: Tensor::f_from_slice(&upper)?.f_to_device(place)?,
            least: Tensor::f_full([norms.len() as i64], f64::INFINITY, (Kind::Float, place))?,
            has_share,
        })
    }

    /// Lowers the least upper bounds to those of some picks.
    fn approach(&mut self, picks: &[i64]) -> Result<(), TchError> {
        let index = Tensor::f_from_slice(picks)?.f_to_device(self.place)?;
        let rows = self.points.f_index_select(0, &index)?.f_mul_scalar_(-2.0)?.f_tr()?;
        let shares = self.upper.f_index_select(0, &index)?;
        let n = self.has_share.len();
        let block = (PRODUCTS / picks.len()).max(1);
        for start in (0..n).step_by(block) {
            let (first, count) = (start as i64, block.min(n - start) as i64);
            let products = self.points.f_narrow(0, first, count)?.f_mm(&rows)?.f_add_(&shares)?;
            let upper = products.f_amin([1], false)?.f_add_(&self.upper.f_narrow(0, first, count)?)?;
            let mut least = self.least.f_narrow(0, first, count)?;
            let lower = least.f_minimum(&upper)?;
            least.f_copy_(&lower)?;
        }
        Ok(())
    }

    fn lower_all(&mut self, picks: &[i64], bounds: &mut [f32]) -> Result<(), TchError> {
        for some in picks.chunks(PICKS) {
            self.approach(some)?;
        }
        let least: Vec<f32> = download(&self.least)?;
        let blocks = bounds.par_chunks_mut(BOUND_BLOCK).zip(least.par_chunks(BOUND_BLOCK));
        blocks.for_each(|(bounds, least)| {
            for (bound, &least) in bounds.iter_mut().zip(least) {
                // Not NaN, and never the negative bound of a picked point.
                if least > 0.0 && least < *bound {
                    *bound = least;
                }
            }
        });
        Ok(())
    }
}

impl Ceilings for Torch {
    fn lower(&mut self, picks: &[u32], bounds: &mut [f32]) -> Result<(), KernelError> {
        // The least over some of the picks is an upper bound, too.
        let picks = picks.iter().filter(|&&pick| self.has_share[pick as usize]).map(|&pick| i64::from(pick));
        let picks: Vec<i64> = picks.collect();
        if picks.is_empty() {
            return Ok(());
        }
        self.lower_all(&picks, bounds).map_err(|error| failed(self.device, &error))
    }
}
