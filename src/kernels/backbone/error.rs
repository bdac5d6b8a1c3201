//! Errors of building and running a backbone.

use super::network::{Layer, Network};
use super::target::{Backend, Device, Target};
use super::weights::WeightsError;

/// Errors of building or running a backbone that every backend can return.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum BackboneError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error("no layer of `{network}` is requested")]
    NoLayer { network: Network },
    #[error("`{layer}` is requested twice")]
    RepeatedLayer { layer: Layer },
    #[error("an image of {height}×{width} pixels has no features")]
    EmptyImage { height: usize, width: usize },
    /// A pixel is NaN or infinite; `image` is the image's index in the batch.
    #[error("image {image} of the batch holds a pixel that is not finite")]
    NotFinite { image: usize },
    #[error("the threads of `{network}` cannot be started")]
    Threads { network: Network, source: rayon::ThreadPoolBuildError },
}

/// Why a network cannot be run on a [`Target`].
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum RuntimeError {
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error("this build has no backend `{}`", .0.name())]
    NotBuilt(Backend),
    /// The CUDA device does not exist. `count` is the number of CUDA devices that libtorch can use.
    #[error("there is no device `{device}`: libtorch sees {count} CUDA devices")]
    NoDevice { device: Device, count: usize },
    /// The backend does not support this device or this number format on any machine.
    #[error("the backend `{}` has no `{}` on `{}`", .0.backend.name(), .0.arithmetic.name(), .0.device)]
    Unsupported(Target),
    #[error("libtorch failed on `{network}`")]
    Torch { network: Network, source: Box<dyn std::error::Error + Send + Sync> },
}
