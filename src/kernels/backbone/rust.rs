//! Runs a network without a native library.
//!
//! Images are run one a thread, as long as there are enough for all threads: an image's maps stay in the
//! caches of one core, and no thread waits for another within a layer. What is left of a batch is run image
//! by image with all threads inside each layer.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::convolution::{Epilogue, PackedConvolution};
use super::feature_map::FeatureMap;
use super::network::{Convolution, INPUT_CHANNELS, Layer, Network, ResidualBlock};
use super::padded::{Buffers, MapShape, PaddedMap};
use super::pooling::max_pool;
use super::weights::{Weights, WeightsError};

/// Why a backbone cannot be made or run.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// The weights are not the network's.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// No layer was asked for.
    #[error("no layer of `{network}` was asked for")]
    NoLayer {
        /// The network.
        network: Network,
    },
    /// A layer was asked for twice.
    #[error("`{layer}` was asked for twice")]
    RepeatedLayer {
        /// The layer.
        layer: Layer,
    },
    /// An image without a pixel.
    #[error("an image of {height}×{width} pixels has no features")]
    EmptyImage {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// A pixel that is NaN or infinite.
    #[error("image {image} of the batch holds a pixel that is not finite")]
    NotFinite {
        /// Its index in the batch.
        image: usize,
    },
    /// The threads cannot be started.
    #[error("the threads of `{network}` cannot be started")]
    Threads {
        /// The network.
        network: Network,
        /// The system's reason.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
}

/// A network with its weights, ready to run on the CPU with a fixed number of threads.
///
/// Holds the folded weights once, its threads, and for each of them the maps of one image as they were last
/// needed (about four times the largest).
pub struct RustBackbone {
    network: Network,
    layers: Vec<Layer>,
    stem: PackedConvolution,
    blocks: Vec<PackedBlock>,
    threads: rayon::ThreadPool,
    idle: Mutex<Vec<Buffers>>,
}

/// A residual block with its weights in the order of use.
struct PackedBlock {
    branch: Vec<PackedConvolution>,
    shortcut: Option<PackedConvolution>,
    /// The index of its output among the layers that were asked for.
    output: Option<usize>,
}

impl RustBackbone {
    /// Folds the weights and prepares the network up to the deepest of `layers`.
    ///
    /// # Errors
    /// If the weights do not fit the network, `layers` is empty or names a layer twice, or the threads cannot
    /// be started.
    pub fn new(
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
            idle: Mutex::default(),
        })
    }

    /// The network.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The layers, in the order of [`Backbone::forward`]'s maps.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Runs the network on `pixels`, `[n, 3, h, w]` row-major and normalised, and returns one map a layer, in
    /// the order of [`Backbone::layers`], of height `⌈h / stride⌉` and width `⌈w / stride⌉`.
    ///
    /// The maps are the same bits for any number of threads, for any division into batches and on every
    /// machine (see `convolution.rs`). No image gives maps without data.
    ///
    /// # Panics
    /// If `pixels` has not `3 · n · h · w` values.
    ///
    /// # Errors
    /// If an image has no pixel, or a pixel is not finite.
    pub fn forward(
        &self,
        pixels: &[f32],
        n: usize,
        h: usize,
        w: usize,
    ) -> Result<Vec<FeatureMap>, BackboneError> {
        let size = INPUT_CHANNELS * h * w;
        assert_eq!(pixels.len(), n * size, "a batch of {n} images of 3×{h}×{w} has {} values", n * size);
        check_pixels(pixels, h, w)?;
        let mut maps = self.empty_maps(n, h, w);
        let mut images: Vec<BatchImage<'_>> = pixels
            .chunks_exact(size)
            .map(|pixels| BatchImage { pixels, height: h, width: w, outputs: Vec::new() })
            .collect();
        for map in &mut maps {
            let size = map.channels * map.height * map.width;
            for (image, output) in images.iter_mut().zip(map.data.chunks_exact_mut(size)) {
                image.outputs.push(output);
            }
        }
        self.threads.install(|| self.run(&mut images));
        Ok(maps)
    }

    fn empty_maps(&self, n: usize, h: usize, w: usize) -> Vec<FeatureMap> {
        let map = |&layer: &Layer| {
            let (channels, height, width) = (self.network.channels(layer), layer.side(h), layer.side(w));
            FeatureMap { channels, height, width, data: vec![0.0; n * channels * height * width] }
        };
        self.layers.iter().map(map).collect()
    }

    fn run(&self, images: &mut [BatchImage<'_>]) {
        let threads = self.threads.current_num_threads();
        let (alone, together) = images.split_at_mut(images.len() / threads * threads);
        alone.par_iter_mut().with_max_len(1).for_each(|image| self.run_image(image, 1));
        for image in together {
            self.run_image(image, threads);
        }
    }

    /// Runs one image, in `bands` of each map's rows at once.
    fn run_image(&self, image: &mut BatchImage<'_>, bands: usize) {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = idle().pop().unwrap_or_default();
        let mut value = self.run_stem(image, &mut buffers, bands);
        for block in &self.blocks {
            value = block.run(value, &mut buffers, bands);
            if let Some(index) = block.output {
                value.write_planes(image.outputs[index]);
            }
        }
        buffers.recycle(value);
        idle().push(buffers);
    }

    fn run_stem(&self, image: &BatchImage<'_>, buffers: &mut Buffers, bands: usize) -> PaddedMap {
        let &BatchImage { pixels, height, width, .. } = image;
        let shape = MapShape { height, width, channels: INPUT_CHANNELS };
        let input = PaddedMap::from_planes(pixels, shape, self.stem.padding(), buffers);
        let mut stem = self.stem.output(&input, buffers);
        self.stem.run(&input, &mut stem, Epilogue::Relu, bands);
        let pooled = max_pool(&stem, buffers, bands);
        buffers.recycle(input);
        buffers.recycle(stem);
        pooled
    }
}

/// One image of a batch: `[3, height, width]`, and where each layer's `[channels, height, width]` goes.
struct BatchImage<'a> {
    pixels: &'a [f32],
    height: usize,
    width: usize,
    outputs: Vec<&'a mut [f32]>,
}

impl PackedBlock {
    /// Returns `relu(branch(input) + shortcut(input))`; the sum is made in the shortcut's map.
    fn run(&self, input: PaddedMap, buffers: &mut Buffers, bands: usize) -> PaddedMap {
        let (last, inner) = self.branch.split_last().expect("a block has convolutions");
        let mut value: Option<PaddedMap> = None;
        for convolution in inner {
            let source = value.as_ref().unwrap_or(&input);
            let mut out = convolution.output(source, buffers);
            convolution.run(source, &mut out, Epilogue::Relu, bands);
            value.replace(out).into_iter().for_each(|done| buffers.recycle(done));
        }
        let value = value.expect("a block has at least two convolutions");
        let mut sum = match &self.shortcut {
            None => input,
            Some(shortcut) => {
                let mut out = shortcut.output(&input, buffers);
                shortcut.run(&input, &mut out, Epilogue::Identity, bands);
                buffers.recycle(input);
                out
            }
        };
        last.run(&value, &mut sum, Epilogue::AddRelu, bands);
        buffers.recycle(value);
        sum
    }
}

/// Returns the widest vector instructions that are used on this machine: `avx512`, `avx2`, `neon` or
/// `baseline`. Maps do not depend on it, their time does.
pub fn simd_level() -> &'static str {
    match pulp::Arch::new() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) => "avx512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "avx2",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "neon",
        _ => "baseline",
    }
}

/// Refuses no layer and a layer named twice; for every backend.
pub(super) fn check_layers(network: Network, layers: &[Layer]) -> Result<(), BackboneError> {
    if layers.is_empty() {
        return Err(BackboneError::NoLayer { network });
    }
    for (index, &layer) in layers.iter().enumerate() {
        if layers[..index].contains(&layer) {
            return Err(BackboneError::RepeatedLayer { layer });
        }
    }
    Ok(())
}

/// Refuses images without pixels and numbers that are not finite; for every backend.
pub(super) fn check_pixels(pixels: &[f32], height: usize, width: usize) -> Result<(), BackboneError> {
    if height == 0 || width == 0 {
        return Err(BackboneError::EmptyImage { height, width });
    }
    match pixels.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(BackboneError::NotFinite { image: index / (INPUT_CHANNELS * height * width) }),
        None => Ok(()),
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
        assert!(matches!(backbone.forward(&[], 1, 0, 8), Err(BackboneError::EmptyImage { .. })));
        let mut pixels = pixels(2 * 3 * 16);
        pixels[50] = f32::NAN;
        assert!(matches!(backbone.forward(&pixels, 2, 4, 4), Err(BackboneError::NotFinite { image: 1 })));
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
