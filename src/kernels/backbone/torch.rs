//! The libtorch backend.
//!
//! Batch norms are folded. Images, weights and maps are channels-last, the native layout of oneDNN on a CPU and of
//! tensor cores on a GPU. `tch` has no memory-format argument, so a contiguous `[n, h, w, c]` tensor is permuted to
//! `[n, c, h, w]`: this gives it channels-last strides, which libtorch recognises.
//!
//! On a CPU each image is run alone on one thread, with as many images at a time as there are threads. Its maps
//! then have the same bits for any number of threads and any division into batches. A call with a whole batch or
//! with several threads does not have this property: oneDNN splits its sums by both (seen in f32 with ResNet-50).
//! Measured on 2026-11-24 on 2 Zen 4 cores in f32, images/s of batches of 8, image by image and in one call:
//!
//! | network | 224×224 | 640×232 |
//! |---|---|---|
//! | ResNet-18 | 68.9 and 65.8 | 24.0 and 21.1 |
//! | ResNet-50 | 25.3 and 28.8 | 8.5 and 7.7 |
//!
//! A batch should have at least as many images as there are threads. On a GPU a batch is one call, and the last
//! bits may depend on the batch.
//!
//! Convolutions run with deterministic algorithms and without TF32, whatever the defaults of libtorch are.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tch::{Kind, TchError, Tensor};

use super::error::{BackboneError, RuntimeError};
use super::feature_map::FeatureMap;
use super::network::{Convolution, INPUT_CHANNELS, Layer, Network, ResidualBlock};
use super::runtime::{Runtime, check_layers, check_pixels};
use super::target::{Arithmetic, Device, cuda_devices};
use super::weights::Weights;

/// A network whose weights are libtorch tensors.
pub(super) struct TorchBackbone {
    network: Network,
    layers: Vec<Layer>,
    is_cpu: bool,
    /// One handle per thread, all on the same memory: a `Tensor` is `Send` but not `Sync`.
    models: Vec<Mutex<TorchModel>>,
}

struct TorchModel {
    device: tch::Device,
    kind: Kind,
    stem: Folded,
    blocks: Vec<FoldedBlock>,
}

/// A convolution with its batch norm folded in.
struct Folded {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

struct FoldedBlock {
    /// The layer whose map is this block's output; `None` if the block is not the last of its layer.
    ends: Option<Layer>,
    branch: Vec<Folded>,
    shortcut: Option<Folded>,
}

impl TorchBackbone {
    /// Prepares the network; the contract is that of [`super::Backbone::on`].
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
        let model = TorchModel::new(network, weights, layers, device, kind)
            .map_err(|source| failed(network, source))?;
        let models = (0..threads.get()).map(|_| Mutex::new(model.shallow_clone())).collect();
        Ok(Self { network, layers: layers.to_vec(), is_cpu: device == tch::Device::Cpu, models })
    }

    /// Runs the batch in one call, for a GPU.
    fn run_as_batch(
        &self,
        pixels: &[f32],
        n: usize,
        h: usize,
        w: usize,
    ) -> Result<Vec<FeatureMap>, TchError> {
        let model = self.models[0].lock().unwrap_or_else(PoisonError::into_inner);
        tch::no_grad(|| model.forward(pixels, [n, INPUT_CHANNELS, h, w], &self.layers))
    }

    /// Runs each image alone, with an equal share of the images on each thread, for a CPU.
    fn run_by_image(
        &self,
        pixels: &[f32],
        n: usize,
        h: usize,
        w: usize,
    ) -> Result<Vec<FeatureMap>, TchError> {
        let size = INPUT_CHANNELS * h * w;
        let run_share = |model: &Mutex<TorchModel>, share: Range<usize>| {
            let model = model.lock().unwrap_or_else(PoisonError::into_inner);
            tch::set_num_threads(1);
            let run = |image: usize| {
                let pixels = &pixels[image * size..(image + 1) * size];
                model.forward(pixels, [1, INPUT_CHANNELS, h, w], &self.layers)
            };
            tch::no_grad(|| share.map(run).collect::<Result<Vec<_>, _>>())
        };
        let count = self.models.len().min(n);
        let shares: Result<Vec<_>, TchError> = std::thread::scope(|scope| {
            let run_share = &run_share;
            let workers: Vec<_> = (self.models[..count].iter().enumerate())
                .map(|(worker, model)| {
                    let share = worker * n / count..(worker + 1) * n / count;
                    scope.spawn(move || run_share(model, share))
                })
                .collect();
            (workers.into_iter())
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        Ok(join(shares?.into_iter().flatten().collect()))
    }
}

impl Runtime for TorchBackbone {
    fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, RuntimeError> {
        check_pixels(pixels, n, h, w)?;
        if n == 0 {
            let empty = |&layer: &Layer| FeatureMap {
                channels: self.network.channels(layer),
                height: layer.side(h),
                width: layer.side(w),
                data: Vec::new(),
            };
            return Ok(self.layers.iter().map(empty).collect());
        }
        let run = if self.is_cpu { Self::run_by_image } else { Self::run_as_batch };
        run(self, pixels, n, h, w).map_err(|source| failed(self.network, source))
    }
}

impl TorchModel {
    fn new(
        network: Network,
        weights: &Weights,
        layers: &[Layer],
        device: tch::Device,
        kind: Kind,
    ) -> Result<Self, TchError> {
        let deepest = layers.iter().max().copied();
        let fold = |convolution: &Convolution| Folded::new(weights, convolution, device, kind);
        let block = |block: &ResidualBlock| -> Result<FoldedBlock, TchError> {
            Ok(FoldedBlock {
                ends: block.ends_layer.then_some(block.layer),
                branch: block.branch.iter().map(fold).collect::<Result<_, _>>()?,
                shortcut: block.shortcut.as_ref().map(fold).transpose()?,
            })
        };
        let blocks = network.blocks();
        let wanted = blocks.iter().filter(|block| Some(block.layer) <= deepest);
        let blocks = wanted.map(block).collect::<Result<_, _>>()?;
        Ok(Self { device, kind, stem: fold(&network.stem())?, blocks })
    }

    /// Returns another handle to the same tensors.
    fn shallow_clone(&self) -> Self {
        let blocks = self.blocks.iter().map(FoldedBlock::shallow_clone).collect();
        Self { device: self.device, kind: self.kind, stem: self.stem.shallow_clone(), blocks }
    }

    /// Returns the maps of `layers` for `pixels` of the given shape.
    fn forward(
        &self,
        pixels: &[f32],
        shape: [usize; 4],
        layers: &[Layer],
    ) -> Result<Vec<FeatureMap>, TchError> {
        let image = Tensor::f_from_slice(pixels)?.f_view(shape.map(|extent| extent as i64))?;
        let image = channels_last(&image)?.f_to_device(self.device)?.f_to_kind(self.kind)?;
        let mut value = self.stem.apply(&image)?.f_relu_()?;
        value = value.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        let mut maps = Vec::new();
        for block in &self.blocks {
            value = block.apply(&value)?;
            maps.extend(block.ends.map(|layer| (layer, value.shallow_clone())));
        }
        let of = |layer: &Layer| maps.iter().find(|(ends, _)| ends == layer).expect("the deepest was run");
        layers.iter().map(|layer| read(&of(layer).1)).collect()
    }
}

impl FoldedBlock {
    fn shallow_clone(&self) -> Self {
        let Self { ends, branch, shortcut } = self;
        let branch = branch.iter().map(Folded::shallow_clone).collect();
        Self { ends: *ends, branch, shortcut: shortcut.as_ref().map(Folded::shallow_clone) }
    }

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

    fn shallow_clone(&self) -> Self {
        let Self { weight, bias, stride, padding } = self;
        let (weight, bias) = (weight.shallow_clone(), bias.shallow_clone());
        Self { weight, bias, stride: *stride, padding: *padding }
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

fn find(device: Device) -> Result<tch::Device, RuntimeError> {
    let Device::Cuda(number) = device else { return Ok(tch::Device::Cpu) };
    let count = cuda_devices();
    if number < count { Ok(tch::Device::Cuda(number)) } else { Err(RuntimeError::NoDevice { device, count }) }
}

/// Copies a map to the CPU, row-major in f32.
fn read(map: &Tensor) -> Result<FeatureMap, TchError> {
    let (_, channels, height, width) = map.size4()?;
    let map = map.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    let mut data = vec![0.0; map.numel()];
    let count = data.len();
    map.f_copy_data(&mut data, count)?;
    let [channels, height, width] = [channels, height, width].map(|extent| extent as usize);
    Ok(FeatureMap { channels, height, width, data })
}

/// Concatenates the maps of single images, of which there must be at least one, to those of a batch.
fn join(images: Vec<Vec<FeatureMap>>) -> Vec<FeatureMap> {
    let count = images.len();
    let mut images = images.into_iter();
    let mut maps = images.next().expect("a batch has an image");
    for map in &mut maps {
        map.data.reserve_exact((count - 1) * map.data.len());
    }
    for image in images {
        for (map, next) in maps.iter_mut().zip(image) {
            map.data.extend_from_slice(&next.data);
        }
    }
    maps
}

/// Returns the tensor `[n, c, h, w]` with channels-last strides.
fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])
}

fn failed(network: Network, source: TchError) -> RuntimeError {
    RuntimeError::Torch { network, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    const LAYERS: [Layer; 2] = [Layer::Layer2, Layer::Layer3];

    fn backbone(network: Network, threads: usize, arithmetic: Arithmetic) -> TorchBackbone {
        let weights = Weights::seeded(network, 1);
        let threads = NonZeroUsize::new(threads).unwrap();
        TorchBackbone::new(network, &weights, &LAYERS, threads, Device::Cpu, arithmetic).unwrap()
    }

    fn pixels(count: usize) -> Vec<f32> {
        let mut rng = Rng::new(1, "pixels");
        (0..count).map(|_| rng.normal() as f32).collect()
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
