//! Stubs of the network for builds without libtorch: creating one fails.

use super::{Architecture, DiffusionError, Parameters};
use crate::kernels::backbone::Device;

/// The fields of `LossInputs` in `unet.rs`.
#[expect(dead_code, reason = "read by the network on libtorch alone")]
pub(super) struct LossInputs<'a> {
    pub(super) noisy: &'a [f32],
    pub(super) background: &'a [f32],
    pub(super) masks: &'a [f32],
    pub(super) times: &'a [usize],
    pub(super) wanted: &'a [f32],
    pub(super) weights: &'a [f32],
}

/// Computes gradients; cannot be created in this build.
#[derive(Debug)]
pub(super) enum Gradients {}

impl Gradients {
    pub(super) fn new(_: &Architecture, _: Device) -> Result<Self, DiffusionError> {
        Err(DiffusionError::NotBuilt)
    }

    pub(super) fn compute(&self, _: &[f32], _: &LossInputs<'_>) -> Result<(f64, Parameters), DiffusionError> {
        match *self {}
    }
}

/// A trained network; cannot be created in this build.
#[derive(Debug)]
pub enum Denoiser {}

impl Denoiser {
    /// Fails with [`DiffusionError::NotBuilt`].
    pub fn new(_: &Architecture, _: &Parameters, _: Device) -> Result<Self, DiffusionError> {
        Err(DiffusionError::NotBuilt)
    }

    /// Returns another handle to the same network.
    #[must_use]
    pub fn share(&self) -> Self {
        match *self {}
    }

    /// Returns the output for one patch.
    pub fn predict(&self, _: &[f32], _: &[f32], _: &[f32], _: usize) -> Result<Vec<f32>, DiffusionError> {
        match *self {}
    }
}
