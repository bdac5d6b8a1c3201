//! Numeric kernels: slices and numbers in, numbers out. They know no path, file, manifest, event or clock.

pub mod backbone;
pub mod components;
mod copies;
pub mod coreset;
pub mod cutpaste;
pub mod diffusion;
pub mod distance;
pub mod embedding;
pub mod error;
#[cfg(feature = "torch")]
mod libtorch;
pub mod map;
pub mod metrics;
pub mod nearest;
mod product;
pub mod quantile;
pub mod random;
pub mod resize;
pub mod scoring;
pub mod surface;

pub use error::KernelError;
