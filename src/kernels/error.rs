//! What the data given to a kernel can be wrong in. Wrong shapes are the caller's bug and panic.

/// Data that a kernel cannot compute with.
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
}
