//! Chooses the implementation of the network by the backend of a [`Target`]: [`super::network`] in Rust, or libtorch.

use super::network;
use super::{Architecture, DiffusionError, IMAGE_CHANNELS, Parameters};
use crate::kernels::backbone::{Backend, Device, Target};

/// The inputs, targets and weights of the loss of a batch: [`super::TrainingBatch`] with noise added.
pub(super) struct LossInputs<'a> {
    /// Patches with noise added, `[n, 3, side, side]`.
    pub(super) noisy: &'a [f32],
    /// Patches without the content of the hole, `[n, 3, side, side]`.
    pub(super) background: &'a [f32],
    /// Masks of the defects, `[n, side, side]`.
    pub(super) masks: &'a [f32],
    /// Timestep of each patch, `[n]`.
    pub(super) times: &'a [usize],
    /// Target outputs, `[n, 3, side, side]`.
    pub(super) wanted: &'a [f32],
    /// Weights of the squared errors in the loss, `[n, side, side]`.
    pub(super) weights: &'a [f32],
}

/// What the network is given for one patch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patch<'a> {
    /// The patch with noise, `[3, side, side]`.
    pub(super) noisy: &'a [f32],
    /// The patch without the content of the hole, `[3, side, side]`.
    pub(super) background: &'a [f32],
    /// The mask of the defect, `[side, side]`.
    pub(super) mask: &'a [f32],
    pub(super) time: usize,
}

/// Computes gradients.
#[derive(Debug)]
pub(super) enum Gradients {
    Rust(network::Gradients),
    #[cfg(feature = "torch")]
    Torch(super::torch::Gradients),
}

impl Gradients {
    /// # Errors
    /// If this build has no such backend, or the device does not exist.
    pub(super) fn new(architecture: &Architecture, target: Target) -> Result<Self, DiffusionError> {
        match (target.backend, target.device) {
            (Backend::Rust, Device::Cpu) => Ok(Self::Rust(network::Gradients::new(architecture))),
            #[cfg(feature = "torch")]
            (Backend::Torch, device) => Ok(Self::Torch(super::torch::Gradients::new(architecture, device)?)),
            (backend, device) => Err(unsupported(backend, device)),
        }
    }

    /// Returns the loss and its gradient.
    ///
    /// # Errors
    /// If libtorch fails.
    #[cfg_attr(not(feature = "torch"), expect(clippy::unnecessary_wraps, reason = "libtorch can fail"))]
    pub(super) fn compute(
        &self,
        parameters: &[f32],
        loss_inputs: &LossInputs<'_>,
    ) -> Result<(f64, Parameters), DiffusionError> {
        match self {
            Self::Rust(gradients) => Ok(gradients.compute(parameters, loss_inputs)),
            #[cfg(feature = "torch")]
            Self::Torch(gradients) => gradients.compute(parameters, loss_inputs),
        }
    }
}

/// A trained network.
#[derive(Debug)]
pub struct Denoiser {
    network: Network,
    side: usize,
}

#[derive(Debug)]
enum Network {
    Rust(network::Denoiser),
    #[cfg(feature = "torch")]
    Torch(super::torch::Denoiser),
}

impl Denoiser {
    /// Prepares the network on a backend and device.
    ///
    /// # Errors
    /// If this build has no such backend, the device does not exist, or libtorch fails.
    ///
    /// # Panics
    /// If the number of parameters is not that of the architecture.
    pub fn new(
        architecture: &Architecture,
        parameters: &Parameters,
        target: Target,
    ) -> Result<Self, DiffusionError> {
        let network = match (target.backend, target.device) {
            (Backend::Rust, Device::Cpu) => Network::Rust(network::Denoiser::new(architecture, parameters)),
            #[cfg(feature = "torch")]
            (Backend::Torch, device) => {
                Network::Torch(super::torch::Denoiser::new(architecture, parameters, device)?)
            }
            (backend, device) => return Err(unsupported(backend, device)),
        };
        Ok(Self { network, side: architecture.side })
    }

    /// Returns another handle to the same network, for another thread.
    #[must_use]
    pub fn share(&self) -> Self {
        let network = match &self.network {
            Network::Rust(network) => Network::Rust(network.share()),
            #[cfg(feature = "torch")]
            Network::Torch(network) => Network::Torch(network.share()),
        };
        Self { network, side: self.side }
    }

    /// Returns the output for one patch at timestep `time`. `noisy` and `background` are `[3, side, side]`, `mask` is
    /// `[side, side]`.
    ///
    /// # Errors
    /// If libtorch fails.
    ///
    /// # Panics
    /// If the shapes do not fit the network.
    pub fn predict(
        &self,
        noisy: &[f32],
        background: &[f32],
        mask: &[f32],
        time: usize,
    ) -> Result<Vec<f32>, DiffusionError> {
        assert_eq!(noisy.len(), IMAGE_CHANNELS * self.side.pow(2), "a patch of side {}", self.side);
        assert_eq!(noisy.len(), background.len(), "a background of the patch's size");
        assert_eq!(mask.len(), self.side.pow(2), "a mask of the patch's size");
        let patch = Patch { noisy, background, mask, time };
        match &self.network {
            Network::Rust(network) => Ok(network.predict(&patch)),
            #[cfg(feature = "torch")]
            Network::Torch(network) => network.predict(&patch),
        }
    }
}

fn unsupported(backend: Backend, device: Device) -> DiffusionError {
    if backend.is_built() { DiffusionError::NoDevice { device, count: 0 } } else { DiffusionError::NotBuilt }
}
