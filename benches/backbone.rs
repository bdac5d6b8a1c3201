//! Speed of the backbone: `cargo bench --bench backbone`. An item in divan's output is an image.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use divan::Bencher;
use divan::counter::ItemsCount;
use patchflow::kernels::backbone::{Backbone, INPUT_CHANNELS, Layer, Network, Weights};
use patchflow::kernels::embedding::{EmbeddingOptions, embed};

/// Images per batch.
const BATCH: usize = 8;

/// Height and width: those of ImageNet, and those of KSDD rounded up to multiples of the stride.
const SIZES: [(usize, usize); 2] = [(224, 224), (640, 232)];

const NETWORKS: [Network; 3] = [Network::ResNet18, Network::ResNet50, Network::WideResNet50];

fn cases() -> impl Iterator<Item = (Network, (usize, usize))> {
    NETWORKS.into_iter().flat_map(|network| SIZES.map(|size| (network, size)))
}

fn main() {
    divan::main();
}

fn backbone(network: Network) -> Backbone {
    let threads = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let weights = Weights::seeded(network, 1);
    Backbone::new(network, &weights, &[Layer::Layer2, Layer::Layer3], threads).expect("seeded weights fit")
}

fn pixels(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

#[divan::bench(args = cases(), sample_count = 5, sample_size = 1)]
fn forward(bencher: Bencher, (network, (h, w)): (Network, (usize, usize))) {
    let backbone = backbone(network);
    let pixels = pixels(BATCH * INPUT_CHANNELS * h * w);
    bencher.counter(ItemsCount::new(BATCH)).bench(|| backbone.forward(&pixels, BATCH, h, w));
}

#[divan::bench(args = cases(), sample_count = 20, sample_size = 1)]
fn embed_one_image(bencher: Bencher, (network, (h, w)): (Network, (usize, usize))) {
    let maps = backbone(network).forward(&pixels(INPUT_CHANNELS * h * w), 1, h, w).expect("finite pixels");
    let maps = [maps[0].image(0), maps[1].image(0)];
    bencher.counter(ItemsCount::new(1_usize)).bench(|| embed(&maps, EmbeddingOptions::default()));
}
