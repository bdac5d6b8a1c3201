//! Hints: what a user can do about an error of a kernel. Errors carry facts, this file knows commands and settings.

use crate::kernels::KernelError;
use crate::kernels::backbone::RuntimeError;
use crate::kernels::diffusion::DiffusionError;

/// Returns a hint for an error of the exact search.
pub(super) fn kernel_error(error: &KernelError) -> Option<String> {
    let hint = match error {
        KernelError::NotBuilt { .. } => {
            "on a GPU machine, build with `LIBTORCH_USE_PYTORCH=1 cargo build --release --features torch` \
             (docs/backends.md); or set search_device = \"cpu\" in patchflow.toml"
        }
        KernelError::NoDevice { .. } => {
            "see `patchflow doctor`; on a GPU machine, build with LIBTORCH_USE_PYTORCH=1 (docs/backends.md); \
             or set search_device = \"cpu\" in patchflow.toml"
        }
        KernelError::Device { .. } => {
            "if the device is out of memory, use fewer `jobs`; if its products are rounded, unset \
             TORCH_ALLOW_TF32_CUBLAS_OVERRIDE; or set search_device = \"cpu\" in patchflow.toml"
        }
        KernelError::EmptyBank
        | KernelError::NoValues
        | KernelError::NotFinite { .. }
        | KernelError::CalibrationMissing
        | KernelError::Cancelled => return None,
    };
    Some(hint.to_owned())
}

/// Returns a hint for an error of a backbone.
pub(super) fn runtime_error(error: &RuntimeError) -> Option<String> {
    let hint = match error {
        RuntimeError::NotBuilt(_) => {
            "run `scripts/libtorch.sh`, then build with `cargo build --release --features torch`; \
             or set backend = \"rust\""
        }
        RuntimeError::NoDevice { .. } => {
            "see `patchflow doctor`; on a GPU machine, build with LIBTORCH_USE_PYTORCH=1 (docs/backends.md); \
             or set device = \"cpu\""
        }
        RuntimeError::Unsupported(_) => "set backend = \"torch\"",
        RuntimeError::Backbone(_) | RuntimeError::Torch { .. } => return None,
    };
    Some(hint.to_owned())
}

/// Returns a hint for an error of a diffusion model.
pub(super) fn diffusion_error(error: &DiffusionError) -> Option<String> {
    let hint = match error {
        DiffusionError::NotBuilt => {
            "run `scripts/libtorch.sh` once (540 MB), then build with `cargo build --release --features torch` \
             (docs/backends.md)"
        }
        DiffusionError::NoDevice { .. } => "see `patchflow doctor`; or set device = \"cpu\" in the stage",
        DiffusionError::Torch { .. } => "if memory is short, use a smaller `batch` or fewer `channels`",
        DiffusionError::Diverged { .. } => "lower `learning_rate`",
        DiffusionError::Checkpoint { .. } => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::backbone::{Backend, Device};

    #[test]
    fn missing_devices_and_backends_have_a_hint() {
        let device = Device::Cuda(1);
        assert!(
            kernel_error(&KernelError::NoDevice { device, count: 0 }).unwrap().contains("patchflow doctor")
        );
        assert!(runtime_error(&RuntimeError::NotBuilt(Backend::Torch)).unwrap().contains("--features torch"));
        assert!(diffusion_error(&DiffusionError::NotBuilt).unwrap().contains("scripts/libtorch.sh"));
        assert_eq!(kernel_error(&KernelError::EmptyBank), None);
    }
}
