//! Times the training and the sampling of the diffusion model: patches of 64 px, 32 channels, batches of 8, the defaults of
//! `augment`.
//!
//! `cargo bench --bench diffusion_speed -- [rust] [torch]`: the backends run in turn, a step of each. `torch` needs a build
//! with that feature.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the benches, not of the product")]

use std::time::Instant;

use patchflow::kernels::backbone::{Arithmetic, Backend, Device, Target};
use patchflow::kernels::diffusion::{
    Architecture, Denoiser, Noise, Prediction, Recipe, Trainer, TrainingBatch,
};
use patchflow::kernels::random::Rng;

const ROUNDS: usize = 15;
const BATCH: usize = 8;

fn main() {
    let named: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_named = |backend: Backend| named.is_empty() || named.iter().any(|name| name == backend.name());
    let backends = [Backend::Rust, Backend::Torch];
    let backends: Vec<Backend> =
        backends.into_iter().filter(|&backend| backend.is_built() && is_named(backend)).collect();
    let architecture = Architecture { side: 64, channels: 32, levels: vec![1, 2, 2, 4], groups: 8 };
    let recipe = Recipe {
        steps: 1500,
        batch: BATCH,
        learning_rate: 1e-3,
        ema: 0.99,
        noise: Noise::Cosine,
        times: 1000,
        prediction: Prediction::V,
    };
    let (batch, pixels) = (batch(architecture.side), architecture.side.pow(2));
    let target = |backend| Target { backend, device: Device::Cpu, arithmetic: Arithmetic::F32 };
    let mut trainers: Vec<Trainer> = (backends.iter())
        .map(|&backend| Trainer::new(&architecture, &recipe, 1, target(backend)).unwrap())
        .collect();
    let denoisers: Vec<Denoiser> = (backends.iter().zip(&trainers))
        .map(|(&backend, trainer)| Denoiser::new(&architecture, trainer.average(), target(backend)).unwrap())
        .collect();
    let mut seconds = vec![[Vec::new(), Vec::new()]; backends.len()];
    for round in 0..=ROUNDS {
        for (index, trainer) in trainers.iter_mut().enumerate() {
            let started = Instant::now();
            trainer.step(&batch).unwrap();
            let step = started.elapsed().as_secs_f64();
            let (image, noise) = (&batch.images[..3 * pixels], &batch.noise[..3 * pixels]);
            let started = Instant::now();
            denoisers[index].predict(noise, image, &batch.masks[..pixels], 500).unwrap();
            // The first round warms up.
            if round > 0 {
                seconds[index][0].push(step);
                seconds[index][1].push(started.elapsed().as_secs_f64());
            }
        }
    }
    for (backend, mut seconds) in backends.iter().zip(seconds) {
        let [step, predict] = seconds.each_mut().map(|seconds| {
            seconds.sort_by(f64::total_cmp);
            1e3 * seconds[ROUNDS / 2]
        });
        println!("{}: a training step {step:.0} ms, a pass of one patch {predict:.1} ms", backend.name());
    }
}

fn batch(side: usize) -> TrainingBatch {
    let mut rng = Rng::new(1, "diffusion bench");
    let (pixels, mut numbers) =
        (side * side, |count: usize| -> Vec<f32> { (0..count).map(|_| rng.normal() as f32 / 2.0).collect() });
    TrainingBatch {
        images: numbers(BATCH * 3 * pixels),
        noise: numbers(BATCH * 3 * pixels),
        masks: (0..BATCH * pixels).map(|index| f32::from(u8::from(index % 7 == 0))).collect(),
        holes: (0..BATCH * pixels).map(|index| f32::from(u8::from(index % 7 < 3))).collect(),
        times: (0..BATCH).map(|index| index * 120).collect(),
    }
}
