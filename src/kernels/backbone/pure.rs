//! Runs a network without a native library, on `rten`.
//!
//! Each image goes through the network by itself wherever there are at least as many images as threads, one
//! image a thread: its maps stay in the caches, and no thread waits for another within a layer. A smaller
//! batch is run image by image with all threads inside each layer.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool};
use rten_tensor::NdTensorView;

use super::feature_map::FeatureMap;
use super::graph;
use super::network::{INPUT_CHANNELS, Layer, Network};
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
        /// Its place in the batch.
        image: usize,
    },
    /// The runtime refused the graph.
    #[error("the graph of `{network}` cannot be loaded")]
    Load {
        /// The network.
        network: Network,
        /// The runtime's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The runtime failed.
    #[error("`{network}` cannot be run on an image of {height}×{width}")]
    Run {
        /// The network.
        network: Network,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The runtime's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A network with its weights, ready to run on the CPU with a fixed number of threads.
///
/// Holds the folded weights once and one idle thread pool a thread, besides one for all of them.
pub struct Backbone {
    network: Network,
    layers: Vec<Layer>,
    model: Model,
    input: NodeId,
    outputs: Vec<NodeId>,
    together: Arc<ThreadPool>,
    alone: Vec<Arc<ThreadPool>>,
}

/// What one image gives: each layer's `[channels, height, width]` and its values.
type ImageOutputs = Vec<([usize; 3], Vec<f32>)>;

impl Backbone {
    /// Folds the weights and prepares the network up to the deepest of `layers`.
    ///
    /// # Errors
    /// If the weights do not fit the network, or `layers` is empty or names a layer twice.
    pub fn new(
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        threads: NonZeroUsize,
    ) -> Result<Self, BackboneError> {
        check_layers(network, layers)?;
        let refused = |source| BackboneError::Load { network, source };
        let model = Model::load(graph::encode(network, weights, layers)?)
            .map_err(|error| refused(Box::new(error)))?;
        let node = |name: &str| model.node_id(name).map_err(|error| refused(Box::new(error)));
        let input = node(graph::INPUT)?;
        let outputs = layers.iter().map(|layer| node(layer.name())).collect::<Result<_, _>>()?;
        let together = Arc::new(ThreadPool::with_num_threads(threads.get()));
        let alone = (0..threads.get()).map(|_| Arc::new(ThreadPool::with_num_threads(1))).collect();
        Ok(Self { network, layers: layers.to_vec(), model, input, outputs, together, alone })
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
    /// The maps are the same bits for any number of threads and for any division into batches; they differ in
    /// the last bits between SIMD levels (see [`simd_level`]). No image gives maps without data.
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
        let image = |index: usize| &pixels[index * size..(index + 1) * size];
        let run = |index, pool| self.run_image(image(index), h, w, pool);
        let images = if n < self.alone.len() {
            (0..n).map(|index| run(index, &self.together)).collect()
        } else {
            self.run_shares(n, run)
        };
        Ok(self.join(h, w, images?))
    }

    /// Runs `n` images, an equal share of them on each thread, and returns their outputs in order.
    fn run_shares<'a>(
        &'a self,
        n: usize,
        run: impl Fn(usize, &'a Arc<ThreadPool>) -> Result<ImageOutputs, BackboneError> + Sync,
    ) -> Result<Vec<ImageOutputs>, BackboneError> {
        let run_share = |share: Range<usize>, pool| -> Result<Vec<ImageOutputs>, BackboneError> {
            share.map(|index| run(index, pool)).collect()
        };
        let count = self.alone.len();
        let shares: Result<Vec<Vec<ImageOutputs>>, BackboneError> = std::thread::scope(|scope| {
            let run_share = &run_share;
            let workers: Vec<_> = (self.alone.iter().enumerate())
                .map(|(worker, pool)| {
                    let share = worker * n / count..(worker + 1) * n / count;
                    scope.spawn(move || run_share(share, pool))
                })
                .collect();
            (workers.into_iter())
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        Ok(shares?.into_iter().flatten().collect())
    }

    fn run_image(
        &self,
        pixels: &[f32],
        height: usize,
        width: usize,
        pool: &Arc<ThreadPool>,
    ) -> Result<ImageOutputs, BackboneError> {
        let network = self.network;
        let failed = |source| BackboneError::Run { network, height, width, source };
        let image = NdTensorView::from_data([1, INPUT_CHANNELS, height, width], pixels);
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(pool)));
        self.model
            .run(vec![(self.input, image.into())], &self.outputs, Some(options))
            .map_err(|error| failed(Box::new(error)))?
            .into_iter()
            .map(|map| {
                let (shape, values) =
                    map.into_shape_vec::<f32, 4>().map_err(|error| failed(Box::new(error)))?;
                Ok(([shape[1], shape[2], shape[3]], values))
            })
            .collect()
    }

    /// Joins the outputs of the images to one map a layer.
    fn join(&self, h: usize, w: usize, images: Vec<ImageOutputs>) -> Vec<FeatureMap> {
        let mut maps: Vec<FeatureMap> = (self.layers.iter())
            .map(|&layer| FeatureMap {
                channels: self.network.channels(layer),
                height: layer.side(h),
                width: layer.side(w),
                data: Vec::new(),
            })
            .collect();
        let count = images.len();
        for outputs in images {
            for (map, (shape, values)) in maps.iter_mut().zip(outputs) {
                assert_eq!(shape, [map.channels, map.height, map.width], "the runtime's map");
                if map.data.is_empty() {
                    map.data.reserve_exact(count * values.len());
                }
                map.data.extend_from_slice(&values);
            }
        }
        maps
    }
}

/// Returns the widest vector instructions that the runtime uses on this machine: `avx512`, `avx2`, `neon` or
/// `baseline`. Two machines of one level (and one architecture) make the same maps.
pub fn simd_level() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq");
        if wide {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "avx2";
        }
    }
    if cfg!(target_arch = "aarch64") { "neon" } else { "baseline" }
}

fn check_layers(network: Network, layers: &[Layer]) -> Result<(), BackboneError> {
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

fn check_pixels(pixels: &[f32], height: usize, width: usize) -> Result<(), BackboneError> {
    if height == 0 || width == 0 {
        return Err(BackboneError::EmptyImage { height, width });
    }
    match pixels.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(BackboneError::NotFinite { image: place / (INPUT_CHANNELS * height * width) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::kernels::random::Stream;

    const LAYERS: [Layer; 2] = [Layer::Layer2, Layer::Layer3];

    fn backbone(threads: usize) -> Backbone {
        static WEIGHTS: OnceLock<Weights> = OnceLock::new();
        let weights = WEIGHTS.get_or_init(|| Weights::seeded(Network::ResNet18, 1));
        let threads = NonZeroUsize::new(threads).unwrap();
        Backbone::new(Network::ResNet18, weights, &LAYERS, threads).unwrap()
    }

    fn pixels(count: usize) -> Vec<f32> {
        let mut stream = Stream::new(1, "pixels");
        (0..count).map(|_| stream.normal() as f32).collect()
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
            Backbone::new(Network::ResNet50, &weights, layers, NonZeroUsize::MIN).map(|_| ()).unwrap_err()
        };
        assert!(matches!(make(&[]), BackboneError::NoLayer { .. }));
        let twice = [Layer::Layer1, Layer::Layer1];
        assert!(matches!(make(&twice), BackboneError::RepeatedLayer { layer: Layer::Layer1 }));
        assert!(matches!(make(&LAYERS), BackboneError::Weights(_)));
    }
}
