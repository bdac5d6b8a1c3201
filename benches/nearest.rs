//! Speed of the search: `cargo bench --bench nearest`. Beside faiss: `benches/peers/nearest.py`.

use divan::Bencher;
use patchflow::kernels::nearest::SearchBank;
use patchflow::kernels::random::Rng;

fn main() {
    divan::main();
}

const D: usize = 384;

/// Patches as a network makes them: 60 directions of falling variance, 200 groups, and noise.
fn structured(count: usize, name: &str) -> Vec<f32> {
    let latent = 60;
    let mut shared = Rng::new(1, "shared");
    let directions: Vec<f32> = (0..latent * D).map(|_| shared.normal() as f32).collect();
    let groups: Vec<f32> = (0..200 * latent).map(|_| shared.normal() as f32).collect();
    let mut stream = Rng::new(1, name);
    let mut rows = vec![0.0; count * D];
    for row in rows.chunks_mut(D) {
        let group = stream.below(200) * latent;
        for (axis, direction) in directions.chunks(D).enumerate() {
            let size = (groups[group + axis] + 0.7 * stream.normal() as f32) / (1.0 + axis as f32).sqrt();
            row.iter_mut().zip(direction).for_each(|(x, along)| *x += size * along);
        }
        for x in row {
            *x += 0.3 * stream.normal() as f32;
        }
    }
    rows
}

/// No structure at all: all distances nearly equal.
fn noise(count: usize, name: &str) -> Vec<f32> {
    let mut stream = Rng::new(1, name);
    (0..count * D).map(|_| stream.normal() as f32).collect()
}

/// Banks, and neighbours asked for: the patch map, and the paper's reweighting.
const SIZES: [(usize, usize); 4] = [(2000, 1), (2000, 9), (20_000, 1), (20_000, 9)];

fn search_2000(bencher: Bencher, rows: impl Fn(usize, &str) -> Vec<f32>, (m, k): (usize, usize)) {
    let bank = SearchBank::new(rows(m, "bank"), D).expect("the bank is finite");
    let queries = rows(2000, "queries");
    // The codes are made by the first searches.
    (0..2).for_each(|_| drop(bank.nearest(&queries, k)));
    bencher.bench(|| bank.nearest(&queries, k));
}

#[divan::bench(sample_count = 5, args = SIZES)]
fn structured_2000_queries(bencher: Bencher, size: (usize, usize)) {
    search_2000(bencher, structured, size);
}

#[divan::bench(sample_count = 5, args = SIZES)]
fn noise_2000_queries(bencher: Bencher, size: (usize, usize)) {
    search_2000(bencher, noise, size);
}

/// A new bank's first search and its tenth, for one image of 560 patches.
#[divan::bench(sample_count = 5, args = [1, 10])]
fn images_of_560_in_a_new_bank_of_2000(bencher: Bencher, images: usize) {
    let (rows, queries) = (structured(2000, "bank"), structured(560, "queries"));
    bencher.bench(|| {
        let bank = SearchBank::new(rows.clone(), D).expect("the bank is finite");
        (0..images).for_each(|_| drop(bank.nearest(&queries, 1)));
    });
}
