//! Maps and embeddings equal torchvision's, for weights that both sides derive from a hash.
//!
//! `tests/golden/backbone.py` states the hash and made `tests/golden/backbone.safetensors` (torch 2.13,
//! torchvision 0.29).

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::num::NonZeroUsize;

use patchflow::kernels::backbone::{
    Backbone, FeatureMap, Layer, Network, Target, Tensor, TensorShape, Weights,
};
use patchflow::kernels::embedding::{
    Alignment, Embedding, EmbeddingOptions, Neighbourhood, PatchGrid, embed,
};
use safetensors::SafeTensors;

const GOLDEN: &[u8] = include_bytes!("../golden/backbone.safetensors");

/// Every so many numbers of a map are stored.
const STEP: usize = 97;

/// The sums of the two sides have another order; activations are of order 1, up to 5.
const TOLERANCE: f32 = 1e-4;

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

fn weights(network: Network) -> Weights {
    let last = if network == Network::ResNet18 { ".bn2.weight" } else { ".bn3.weight" };
    let tensor = |TensorShape { name, shape }: TensorShape| {
        let bound = (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt();
        let scale = if name.ends_with(last) || name.ends_with(".downsample.1.weight") { 0.25 } else { 1.0 };
        let value = |u: f64| match name.rsplit('.').next() {
            _ if shape.len() == 4 => u * bound,
            Some("running_var") => 1.0 + u / 2.0,
            Some("weight") => (1.0 + u / 4.0) * scale,
            _ => u / 4.0,
        };
        let values = numbers(&name, shape.iter().product()).map(|u| value(u) as f32).collect();
        (name, Tensor::new(shape, values))
    };
    network.tensors().into_iter().map(tensor).collect()
}

fn maps(network: Network, target: Target) -> Vec<FeatureMap> {
    let image: Vec<f32> = numbers("image", 3 * 96 * 64).map(|u| (2.0 * u) as f32).collect();
    let threads = NonZeroUsize::new(2).unwrap();
    let backbone = Backbone::on(target, network, &weights(network), &Layer::ALL, threads).unwrap();
    backbone.forward(&image, 1, 96, 64).unwrap()
}

/// The stored values of a map, each with ours.
fn pairs(name: &str, values: &[f32]) -> Vec<(f32, f32)> {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let stored = file.tensor(name).unwrap();
    let expected = stored.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    let pairs: Vec<(f32, f32)> = expected.zip(values.iter().step_by(STEP).copied()).collect();
    assert_eq!(pairs.len(), values.len().div_ceil(STEP), "{name}");
    pairs
}

fn assert_golden(name: &str, values: &[f32]) {
    let difference = pairs(name, values).into_iter().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < TOLERANCE, "{name} differs by {difference}");
}

fn assert_network(network: Network) {
    assert_network_on(network, Target::DEFAULT);
}

fn assert_network_on(network: Network, target: Target) {
    let maps = maps(network, target);
    for (layer, map) in Layer::ALL.iter().zip(&maps) {
        assert_golden(&format!("{network}.{layer}"), &map.data);
    }
    let embedded = |options| -> PatchGrid { embed(&[maps[1].image(0), maps[2].image(0)], options).unwrap() };
    let default = EmbeddingOptions::default();
    let reference = EmbeddingOptions {
        neighbourhood: Neighbourhood::Reference,
        alignment: Alignment::AdaptiveAverage,
        ..default
    };
    let alone = EmbeddingOptions { neighbourhood: Neighbourhood::None, ..default };
    for (name, options) in [("default", default), ("reference", reference), ("alone", alone)] {
        assert_golden(&format!("{network}.{name}"), &embedded(options).data);
    }
    if network != Network::ResNet18 {
        let options = EmbeddingOptions { embedding: Embedding::PatchCore1024, ..default };
        assert_golden(&format!("{network}.patchcore_1024"), &embedded(options).data);
    }
}

#[test]
fn resnet18_equals_torchvision() {
    assert_network(Network::ResNet18);
}

#[test]
fn resnet50_equals_torchvision() {
    assert_network(Network::ResNet50);
}

#[test]
fn wide_resnet50_2_equals_torchvision() {
    assert_network(Network::WideResNet50);
}

#[cfg(feature = "torch")]
mod torch {
    use patchflow::kernels::backbone::{Arithmetic, Backend, Device};

    use super::*;

    const NETWORKS: [Network; 3] = [Network::ResNet18, Network::ResNet50, Network::WideResNet50];

    const CPU: Target = Target { backend: Backend::Torch, ..Target::DEFAULT };
    const CUDA: Target = Target { device: Device::Cuda(0), ..CPU };

    /// bfloat16 keeps 8 bits of a number: each of up to 32 roundings moves it by at most 0.4 %, at random.
    const BF16_TOLERANCE: f64 = 1e-2;

    /// `‖map - expected‖ / ‖expected‖` of each layer stays below the tolerance.
    fn assert_close(network: Network, target: Target) {
        for (layer, map) in Layer::ALL.iter().zip(maps(network, target)) {
            let name = format!("{network}.{layer}");
            let (mut difference, mut norm) = (0.0, 0.0);
            for (expected, value) in pairs(&name, &map.data) {
                difference += f64::from(value - expected).powi(2);
                norm += f64::from(expected).powi(2);
            }
            let relative = (difference / norm).sqrt();
            assert!(relative < BF16_TOLERANCE, "{name} differs by {relative}");
        }
    }

    #[test]
    fn f32_equals_torchvision() {
        for network in NETWORKS {
            assert_network_on(network, CPU);
        }
    }

    #[test]
    fn bf16_is_close_to_torchvision() {
        for network in NETWORKS {
            assert_close(network, Target { arithmetic: Arithmetic::Bf16, ..CPU });
        }
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn f32_on_cuda_equals_torchvision() {
        for network in NETWORKS {
            assert_network_on(network, CUDA);
        }
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn bf16_on_cuda_is_close_to_torchvision() {
        for network in NETWORKS {
            assert_close(network, Target { arithmetic: Arithmetic::Bf16, ..CUDA });
        }
    }
}
