//! Training: adds noise to patches, computes the gradient of the loss, and updates the weights (Adam) and their moving
//! average.
//!
//! The complete state between steps is in plain vectors, so that a training that is stopped and resumed gives the same
//! bits as one that is not.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

use super::dispatch::{Gradients, LossInputs};
use super::{
    Architecture, DiffusionError, IMAGE_CHANNELS, KNOWN_WEIGHT, Parameters, Prediction, Recipe, Schedule,
    TrainingBatch,
};
use crate::kernels::backbone::Target;

/// `β₁`, `β₂` and `ε` of Adam (Kingma and Ba 2015, section 2).
const ADAM_BETAS: (f64, f64) = (0.9, 0.999);
const ADAM_EPSILON: f64 = 1e-8;

/// Gradients are clipped to this norm, as in the code of Ho et al.
const MAX_GRADIENT_NORM: f64 = 1.0;

/// A network in training.
#[derive(Debug)]
pub struct Trainer {
    gradients: Gradients,
    recipe: Recipe,
    schedule: Schedule,
    side: usize,
    state: TrainerState,
}

/// The state between steps, which is the content of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
struct TrainerState {
    parameters: Parameters,
    /// Moving average of the parameters, which is the trained network.
    average: Parameters,
    /// First moments of Adam, one for each parameter.
    first: Vec<f32>,
    /// Second moments of Adam, one for each parameter.
    second: Vec<f32>,
    /// The loss of each step so far.
    losses: Vec<f32>,
}

/// Names of the tensors of a checkpoint, in the order of the fields.
const PARTS: [&str; 5] = ["parameters", "average", "first", "second", "losses"];

impl TrainerState {
    fn new(parameters: Parameters) -> Self {
        let (average, zeros) = (parameters.clone(), vec![0.0; parameters.len()]);
        Self { parameters, average, first: zeros.clone(), second: zeros, losses: Vec::new() }
    }

    fn to_bytes(&self) -> Result<Vec<u8>, DiffusionError> {
        let Self { parameters, average, first, second, losses } = self;
        let bytes =
            |values: &Vec<f32>| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let parts = [parameters, average, first, second, losses].map(bytes);
        let mut named = Vec::new();
        for (name, bytes) in PARTS.into_iter().zip(&parts) {
            named.push((name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(unfit)?));
        }
        serialize(named, None::<HashMap<String, String>>).map_err(unfit)
    }

    fn from_bytes(bytes: &[u8], len: usize) -> Result<Self, DiffusionError> {
        let file = SafeTensors::deserialize(bytes).map_err(unfit)?;
        let read = |name: &str| -> Result<Vec<f32>, DiffusionError> {
            let tensor = file.tensor(name).map_err(unfit)?;
            if tensor.dtype() != Dtype::F32 {
                return Err(unfit(format!("`{name}` is not f32")));
            }
            let number = |four: &[u8]| f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            Ok(tensor.data().chunks_exact(4).map(number).collect())
        };
        let [parameters, average, first, second, losses] = PARTS.map(read);
        let state = Self {
            parameters: parameters?,
            average: average?,
            first: first?,
            second: second?,
            losses: losses?,
        };
        let lengths = [&state.parameters, &state.average, &state.first, &state.second].map(Vec::len);
        if lengths != [len; 4] {
            return Err(unfit(format!("it has {lengths:?} numbers, the network {len}")));
        }
        Ok(state)
    }

    /// Updates the parameters with one step of Adam (Kingma and Ba 2015, algorithm 1), then the moving average.
    fn advance(&mut self, gradient: &[f32], rate: f64, ema: f64) {
        let count = self.losses.len() as i32 + 1;
        let norm = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt();
        let shrink = (MAX_GRADIENT_NORM / (norm + 1e-6)).min(1.0);
        let (one, two) = ADAM_BETAS;
        let (bias_one, bias_two) = (1.0 - one.powi(count), 1.0 - two.powi(count));
        for (index, parameter) in self.parameters.iter_mut().enumerate() {
            let g = f64::from(gradient[index]) * shrink;
            let first = one * f64::from(self.first[index]) + (1.0 - one) * g;
            let second = two * f64::from(self.second[index]) + (1.0 - two) * g * g;
            (self.first[index], self.second[index]) = (first as f32, second as f32);
            let step = rate * (first / bias_one) / ((second / bias_two).sqrt() + ADAM_EPSILON);
            *parameter = (f64::from(*parameter) - step) as f32;
            let average = &mut self.average[index];
            *average = (ema * f64::from(*average) + (1.0 - ema) * f64::from(*parameter)) as f32;
        }
    }
}

impl Trainer {
    /// Starts a training with seeded initial parameters.
    ///
    /// # Errors
    /// If this build has no such backend, or the device does not exist.
    pub fn new(
        architecture: &Architecture,
        recipe: &Recipe,
        seed: u64,
        target: Target,
    ) -> Result<Self, DiffusionError> {
        let state = TrainerState::new(architecture.initial(seed));
        Self::with(architecture, recipe, state, target)
    }

    /// Resumes a training from a checkpoint.
    ///
    /// # Errors
    /// As [`Self::new`], and [`DiffusionError::Checkpoint`] if the checkpoint is damaged or of another network.
    pub fn resume(
        architecture: &Architecture,
        recipe: &Recipe,
        checkpoint: &[u8],
        target: Target,
    ) -> Result<Self, DiffusionError> {
        let state = TrainerState::from_bytes(checkpoint, architecture.count())?;
        if state.losses.len() > recipe.steps {
            return Err(unfit(format!("it is {} steps on, of {}", state.losses.len(), recipe.steps)));
        }
        Self::with(architecture, recipe, state, target)
    }

    fn with(
        architecture: &Architecture,
        recipe: &Recipe,
        state: TrainerState,
        target: Target,
    ) -> Result<Self, DiffusionError> {
        Ok(Self {
            gradients: Gradients::new(architecture, target)?,
            schedule: Schedule::new(recipe.noise, recipe.times),
            recipe: recipe.clone(),
            side: architecture.side,
            state,
        })
    }

    /// Returns the loss of each step so far.
    pub fn losses(&self) -> &[f32] {
        &self.state.losses
    }

    /// Returns the moving average of the parameters.
    pub fn average(&self) -> &Parameters {
        &self.state.average
    }

    /// Returns a checkpoint in the safetensors format, from which another process can resume the training.
    ///
    /// # Errors
    /// If the format cannot represent the tensors, which does not happen for these names and shapes.
    pub fn checkpoint(&self) -> Result<Vec<u8>, DiffusionError> {
        self.state.to_bytes()
    }

    /// Trains one step on a batch and returns its loss.
    ///
    /// # Errors
    /// [`DiffusionError::Diverged`] if the loss or the gradient is not finite; [`DiffusionError::Torch`] if libtorch
    /// fails.
    ///
    /// # Panics
    /// If the shapes of the batch do not agree.
    pub fn step(&mut self, batch: &TrainingBatch) -> Result<f32, DiffusionError> {
        let done = self.state.losses.len();
        let noised = NoisedBatch::new(batch, &self.schedule, self.recipe.prediction, self.side);
        let (loss, gradient) = self.gradients.compute(&self.state.parameters, &noised.loss_inputs(batch))?;
        if !loss.is_finite() || gradient.iter().any(|number| !number.is_finite()) {
            return Err(DiffusionError::Diverged { step: done });
        }
        self.state.advance(&gradient, self.recipe.learning_rate_at(done), self.recipe.ema_at(done));
        self.state.losses.push(loss as f32);
        Ok(loss as f32)
    }
}

fn unfit(reason: impl std::fmt::Display) -> DiffusionError {
    DiffusionError::Checkpoint { reason: reason.to_string() }
}

/// A batch with noise added, and the targets and weights of its loss. Shapes as in [`LossInputs`].
struct NoisedBatch {
    noisy: Vec<f32>,
    background: Vec<f32>,
    wanted: Vec<f32>,
    weights: Vec<f32>,
}

impl NoisedBatch {
    /// Adds noise: `x_t = √ᾱ · x₀ + √(1-ᾱ) · ε` (Ho et al. 2020, eq. 4). All patches have the same total weight. Within a
    /// patch, pixels outside of the hole have [`KNOWN_WEIGHT`] times the weight of pixels in the hole.
    fn new(batch: &TrainingBatch, schedule: &Schedule, prediction: Prediction, side: usize) -> Self {
        let (n, pixels) = (batch.times.len(), side * side);
        let size = IMAGE_CHANNELS * pixels;
        let lengths = [&batch.images, &batch.noise, &batch.masks, &batch.holes].map(Vec::len);
        assert_eq!(lengths, [n * size, n * size, n * pixels, n * pixels], "a batch of {n} of side {side}");
        let mut noised = Self {
            noisy: Vec::with_capacity(n * size),
            background: Vec::with_capacity(n * size),
            wanted: Vec::with_capacity(n * size),
            weights: Vec::with_capacity(n * pixels),
        };
        for (patch, &time) in batch.times.iter().enumerate() {
            let alpha = schedule.alpha(time);
            let (signal, blur) = (alpha.sqrt() as f32, (1.0 - alpha).sqrt() as f32);
            let hole = &batch.holes[patch * pixels..][..pixels];
            for index in 0..size {
                let (image, noise) = (batch.images[patch * size + index], batch.noise[patch * size + index]);
                noised.noisy.push(signal * image + blur * noise);
                noised.background.push(image * (1.0 - hole[index % pixels]));
                noised.wanted.push(match prediction {
                    Prediction::Epsilon => noise,
                    Prediction::V => signal * noise - blur * image,
                });
            }
            let weight = |&hole: &f32| hole + KNOWN_WEIGHT * (1.0 - hole);
            let sum: f32 = hole.iter().map(weight).sum();
            let share = 1.0 / (IMAGE_CHANNELS as f32 * sum * n as f32);
            noised.weights.extend(hole.iter().map(|hole| weight(hole) * share));
        }
        noised
    }

    fn loss_inputs<'a>(&'a self, batch: &'a TrainingBatch) -> LossInputs<'a> {
        LossInputs {
            noisy: &self.noisy,
            background: &self.background,
            masks: &batch.masks,
            times: &batch.times,
            wanted: &self.wanted,
            weights: &self.weights,
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Access to the steps of a trainer for tests.

    use super::*;

    /// Creates a trainer with the given parameters.
    pub(in super::super) fn trainer(
        architecture: &Architecture,
        recipe: &Recipe,
        parameters: Parameters,
        target: Target,
    ) -> Trainer {
        Trainer::with(architecture, recipe, TrainerState::new(parameters), target).unwrap()
    }

    /// Trains one step with a given learning rate and decay of the moving average.
    pub(in super::super) fn step(trainer: &mut Trainer, batch: &TrainingBatch, rate: f64, ema: f64) {
        let noised = NoisedBatch::new(batch, &trainer.schedule, trainer.recipe.prediction, trainer.side);
        let (loss, gradient) =
            trainer.gradients.compute(&trainer.state.parameters, &noised.loss_inputs(batch)).unwrap();
        trainer.state.advance(&gradient, rate, ema);
        trainer.state.losses.push(loss as f32);
    }

    /// Returns the gradient of a batch.
    pub(in super::super) fn gradient(trainer: &Trainer, batch: &TrainingBatch) -> Parameters {
        let noised = NoisedBatch::new(batch, &trainer.schedule, trainer.recipe.prediction, trainer.side);
        trainer.gradients.compute(&trainer.state.parameters, &noised.loss_inputs(batch)).unwrap().1
    }

    /// Returns the current parameters.
    pub(in super::super) fn parameters(trainer: &Trainer) -> &Parameters {
        &trainer.state.parameters
    }
}
