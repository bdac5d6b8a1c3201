//! Hyperparameters of a training.

use serde::{Deserialize, Serialize};

use super::{Noise, Prediction};

/// Weight of squared errors outside of the hole, relative to those inside. Outside, the image is given; learning it only
/// helps to make the hole fit its surroundings.
pub const KNOWN_WEIGHT: f32 = 0.1;

/// Steps over which the learning rate increases from 0.
const WARM_UP: usize = 50;

/// Hyperparameters of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Steps of the optimiser.
    pub steps: usize,
    /// Patches per step.
    pub batch: usize,
    /// The peak learning rate of Adam (Kingma and Ba 2015).
    pub learning_rate: f64,
    /// The largest decay of the moving average of the weights (Ho et al. 2020: 0.9999, over far more steps).
    pub ema: f64,
    /// The noise schedule.
    pub noise: Noise,
    /// Number of timesteps of the noise schedule.
    pub times: usize,
    /// What the network predicts.
    pub prediction: Prediction,
}

impl Recipe {
    /// Returns the learning rate of a step, counted from 0: a linear warm-up, then a cosine decay to 0 (Loshchilov and
    /// Hutter 2017). With a constant rate, a short training would end before it has converged.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let warm_up = WARM_UP.min(self.steps / 10).max(1);
        if step < warm_up {
            return self.learning_rate * (step + 1) as f64 / warm_up as f64;
        }
        let share = (step - warm_up) as f64 / (self.steps - warm_up).max(1) as f64;
        self.learning_rate * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * share))
    }

    /// Returns the decay of the moving average after a step, counted from 0: `min(decay, (1 + n) / (10 + n))` with `n`
    /// steps done, so that the initial weights are forgotten soon (as in TensorFlow and diffusers).
    pub fn ema_at(&self, step: usize) -> f64 {
        let n = (step + 1) as f64;
        self.ema.min((1.0 + n) / (10.0 + n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_and_fall_and_the_average_slows_down() {
        let recipe = Recipe {
            steps: 1000,
            batch: 8,
            learning_rate: 1e-3,
            ema: 0.99,
            noise: Noise::Cosine,
            times: 1000,
            prediction: Prediction::V,
        };
        let rate = |step| recipe.learning_rate_at(step);
        assert!((rate(0) - 2e-5).abs() < 1e-12 && (rate(50) - 1e-3).abs() < 1e-12);
        assert!((rate(525) - 5e-4).abs() < 1e-9 && rate(999) < 1e-8);
        assert!((recipe.ema_at(0) - 2.0 / 11.0).abs() < 1e-12 && recipe.ema_at(900) < 0.99001);
        assert!((recipe.ema_at(999) - 0.99).abs() < 2e-4);
        let short = Recipe { steps: 1, ..recipe };
        assert!(short.learning_rate_at(0) > 0.0);
    }
}
