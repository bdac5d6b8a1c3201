//! Noise schedules over the timesteps `0..T`, and the DDIM steps that remove the noise.

use serde::{Deserialize, Serialize};

/// The type of a noise schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// `β` increases linearly from 1e-4 to 0.02 (Ho et al. 2020, section 4).
    Linear,
    /// `ᾱ(t) = cos²((t/T + s)/(1 + s) · π/2)`, `s` = 0.008, `β` at most 0.999 (Nichol and Dhariwal 2021, eq. 17).
    Cosine,
}

/// What the network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise that was added (Ho et al. 2020, eq. 14).
    Epsilon,
    /// `v = √ᾱ · ε - √(1-ᾱ) · x₀` (Salimans and Ho 2022, section 2.4), whose magnitude is the same at every timestep.
    V,
}

/// First and last `β` of [`Noise::Linear`].
const LINEAR: (f64, f64) = (1e-4, 0.02);
/// `s` of [`Noise::Cosine`].
const OFFSET: f64 = 0.008;
/// Largest `β` of [`Noise::Cosine`].
const MAX_BETA: f64 = 0.999;

/// A noise schedule: `ᾱ` of each timestep, the fraction of the signal's variance that remains.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    alphas: Vec<f64>,
}

impl Schedule {
    /// Creates a schedule with `times` timesteps.
    ///
    /// # Panics
    /// If `times` is less than 2.
    pub fn new(noise: Noise, times: usize) -> Self {
        assert!(times >= 2, "a schedule has two times or more");
        let beta = |time: usize| match noise {
            Noise::Linear => LINEAR.0 + (LINEAR.1 - LINEAR.0) * time as f64 / (times - 1) as f64,
            Noise::Cosine => {
                let level = |time: usize| {
                    let share = time as f64 / times as f64;
                    libm::cos((share + OFFSET) / (1.0 + OFFSET) * std::f64::consts::FRAC_PI_2).powi(2)
                };
                (1.0 - level(time + 1) / level(time)).min(MAX_BETA)
            }
        };
        let mut left = 1.0;
        let alphas = (0..times)
            .map(|time| {
                left *= 1.0 - beta(time);
                left
            })
            .collect();
        Self { alphas }
    }

    /// Returns the number of timesteps.
    pub fn times(&self) -> usize {
        self.alphas.len()
    }

    /// Returns `ᾱ` of a timestep.
    pub fn alpha(&self, time: usize) -> f64 {
        self.alphas[time]
    }
}

/// The sampling steps of DDIM (Song et al. 2021, eq. 12 and 16), from pure noise to an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddim {
    steps: Vec<DdimStep>,
    prediction: Prediction,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct DdimStep {
    time: usize,
    alpha: f64,
    /// `ᾱ` of the next step, 1 for the last one.
    next: f64,
    /// Standard deviation of the noise that the step adds.
    sigma: f64,
}

/// The known part of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownRegion<'a> {
    /// `[channels, pixels]`: the image outside of the hole.
    pub(super) image: &'a [f32],
    /// `[pixels]`: 1 where the image is unknown.
    pub(super) hole: &'a [f32],
}

impl Ddim {
    /// Creates `count` steps with evenly spaced timesteps, beginning with the last one ("trailing" spacing; Lin et al.
    /// 2024, section 3.3). `eta` scales the noise of each step: 0 is deterministic DDIM, 1 is DDPM.
    ///
    /// # Panics
    /// If `count` is 0 or exceeds the number of timesteps.
    pub fn new(schedule: &Schedule, prediction: Prediction, count: usize, eta: f64) -> Self {
        let all = schedule.times();
        assert!((1..=all).contains(&count), "{count} steps of {all} times");
        let time = |step: usize| {
            // Rounds half to even, as NumPy does.
            let exact = all as f64 - step as f64 * all as f64 / count as f64;
            exact.round_ties_even() as usize - 1
        };
        let steps = (0..count).map(|step| {
            let alpha = schedule.alpha(time(step));
            let next = if step + 1 < count { schedule.alpha(time(step + 1)) } else { 1.0 };
            let variance = (1.0 - next) / (1.0 - alpha) * (1.0 - alpha / next);
            DdimStep { time: time(step), alpha, next, sigma: eta * variance.sqrt() }
        });
        Self { steps: steps.collect(), prediction }
    }

    /// Returns the timesteps, last one first.
    pub fn times(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.steps.iter().map(|step| step.time)
    }

    /// Returns whether the steps add noise.
    pub(super) fn is_noisy(&self) -> bool {
        self.steps.iter().any(|step| step.sigma > 0.0)
    }

    /// Advances `values` by one step. `output` is the output of the network for `values`; `noise` is standard normal,
    /// and only used if `eta` is above 0. The predicted image is clamped to \[-1, 1\].
    ///
    /// # Panics
    /// If the lengths do not agree.
    pub fn step(&self, step: usize, values: &mut [f32], output: &[f32], noise: &[f32]) {
        self.step_around(step, values, output, noise, None);
    }

    /// As [`Self::step`], with the known part of the predicted image replaced by `known`.
    pub(super) fn step_around(
        &self,
        step: usize,
        values: &mut [f32],
        output: &[f32],
        noise: &[f32],
        known: Option<KnownRegion<'_>>,
    ) {
        let DdimStep { alpha, next, sigma, time: _ } = self.steps[step];
        assert_eq!(values.len(), output.len(), "an output for each value");
        assert!(sigma <= 0.0 || noise.len() == values.len(), "noise for each value");
        let (signal, blur) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let towards = (1.0 - next - sigma * sigma).max(0.0).sqrt();
        for (index, value) in values.iter_mut().enumerate() {
            let (x, out) = (f64::from(*value), f64::from(output[index]));
            let (mut image, epsilon) = match self.prediction {
                Prediction::Epsilon => ((x - blur * out) / signal, out),
                Prediction::V => (signal * x - blur * out, signal * out + blur * x),
            };
            image = image.clamp(-1.0, 1.0);
            if let Some(known) = known {
                let hole = f64::from(known.hole[index % known.hole.len()]);
                image = hole * image + (1.0 - hole) * f64::from(known.image[index]);
            }
            let added = if sigma > 0.0 { sigma * f64::from(noise[index]) } else { 0.0 };
            *value = (next.sqrt() * image + towards * epsilon + added) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_those_of_the_papers() {
        let linear = Schedule::new(Noise::Linear, 1000);
        assert!((linear.alpha(0) - (1.0 - 1e-4)).abs() < 1e-15);
        let product: f64 = (0..1000).map(|t| 1.0 - (1e-4 + 0.0199 * f64::from(t) / 999.0)).product();
        assert!((linear.alpha(999) - product).abs() < 1e-15);
        // f(t)/f(0) of Nichol and Dhariwal, at timesteps where β is not limited.
        let cosine = Schedule::new(Noise::Cosine, 1000);
        let level = |t: f64| ((t / 1000.0 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        for time in [0, 1, 250, 500, 900] {
            let wanted = level(time as f64 + 1.0) / level(0.0);
            assert!((cosine.alpha(time) - wanted).abs() < 1e-12, "{time}");
        }
        assert!(cosine.alpha(999) < 1e-6 && cosine.alpha(999) > 0.0);
    }

    #[test]
    fn a_perfect_network_leads_back_to_the_image() {
        let schedule = Schedule::new(Noise::Cosine, 1000);
        let (image, noise) = ([0.5_f32, -0.25, 0.9], [1.0_f32, -0.3, 0.2]);
        for prediction in [Prediction::Epsilon, Prediction::V] {
            let ddim = Ddim::new(&schedule, prediction, 7, 0.0);
            let first = schedule.alpha(999);
            let mut x: Vec<f32> = image
                .iter()
                .zip(&noise)
                .map(|(&x, &e)| (first.sqrt() * f64::from(x) + (1.0 - first).sqrt() * f64::from(e)) as f32)
                .collect();
            for (step, time) in ddim.times().enumerate() {
                let alpha = schedule.alpha(time);
                let output: Vec<f32> = (image.iter().zip(&noise))
                    .map(|(&x, &e)| match prediction {
                        Prediction::Epsilon => e,
                        Prediction::V => {
                            (alpha.sqrt() * f64::from(e) - (1.0 - alpha).sqrt() * f64::from(x)) as f32
                        }
                    })
                    .collect();
                ddim.step(step, &mut x, &output, &[]);
            }
            for (found, wanted) in x.iter().zip(&image) {
                assert!((found - wanted).abs() < 1e-3, "{prediction:?}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn what_is_known_comes_out_as_it_is() {
        let ddim = Ddim::new(&Schedule::new(Noise::Cosine, 100), Prediction::V, 3, 0.0);
        let mut x = vec![1.0, -2.0, 0.5, 0.1];
        let known = KnownRegion { image: &[0.25, 0.0, -0.5, 0.0], hole: &[0.0, 1.0] };
        for step in 0..3 {
            ddim.step_around(step, &mut x, &[0.3, 0.3, 0.3, 0.3], &[], Some(known));
        }
        assert!((x[0] - 0.25).abs() < 1e-6 && (x[2] + 0.5).abs() < 1e-6, "{x:?}");
        assert!(x[1].abs() > 1e-3);
    }
}
