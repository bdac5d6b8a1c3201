//! Times of the metric kernels: pixel metrics of 10 million pixels, image metrics of a test set, and their
//! bootstrap.

use divan::{Bencher, black_box};
use patchflow::kernels::metrics::{
    DEFAULT_BINS, PixelScores, auroc, average_precision, f1_max, image_intervals, pixel_intervals,
};
use patchflow::kernels::random::Stream;

const HEIGHT: usize = 632;
const WIDTH: usize = 224;
/// Images of 632×224 in 10 million pixels.
const MAPS: usize = 71;
/// Images of the KSDD2 test split.
const IMAGES: usize = 1004;

fn main() {
    divan::main();
}

/// One image in nine has a defect of 7,200 pixels.
fn images(count: usize, height: usize, width: usize) -> Vec<(Vec<f32>, Vec<u8>)> {
    let mut stream = Stream::new(1, "benchmark maps");
    let image = |number: usize| {
        let mut mask = vec![0; height * width];
        if number.is_multiple_of(9) {
            (height / 6..height / 3).for_each(|row| mask[row * width + width / 4..][..width / 3].fill(1));
        }
        let score = |&value: &u8| stream.uniform() as f32 + 0.4 * f32::from(value);
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
    let mut stream = Stream::new(1, "benchmark images");
    let labels: Vec<bool> = (0..IMAGES).map(|image| image.is_multiple_of(9)).collect();
    let scores = labels.iter().map(|&label| stream.normal() as f32 + if label { 1.5 } else { 0.0 }).collect();
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
    let scores = pixel_scores(&images(MAPS, HEIGHT, WIDTH), HEIGHT, WIDTH);
    bencher.bench_local(|| scores.statistics(0.3, DEFAULT_BINS));
}

#[divan::bench(sample_count = 3)]
fn pixel_intervals_of_1000_resamples_of_1004_images(bencher: Bencher) {
    let scores = pixel_scores(&images(IMAGES, 96, 32), 96, 32);
    let statistics = scores.statistics(0.3, DEFAULT_BINS).expect("both classes are there");
    bencher.bench_local(|| pixel_intervals(&statistics, 1000, &mut Stream::new(1, "benchmark bootstrap")));
}

#[divan::bench(sample_count = 3)]
fn image_intervals_of_1000_resamples_of_1004_images(bencher: Bencher) {
    let (scores, labels) = image_scores();
    bencher
        .bench_local(|| image_intervals(&scores, &labels, 1000, &mut Stream::new(1, "benchmark bootstrap")));
}

#[divan::bench]
fn image_metrics_of_1004_images(bencher: Bencher) {
    let (scores, labels) = image_scores();
    bencher.bench_local(|| {
        let (scores, labels) = (black_box(&scores), black_box(&labels));
        (auroc(scores, labels), average_precision(scores, labels), f1_max(scores, labels))
    });
}
