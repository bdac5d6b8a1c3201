//! What the data given to a kernel, or its device, can be wrong in. Wrong shapes are the caller's bug and panic.

use super::backbone::Device;

/// Data that a kernel cannot compute with, or a device that it cannot compute on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A bank without rows has no nearest row.
    #[error("the bank has no rows")]
    EmptyBank,
    /// An image without patches, or a sample without values, has no score.
    #[error("there are no values to summarise")]
    NoValues,
    /// A row holds NaN or an infinity.
    #[error("row {row} holds a number that is not finite")]
    NotFinite {
        /// The first such row.
        row: usize,
    },
    /// `calibrated` scores were asked for without the quantiles of the training patches.
    #[error("`calibrated` needs the quantiles of the normal training patches")]
    CalibrationMissing,
    /// The caller's progress function asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A device in a build that has the processor alone.
    #[error("this build cannot search on `{device}`")]
    NotBuilt {
        /// The device.
        device: Device,
    },
    /// A device that is not there.
    #[error("there is no device `{device}`: libtorch sees {count} CUDA devices")]
    NoDevice {
        /// The device.
        device: Device,
        /// CUDA devices that libtorch can use.
        count: usize,
    },
    /// A device that failed, or does not compute what it should.
    #[error("the search on `{device}` failed: {reason}")]
    Device {
        /// The device.
        device: Device,
        /// The first line of libtorch's reason, or ours.
        reason: String,
    },
}

impl KernelError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotBuilt { .. } => Some(
                "on a GPU machine build with `LIBTORCH_USE_PYTORCH=1 cargo build --release --features torch` \
                 (docs/backends.md); or set search_device = \"cpu\" in patchflow.toml",
            ),
            Self::NoDevice { .. } => Some(
                "see `patchflow doctor`; on a GPU machine build with LIBTORCH_USE_PYTORCH=1 (docs/backends.md); \
                 or set search_device = \"cpu\" in patchflow.toml",
            ),
            Self::Device { .. } => Some(
                "where its memory is short: fewer `jobs`; where products round: unset \
                 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE; or set search_device = \"cpu\" in patchflow.toml",
            ),
            _ => None,
        }
    }
}
