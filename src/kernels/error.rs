//! Errors of kernels: invalid data and unusable devices. A wrong shape is a bug of the caller and panics.

use super::backbone::Device;

/// Why a kernel cannot compute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum KernelError {
    #[error("the bank has no rows")]
    EmptyBank,
    /// An image has no patches, or a sample has no values.
    #[error("there are no values to summarise")]
    NoValues,
    /// A value is NaN or infinite. `row` is the first such row.
    #[error("row {row} holds a number that is not finite")]
    NotFinite { row: usize },
    #[error("`calibrated` needs the quantiles of the normal training patches")]
    CalibrationMissing,
    /// The progress callback returned false: the caller wants to stop.
    #[error("cancelled")]
    Cancelled,
    #[error("this build cannot search on `{device}`")]
    NotBuilt { device: Device },
    /// The CUDA device does not exist. `count` is the number of CUDA devices that libtorch can use.
    #[error("there is no device `{device}`: libtorch sees {count} CUDA devices")]
    NoDevice { device: Device, count: usize },
    /// The device failed, or its products are not f32.
    #[error("the search on `{device}` failed: {reason}")]
    Device { device: Device, reason: String },
}
