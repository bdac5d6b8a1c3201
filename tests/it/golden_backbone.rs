//! Maps and embeddings equal torchvision's, for weights that both sides derive from a hash.
//!
//! `tests/golden/backbone.py` states the hash and made `tests/golden/backbone.safetensors` (torch 2.13,
//! torchvision 0.29).

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking")]

use std::num::NonZeroUsize;

use patchflow::kernels::backbone::{Backbone, FeatureMap, Layer, Network, Tensor, TensorShape, Weights};
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

fn maps(network: Network) -> Vec<FeatureMap> {
    let image: Vec<f32> = numbers("image", 3 * 96 * 64).map(|u| (2.0 * u) as f32).collect();
    let threads = NonZeroUsize::new(2).unwrap();
    let backbone = Backbone::new(network, &weights(network), &Layer::ALL, threads).unwrap();
    backbone.forward(&image, 1, 96, 64).unwrap()
}

fn assert_golden(name: &str, values: &[f32]) {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let stored = file.tensor(name).unwrap();
    let expected = stored.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    let values: Vec<f32> = values.iter().step_by(STEP).copied().collect();
    assert_eq!(values.len(), stored.shape()[0], "{name}");
    let difference = values.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference < TOLERANCE, "{name} differs by {difference}");
}

fn assert_network(network: Network) {
    let maps = maps(network);
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
