//! The bank on a device of builds that have none: it cannot be made.

use super::device::{Groups, Least};
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;

/// See the module.
pub(super) enum Torch {}

impl Torch {
    pub(super) fn new(device: Device, _: &[f32], _: usize, _: &[f32]) -> Result<Self, KernelError> {
        Err(KernelError::NotBuilt { device })
    }

    pub(super) fn device(&self) -> Device {
        match *self {}
    }

    pub(super) fn block(m: usize) -> usize {
        m
    }

    pub(super) fn least(&self, _: &[f32], _: Option<&Groups<'_>>, _: usize) -> Result<Least, KernelError> {
        match *self {}
    }
}
