//! Speed of the metrics: pixel metrics of 10 million pixels, image metrics of a test set, the bootstrap of both; and of
//! upsampling and smoothing a map.

use divan::{Bencher, black_box};
use patchflow::kernels::map::{gaussian_blur, upsample};
use patchflow::kernels::metrics::{
    DEFAULT_BINS, PixelScores, PixelStatistics, auroc, average_precision, f1_max, image_intervals,
    pixel_intervals,
};
use patchflow::kernels::random::Rng;

const HEIGHT: usize = 632;
const WIDTH: usize = 224;
/// Number of images of 632×224 that have 10 million pixels.
const MAPS: usize = 71;
/// Number of images of the KSDD2 test split.
const IMAGES: usize = 1004;

fn main() {
    divan::main();
}

/// One image in nine has a defect of 7,200 pixels.
fn images(count: usize, height: usize, width: usize) -> Vec<(Vec<f32>, Vec<u8>)> {
    let mut rng = Rng::new(1, "benchmark maps");
    let image = |number: usize| {
        let mut mask = vec![0; height * width];
        if number.is_multiple_of(9) {
            (height / 6..height / 3).for_each(|row| mask[row * width + width / 4..][..width / 3].fill(1));
        }
        let score = |&value: &u8| rng.uniform() as f32 + 0.4 * f32::from(value);
        (mask.iter().map(score).collect(), mask)
    };
    (0..count).map(image).collect()
}

fn pixel_scores(images: &[(Vec<f32>, Vec<u8>)], height: usize, width: usize) -> PixelScores {
    let mut scores = PixelScores::new();
    for (map, mask) in images {
        scores.add(map, mask, height, width).expect("the scores are finite");
    }
    scores
}

fn image_scores() -> (Vec<f32>, Vec<bool>) {
    let mut rng = Rng::new(1, "benchmark images");
    let labels: Vec<bool> = (0..IMAGES).map(|image| image.is_multiple_of(9)).collect();
    let scores = labels.iter().map(|&label| rng.normal() as f32 + if label { 1.5 } else { 0.0 }).collect();
    (scores, labels)
}

#[divan::bench(sample_count = 5)]
fn add_10_million_pixels(bencher: Bencher) {
    let images = images(MAPS, HEIGHT, WIDTH);
    bencher.bench_local(|| pixel_scores(black_box(&images), HEIGHT, WIDTH));
}

#[divan::bench(sample_count = 5)]
fn finish_10_million_pixels(bencher: Bencher) {
    let scores = pixel_scores(&images(MAPS, HEIGHT, WIDTH), HEIGHT, WIDTH);
    bencher.with_inputs(|| scores.clone()).bench_local_values(|scores| scores.finish(0.3));
}

#[divan::bench(sample_count = 5)]
fn bin_10_million_pixels(bencher: Bencher) {
    let images = images(MAPS, HEIGHT, WIDTH);
    let bins = pixel_scores(&images, HEIGHT, WIDTH).bins(DEFAULT_BINS).expect("both classes are there");
    bencher.bench_local(|| {
        let count = |(map, mask): &(Vec<f32>, Vec<u8>)| bins.count(map, mask, HEIGHT, WIDTH);
        images.iter().map(count).collect::<Vec<_>>()
    });
}

#[divan::bench(sample_count = 3)]
fn pixel_intervals_of_1000_resamples_of_1004_images(bencher: Bencher) {
    let images = images(IMAGES, 96, 32);
    let bins = pixel_scores(&images, 96, 32).bins(DEFAULT_BINS).expect("both classes are there");
    let counted = images.iter().map(|(map, mask)| bins.count(map, mask, 96, 32).expect("it is finite"));
    let statistics = PixelStatistics::new(&bins, counted.collect(), 0.3);
    bencher.bench_local(|| pixel_intervals(&statistics, 1000, &mut Rng::new(1, "benchmark bootstrap")));
}

#[divan::bench(sample_count = 20)]
fn upsample_a_map_of_632_by_224(bencher: Bencher) {
    let map: Vec<f32> = (0..79 * 28).map(|index| (index * 7919 % 1000) as f32).collect();
    bencher.bench_local(|| upsample(black_box(&map), 79, 28, HEIGHT, WIDTH));
}

#[divan::bench(sample_count = 20)]
fn blur_a_map_of_632_by_224(bencher: Bencher) {
    let map: Vec<f32> = (0..HEIGHT * WIDTH).map(|index| (index * 7919 % 1000) as f32).collect();
    bencher.bench_local(|| gaussian_blur(black_box(&map), HEIGHT, WIDTH, 4.0));
}

#[divan::bench(sample_count = 3)]
fn image_intervals_of_1000_resamples_of_1004_images(bencher: Bencher) {
    let (scores, labels) = image_scores();
    bencher.bench_local(|| image_intervals(&scores, &labels, 1000, &mut Rng::new(1, "benchmark bootstrap")));
}

#[divan::bench]
fn image_metrics_of_1004_images(bencher: Bencher) {
    let (scores, labels) = image_scores();
    bencher.bench_local(|| {
        let (scores, labels) = (black_box(&scores), black_box(&labels));
        (auroc(scores, labels), average_precision(scores, labels), f1_max(scores, labels))
    });
}
