//! The Rust backend: runs a network on the CPU without a native library.
//!
//! Each thread runs a few images at a time, layer by layer: their maps stay in the caches of one core, and no thread waits
//! for another within a layer. If fewer images than threads remain at the end of a batch, these run one after the other,
//! with all threads inside each layer.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::convolution::{Epilogue, PackedConvolution};
use super::error::{BackboneError, RuntimeError};
use super::feature_map::FeatureMap;
use super::network::{Convolution, INPUT_CHANNELS, Layer, Network, ResidualBlock};
use super::padded::{Buffers, MapShape, PaddedMap};
use super::pooling::max_pool;
use super::runtime::{Runtime, check_layers, check_pixels};
use super::weights::Weights;

/// The layer from which on a thread runs its images together: the weights of earlier layers fit the caches, and so do the
/// maps of one image there.
const TOGETHER_FROM: Layer = Layer::Layer3;

/// Most images that a thread runs together (chosen).
const MOST_TOGETHER: usize = 4;

/// A network with packed weights and its own thread pool.
///
/// Memory: the folded weights once (3×3 ones of stride 1 at 36 points instead of 9), and for each thread the buffers of up
/// to [`MOST_TOGETHER`] images (each about four times its largest map) and up to 17 MB for a block of tiles.
pub(super) struct RustBackbone {
    network: Network,
    layers: Vec<Layer>,
    stem: PackedConvolution,
    blocks: Vec<PackedBlock>,
    threads: rayon::ThreadPool,
    /// Buffers of threads that are not running an image.
    idle_buffers: Mutex<Vec<Buffers>>,
}

/// A residual block with packed weights.
struct PackedBlock {
    layer: Layer,
    branch: Vec<PackedConvolution>,
    shortcut: Option<PackedConvolution>,
    /// Index, in the list of requested layers, of the layer whose map is this block's output; `None` if that was not
    /// requested.
    output: Option<usize>,
}

impl RustBackbone {
    /// Folds the batch norms into the weights and packs the network up to the deepest of `layers`.
    ///
    /// # Errors
    /// If the weights do not fit the network, `layers` is empty or repeats a layer, or the threads cannot be
    /// started.
    pub(super) fn new(
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        threads: NonZeroUsize,
    ) -> Result<Self, BackboneError> {
        check_layers(network, layers)?;
        weights.check(network)?;
        let pack = |convolution: Convolution| {
            let folded = weights.fold(&convolution);
            PackedConvolution::new(convolution, &folded)
        };
        let pack_block = |ResidualBlock { layer, ends_layer, branch, shortcut, .. }| PackedBlock {
            layer,
            branch: branch.into_iter().map(pack).collect(),
            shortcut: shortcut.map(pack),
            output: layers.iter().position(|&wanted| ends_layer && wanted == layer),
        };
        let deepest = layers.iter().max().copied();
        let blocks = network.blocks().into_iter().filter(|block| Some(block.layer) <= deepest);
        Ok(Self {
            network,
            layers: layers.to_vec(),
            stem: pack(network.stem()),
            blocks: blocks.map(pack_block).collect(),
            threads: rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .build()
                .map_err(|source| BackboneError::Threads { network, source })?,
            idle_buffers: Mutex::default(),
        })
    }

    /// Runs a batch. The maps have the same bits for any number of threads, for any division into batches and
    /// on every machine (see `convolution.rs`).
    fn run_batch(
        &self,
        pixels: &[f32],
        n: usize,
        h: usize,
        w: usize,
    ) -> Result<Vec<FeatureMap>, BackboneError> {
        check_pixels(pixels, n, h, w)?;
        let mut maps = self.empty_maps(n, h, w);
        let mut images: Vec<BatchImage<'_>> = pixels
            .chunks_exact(INPUT_CHANNELS * h * w)
            .map(|pixels| BatchImage { pixels, height: h, width: w, outputs: Vec::new() })
            .collect();
        for map in &mut maps {
            let size = map.channels * map.height * map.width;
            for (image, output) in images.iter_mut().zip(map.data.chunks_exact_mut(size)) {
                image.outputs.push(output);
            }
        }
        self.threads.install(|| self.run_images(&mut images));
        Ok(maps)
    }

    fn empty_maps(&self, n: usize, h: usize, w: usize) -> Vec<FeatureMap> {
        let map = |&layer: &Layer| {
            let (channels, height, width) = (self.network.channels(layer), layer.side(h), layer.side(w));
            FeatureMap { channels, height, width, data: vec![0.0; n * channels * height * width] }
        };
        self.layers.iter().map(map).collect()
    }

    fn run_images(&self, images: &mut [BatchImage<'_>]) {
        let threads = self.threads.current_num_threads();
        let (parallel, remaining) = images.split_at_mut(images.len() / threads * threads);
        let together = images_together(parallel.len() / threads);
        parallel.par_chunks_mut(together).with_max_len(1).for_each(|images| self.run_together(images, 1));
        for image in remaining {
            self.run_together(std::slice::from_mut(image), threads);
        }
    }

    /// Runs some images, from [`TOGETHER_FROM`] on together; the rows of a single image's maps are divided into `bands` that run in parallel.
    fn run_together(&self, images: &mut [BatchImage<'_>], bands: usize) {
        let idle = || self.idle_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = idle().pop().unwrap_or_default();
        let shallow = self.blocks.partition_point(|block| block.layer < TOGETHER_FROM);
        let (shallow, deep) = self.blocks.split_at(shallow);
        let mut values = Vec::with_capacity(images.len());
        for image in images.iter_mut() {
            let value = vec![self.run_stem(image, &mut buffers, bands)];
            values.extend(run_blocks(shallow, value, std::slice::from_mut(image), &mut buffers, bands));
        }
        let values = run_blocks(deep, values, images, &mut buffers, bands);
        buffers.recycle(values);
        idle().push(buffers);
    }

    fn run_stem(&self, image: &BatchImage<'_>, buffers: &mut Buffers, bands: usize) -> PaddedMap {
        let &BatchImage { pixels, height, width, .. } = image;
        let shape = MapShape { height, width, channels: INPUT_CHANNELS };
        let input = [PaddedMap::from_planes(pixels, shape, self.stem.padding(), buffers)];
        let mut stem = self.stem.outputs(&input, buffers);
        self.stem.run(&input, &mut stem, Epilogue::Relu, bands);
        let pooled = max_pool(&stem[0], buffers, bands);
        buffers.recycle(input);
        buffers.recycle(stem);
        pooled
    }
}

/// Runs some blocks one after the other, and writes the maps of the layers that were requested.
fn run_blocks(
    blocks: &[PackedBlock],
    mut values: Vec<PaddedMap>,
    images: &mut [BatchImage<'_>],
    buffers: &mut Buffers,
    bands: usize,
) -> Vec<PaddedMap> {
    for block in blocks {
        values = block.run(values, buffers, bands);
        if let Some(index) = block.output {
            for (image, value) in images.iter_mut().zip(&values) {
                value.write_planes(image.outputs[index]);
            }
        }
    }
    values
}

/// How many images of `each` that a thread has run together. The weights of deep layers are larger than the caches, and
/// are read once for them all; but a thread has at least two parts, so that others take one over from a thread whose core
/// is busy.
fn images_together(each: usize) -> usize {
    (1..=MOST_TOGETHER)
        .rev()
        .find(|&together| each.is_multiple_of(together) && each / together >= 2)
        .unwrap_or(1)
}

/// One image of a batch, with the output slices for its maps.
struct BatchImage<'a> {
    /// Normalised pixels: `[3, height, width]`.
    pixels: &'a [f32],
    height: usize,
    width: usize,
    /// Where the map of each requested layer is written: `[channels, height, width]`.
    outputs: Vec<&'a mut [f32]>,
}

impl Runtime for RustBackbone {
    fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, RuntimeError> {
        Ok(self.run_batch(pixels, n, h, w)?)
    }
}

impl PackedBlock {
    /// Returns `relu(branch(input) + shortcut(input))` of each input. The sum is accumulated in the shortcut's map.
    fn run(&self, inputs: Vec<PaddedMap>, buffers: &mut Buffers, bands: usize) -> Vec<PaddedMap> {
        let (last, inner) = self.branch.split_last().expect("a block has convolutions");
        let mut values: Option<Vec<PaddedMap>> = None;
        for convolution in inner {
            let sources = values.as_ref().unwrap_or(&inputs);
            let mut outs = convolution.outputs(sources, buffers);
            convolution.run(sources, &mut outs, Epilogue::Relu, bands);
            values.replace(outs).into_iter().for_each(|done| buffers.recycle(done));
        }
        let values = values.expect("a block has at least two convolutions");
        let mut sums = match &self.shortcut {
            None => inputs,
            Some(shortcut) => {
                let mut outs = shortcut.outputs(&inputs, buffers);
                shortcut.run(&inputs, &mut outs, Epilogue::Identity, bands);
                buffers.recycle(inputs);
                outs
            }
        };
        last.run(&values, &mut sums, Epilogue::AddRelu, bands);
        buffers.recycle(values);
        sums
    }
}

/// Returns the widest vector instruction set that this machine and this backend support: `avx512`, `avx2`,
/// `neon` or `baseline`. It affects the running time, never the maps.
pub fn simd_level() -> &'static str {
    match pulp::Arch::new() {
        #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
        pulp::Arch::V4(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "avx2",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "neon",
        _ => "baseline",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::kernels::random::Rng;

    const LAYERS: [Layer; 2] = [Layer::Layer2, Layer::Layer3];

    fn backbone(threads: usize) -> RustBackbone {
        static WEIGHTS: OnceLock<Weights> = OnceLock::new();
        let weights = WEIGHTS.get_or_init(|| Weights::seeded(Network::ResNet18, 1));
        let threads = NonZeroUsize::new(threads).unwrap();
        RustBackbone::new(Network::ResNet18, weights, &LAYERS, threads).unwrap()
    }

    fn pixels(count: usize) -> Vec<f32> {
        let mut rng = Rng::new(1, "pixels");
        (0..count).map(|_| rng.normal() as f32).collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn maps_are_the_same_bits_for_any_threads_and_batches() {
        let (h, w) = (70, 45);
        let size = 3 * h * w;
        let pixels = pixels(7 * size);
        let expected = backbone(1).forward(&pixels, 7, h, w).unwrap();
        for threads in [1, 2, 4] {
            let backbone = backbone(threads);
            for batch in [1, 2, 7] {
                for (start, part) in pixels.chunks(batch * size).enumerate() {
                    let maps = backbone.forward(part, part.len() / size, h, w).unwrap();
                    for (map, expected) in maps.iter().zip(&expected) {
                        let first = expected.image(start * batch).data.len() * start * batch;
                        let expected = &expected.data[first..first + map.data.len()];
                        assert_eq!(bits(&map.data), bits(expected), "{threads} threads, batch {batch}");
                    }
                }
            }
        }
    }

    #[test]
    fn small_images_have_maps_of_rounded_up_sides() {
        let backbone = backbone(2);
        for side in 1..=20 {
            let maps = backbone.forward(&pixels(3 * side * 33), 1, side, 33).unwrap();
            let shapes = maps.iter().map(|map| (map.channels, map.height, map.width)).collect::<Vec<_>>();
            assert_eq!(shapes, [(128, side.div_ceil(8), 5), (256, side.div_ceil(16), 3)]);
        }
    }

    #[test]
    fn seeded_features_are_of_order_1() {
        let maps = backbone(2).forward(&pixels(3 * 64 * 64), 1, 64, 64).unwrap();
        for map in maps {
            let mean_square = map.data.iter().map(|v| v * v).sum::<f32>() / map.data.len() as f32;
            assert!((0.1..10.0).contains(&mean_square), "{mean_square}");
        }
    }

    #[test]
    fn no_image_gives_maps_without_data() {
        let maps = backbone(2).forward(&[], 0, 32, 32).unwrap();
        assert_eq!(maps.len(), 2);
        assert!(maps.iter().all(|map| map.data.is_empty() && map.images() == 0));
    }

    #[test]
    fn wrong_requests_are_refused() {
        let backbone = backbone(1);
        assert!(matches!(backbone.run_batch(&[], 1, 0, 8), Err(BackboneError::EmptyImage { .. })));
        let mut pixels = pixels(2 * 3 * 16);
        pixels[50] = f32::NAN;
        assert!(matches!(backbone.run_batch(&pixels, 2, 4, 4), Err(BackboneError::NotFinite { image: 1 })));
        let weights = Weights::default();
        let make = |layers: &[Layer]| {
            RustBackbone::new(Network::ResNet50, &weights, layers, NonZeroUsize::MIN).map(|_| ()).unwrap_err()
        };
        assert!(matches!(make(&[]), BackboneError::NoLayer { .. }));
        let twice = [Layer::Layer1, Layer::Layer1];
        assert!(matches!(make(&twice), BackboneError::RepeatedLayer { layer: Layer::Layer1 }));
        assert!(matches!(make(&LAYERS), BackboneError::Weights(_)));
    }
}
