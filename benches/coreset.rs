//! Speed of the coreset: `cargo bench --bench coreset`.

use divan::Bencher;
use patchflow::kernels::coreset::{Points, Projection};
use patchflow::kernels::random::Rng;

fn main() {
    divan::main();
}

const N: usize = 200_000;
const D: usize = 128;

/// Patches as a network makes them: 40 latent directions of falling variance, noise, and 200 groups.
fn grouped() -> Vec<f32> {
    let mut stream = Rng::new(1, "bench");
    let latent = 40;
    let directions: Vec<f32> = (0..latent * D).map(|_| stream.normal() as f32).collect();
    let groups: Vec<f32> = (0..200 * latent).map(|_| stream.normal() as f32).collect();
    let mut points = vec![0.0; N * D];
    for point in points.chunks_mut(D) {
        let group = stream.below(200) * latent;
        for (axis, direction) in directions.chunks(D).enumerate() {
            let size = (groups[group + axis] + 0.7 * stream.normal() as f32) / (1.0 + axis as f32).sqrt();
            point.iter_mut().zip(direction).for_each(|(x, along)| *x += size * along);
        }
        for x in point {
            *x += 0.3 * stream.normal() as f32;
        }
    }
    points
}

/// No structure at all: all distances nearly equal.
fn isotropic() -> Vec<f32> {
    let mut stream = Rng::new(1, "bench");
    (0..N * D).map(|_| stream.normal() as f32).collect()
}

#[divan::bench(sample_count = 3)]
fn greedy_grouped(bencher: Bencher) {
    let points = grouped();
    bencher.bench(|| Points::new(&points, D)?.k_center_greedy(0, 2000, &|_| true));
}

#[divan::bench(sample_count = 3)]
fn greedy_isotropic(bencher: Bencher) {
    let points = isotropic();
    bencher.bench(|| Points::new(&points, D)?.k_center_greedy(0, 2000, &|_| true));
}

#[divan::bench(sample_count = 3)]
fn project_1024_to_128(bencher: Bencher) {
    let mut stream = Rng::new(2, "bench");
    let features: Vec<f32> = (0..50_000 * 1024).map(|_| stream.uniform() as f32).collect();
    let sizes = [5000; 10];
    let read = |block: usize| Ok::<_, ()>(features[block * 5000 * 1024..][..5000 * 1024].to_vec());
    bencher.bench(|| Projection::new(1024, D, &mut Rng::new(3, "project")).apply_blocks(&sizes, read));
}
