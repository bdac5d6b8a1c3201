//! Times one network at one size on demand. Called by `benches/peers/backbone.py`.
//!
//! - `backbone_speed NETWORK HEIGHT WIDTH BATCH BACKEND` prepares the network with seeded weights and prints `ready` and the
//!   vector instructions in use. Then it runs one batch for each line on stdin, and prints the seconds that the batch took.
//! - `backbone_speed NETWORK --onnx FILE` writes the same network as ONNX for other runtimes.
//! - `backbone_speed NETWORK HEIGHT WIDTH BATCH BACKEND --maps FILE` writes the maps of one batch, f32, layer by layer.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the benches, not of the product")]

use std::io::BufRead;
use std::num::NonZeroUsize;
use std::time::Instant;

use patchflow::kernels::backbone::{
    Arithmetic, Backbone, Backend, Device, FeatureMap, INPUT_CHANNELS, Layer, Network, Target, Weights,
    encode, simd_level,
};

const LAYERS: [Layer; 2] = [Layer::Layer2, Layer::Layer3];

fn main() {
    // Cargo adds `--bench` when it runs a bench itself.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [network, "--onnx", file] => {
            let network = Network::parse(network).unwrap();
            std::fs::write(file, encode(network, &Weights::seeded(network, 1), &LAYERS).unwrap()).unwrap();
        }
        [network, height, width, batch, backend] => {
            Batch::new(prepare(network, backend), shape([height, width, batch])).time();
        }
        [network, height, width, batch, backend, "--maps", file] => {
            let maps = Batch::new(prepare(network, backend), shape([height, width, batch])).forward();
            let bytes: Vec<u8> =
                maps.iter().flat_map(|map| &map.data).flat_map(|value| value.to_le_bytes()).collect();
            std::fs::write(file, bytes).unwrap();
        }
        _ => println!("run it by benches/peers/backbone.py"),
    }
}

/// Height, width, and number of images.
struct Shape {
    height: usize,
    width: usize,
    batch: usize,
}

fn shape(numbers: [&str; 3]) -> Shape {
    let [height, width, batch] = numbers.map(|number| number.parse().unwrap());
    Shape { height, width, batch }
}

fn prepare(network: &str, backend: &str) -> Backbone {
    let (backend, arithmetic) = match backend {
        "rust" => (Backend::Rust, Arithmetic::F32),
        "torch-f32" => (Backend::Torch, Arithmetic::F32),
        _ => (Backend::Torch, Arithmetic::Bf16),
    };
    let network = Network::parse(network).unwrap();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let target = Target { backend, device: Device::Cpu, arithmetic };
    Backbone::on(target, network, &Weights::seeded(network, 1), &LAYERS, threads).unwrap()
}

/// A batch, and the network that runs it.
struct Batch {
    backbone: Backbone,
    shape: Shape,
    pixels: Vec<f32>,
}

impl Batch {
    /// Images of a fixed pattern, between -1 and 1.
    fn new(backbone: Backbone, shape: Shape) -> Self {
        let count = shape.batch * INPUT_CHANNELS * shape.height * shape.width;
        let pixels = (0..count).map(|index| (index * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
        Self { backbone, shape, pixels }
    }

    fn forward(&self) -> Vec<FeatureMap> {
        let Shape { height, width, batch } = self.shape;
        self.backbone.forward(&self.pixels, batch, height, width).unwrap()
    }

    fn time(&self) {
        self.forward();
        println!("ready {}", simd_level());
        for _ in std::io::stdin().lock().lines() {
            let started = Instant::now();
            self.forward();
            println!("{}", started.elapsed().as_secs_f64());
        }
    }
}
