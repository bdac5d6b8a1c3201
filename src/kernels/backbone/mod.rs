//! The backbone: an image becomes the maps of a pretrained residual network's layers.
//!
//! `network.rs` describes the networks once; `weights.rs` checks, folds and invents weights; `graph.rs`
//! writes a folded network as ONNX with the writer of `onnx.rs`; `pure.rs` runs it without a native library,
//! `torch.rs` on libtorch (feature `torch`), and `runtime.rs` is the one face of the two. Extraction calls
//! [`Backbone::forward`], export calls [`encode`]. Nothing here reads a file.

mod convolution;
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

pub use feature_map::{FeatureMap, ImageMap};
pub use graph::{INPUT, append, encode};
pub use network::{Convolution, INPUT_CHANNELS, Layer, Network, ResidualBlock, TensorShape};
pub use pixels::{CHANNEL_DEVIATIONS, CHANNEL_MEANS, normalise};
pub use runtime::{Backbone, RuntimeError};
pub use rust::{BackboneError, simd_level};
pub use target::{Arithmetic, Backend, Device, Target, cuda_devices, libtorch_version};
pub use weights::{FoldedConvolution, Tensor, TensorFault, Weights, WeightsError};
