//! Backbones: pretrained residual networks that turn an image into feature maps.
//!
//! | file | content |
//! |---|---|
//! | `network` | the one description of each network: tensor names, shapes, strides |
//! | `weights` | weights: checked, batch norms folded, seeded random initialisation |
//! | `pixels` | normalisation of RGB bytes |
//! | `target` | backend, device and arithmetic |
//! | `dispatch` | [`Backbone`], which runs a network on the backend of a [`Target`] |
//! | `runtime` | the interface that backends implement, and their shared checks |
//! | `rust` | the Rust backend, with `convolution` (`direct` or `winograd`), `pooling` and `padded` (its buffers) |
//! | `torch` | the libtorch backend (feature `torch`) |
//! | `graph`, `onnx` | a network as an ONNX model |
//!
//! Feature extraction calls [`Backbone::forward`]; export will call [`encode`]. Nothing here reads a file.

mod convolution;
mod direct;
mod dispatch;
mod error;
mod feature_map;
mod graph;
mod network;
pub mod onnx;
mod padded;
mod pixels;
mod pooling;
mod runtime;
mod rust;
mod target;
#[cfg(feature = "torch")]
mod torch;
mod weights;
mod winograd;

pub use dispatch::Backbone;
pub use error::{BackboneError, RuntimeError};
pub use feature_map::{FeatureMap, ImageMap};
pub use graph::{INPUT, append, encode};
pub use network::{Convolution, INPUT_CHANNELS, Layer, Network, ResidualBlock, TensorShape};
pub use pixels::{CHANNEL_DEVIATIONS, CHANNEL_MEANS, normalise};
pub use rust::simd_level;
pub use target::{Arithmetic, Backend, Device, Target, cuda_devices, libtorch_version};
pub use weights::{FoldedConvolution, Prefix, Tensor, TensorFault, Weights, WeightsError};
