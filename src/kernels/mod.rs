//! Numeric kernels: slices and numbers in, numbers out. They know no path, file, manifest, event or clock.

pub mod backbone;
pub mod components;
pub mod cutpaste;
pub mod diffusion;
pub mod distance;
pub mod embedding;
pub mod error;
mod exact;
#[cfg(test)]
mod golden_file;
#[cfg(feature = "torch")]
mod libtorch;
pub mod map;
pub mod metrics;
#[cfg(test)]
pub(crate) mod mutation;
pub mod polygon;
mod product;
mod projection;
pub mod quantile;
pub mod random;
pub mod resize;
pub(crate) mod sample;
pub mod scoring;
pub mod surface;

pub use error::KernelError;
pub use exact::{coreset, nearest};
