//! Access to a libtorch device for exact search: finding it, copying rows to it, making sure its products are f32.
//!
//! A device only rules out or bounds: `squared_euclidean` on the processor decides. So every product may err by
//! what [`ErrorBound`] allows and no more. That covers sums of f32 in any order, fused or not, as cuBLAS computes
//! them by default; not TF32, which libtorch does not use by default, but which an environment variable can switch
//! on (`TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`), and `tch` cannot switch off. So a device is tested ([`find`]) and
//! refused where it rounds factors. Nor does it cover f32 emulated by bf16, which newer cuBLAS offers on request
//! only and which the test would not detect.
//!
//! [`ErrorBound`]: super::distance::ErrorBound

use tch::{Kind, TchError, Tensor};

use super::KernelError;
use super::backbone::{Device, cuda_devices};

/// Largest number of products held at once: 256 MB, and with their copies under 1 GB (chosen, untested on a GPU).
pub(super) const PRODUCTS: usize = 1 << 26;

/// Number of values copied to the device at a time, so that main memory does not hold a second copy of all.
const COPIED: usize = 1 << 24;

/// Side of the product that a device is tested with: large enough for the kernels of real searches.
const TESTED: i64 = 512;

/// Finds a device and makes sure that its products are f32.
///
/// # Errors
/// If it is not there, fails, or rounds factors to less than f32.
pub(super) fn find(device: Device) -> Result<tch::Device, KernelError> {
    let found = match device {
        Device::Cpu => tch::Device::Cpu,
        Device::Cuda(number) => {
            let count = cuda_devices();
            if number >= count {
                return Err(KernelError::NoDevice { device, count });
            }
            tch::Device::Cuda(number)
        }
    };
    if is_f32(found, Kind::Float).map_err(|error| failed(device, &error))? {
        return Ok(found);
    }
    Err(KernelError::Device {
        device,
        reason: "its matrix products round factors to less than f32".to_owned(),
    })
}

/// Returns whether products keep the last bits of their factors. Every sum of `1 + 2^-12`, up to 512 of them, fits
/// into f32; TF32, with 10 bits after the first, gives 512 instead of 512.125. The factors are first rounded to
/// `factors`.
fn is_f32(device: tch::Device, factors: Kind) -> Result<bool, TchError> {
    let number = 1.0 + 2.0_f64.powi(-12);
    let shape = [TESTED, TESTED];
    let left =
        Tensor::f_full(shape, number, (Kind::Float, device))?.f_to_kind(factors)?.f_to_kind(Kind::Float)?;
    let right = Tensor::f_ones(shape, (Kind::Float, device))?;
    let expected = Tensor::f_full(shape, number * TESTED as f64, (Kind::Float, device))?;
    Ok(left.f_mm(&right)?.f_equal(&expected)? && right.f_mm(&left)?.f_equal(&expected)?)
}

/// Copies `rows: [n, d]` to the device.
pub(super) fn upload(rows: &[f32], d: usize, device: tch::Device) -> Result<Tensor, TchError> {
    let shape = [(rows.len() / d) as i64, d as i64];
    let all = Tensor::f_empty(shape, (Kind::Float, device))?;
    let step = (COPIED / d).max(1);
    for (number, some) in rows.chunks(step * d).enumerate() {
        let count = (some.len() / d) as i64;
        let mut part = all.f_narrow(0, (number * step) as i64, count)?;
        part.f_copy_(&Tensor::f_from_slice(some)?.f_view([count, d as i64])?)?;
    }
    Ok(all)
}

/// Copies a tensor's numbers to the processor, row-major.
pub(super) fn download<T: tch::kind::Element + Clone + Default>(tensor: &Tensor) -> Result<Vec<T>, TchError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![T::default(); tensor.numel()];
    let count = values.len();
    tensor.f_copy_data(&mut values, count)?;
    Ok(values)
}

/// Converts an error of libtorch, keeping its first line: the rest is a stack trace of its own code.
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
