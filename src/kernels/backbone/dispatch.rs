//! [`Backbone`]: a network on the backend that a [`Target`] names.

use std::num::NonZeroUsize;

use super::error::RuntimeError;
use super::feature_map::FeatureMap;
use super::network::{Layer, Network};
use super::runtime::Runtime;
use super::rust::RustBackbone;
use super::target::{Backend, Target};
use super::weights::Weights;

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

    /// Folds the batch norms into the weights and prepares the network up to the deepest of `layers`.
    ///
    /// # Errors
    /// If the weights do not fit the network, `layers` is empty or repeats a layer, or the target is not
    /// available. There is no fallback to another backend or device.
    pub fn on(
        target: Target,
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        threads: NonZeroUsize,
    ) -> Result<Self, RuntimeError> {
        if !target.is_supported() {
            return Err(RuntimeError::Unsupported(target));
        }
        match target.backend {
            Backend::Rust => Ok(Self(Box::new(RustBackbone::new(network, weights, layers, threads)?))),
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

    /// Runs the network on `pixels: [n, 3, h, w]`, row-major and normalised, and returns one map per layer in
    /// the order that they were requested in, of height `⌈h / stride⌉` and width `⌈w / stride⌉`. An empty batch
    /// gives maps without data.
    ///
    /// On a CPU the maps of an image have the same bits for any number of threads and any division into
    /// batches. On a GPU the last bits may depend on the batch.
    ///
    /// # Panics
    /// If `pixels` does not have `3 · n · h · w` values.
    ///
    /// # Errors
    /// If `h` or `w` is 0, or a pixel is not finite.
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

#[cfg(test)]
mod tests {
    use super::super::target::{Arithmetic, Device};
    use super::*;

    fn refused(target: Target) -> RuntimeError {
        let layers = [Layer::Layer1];
        let weights = Weights::seeded(Network::ResNet18, 1);
        Backbone::on(target, Network::ResNet18, &weights, &layers, NonZeroUsize::MIN).map(|_| ()).unwrap_err()
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let half = Target { arithmetic: Arithmetic::Bf16, ..Target::DEFAULT };
        assert!(matches!(refused(half), RuntimeError::Unsupported(_)));
        let torch = Target { backend: Backend::Torch, device: Device::Cuda(99), ..Target::DEFAULT };
        match refused(torch) {
            RuntimeError::NotBuilt(Backend::Torch) => assert!(!Backend::Torch.is_built()),
            RuntimeError::NoDevice { device, .. } => assert_eq!(device, Device::Cuda(99)),
            other => panic!("{other}"),
        }
    }
}
