//! Speed of the search: `cargo bench --bench nearest`.

use divan::Bencher;
use patchflow::kernels::nearest::Bank;
use patchflow::kernels::random::Stream;

fn main() {
    divan::main();
}

const D: usize = 1024;

fn rows(count: usize, name: &str) -> Vec<f32> {
    let mut stream = Stream::new(1, name);
    (0..count * D).map(|_| stream.normal().max(0.0) as f32).collect()
}

/// Neighbours asked for: the patch map, and the paper's reweighting.
#[divan::bench(sample_count = 5, args = [1, 9])]
fn queries_2000_in_20000(bencher: Bencher, k: usize) {
    let bank = Bank::new(rows(20_000, "bank"), D).expect("the bank is finite");
    let queries = rows(2000, "queries");
    bencher.bench(|| bank.nearest(&queries, k));
}

#[divan::bench(sample_count = 5)]
fn one_image_of_392_in_1000(bencher: Bencher) {
    let bank = Bank::new(rows(1000, "bank"), D).expect("the bank is finite");
    let queries = rows(392, "queries");
    bencher.bench(|| bank.nearest(&queries, 1));
}
