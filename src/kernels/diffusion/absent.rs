//! The network of builds without libtorch: it cannot be made.

use super::{Architecture, DiffusionError, Parameters};
use crate::kernels::backbone::Device;

/// See the network on libtorch.
#[expect(dead_code, reason = "read by the network on libtorch alone")]
pub(super) struct LossInputs<'a> {
    pub(super) noisy: &'a [f32],
    pub(super) background: &'a [f32],
    pub(super) masks: &'a [f32],
    pub(super) times: &'a [usize],
    pub(super) wanted: &'a [f32],
    pub(super) weights: &'a [f32],
}

/// Where gradients are computed: nowhere in this build.
#[derive(Debug)]
pub(super) enum Gradients {}

impl Gradients {
    pub(super) fn new(_: &Architecture, _: Device) -> Result<Self, DiffusionError> {
        Err(DiffusionError::NotBuilt)
    }

    pub(super) fn of(&self, _: &[f32], _: &LossInputs<'_>) -> Result<(f64, Parameters), DiffusionError> {
        match *self {}
    }
}

/// A trained network: none in this build.
#[derive(Debug)]
pub enum Denoiser {}

impl Denoiser {
    /// Fails: this build has no libtorch.
    pub fn new(_: &Architecture, _: &Parameters, _: Device) -> Result<Self, DiffusionError> {
        Err(DiffusionError::NotBuilt)
    }

    /// Another handle of the same network.
    #[must_use]
    pub fn share(&self) -> Self {
        match *self {}
    }

    /// The output for one patch at a time.
    pub fn predict(&self, _: &[f32], _: &[f32], _: &[f32], _: usize) -> Result<Vec<f32>, DiffusionError> {
        match *self {}
    }
}
