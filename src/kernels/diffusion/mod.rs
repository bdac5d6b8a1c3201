//! A small inpainting diffusion model: denoising diffusion (Ho et al. 2020, "Denoising Diffusion Probabilistic
//! Models"), conditioned on a mask and on the surrounding image, sampled with DDIM (Song et al. 2021, "Denoising
//! Diffusion Implicit Models").
//!
//! A patch has a *mask*, which marks the pixels of the defect, and a *hole*, which is the mask plus a margin. The
//! network is given the mask and the patch without the hole, and generates the content of the hole. For an empty mask it
//! generates normal surface. Images are `[3, side, side]` with values in \[-1, 1\]; masks and holes are `[side, side]`
//! with values 0 and 1. All are row-major.
//!
//! The network runs in Rust (`network`), with the same bits on every processor, or on libtorch (feature `torch`), whose bits
//! depend on the processor. On a CPU each patch (with libtorch each part of a training batch, of fixed size) is run on one
//! thread and sums have a fixed order, so the bits do not depend on the number of threads. On a GPU the last bits may
//! differ between runs.

mod architecture;
mod dispatch;
#[cfg(test)]
mod golden;
mod hole;
mod network;
mod recipe;
mod sampler;
mod schedule;
#[cfg(feature = "torch")]
mod torch;
mod trainer;

use super::backbone::Device;

pub use architecture::{Architecture, Parameters};
pub use dispatch::Denoiser;
pub use hole::{blend, dilate, feather};
pub use recipe::{KNOWN_WEIGHT, Recipe};
pub use sampler::{InpaintCondition, Sampling, inpaint};
pub use schedule::{Ddim, Noise, Prediction, Schedule};
pub use trainer::Trainer;

/// Channels of an image.
pub const IMAGE_CHANNELS: usize = 3;

/// Input channels of the network: the noisy patch, the patch without the hole, and the mask.
pub const INPUT_CHANNELS: usize = 2 * IMAGE_CHANNELS + 1;

/// Why a diffusion model cannot be trained or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum DiffusionError {
    #[error("this build of patchflow cannot run diffusion models on the backend `torch`: it has no libtorch")]
    NotBuilt,
    /// The CUDA device does not exist. `count` is the number of CUDA devices that libtorch can use.
    #[error("there is no device `{device}`: libtorch sees {count} CUDA devices")]
    NoDevice { device: Device, count: usize },
    /// libtorch failed. `reason` is the first line of its message.
    #[error("libtorch failed: {reason}")]
    Torch { reason: String },
    /// The loss or the gradient of a step is not finite. Steps are counted from 0.
    #[error("the training diverged: the loss of step {step} is not finite")]
    Diverged { step: usize },
    /// The checkpoint is damaged, or belongs to another network or recipe.
    #[error("the checkpoint does not fit: {reason}")]
    Checkpoint { reason: String },
}

/// A batch of training patches of equal size.
#[derive(Debug, Clone, Default)]
pub struct TrainingBatch {
    /// Images: `[n, 3, side, side]`, values in \[-1, 1\].
    pub images: Vec<f32>,
    /// Masks: `[n, side, side]`, 1 on the defect and 0 elsewhere.
    pub masks: Vec<f32>,
    /// Holes: `[n, side, side]`, 1 where pixels are generated and 0 elsewhere.
    pub holes: Vec<f32>,
    /// Standard normal noise, `[n, 3, side, side]`.
    pub noise: Vec<f32>,
    /// Timesteps, `[n]`; each is less than the number of timesteps of the schedule.
    pub times: Vec<usize>,
}
