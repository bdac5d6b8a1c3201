//! Projection and exact k-center of a file of features, timed: our side in `benches/peers/coreset.py`.
//!
//! ```text
//! coreset_speed clusters ROWS D FILE.f32         generated features: groups on 40 latent directions, noise
//! coreset_speed grow BASE.f16 ROWS FILE.f16      KSDD2's width and statistics, grown from real features
//! coreset_speed pick FILE D COUNT [THREADS [DEVICE]]  projects to 128, picks, prints one JSON object
//! coreset_speed check FILE D ROWS COUNT          the same picks by the naive algorithm, of the first rows
//! ```
//! Files are raw little-endian rows of f32 or f16, as the name says, read block by block as the stage does.
//! DEVICE is `cpu` or, in builds with the feature `torch`, `cuda` or `cuda:N`; the digest of the picks is the same.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the benches, not of the product")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use patchflow::kernels::backbone::{Device, simd_level};
use patchflow::kernels::coreset::{Picks, Points, Projection};
use patchflow::kernels::distance::squared_euclidean;
use patchflow::kernels::nearest::int8_instructions;
use patchflow::kernels::random::Rng;
use rayon::prelude::*;

/// Dimensions of the projection, as the stage's default.
const PROJECTION: usize = 128;
/// Rows read at a time: the patches of an image of KSDD2 at half size, 40 by 14.
const BLOCK: usize = 560;
/// Shape of an image of the features that others are grown from: `BLOCK` patches.
const BASE: [usize; 3] = [40, 14, 384];
/// Length of the noise on a grown row: half the median distance, 2.17, of a KSDD row of four neighbouring
/// patches to its nearest of another image (`resnet18`, `layer2` and `layer3`, 90 images).
const GROWN_NOISE: f32 = 1.08;
/// Ticks a second of `/proc/self/stat`.
const TICKS: f64 = 100.0;

fn main() {
    // Cargo adds `--bench` when it runs a bench itself.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap();
    match arguments[..] {
        ["clusters", rows, d, file] => clusters(number(rows), number(d), file),
        ["grow", base, rows, file] => grow(base, number(rows), file),
        ["pick", file, d, count] => pick(&Rows::open(file, number(d)), number(count), Device::Cpu),
        ["pick", file, d, count, threads, ref device @ ..] if device.len() < 2 => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(number(threads)).build().unwrap();
            let device = Device::parse(device.first().unwrap_or(&"cpu")).unwrap();
            pool.install(|| pick(&Rows::open(file, number(d)), number(count), device));
        }
        ["check", file, d, rows, count] => {
            let mut features = Rows::open(file, number(d));
            features.n = number(rows);
            check(&features, number(count));
        }
        _ => println!("run it by benches/peers/coreset.py"),
    }
}

fn is_half(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "f16")
}

/// A file of rows.
struct Rows {
    file: File,
    is_half: bool,
    n: usize,
    d: usize,
}

impl Rows {
    fn open(path: &str, d: usize) -> Self {
        let file = File::open(path).unwrap();
        let is_half = is_half(path);
        let n = file.metadata().unwrap().len() as usize / (d * if is_half { 2 } else { 4 });
        Self { file, is_half, n, d }
    }

    fn sizes(&self) -> Vec<usize> {
        (0..self.n).step_by(BLOCK).map(|start| BLOCK.min(self.n - start)).collect()
    }

    fn read(&self, start: usize, rows: usize) -> std::io::Result<Vec<f32>> {
        let width = if self.is_half { 2 } else { 4 };
        let mut bytes = vec![0; rows * self.d * width];
        self.file.read_exact_at(&mut bytes, (start * self.d * width) as u64)?;
        if !self.is_half {
            return Ok(bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect());
        }
        let bits: Vec<u16> = bytes.as_chunks().0.iter().map(|two| u16::from_le_bytes(*two)).collect();
        let mut values = vec![0.0; bits.len()];
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(&mut values);
        Ok(values)
    }

    fn project(&self, stream: &mut Rng) -> Vec<f32> {
        let projection = Projection::new(self.d, PROJECTION, stream);
        let sizes = self.sizes();
        projection.apply_blocks(&sizes, |block| self.read(block * BLOCK, sizes[block])).unwrap()
    }
}

fn pick(features: &Rows, count: usize, device: Device) {
    let mut stream = Rng::new(0, "coreset");
    let start = (Instant::now(), cpu_seconds());
    let points = features.project(&mut stream);
    let middle = (Instant::now(), cpu_seconds());
    let set = Points::on(device, &points, PROJECTION).unwrap();
    let picks = set.k_center_greedy(stream.below(features.n), count, &|_| true).unwrap();
    let end = (Instant::now(), cpu_seconds());
    let figures = serde_json::json!({
        "rows": features.n,
        "picks": count,
        "device": device.to_string(),
        "instructions": instructions(),
        "project_s": (middle.0 - start.0).as_secs_f64(),
        "project_cpu_s": middle.1 - start.1,
        "picks_s": (end.0 - middle.0).as_secs_f64(),
        "picks_cpu_s": end.1 - middle.1,
        "peak_mib": peak_mib(),
        "radius": picks.radii.last(),
        "digest": digest(&picks),
    });
    println!("{figures}");
}

/// Vector instructions for floats and for int8.
fn instructions() -> String {
    format!("f32={},int8={}", simd_level(), int8_instructions().unwrap_or("none"))
}

/// CPU time of this process, user and system.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The fields after the name, which may hold spaces; 14 and 15 of all are the times.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split(' ').collect();
    (fields[12].parse::<f64>().unwrap() + fields[13].parse::<f64>().unwrap()) / TICKS
}

/// Most memory held at once.
fn peak_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<usize>().unwrap() / 1024
}

fn digest(picks: &Picks) -> String {
    let mut hasher = blake3::Hasher::new();
    picks.rows.iter().for_each(|row| _ = hasher.update(&row.to_le_bytes()));
    picks.radii.iter().for_each(|radius| _ = hasher.update(&radius.to_le_bytes()));
    hasher.finalize().to_hex()[..16].to_owned()
}

fn check(features: &Rows, count: usize) {
    let mut stream = Rng::new(0, "coreset");
    let points = features.project(&mut stream);
    let first = stream.below(features.n);
    let picks = Points::new(&points, PROJECTION).unwrap().k_center_greedy(first, count, &|_| true).unwrap();
    assert!(picks == naive(&points, first, count), "the picks are not those of the naive algorithm");
    println!("{} rows, {count} picks: rows and radii are those of the naive algorithm", features.n);
}

/// Farthest-first traversal as it is written down: every point against every pick.
fn naive(points: &[f32], first: usize, count: usize) -> Picks {
    let row = |index: usize| &points[index * PROJECTION..][..PROJECTION];
    let mut distances = vec![f32::INFINITY; points.len() / PROJECTION];
    let mut picks = Picks { rows: Vec::new(), radii: Vec::new() };
    let mut next = first;
    while picks.rows.len() < count {
        picks.rows.push(next as u32);
        let closer = |(index, distance): (usize, &mut f32)| {
            *distance = distance.min(squared_euclidean(row(index), row(next)));
        };
        distances.par_iter_mut().enumerate().for_each(closer);
        picks.rows.iter().for_each(|&row| distances[row as usize] = -1.0);
        next = (0..distances.len()).reduce(|a, b| if distances[b] > distances[a] { b } else { a }).unwrap();
        picks.radii.push(distances[next].max(0.0).sqrt());
    }
    picks
}

/// Patches as a network makes them: 40 latent directions of falling variance, noise, and 200 groups.
fn clusters(rows: usize, d: usize, path: &str) {
    let mut stream = Rng::new(1, "bench");
    let latent = 40;
    let directions = normals(&mut stream, latent * d);
    let groups = normals(&mut stream, 200 * latent);
    let noise = Noise::new(0.3);
    write_blocks(rows, path, |block, size| {
        let mut stream = Rng::new(block as u64, "rows");
        let mut features = vec![0.0; size * d];
        for row in features.chunks_mut(d) {
            noise.add(row, &mut stream);
            let group = stream.below(200) * latent;
            for (axis, direction) in directions.chunks(d).enumerate() {
                let size = (groups[group + axis] + 0.7 * stream.normal() as f32) / (1.0 + axis as f32).sqrt();
                row.iter_mut().zip(direction).for_each(|(x, along)| *x += size * along);
            }
        }
        features
    });
}

/// Rows four times as wide as the base's: a patch beside its right, lower and lower right neighbour.
///
/// Copy `c` of image `i` is a mixture of the images `i` and `i + c` (up to a half, one share an image), with
/// noise on every row. No rotation mixes the parts: the projection that follows has no preferred direction.
fn grow(base: &str, rows: usize, path: &str) {
    let [height, width, d] = BASE;
    let base = Rows::open(base, d);
    let images = base.n / BLOCK;
    let noise = Noise::new(GROWN_NOISE / ((4 * d) as f32).sqrt());
    let part = |patch: usize, down: usize, right: usize| {
        let (y, x) = ((patch / width + down).min(height - 1), (patch % width + right).min(width - 1));
        (y * width + x) * d
    };
    write_blocks(rows, path, |block, size| {
        let mut stream = Rng::new(block as u64, "grow");
        let one = base.read(block % images * BLOCK, BLOCK).unwrap();
        let other = base.read((block + block / images) % images * BLOCK, BLOCK).unwrap();
        let share = 0.5 * stream.uniform() as f32;
        let mixed: Vec<f32> = one.iter().zip(&other).map(|(a, b)| a + share * (b - a)).collect();
        let mut features = Vec::with_capacity(size * 4 * d);
        for patch in 0..size {
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                features.extend_from_slice(&mixed[part(patch, down, right)..][..d]);
            }
            noise.add(&mut features[patch * 4 * d..], &mut stream);
        }
        features
    });
}

fn normals(stream: &mut Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| stream.normal() as f32).collect()
}

/// Normal noise, from a table: drawing each number would take minutes.
struct Noise(Vec<f32>);

impl Noise {
    fn new(size: f32) -> Self {
        Self(normals(&mut Rng::new(2, "noise"), 1 << 18).into_iter().map(|x| x * size).collect())
    }

    fn add(&self, row: &mut [f32], stream: &mut Rng) {
        let start = stream.below(self.0.len() - row.len());
        row.iter_mut().zip(&self.0[start..]).for_each(|(x, noise)| *x += noise);
    }
}

/// Writes what `make` gives for each block, several blocks at once and in their order.
fn write_blocks(rows: usize, path: &str, make: impl Fn(usize, usize) -> Vec<f32> + Sync) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let blocks: Vec<(usize, usize)> =
        (0..rows).step_by(BLOCK).map(|start| (start / BLOCK, BLOCK.min(rows - start))).collect();
    for some in blocks.chunks(16) {
        let made: Vec<Vec<u8>> =
            some.par_iter().map(|&(block, size)| encode(&make(block, size), path)).collect();
        for bytes in made {
            file.write_all(&bytes).unwrap();
        }
    }
    file.flush().unwrap();
}

fn encode(values: &[f32], path: &str) -> Vec<u8> {
    if !is_half(path) {
        return values.iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    halves.iter().flat_map(|x| x.to_le_bytes()).collect()
}
