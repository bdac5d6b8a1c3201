//! Times one network at one size on demand. Called by `benches/peers/backbone.py`.
//!
//! - `backbone_speed NETWORK HEIGHT WIDTH BATCH BACKEND` prepares the network with seeded weights and prints `ready`. Then
//!   it runs one batch for each line on stdin, and prints the seconds that the batch took.
//! - `backbone_speed NETWORK --onnx FILE` writes the same network as ONNX for other runtimes.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the benches, not of the product")]

use std::io::BufRead;
use std::num::NonZeroUsize;
use std::time::Instant;

use patchflow::kernels::backbone::{
    Arithmetic, Backbone, Backend, Device, INPUT_CHANNELS, Layer, Network, Target, Weights, encode,
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
            time(network, [height, width, batch].map(|number| number.parse().unwrap()), backend);
        }
        _ => println!("run it by benches/peers/backbone.py"),
    }
}

fn time(network: &str, [height, width, batch]: [usize; 3], backend: &str) {
    let (backend, arithmetic) = match backend {
        "rust" => (Backend::Rust, Arithmetic::F32),
        "torch-f32" => (Backend::Torch, Arithmetic::F32),
        _ => (Backend::Torch, Arithmetic::Bf16),
    };
    let network = Network::parse(network).unwrap();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let target = Target { backend, device: Device::Cpu, arithmetic };
    let backbone = Backbone::on(target, network, &Weights::seeded(network, 1), &LAYERS, threads).unwrap();
    let count = batch * INPUT_CHANNELS * height * width;
    let pixels: Vec<f32> = (0..count).map(|index| (index * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
    backbone.forward(&pixels, batch, height, width).unwrap();
    println!("ready");
    for _ in std::io::stdin().lock().lines() {
        let started = Instant::now();
        backbone.forward(&pixels, batch, height, width).unwrap();
        println!("{}", started.elapsed().as_secs_f64());
    }
}
