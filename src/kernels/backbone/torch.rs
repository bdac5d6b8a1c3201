//! Runs a network on libtorch: the one file that names `tch`.
//!
//! Norms are folded; images, weights and maps are channels-last, which on a CPU is what oneDNN computes in
//! and on a GPU what the tensor cores take. `tch` has no word for that layout: a contiguous `[n, h, w, c]`
//! seen through a permutation has its strides, and libtorch goes by the strides.
//!
//! Convolutions are asked to be deterministic and never to use TF32, whatever libtorch's defaults are.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use tch::{Cuda, Kind, TchError, Tensor};

use super::feature_map::FeatureMap;
use super::network::{Block, Convolution, INPUT_CHANNELS, Layer, Network};
use super::pure::BackboneError;
use super::runtime::{Runtime, RuntimeError};
use super::target::{Arithmetic, Device};
use super::weights::Weights;

/// One network at a time on the processor: each call uses all the threads, and libtorch's threads, which spin
/// while they wait, slow each other down where two calls overlap.
static PROCESSOR: Mutex<()> = Mutex::new(());

/// A network in libtorch's memory.
pub(super) struct Torch {
    network: Network,
    layers: Vec<Layer>,
    device: tch::Device,
    kind: Kind,
    threads: i32,
    /// A tensor can be sent to another thread, but not be shared with it.
    model: Mutex<Model>,
}

struct Model {
    stem: Folded,
    blocks: Vec<FoldedBlock>,
}

/// A convolution with its norm.
struct Folded {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

struct FoldedBlock {
    /// The layer whose map the block's output is.
    ends: Option<Layer>,
    branch: Vec<Folded>,
    shortcut: Option<Folded>,
}

impl Torch {
    /// See [`super::Backbone::on`].
    pub(super) fn new(
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        threads: NonZeroUsize,
        device: Device,
        arithmetic: Arithmetic,
    ) -> Result<Self, RuntimeError> {
        check_layers(network, layers)?;
        let device = find(device)?;
        weights.check(network).map_err(BackboneError::from)?;
        let kind = match arithmetic {
            Arithmetic::F32 => Kind::Float,
            Arithmetic::Bf16 => Kind::BFloat16,
        };
        let placed = |convolution: &Convolution| Folded::new(weights, convolution, device, kind);
        let model = Model::new(network, layers, &placed).map_err(|source| failed(network, source))?;
        let threads = i32::try_from(threads.get()).unwrap_or(i32::MAX);
        Ok(Self { network, layers: layers.to_vec(), device, kind, threads, model: Mutex::new(model) })
    }

    fn run(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, TchError> {
        // Within rayon's threads nothing below waits for another of them, so that the locks cannot block.
        let _turn = (self.device == tch::Device::Cpu)
            .then(|| PROCESSOR.lock().unwrap_or_else(PoisonError::into_inner));
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        tch::set_num_threads(self.threads);
        let shape = [n, INPUT_CHANNELS, h, w].map(|extent| extent as i64);
        let image = Tensor::f_from_slice(pixels)?.f_view(shape)?;
        let image = channels_last(&image)?.f_to_device(self.device)?.f_to_kind(self.kind)?;
        let maps = model.forward(&image)?;
        self.layers.iter().map(|layer| self.read(*layer, &maps, h, w)).collect()
    }

    /// Copies a layer's map out, row-major in f32.
    fn read(
        &self,
        layer: Layer,
        maps: &[(Layer, Tensor)],
        h: usize,
        w: usize,
    ) -> Result<FeatureMap, TchError> {
        let (_, map) = maps.iter().find(|(of, _)| *of == layer).expect("the deepest layer was run");
        let map = map.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut data = vec![0.0; map.numel()];
        let count = data.len();
        map.f_copy_data(&mut data, count)?;
        let (channels, height, width) = (self.network.channels(layer), layer.side(h), layer.side(w));
        Ok(FeatureMap { channels, height, width, data })
    }
}

impl Runtime for Torch {
    fn network(&self) -> Network {
        self.network
    }

    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, RuntimeError> {
        let size = INPUT_CHANNELS * h * w;
        assert_eq!(pixels.len(), n * size, "a batch of {n} images of 3×{h}×{w} has {} values", n * size);
        check_pixels(pixels, h, w)?;
        if n == 0 {
            let empty = |&layer: &Layer| FeatureMap {
                channels: self.network.channels(layer),
                height: layer.side(h),
                width: layer.side(w),
                data: Vec::new(),
            };
            return Ok(self.layers.iter().map(empty).collect());
        }
        tch::no_grad(|| self.run(pixels, n, h, w)).map_err(|source| failed(self.network, source))
    }
}

impl Model {
    fn new(
        network: Network,
        layers: &[Layer],
        placed: &impl Fn(&Convolution) -> Result<Folded, TchError>,
    ) -> Result<Self, TchError> {
        let deepest = layers.iter().max().copied();
        let block = |block: &Block| {
            Ok(FoldedBlock {
                ends: block.ends_layer.then_some(block.layer),
                branch: block.branch.iter().map(placed).collect::<Result<_, _>>()?,
                shortcut: block.shortcut.as_ref().map(placed).transpose()?,
            })
        };
        let blocks = network.blocks();
        let wanted = blocks.iter().filter(|block| Some(block.layer) <= deepest);
        Ok(Self { stem: placed(&network.stem())?, blocks: wanted.map(block).collect::<Result<_, _>>()? })
    }

    /// The maps of the layers, shallowest first.
    fn forward(&self, image: &Tensor) -> Result<Vec<(Layer, Tensor)>, TchError> {
        let stem = self.stem.apply(image)?.f_relu_()?;
        let mut value = stem.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        let mut maps = Vec::new();
        for block in &self.blocks {
            value = block.apply(&value)?;
            maps.extend(block.ends.map(|layer| (layer, value.shallow_clone())));
        }
        Ok(maps)
    }
}

impl FoldedBlock {
    fn apply(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let shortcut = match &self.shortcut {
            Some(convolution) => convolution.apply(input)?,
            None => input.shallow_clone(),
        };
        let mut value = input.shallow_clone();
        for (index, convolution) in self.branch.iter().enumerate() {
            value = convolution.apply(&value)?;
            if index + 1 < self.branch.len() {
                value = value.f_relu_()?;
            }
        }
        value.f_add_(&shortcut)?.f_relu_()
    }
}

impl Folded {
    fn new(
        weights: &Weights,
        convolution: &Convolution,
        device: tch::Device,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let folded = weights.fold(convolution);
        let weight = Tensor::f_from_slice(&folded.weight)?.f_view(convolution.shape().map(|n| n as i64))?;
        Ok(Self {
            weight: channels_last(&weight)?.f_to_device(device)?.f_to_kind(kind)?,
            bias: Tensor::f_from_slice(&folded.bias)?.f_to_device(device)?.f_to_kind(kind)?,
            stride: convolution.stride as i64,
            padding: convolution.padding as i64,
        })
    }

    fn apply(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let (is_transposed, benchmark, deterministic, with_cudnn, with_tf32) =
            (false, false, true, true, false);
        input.f_internal_convolution(
            &self.weight,
            Some(&self.bias),
            [self.stride; 2],
            [self.padding; 2],
            [1, 1],
            is_transposed,
            [0, 0],
            1,
            benchmark,
            deterministic,
            with_cudnn,
            with_tf32,
        )
    }
}

/// Returns the number of CUDA devices that this libtorch can use.
pub(super) fn cuda_devices() -> usize {
    if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 }
}

fn find(device: Device) -> Result<tch::Device, RuntimeError> {
    let Device::Cuda(number) = device else { return Ok(tch::Device::Cpu) };
    let count = cuda_devices();
    if number < count { Ok(tch::Device::Cuda(number)) } else { Err(RuntimeError::NoDevice { device, count }) }
}

/// The same tensor, `[n, c, h, w]`, laid out as `[n, h, w, c]`.
fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

fn failed(network: Network, source: TchError) -> RuntimeError {
    RuntimeError::Torch { network, source: Box::new(source) }
}

fn check_layers(network: Network, layers: &[Layer]) -> Result<(), BackboneError> {
    if layers.is_empty() {
        return Err(BackboneError::NoLayer { network });
    }
    let repeated = (1..layers.len()).find(|&index| layers[..index].contains(&layers[index]));
    repeated.map_or(Ok(()), |index| Err(BackboneError::RepeatedLayer { layer: layers[index] }))
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
    use super::*;
    use crate::kernels::random::Stream;

    const LAYERS: [Layer; 2] = [Layer::Layer2, Layer::Layer3];

    fn backbone(network: Network, threads: usize, arithmetic: Arithmetic) -> Torch {
        let weights = Weights::seeded(network, 1);
        let threads = NonZeroUsize::new(threads).unwrap();
        Torch::new(network, &weights, &LAYERS, threads, Device::Cpu, arithmetic).unwrap()
    }

    fn pixels(count: usize) -> Vec<f32> {
        let mut stream = Stream::new(1, "pixels");
        (0..count).map(|_| stream.normal() as f32).collect()
    }

    fn assert_same_bits(network: Network, arithmetic: Arithmetic, (h, w): (usize, usize)) {
        let size = 3 * h * w;
        let pixels = pixels(8 * size);
        let expected = backbone(network, 1, arithmetic).forward(&pixels, 8, h, w).unwrap();
        for threads in [1, 2] {
            let backbone = backbone(network, threads, arithmetic);
            for batch in [1, 3, 8] {
                for (start, part) in pixels.chunks(batch * size).enumerate() {
                    let maps = backbone.forward(part, part.len() / size, h, w).unwrap();
                    for (map, expected) in maps.iter().zip(&expected) {
                        let first = expected.image(0).data.len() * start * batch;
                        let expected = &expected.data[first..first + map.data.len()];
                        let is_equal = map.data.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                        assert!(
                            is_equal,
                            "{network} {arithmetic:?} {h}×{w}: {threads} threads, batch {batch}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn f32_maps_are_the_same_bits_for_any_threads_and_batches() {
        assert_same_bits(Network::ResNet18, Arithmetic::F32, (70, 45));
        assert_same_bits(Network::ResNet50, Arithmetic::F32, (64, 96));
    }

    #[test]
    fn bf16_maps_are_the_same_bits_for_any_threads_and_batches() {
        assert_same_bits(Network::ResNet18, Arithmetic::Bf16, (70, 45));
        assert_same_bits(Network::ResNet50, Arithmetic::Bf16, (64, 96));
    }

    #[test]
    fn small_images_have_maps_of_rounded_up_sides() {
        let backbone = backbone(Network::ResNet18, 2, Arithmetic::F32);
        for side in 1..=20 {
            let maps = backbone.forward(&pixels(3 * side * 33), 1, side, 33).unwrap();
            let shapes = maps.iter().map(|map| (map.channels, map.height, map.width)).collect::<Vec<_>>();
            assert_eq!(shapes, [(128, side.div_ceil(8), 5), (256, side.div_ceil(16), 3)]);
            assert!(maps.iter().all(|map| map.data.len() == map.channels * map.height * map.width));
        }
    }

    #[test]
    fn wrong_requests_are_refused_and_no_image_is_none() {
        let backbone = backbone(Network::ResNet18, 1, Arithmetic::F32);
        assert!(backbone.forward(&[], 1, 0, 8).is_err());
        assert!(backbone.forward(&[f32::NAN; 48], 1, 4, 4).is_err());
        assert!(backbone.forward(&[], 0, 8, 8).unwrap().iter().all(|map| map.data.is_empty()));
        let device = Device::Cuda(99);
        assert!(matches!(find(device), Err(RuntimeError::NoDevice { .. })));
    }
}
