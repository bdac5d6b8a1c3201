//! The functions of `libtorch.rs` in a build without libtorch: they fail, because there is no device.

use super::{DeviceLowerBounds, UpperBounds};
use crate::kernels::KernelError;
use crate::kernels::backbone::Device;

pub(in super::super) fn find_device(device: Device) -> Result<(), KernelError> {
    Err(KernelError::NotBuilt { device })
}

pub(in super::super) fn device_lower_bounds(
    device: Device,
    _: &[f32],
    _: usize,
    _: &[f32],
) -> Result<Box<dyn DeviceLowerBounds>, KernelError> {
    Err(KernelError::NotBuilt { device })
}

pub(in super::super) fn device_upper_bounds(
    device: Device,
    _: &[f32],
    _: usize,
    _: &[f32],
) -> Result<Box<dyn UpperBounds>, KernelError> {
    Err(KernelError::NotBuilt { device })
}
