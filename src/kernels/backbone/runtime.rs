//! One face for the ways of running a network.

use std::num::NonZeroUsize;

use super::feature_map::FeatureMap;
use super::network::{Layer, Network};
use super::rust;
use super::rust::BackboneError;
use super::target::{Backend, Device, Target};
use super::weights::Weights;

/// A way of running a network, with its weights in place.
pub(super) trait Runtime: Send + Sync {
    /// See [`Backbone::network`].
    fn network(&self) -> Network;
    /// See [`Backbone::layers`].
    fn layers(&self) -> &[Layer];
    /// See [`Backbone::forward`].
    fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, RuntimeError>;
}

/// Why a network cannot be run on a target.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The weights, the layers or the pixels are wrong, or the default backend failed.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// A backend that this build has not.
    #[error("this build has no backend `{}`", .0.name())]
    NotBuilt(Backend),
    /// A device that is not there.
    #[error("there is no device `{device}`: libtorch sees {count} CUDA devices")]
    NoDevice {
        /// The device.
        device: Device,
        /// CUDA devices that libtorch can use.
        count: usize,
    },
    /// A device or numbers that the backend never has.
    #[error("the backend `{}` has no `{}` on `{}`", .0.backend.name(), .0.arithmetic.name(), .0.device)]
    Unknown(Target),
    /// libtorch failed.
    #[error("libtorch failed on `{network}`")]
    Torch {
        /// The network.
        network: Network,
        /// Its reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RuntimeError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotBuilt(_) => Some(
                "run `scripts/libtorch.sh`, build with `cargo build --release --features torch`; \
                 or set backend = \"rust\"",
            ),
            Self::NoDevice { .. } => Some(
                "see `patchflow doctor`; on a GPU machine build with LIBTORCH_USE_PYTORCH=1 (docs/backends.md); \
                 or set device = \"cpu\"",
            ),
            Self::Unknown(_) => Some("set backend = \"torch\""),
            Self::Backbone(_) | Self::Torch { .. } => None,
        }
    }
}

/// A network with its weights, ready to run with a fixed number of threads.
pub struct Backbone(Box<dyn Runtime>);

impl Backbone {
    /// Prepares the network on [`Target::DEFAULT`]; see [`Backbone::on`].
    pub fn new(
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        threads: NonZeroUsize,
    ) -> Result<Self, RuntimeError> {
        Self::on(Target::DEFAULT, network, weights, layers, threads)
    }

    /// Folds the weights and prepares the network up to the deepest of `layers`.
    ///
    /// # Errors
    /// If the weights do not fit the network, `layers` is empty or names a layer twice, or the target is not
    /// there: never runs elsewhere than it was told.
    pub fn on(
        target: Target,
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        threads: NonZeroUsize,
    ) -> Result<Self, RuntimeError> {
        if !target.is_known() {
            return Err(RuntimeError::Unknown(target));
        }
        match target.backend {
            Backend::Rust => Ok(Self(Box::new(rust::RustBackbone::new(network, weights, layers, threads)?))),
            #[cfg(feature = "torch")]
            Backend::Torch => {
                let Target { device, arithmetic, .. } = target;
                let runtime =
                    super::torch::TorchBackbone::new(network, weights, layers, threads, device, arithmetic)?;
                Ok(Self(Box::new(runtime)))
            }
            #[cfg(not(feature = "torch"))]
            Backend::Torch => Err(RuntimeError::NotBuilt(Backend::Torch)),
        }
    }

    /// The network.
    pub fn network(&self) -> Network {
        self.0.network()
    }

    /// The layers, in the order of [`Backbone::forward`]'s maps.
    pub fn layers(&self) -> &[Layer] {
        self.0.layers()
    }

    /// Runs the network on `pixels`, `[n, 3, h, w]` row-major and normalised, and returns one map a layer, in
    /// the order of [`Backbone::layers`], of height `⌈h / stride⌉` and width `⌈w / stride⌉`. No image gives
    /// maps without data.
    ///
    /// On a processor an image's maps are the same bits for any number of threads and any division into
    /// batches; on a GPU the last bits may depend on the batch.
    ///
    /// # Panics
    /// If `pixels` has not `3 · n · h · w` values.
    ///
    /// # Errors
    /// If an image has no pixel, or a pixel is not finite.
    pub fn forward(
        &self,
        pixels: &[f32],
        n: usize,
        h: usize,
        w: usize,
    ) -> Result<Vec<FeatureMap>, RuntimeError> {
        self.0.forward(pixels, n, h, w)
    }
}

impl Runtime for rust::RustBackbone {
    fn network(&self) -> Network {
        self.network()
    }

    fn layers(&self) -> &[Layer] {
        self.layers()
    }

    fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, RuntimeError> {
        Ok(self.forward(pixels, n, h, w)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Arithmetic;
    use super::*;

    fn refused(target: Target) -> RuntimeError {
        let layers = [Layer::Layer1];
        let weights = Weights::seeded(Network::ResNet18, 1);
        Backbone::on(target, Network::ResNet18, &weights, &layers, NonZeroUsize::MIN).map(|_| ()).unwrap_err()
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let half = Target { arithmetic: Arithmetic::Bf16, ..Target::DEFAULT };
        assert!(matches!(refused(half), RuntimeError::Unknown(_)));
        let torch = Target { backend: Backend::Torch, device: Device::Cuda(99), ..Target::DEFAULT };
        match refused(torch) {
            RuntimeError::NotBuilt(Backend::Torch) => assert!(!Backend::Torch.is_built()),
            RuntimeError::NoDevice { device, .. } => assert_eq!(device, Device::Cuda(99)),
            other => panic!("{other}"),
        }
    }
}
