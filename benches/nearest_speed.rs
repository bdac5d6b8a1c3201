//! One search, timed on demand: the side of ours in `benches/peers/nearest.py`.
//!
//! `nearest_speed QUERIES BANK D K THREADS FOUND [DEVICE]` reads two files of raw f32 rows, prepares the bank with one
//! search, writes the rows found as raw u32 into FOUND, and prints `ready`, the seconds of that preparation (first
//! search included) and the instructions that it uses. For each line on stdin it searches once and prints the seconds.
//! DEVICE is `cpu` or, in builds with the feature `torch`, `cuda` or `cuda:N`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the benches, not of the product")]

use std::io::BufRead;
use std::time::Instant;

use patchflow::kernels::backbone::{Device, simd_level};
use patchflow::kernels::nearest::{SearchBank, int8_instructions};

fn main() {
    // Cargo adds `--bench` when it runs a bench itself.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [queries, bank, d, k, threads, found, ref device @ ..] if device.len() < 2 => {
            let [d, k, threads] = [d, k, threads].map(|number| number.parse().unwrap());
            rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().unwrap();
            let device = Device::parse(device.first().unwrap_or(&"cpu")).unwrap();
            time(&read(queries), read(bank), |rows| SearchBank::on(device, rows, d).unwrap(), k, found);
        }
        _ => println!("run it by benches/peers/nearest.py"),
    }
}

fn time(queries: &[f32], rows: Vec<f32>, prepare: impl Fn(Vec<f32>) -> SearchBank, k: usize, found: &str) {
    let started = Instant::now();
    let bank = prepare(rows);
    // Twice: the first search may be too small to make codes for.
    bank.nearest(queries, k).unwrap();
    let prepared = started.elapsed().as_secs_f64();
    let neighbours = bank.nearest(queries, k).unwrap();
    let bytes: Vec<u8> = neighbours.index.iter().flat_map(|row| row.to_le_bytes()).collect();
    std::fs::write(found, bytes).unwrap();
    println!("ready {prepared} {}", instructions());
    for _ in std::io::stdin().lock().lines() {
        let started = Instant::now();
        bank.nearest(queries, k).unwrap();
        println!("{}", started.elapsed().as_secs_f64());
    }
}

/// Vector instructions for floats and for int8.
fn instructions() -> String {
    format!("f32={},int8={}", simd_level(), int8_instructions().unwrap_or("none"))
}

fn read(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
}
