//! Speed of the steps before the network (decoding, resizing, normalisation), one image at a time:
//! `cargo bench --bench pixels`. An item in divan's output is an image. Images have the size of KSDD2; `to` is half of it.

use divan::Bencher;
use divan::counter::ItemsCount;
use image::{ImageFormat, RgbImage};
use patchflow::artifacts::File;
use patchflow::artifacts::image_set::read_rgb;
use patchflow::kernels::backbone::normalise;
use patchflow::kernels::random::Rng;
use patchflow::kernels::resize::resize;
use patchflow::kernels::surface::{Texture, surface};

const HEIGHT: usize = 632;
const WIDTH: usize = 224;

fn main() {
    divan::main();
}

fn pixels() -> Vec<u8> {
    surface(&mut Rng::new(1, "pixels"), Texture::Brushed, None, HEIGHT, WIDTH).pixels
}

#[divan::bench(args = [ImageFormat::Png, ImageFormat::Jpeg])]
fn decode(bencher: Bencher, format: ImageFormat) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("image");
    let image = RgbImage::from_raw(WIDTH as u32, HEIGHT as u32, pixels()).expect("three levels a pixel");
    image.save_with_format(&path, format).expect("the image can be written");
    let file = File { path, digest: None, size_bytes: 0, is_executable: false };
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| read_rgb(&file));
}

#[divan::bench(args = [(HEIGHT / 2, WIDTH / 2), (224, 224), (640, 232)])]
fn resize_to(bencher: Bencher, (h, w): (usize, usize)) {
    let pixels = pixels();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| resize(&pixels, HEIGHT, WIDTH, 3, h, w));
}

#[divan::bench]
fn normalise_for_the_network(bencher: Bencher) {
    let pixels = pixels();
    let mut out = vec![0.0; pixels.len()];
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| normalise(&pixels, HEIGHT, WIDTH, &mut out));
}
