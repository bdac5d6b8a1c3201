//! Bounds of distances, computed by libtorch on a device as matrix products.
//!
//! Upper bounds: `upper(x) + upper(c) - 2·x·c` is at least the squared distance as `squared_euclidean` computes it
//! ([`ErrorBound`]). The device keeps, for each point, the least such bound over all picks. A point or pick whose
//! norm might overflow has no upper bound and does not lower any.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use tch::{Kind, TchError, Tensor};

use super::{DeviceLowerBounds, ExclusionGroups, Lowest, UpperBounds};
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;
use crate::kernels::distance::ErrorBound;
use crate::kernels::libtorch::{PRODUCTS, download, failed, find, upload};

/// Largest number of picks in one matrix product (chosen, untested on a GPU: a round rarely has more).
const PICKS: usize = 1024;

/// Number of bounds that one parallel task lowers.
const BOUND_BLOCK: usize = 65_536;

/// Checks that the device exists and computes its products in f32.
pub(in super::super) fn find_device(device: Device) -> Result<(), KernelError> {
    find(device).map(drop)
}

/// Copies a bank, `rows: [m, d]`, and its lower bound terms to the device.
pub(in super::super) fn device_lower_bounds(
    device: Device,
    rows: &[f32],
    d: usize,
    lower: &[f32],
) -> Result<Box<dyn DeviceLowerBounds>, KernelError> {
    let on = find(device)?;
    // Doubling rounds nothing, and saves a pass over the products.
    let rows = || DeviceRows::new(upload(rows, d, on)?.f_mul_scalar_(-2.0)?, lower, on);
    let rows = rows().map_err(|error| failed(device, &error))?;
    Ok(Box::new(LibtorchBank { device, rows: Mutex::new(rows) }))
}

/// Copies `points: [n, d]` with their squared norms to the device.
pub(in super::super) fn device_upper_bounds(
    device: Device,
    points: &[f32],
    d: usize,
    norms: &[f32],
) -> Result<Box<dyn UpperBounds>, KernelError> {
    let on = find(device)?;
    let error = ErrorBound::of_product(d);
    let upper: Vec<f32> = norms.iter().map(|&norm| error.upper(norm)).collect();
    let is_bounded: Vec<bool> = upper.iter().map(|upper| !upper.is_nan()).collect();
    let shape = [norms.len() as i64];
    let make = || -> Result<LibtorchPoints, TchError> {
        let points = DeviceRows::new(upload(points, d, on)?, &upper, on)?;
        let least = Tensor::f_full(shape, f64::INFINITY, (Kind::Float, on))?;
        Ok(LibtorchPoints { device, points, least, is_bounded })
    };
    Ok(Box::new(make().map_err(|error| failed(device, &error))?))
}

/// Rows and their bound terms on a device.
struct DeviceRows {
    on: tch::Device,
    /// Rows: `[n, d]`.
    rows: Tensor,
    /// Bound term of each row: `[n]`.
    terms: Tensor,
}

impl DeviceRows {
    fn new(rows: Tensor, terms: &[f32], on: tch::Device) -> Result<Self, TchError> {
        Ok(Self { on, rows, terms: Tensor::f_from_slice(terms)?.f_to_device(on)? })
    }
}

/// A bank on the device. Its rows are stored multiplied by -2.
struct LibtorchBank {
    device: Device,
    /// Locked during a search: a tensor can be sent to another thread but not shared, and one product fills a device
    /// anyway.
    rows: Mutex<DeviceRows>,
}

impl DeviceLowerBounds for LibtorchBank {
    fn device(&self) -> Device {
        self.device
    }

    fn queries_at_once(&self, m: usize) -> usize {
        (PRODUCTS / m).max(1)
    }

    fn lowest(
        &self,
        queries: &[f32],
        groups: Option<ExclusionGroups<'_>>,
        count: usize,
    ) -> Result<Lowest, KernelError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        lowest(&rows, queries, groups, count).map_err(|error| failed(self.device, &error))
    }
}

fn lowest(
    bank: &DeviceRows,
    queries: &[f32],
    groups: Option<ExclusionGroups<'_>>,
    count: usize,
) -> Result<Lowest, TchError> {
    let queries = upload(queries, bank.rows.size2()?.1 as usize, bank.on)?;
    let mut bounds = queries.f_mm(&bank.rows.f_tr()?)?.f_add_(&bank.terms)?;
    let infinity = f64::INFINITY;
    // Numbers that overflow rule nothing out: such rows come first.
    bounds = bounds.f_nan_to_num_(-infinity, infinity, -infinity)?;
    if let Some(ExclusionGroups { query, bank: of_bank }) = groups {
        let is_own = group_tensor(query, bank.on)?.f_unsqueeze(1)?;
        let is_own = is_own.f_eq_tensor(&group_tensor(of_bank, bank.on)?)?;
        bounds = bounds.f_masked_fill_(&is_own, infinity)?;
    }
    let (bounds, rows) = bounds.f_topk(count as i64, 1, false, true)?;
    Ok(Lowest { bounds: download(&bounds)?, rows: download(&rows)? })
}

fn group_tensor(groups: &[u32], on: tch::Device) -> Result<Tensor, TchError> {
    let groups: Vec<i64> = groups.iter().map(|&group| i64::from(group)).collect();
    Tensor::f_from_slice(&groups)?.f_to_device(on)?.f_to_kind(Kind::Int64)
}

/// Points on the device, and the least upper bound of the distance of each to any pick so far, `[n]`.
struct LibtorchPoints {
    device: Device,
    points: DeviceRows,
    least: Tensor,
    /// Whether each point has an upper bound: `[n]`.
    is_bounded: Vec<bool>,
}

impl LibtorchPoints {
    /// Lowers the bound of each point to its smallest upper bound over these picks.
    fn approach(&mut self, picks: &[i64]) -> Result<(), TchError> {
        let DeviceRows { on, rows: points, terms: upper } = &self.points;
        let index = Tensor::f_from_slice(picks)?.f_to_device(*on)?;
        let rows = points.f_index_select(0, &index)?.f_mul_scalar_(-2.0)?.f_tr()?;
        let of_picks = upper.f_index_select(0, &index)?;
        let n = self.is_bounded.len();
        let block = (PRODUCTS / picks.len()).max(1);
        for start in (0..n).step_by(block) {
            let (first, count) = (start as i64, block.min(n - start) as i64);
            let products = points.f_narrow(0, first, count)?.f_mm(&rows)?.f_add_(&of_picks)?;
            let bounds = products.f_amin([1], false)?.f_add_(&upper.f_narrow(0, first, count)?)?;
            let mut least = self.least.f_narrow(0, first, count)?;
            let lowered = least.f_minimum(&bounds)?;
            least.f_copy_(&lowered)?;
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

impl UpperBounds for LibtorchPoints {
    fn lower(&mut self, picks: &[u32], bounds: &mut [f32]) -> Result<(), KernelError> {
        // The least over some of the picks is an upper bound, too.
        let bounded = picks.iter().filter(|&&pick| self.is_bounded[pick as usize]);
        let picks: Vec<i64> = bounded.map(|&pick| i64::from(pick)).collect();
        if picks.is_empty() {
            return Ok(());
        }
        self.lower_all(&picks, bounds).map_err(|error| failed(self.device, &error))
    }
}
