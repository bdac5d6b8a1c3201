//! `ddpm`: inpaints defects with a small diffusion model that is trained on the training split itself.
//!
//! The training is one item in the cache, and so is each sample. A larger number of samples thus does not train again.
//! A training that is stopped or killed resumes from its last checkpoint and ends with the same bytes.
//!
//! ```text
//! images/training/network.safetensors      the moving average of the weights
//! images/training/loss.csv                 the loss of each step
//! images/training/loss.svg                 the same as a plot
//! images/training/samples.png              real defects, and synthetic defects with the original surface
//! ```

mod patches;
mod pictures;
mod sampling;
#[cfg(test)]
mod tests;
mod training;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::device::read_device;
use super::super::fields::{Fields, Reader, fields, name_of};
use super::super::{Context, StageError};
use super::Augment;
use super::provenance::SampleOrigin;
use super::sources::Sources;
use crate::artifacts::Files;
use crate::kernels::backbone::{Arithmetic, Backend, Target};
use crate::kernels::diffusion::{Architecture, DiffusionError, Noise, Prediction, Recipe};

/// Channels of the resolution levels, as multiples of the first. Three halvings: 8 px at the lowest for patches of 64
/// px.
const LEVELS: [usize; 4] = [1, 2, 2, 4];
/// Number of groups of each group norm.
const GROUPS: usize = 8;
/// Number of time steps of the noise schedule (Ho et al. 2020, section 4).
const TIMES: usize = 1000;

/// Seconds of one core for a pass of the network, for a pixel and a squared channel (measured: 16 ms for 64 px and 32
/// channels, and three times as long forwards and backwards).
const STEP_SECONDS: f64 = 4e-9;

const BACKENDS: [(&str, Backend); 2] = [("rust", Backend::Rust), ("torch", Backend::Torch)];
const NOISES: [(&str, Noise); 2] = [("cosine", Noise::Cosine), ("linear", Noise::Linear)];
const PREDICTIONS: [(&str, Prediction); 2] = [("v", Prediction::V), ("epsilon", Prediction::Epsilon)];

/// The fields of the method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Painting {
    /// The network.
    pub architecture: Architecture,
    /// How it is trained.
    pub recipe: Recipe,
    /// Share of the training patches that show normal surface.
    pub normal_share: f64,
    /// Number of DDIM steps.
    pub sampling_steps: usize,
    /// Noise of each DDIM step, 0 to 1.
    pub eta: f64,
    /// Weight of classifier-free guidance. 1 means none.
    pub guidance: f64,
    /// Width of the border around a mask that is inpainted too and fades into the image, in px.
    pub blend: usize,
    /// Backend and device for training and sampling, in f32.
    pub target: Target,
}

impl Painting {
    /// The fields that only this method reads, or reads with another default.
    pub(super) const FIELDS: [&str; 15] = [
        "backend",
        "batch",
        "blend",
        "channels",
        "device",
        "ema",
        "eta",
        "guidance",
        "learning_rate",
        "normal_share",
        "prediction",
        "sampling_steps",
        "schedule",
        "side",
        "steps",
    ];

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let multiple = 1 << (LEVELS.len() - 1);
        let side = reader.integer("side", 16..=512, Some(64)) as usize;
        if !side.is_multiple_of(multiple) {
            let message = format!("`side` is {side}, but must be a multiple of {multiple}");
            reader.problem("side", "unfit_side", message, Some("write 64, or 128 on a GPU".to_owned()));
        }
        let channels = reader.integer("channels", 8..=512, Some(32)) as usize;
        if !channels.is_multiple_of(GROUPS) {
            let message = format!("`channels` is {channels}, but must be a multiple of {GROUPS}");
            reader.problem("channels", "unfit_channels", message, None);
        }
        let architecture = Architecture { side, channels, levels: LEVELS.to_vec(), groups: GROUPS };
        let recipe = Recipe {
            steps: reader.integer("steps", 1..=10_000_000, Some(1500)) as usize,
            batch: reader.integer("batch", 1..=4096, Some(8)) as usize,
            learning_rate: reader.float("learning_rate", 1e-7..=1.0, Some(1e-3)),
            ema: reader.float("ema", 0.0..=0.999_999, Some(0.99)),
            noise: reader.choice("schedule", &NOISES, Some("cosine")),
            times: TIMES,
            prediction: reader.choice("prediction", &PREDICTIONS, Some("v")),
        };
        Self {
            architecture,
            recipe,
            normal_share: reader.float("normal_share", 0.0..=0.95, Some(0.5)),
            sampling_steps: reader.integer("sampling_steps", 1..=TIMES as i64, Some(50)) as usize,
            eta: reader.float("eta", 0.0..=1.0, Some(0.0)),
            guidance: reader.float("guidance", 0.0..=20.0, Some(1.0)),
            blend: reader.integer("blend", 0..=32, Some(4)) as usize,
            target: read_target(reader),
        }
    }

    /// Returns the fields that the trained network depends on, without the data, the seed and
    /// [`Motions`](super::Motions).
    fn training_fields(&self) -> Fields {
        let Self {
            architecture,
            recipe,
            normal_share,
            blend,
            target: _,
            sampling_steps: _,
            eta: _,
            guidance: _,
        } = self;
        let Architecture { side, channels, levels, groups } = architecture;
        let Recipe { steps, batch, learning_rate, ema, noise, times, prediction } = recipe;
        let levels: Vec<String> = levels.iter().map(usize::to_string).collect();
        let mut all = fields([
            ("side", (*side).into()),
            ("channels", (*channels).into()),
            ("levels", levels.into()),
            ("groups", (*groups).into()),
            ("steps", (*steps).into()),
            ("batch", (*batch).into()),
            ("learning_rate", (*learning_rate).into()),
            ("ema", (*ema).into()),
            ("schedule", name_of(&NOISES, noise).into()),
            ("times", (*times).into()),
            ("prediction", name_of(&PREDICTIONS, prediction).into()),
            ("normal_share", (*normal_share).into()),
            ("blend", (*blend).into()),
        ]);
        all.extend(self.target_fields());
        all
    }

    /// Returns what of the target bits depend on. Keys of libtorch are older than the other backend, and do not name it.
    fn target_fields(&self) -> Fields {
        let mut all = fields([("device", self.target.device.class().into())]);
        if self.target.backend != Backend::Torch {
            all.insert("backend".to_owned(), self.target.backend.name().into());
        }
        all
    }

    pub(super) fn add_fields(&self, all: &mut Fields) {
        all.extend(self.training_fields());
        all.extend(self.sampling_fields());
    }

    /// Returns the fields that a sample depends on, without the network, the data and the seed.
    fn sampling_fields(&self) -> Fields {
        fields([
            ("sampling_steps", self.sampling_steps.into()),
            ("eta", self.eta.into()),
            ("guidance", self.guidance.into()),
        ])
    }

    /// Returns the seconds of the training and of `count` samples. A training step runs the network forwards and
    /// backwards, which costs as much as three steps of sampling.
    pub(super) fn seconds(&self, count: f64) -> f64 {
        let Self { architecture, recipe, sampling_steps, guidance, .. } = self;
        let passes = if (guidance - 1.0).abs() > 1e-9 { 2.0 } else { 1.0 };
        let trained = 3.0 * (recipe.steps * recipe.batch) as f64;
        let sampled = count * *sampling_steps as f64 * passes;
        let a_patch = (architecture.side * architecture.channels).pow(2) as f64 * STEP_SECONDS;
        (trained + sampled) * a_patch
    }

    /// Checks whether this build contains the backend.
    pub(super) fn preflight(&self) -> Result<(), StageError> {
        if self.target.backend.is_built() {
            return Ok(());
        }
        Err(StageError::kernel("cannot generate defects with `ddpm`", DiffusionError::NotBuilt))
    }

    /// Trains the network and writes the samples into `set`.
    pub(super) fn run(
        &self,
        spec: &Augment,
        files: &Files,
        set: &Path,
        context: &Context<'_>,
    ) -> Result<Vec<SampleOrigin>, StageError> {
        self.preflight()?;
        let sources = Sources::read(spec, self.blend, files, context)?;
        let trained = training::train(self, spec, &sources, context)?;
        sampling::sample(self, spec, &sources, &trained, set, context)
    }
}

fn read_target(reader: &mut Reader<'_>) -> Target {
    let backend = reader.choice("backend", &BACKENDS, Some("rust"));
    let device = read_device(reader, backend);
    let target = Target { backend, device, arithmetic: Arithmetic::F32 };
    if target.is_supported() {
        return target;
    }
    let help = "set backend = \"torch\"; it needs a build with the feature `torch`".to_owned();
    let message = "the backend `rust` supports only the CPU".to_owned();
    reader.problem("device", "unfit_backend", message, Some(help));
    Target::DEFAULT
}

fn failed(what: &str) -> impl Fn(DiffusionError) -> StageError + '_ {
    move |error| StageError::kernel(what, error)
}
