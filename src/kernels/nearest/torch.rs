//! A bank on libtorch's device: the rows of least lower bound of each query.

use std::sync::{Mutex, PoisonError};

use tch::{Kind, TchError, Tensor};

use super::device::{Groups, Least};
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;
use crate::kernels::libtorch::{PRODUCTS, download, failed, find, upload};

/// Rows and their shares of lower bounds, on a device.
pub(super) struct Torch {
    device: Device,
    /// Tensors can be sent to another thread, but not be shared with it; and one product fills a device.
    rows: Mutex<Placed>,
}

struct Placed {
    place: tch::Device,
    /// `-2` times the rows, `[m, d]`: doubling rounds nothing, and saves a pass over the products.
    rows: Tensor,
    lower: Tensor,
}

impl Torch {
    /// Brings `rows: [m, d]` and their shares to the device.
    pub(super) fn new(device: Device, rows: &[f32], d: usize, lower: &[f32]) -> Result<Self, KernelError> {
        let place = find(device)?;
        let rows = Placed::new(place, rows, d, lower).map_err(|error| failed(device, &error))?;
        Ok(Self { device, rows: Mutex::new(rows) })
    }

    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Queries of one search, for a bank of `m` rows.
    pub(super) fn block(m: usize) -> usize {
        (PRODUCTS / m).max(1)
    }

    /// Finds for each of `queries: [n, d]` the `count` rows of the least lower bounds; `count` is at most `m`.
    pub(super) fn least(
        &self,
        queries: &[f32],
        groups: Option<&Groups<'_>>,
        count: usize,
    ) -> Result<Least, KernelError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.least(queries, groups, count).map_err(|error| failed(self.device, &error))
    }
}

impl Placed {
    fn new(place: tch::Device, rows: &[f32], d: usize, lower: &[f32]) -> Result<Self, TchError> {
        let rows = upload(rows, d, place)?.f_mul_scalar_(-2.0)?;
        Ok(Self { place, rows, lower: Tensor::f_from_slice(lower)?.f_to_device(place)? })
    }

    fn least(&self, queries: &[f32], groups: Option<&Groups<'_>>, count: usize) -> Result<Least, TchError> {
        let queries = upload(queries, self.rows.size2()?.1 as usize, self.place)?;
        let mut lower = queries.f_mm(&self.rows.f_tr()?)?.f_add_(&self.lower)?;
        let infinity = f64::INFINITY;
        // Numbers that overflow rule nothing out: such rows come first.
        lower = lower.f_nan_to_num_(-infinity, infinity, -infinity)?;
        if let Some(Groups { query, bank }) = groups {
            let is_own = self.numbers(query)?.f_unsqueeze(1)?.f_eq_tensor(&self.numbers(bank)?)?;
            lower = lower.f_masked_fill_(&is_own, infinity)?;
        }
        let (lower, rows) = lower.f_topk(count as i64, 1, false, true)?;
        Ok(Least { lower: download(&lower)?, rows: download(&rows)? })
    }

    fn numbers(&self, groups: &[u32]) -> Result<Tensor, TchError> {
        let groups: Vec<i64> = groups.iter().map(|&group| i64::from(group)).collect();
        Tensor::f_from_slice(&groups)?.f_to_device(self.place)?.f_to_kind(Kind::Int64)
    }
}
