//! The network, a step of training, the schedules and the sampler are those of PyTorch and diffusers:
//! `tests/golden/diffusion.py` states how, and made the numbers.

use safetensors::SafeTensors;

use super::{Ddim, Noise, Prediction, Schedule};

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/diffusion.safetensors");

fn golden(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let tensor = file.tensor(name).unwrap();
    tensor.data().chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

/// The numbers of a name, in -1 to 1.
fn numbers(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let hash = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let state = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    (1..=count as u64).map(move |index| {
        let mut z = state.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn scaled(name: &str, count: usize, scale: f64) -> Vec<f32> {
    numbers(name, count).map(|u| (u * scale) as f32).collect()
}

fn worst(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn schedules_are_those_of_diffusers() {
    for (noise, name) in [(Noise::Linear, "linear"), (Noise::Cosine, "squaredcos_cap_v2")] {
        let schedule = Schedule::new(noise, 1000);
        for (index, wanted) in golden(&format!("alphas/{name}")).into_iter().enumerate() {
            let found = schedule.alpha(index * 37);
            // diffusers multiplies in f32.
            assert!((found - f64::from(wanted)).abs() < 2e-6, "{name} {index}: {found} {wanted}");
        }
    }
}

#[test]
fn samples_are_those_of_diffusers() {
    let mut compared = 0;
    for (noise, schedule) in [(Noise::Linear, "linear"), (Noise::Cosine, "squaredcos_cap_v2")] {
        for (prediction, name) in [(Prediction::Epsilon, "epsilon"), (Prediction::V, "v_prediction")] {
            for eta in ["0.0", "0.5"] {
                let ddim = Ddim::new(&Schedule::new(noise, 1000), prediction, 10, eta.parse().unwrap());
                let name = format!("ddim/{schedule}/{name}/{eta}");
                let times: Vec<f32> = ddim.times().map(|time| time as f32).collect();
                assert_eq!(times, golden(&format!("{name}/times")));
                let mut x = scaled("start", 48, 3.0_f64.sqrt());
                for step in 0..10 {
                    let output: Vec<f32> = (numbers(&format!("model {step}"), 48).zip(&x))
                        .map(|(u, x)| u as f32 + x / 2.0)
                        .collect();
                    let noise = scaled(&format!("noise {step}"), 48, 3.0_f64.sqrt());
                    ddim.step(step, &mut x, &output, &noise);
                }
                let difference = worst(&x, &golden(&format!("{name}/sample")));
                assert!(difference < 1e-5, "{name}: {difference}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 8);
}

#[cfg(feature = "torch")]
mod network {
    use super::super::trainer::testing;
    use super::super::{Architecture, Batch, Denoiser, Parameters, Recipe, Trainer};
    use super::*;
    use crate::kernels::backbone::Device;

    fn small() -> Architecture {
        Architecture { side: 16, channels: 8, levels: vec![1, 2], groups: 4 }
    }

    fn parameters() -> Parameters {
        let tensor = |(name, shape): (String, Vec<usize>)| {
            let count = shape.iter().product();
            let fan_in = shape[1..].iter().product::<usize>() as f64;
            let is_scale = name.contains("norm") && name.ends_with("weight");
            let many = shape.len() > 1;
            numbers(&name, count)
                .map(move |u| match () {
                    () if many => u * (3.0 / fan_in).sqrt(),
                    () if is_scale => 1.0 + u / 4.0,
                    () => u / 4.0,
                } as f32)
                .collect::<Vec<f32>>()
        };
        small().tensors().into_iter().flat_map(tensor).collect()
    }

    fn batch() -> Batch {
        let root = 3.0_f64.sqrt();
        let masks: Vec<f32> = numbers("mask", 512).map(|u| f32::from(u as f32 > 0.5)).collect();
        let holes =
            numbers("hole", 512).zip(&masks).map(|(u, &mask)| f32::from(u > 0.0 || mask > 0.0)).collect();
        Batch {
            images: scaled("image", 1536, root),
            noise: scaled("noise", 1536, root),
            masks,
            holes,
            times: vec![3, 700],
        }
    }

    fn recipe(prediction: Prediction) -> Recipe {
        Recipe {
            steps: 1,
            batch: 2,
            learning_rate: 1e-3,
            ema: 0.9,
            noise: Noise::Cosine,
            times: 1000,
            prediction,
        }
    }

    #[test]
    fn the_output_is_that_of_pytorch() {
        let (batch, wanted) = (batch(), golden("forward"));
        let denoiser = Denoiser::new(&small(), &parameters(), Device::Cpu).unwrap();
        for (patch, &time) in batch.times.iter().enumerate() {
            let of = |values: &[f32], size: usize| values[patch * size..(patch + 1) * size].to_vec();
            let (image, hole) = (of(&batch.images, 768), of(&batch.holes, 256));
            let background: Vec<f32> =
                image.iter().enumerate().map(|(index, x)| x * (1.0 - hole[index % 256])).collect();
            let output =
                denoiser.predict(&of(&batch.noise, 768), &background, &of(&batch.masks, 256), time).unwrap();
            let difference = worst(&output, &of(&wanted, 768));
            assert!(difference < 1e-4, "{time}: {difference}");
        }
    }

    #[test]
    fn a_step_of_training_is_that_of_pytorch() {
        for (prediction, name) in [(Prediction::V, "v"), (Prediction::Epsilon, "epsilon")] {
            let mut trainer = testing::trainer(&small(), &recipe(prediction), parameters());
            let loss = trainer.step(&batch()).unwrap();
            let wanted = golden(&format!("loss/{name}"))[0];
            assert!((loss - wanted).abs() < 1e-5, "{name}: {loss} {wanted}");
        }
        let mut trainer = testing::trainer(&small(), &recipe(Prediction::V), parameters());
        // The average of the first step would be of 2/11: the recipe's rule is not what is compared here.
        testing::step(&mut trainer, &batch(), 1e-3, 0.9);
        let mut at = 0;
        for (name, shape) in small().tensors() {
            let count: usize = shape.iter().product();
            let range = at..at + count;
            at += count;
            let wanted = golden(&format!("step/{name}"));
            let found = &testing::parameters(&trainer)[range.clone()];
            let difference = worst(found, &wanted);
            assert!(difference < 1e-4, "{name}: {difference}");
            let average = worst(&trainer.average()[range], &golden(&format!("ema/{name}")));
            assert!(average < 1e-4, "{name}: {average}");
        }
    }

    fn train_in_pool(recipe: &Recipe, batch: &Batch, stops: bool) -> Vec<u8> {
        let mut trainer = Trainer::new(&small(), recipe, 1, Device::Cpu).unwrap();
        for step in 0..recipe.steps {
            if stops && step == 2 {
                let bytes = trainer.checkpoint().unwrap();
                trainer = Trainer::resume(&small(), recipe, &bytes, Device::Cpu).unwrap();
            }
            trainer.step(batch).unwrap();
        }
        trainer.checkpoint().unwrap()
    }

    #[test]
    fn threads_change_no_bit_and_a_checkpoint_goes_on() {
        let batch = {
            let one = batch();
            let many = |values: &[f32]| values.repeat(5);
            Batch {
                images: many(&one.images),
                masks: many(&one.masks),
                holes: many(&one.holes),
                noise: scaled("long noise", 7680, 1.0),
                times: (0..10).map(|index| index * 99).collect(),
            }
        };
        let recipe = Recipe { steps: 4, ..recipe(Prediction::V) };
        let train = |threads: usize, stops: bool| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train_in_pool(&recipe, &batch, stops))
        };
        let whole = train(1, false);
        assert!(whole == train(3, false), "threads change bits");
        assert!(whole == train(2, true), "a stop changes bits");
        let damaged = &whole[..whole.len() / 2];
        assert!(Trainer::resume(&small(), &recipe, damaged, Device::Cpu).is_err());
    }
}
