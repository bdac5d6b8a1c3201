//! How a network is trained, apart from its data.

use super::{Noise, Prediction};

/// The share that squared errors outside of the hole weigh; what is there is given, and only joins the rest.
pub const KNOWN_WEIGHT: f32 = 0.1;

/// Steps over which the learning rate rises from 0.
const WARM_UP: usize = 50;

/// Numbers of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Steps of the optimiser.
    pub steps: usize,
    /// Patches a step.
    pub batch: usize,
    /// Adam's (Kingma and Ba 2015), at its highest.
    pub learning_rate: f64,
    /// Decay of the weights' moving average, at its highest (Ho et al. 2020: 0.9999, over far more steps).
    pub ema: f64,
    /// The schedule of the noise.
    pub noise: Noise,
    /// Its times.
    pub times: usize,
    /// What the output means.
    pub prediction: Prediction,
}

impl Recipe {
    /// The learning rate of a step, from 0: a short rise, then half a cosine down to 0 (Loshchilov and Hutter
    /// 2017), since a short training ends before a constant rate has settled.
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let warm_up = WARM_UP.min(self.steps / 10).max(1);
        if step < warm_up {
            return self.learning_rate * (step + 1) as f64 / warm_up as f64;
        }
        let share = (step - warm_up) as f64 / (self.steps - warm_up).max(1) as f64;
        self.learning_rate * 0.5 * (1.0 + libm::cos(std::f64::consts::PI * share))
    }

    /// The moving average's decay after a step, from 0: `min(decay, (1 + n) / (10 + n))`, so that the first
    /// weights are soon forgotten (the rule of TensorFlow's and diffusers' moving averages).
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
