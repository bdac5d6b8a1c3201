//! A small inpainting diffusion model: denoising diffusion (Ho et al. 2020, "Denoising Diffusion Probabilistic
//! Models"), conditioned on a mask and on what is around it, sampled by DDIM (Song et al. 2021, "Denoising
//! Diffusion Implicit Models").
//!
//! A patch has a *mask*, where a defect is or shall be, and a *hole*, the mask and a margin around it: the
//! network sees the patch outside of the hole and the mask, and paints what is inside. Where the mask is empty it
//! paints surface without a defect. Images are `[3, side, side]` of -1 to 1, masks and holes `[side, side]` of
//! 0 or 1, both row-major.
//!
//! Schedules, the sampler and the recipe are plain arithmetic and in every build. The network runs on libtorch
//! (feature `torch`); without it a [`Trainer`] or [`Denoiser`] cannot be made. On a processor each patch, or a fixed
//! part of a batch, goes through on one thread, and sums have a fixed order: bits do not depend on the number of
//! threads. On a GPU they may differ from run to run in the last place.

#[cfg(not(feature = "torch"))]
mod absent;
mod architecture;
#[cfg(test)]
mod golden;
mod hole;
mod recipe;
mod sampler;
mod schedule;
mod trainer;
#[cfg(feature = "torch")]
mod unet;

use super::backbone::Device;

#[cfg(not(feature = "torch"))]
pub use absent::Denoiser;
pub use architecture::{Architecture, Parameters};
pub use hole::{blend, dilate, feather};
pub use recipe::{KNOWN_WEIGHT, Recipe};
pub use sampler::{InpaintCondition, Sampling, inpaint};
pub use schedule::{Ddim, Noise, Prediction, Schedule};
pub use trainer::Trainer;
#[cfg(feature = "torch")]
pub use unet::Denoiser;

/// Channels of an image.
pub const IMAGE_CHANNELS: usize = 3;

/// What the network is given: the noisy patch, the patch without the hole, and the mask.
pub const INPUT_CHANNELS: usize = 2 * IMAGE_CHANNELS + 1;

/// Why a diffusion model cannot be trained or run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiffusionError {
    /// A build without libtorch.
    #[error("this build of patchflow cannot run diffusion models: it has no libtorch")]
    NotBuilt,
    /// A device that is not there.
    #[error("there is no device `{device}`: libtorch sees {count} CUDA devices")]
    NoDevice {
        /// The device.
        device: Device,
        /// CUDA devices that libtorch can use.
        count: usize,
    },
    /// libtorch failed.
    #[error("libtorch failed: {reason}")]
    Torch {
        /// The first line of its reason.
        reason: String,
    },
    /// The loss is no number any more.
    #[error("the training diverged: the loss of step {step} is not finite")]
    Diverged {
        /// The step, from 0.
        step: usize,
    },
    /// A checkpoint that does not fit.
    #[error("the checkpoint does not fit: {reason}")]
    Checkpoint {
        /// What is wrong with it.
        reason: String,
    },
}

impl DiffusionError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::NotBuilt => Some(
                "run `scripts/libtorch.sh` once (540 MB), then build with `cargo build --release --features torch` \
                 (docs/backends.md)",
            ),
            Self::NoDevice { .. } => Some("see `patchflow doctor`; or set device = \"cpu\" in the stage"),
            Self::Torch { .. } => Some("where memory is short: a smaller `batch` or fewer `channels`"),
            Self::Diverged { .. } => Some("lower `learning_rate`"),
            Self::Checkpoint { .. } => None,
        }
    }
}

/// Whether this build can train and run diffusion models.
pub fn is_built() -> bool {
    cfg!(feature = "torch")
}

/// Patches to train on, all of one side.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// `[n, 3, side, side]`.
    pub images: Vec<f32>,
    /// `[n, side, side]`.
    pub masks: Vec<f32>,
    /// `[n, side, side]`.
    pub holes: Vec<f32>,
    /// Standard normal numbers, `[n, 3, side, side]`.
    pub noise: Vec<f32>,
    /// `[n]`, each less than the schedule's steps.
    pub times: Vec<usize>,
}
