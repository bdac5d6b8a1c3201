//! Shared by the kernels that search on a device with libtorch: opening the device, copying rows to it, and checking
//! that its matrix products are f32.
//!
//! A device only computes bounds; `squared_euclidean` on the CPU decides. So the error of each product must stay
//! within [`Margin`]. This covers f32 sums in any order, fused or not, which is what cuBLAS computes by default. It
//! does not cover TF32. libtorch does not use TF32 by default, but an environment variable
//! (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`) can enable it, and `tch` cannot disable it. So [`find`] tests a device and
//! refuses one that rounds factors. Neither does [`Margin`] cover f32 emulated with bf16, which newer versions of
//! cuBLAS offer on request only; the test would not detect it.
//!
//! [`Margin`]: super::distance::Margin

use tch::{Kind, TchError, Tensor};

use super::KernelError;
use super::backbone::{Device, cuda_devices};

/// Largest number of values of a matrix product that is held at once: 256 MB, with temporary copies less than 1 GB
/// (chosen, untested on a GPU).
pub(super) const PRODUCTS: usize = 1 << 26;

/// Values that are copied to the device at once, so that host memory does not hold a second copy of all rows.
const COPIED: usize = 1 << 24;

/// Side of the matrices that a device is tested with: large enough for the algorithms of large products.
const TRIED: i64 = 512;

/// Opens a device and checks that its matrix products are f32.
///
/// # Errors
/// If the device does not exist, fails, or rounds factors to less than f32.
pub(super) fn find(device: Device) -> Result<tch::Device, KernelError> {
    let tch_device = match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(number) => {
            let count = cuda_devices();
            if number >= count {
                return Err(KernelError::NoDevice { device, count });
            }
            tch::Device::Cuda(number)
        }
    };
    if is_f32(tch_device, Kind::Float).map_err(|error| failed(device, &error))? {
        return Ok(tch_device);
    }
    Err(KernelError::Device {
        device,
        reason: "its matrix products round factors to less than f32".to_owned(),
    })
}

/// Returns whether matrix products keep the last bits of their factors, which are rounded to `factors` first.
///
/// Multiplies `1 + 2^-12` by 1. Every sum of up to 512 of these is exact in f32; in TF32, with 10 bits after the
/// first, the result is 512 instead of 512.125.
fn is_f32(tch_device: tch::Device, factors: Kind) -> Result<bool, TchError> {
    let number = 1.0 + 2.0_f64.powi(-12);
    let shape = [TRIED, TRIED];
    let left = Tensor::f_full(shape, number, (Kind::Float, tch_device))?
        .f_to_kind(factors)?
        .f_to_kind(Kind::Float)?;
    let right = Tensor::f_ones(shape, (Kind::Float, tch_device))?;
    let expected = Tensor::f_full(shape, number * TRIED as f64, (Kind::Float, tch_device))?;
    Ok(left.f_mm(&right)?.f_equal(&expected)? && right.f_mm(&left)?.f_equal(&expected)?)
}

/// Copies `rows: [n, d]` to the device.
pub(super) fn upload(rows: &[f32], d: usize, tch_device: tch::Device) -> Result<Tensor, TchError> {
    let shape = [(rows.len() / d) as i64, d as i64];
    let all = Tensor::f_empty(shape, (Kind::Float, tch_device))?;
    let step = (COPIED / d).max(1);
    for (number, some) in rows.chunks(step * d).enumerate() {
        let count = (some.len() / d) as i64;
        let mut part = all.f_narrow(0, (number * step) as i64, count)?;
        part.f_copy_(&Tensor::f_from_slice(some)?.f_view([count, d as i64])?)?;
    }
    Ok(all)
}

/// Copies the values of a tensor to the CPU, row-major.
pub(super) fn download<T: tch::kind::Element + Clone + Default>(tensor: &Tensor) -> Result<Vec<T>, TchError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![T::default(); tensor.numel()];
    let count = values.len();
    tensor.f_copy_data(&mut values, count)?;
    Ok(values)
}

/// Converts an error of libtorch. Keeps the first line of its message; the rest is a stack trace of libtorch.
pub(super) fn failed(device: Device, error: &TchError) -> KernelError {
    let reason = error.to_string();
    KernelError::Device { device, reason: reason.lines().next().unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_multiplies_in_f32() {
        assert_eq!(find(Device::Cpu), Ok(tch::Device::Cpu));
    }

    #[test]
    fn a_product_of_rounded_factors_is_seen() {
        // Half precision has as many bits as TF32.
        for factors in [Kind::Half, Kind::BFloat16] {
            assert!(!is_f32(tch::Device::Cpu, factors).unwrap(), "{factors:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        let device = Device::Cuda(99);
        assert_eq!(find(device), Err(KernelError::NoDevice { device, count: cuda_devices() }));
    }

    #[test]
    fn rows_come_back_as_they_went() {
        let rows: Vec<f32> = (0..600_000).map(|x| x as f32).collect();
        let there = upload(&rows, 3, tch::Device::Cpu).unwrap();
        assert_eq!(there.size(), [200_000, 3]);
        assert_eq!(download::<f32>(&there).unwrap(), rows);
    }
}
