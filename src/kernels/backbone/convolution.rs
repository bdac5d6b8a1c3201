//! A convolution with its weights packed for the kernel that suits its shape: [`super::winograd`] for 3×3 of stride 1,
//! [`super::direct`] for all others.

use pulp::Simd;

use super::direct::DirectConvolution;
use super::network::Convolution;
use super::padded::{Buffers, MapShape, PaddedMap};
use super::weights::FoldedConvolution;
use super::winograd::WinogradConvolution;

/// The operation applied to a convolution's result before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Epilogue {
    /// Stores the result unchanged.
    Identity,
    /// Stores `max(result, 0)`.
    Relu,
    /// Stores `max(before + result, 0)`, where `before` is what the output map held before: the residual sum.
    AddRelu,
}

/// A convolution of a network.
pub(super) struct PackedConvolution {
    geometry: Convolution,
    kernel: Kernel,
}

enum Kernel {
    Direct(DirectConvolution),
    Winograd(WinogradConvolution),
}

impl PackedConvolution {
    /// Packs folded weights.
    ///
    /// # Panics
    /// If the number of output channels is not a multiple of [`PANEL`](crate::kernels::product::panel::PANEL).
    pub(super) fn new(geometry: Convolution, folded: &FoldedConvolution) -> Self {
        let kernel = if WinogradConvolution::suits(&geometry) {
            Kernel::Winograd(WinogradConvolution::new(&geometry, folded))
        } else {
            Kernel::Direct(DirectConvolution::new(geometry.clone(), folded))
        };
        Self { geometry, kernel }
    }

    /// Returns the padding, which is the least border that the input map must have.
    pub(super) fn padding(&self) -> usize {
        self.geometry.padding
    }

    /// Creates the output maps of some images.
    pub(super) fn outputs(&self, inputs: &[PaddedMap], buffers: &mut Buffers) -> Vec<PaddedMap> {
        inputs.iter().map(|input| output_map(&self.geometry, input, buffers)).collect()
    }

    /// Convolves the input of each image into its output. The rows of a single image's output are divided into `bands`
    /// that run in parallel.
    ///
    /// # Panics
    /// If an input does not have the convolution's channels, or its border is smaller than the padding.
    pub(super) fn run(&self, inputs: &[PaddedMap], outs: &mut [PaddedMap], epilogue: Epilogue, bands: usize) {
        let Convolution { padding, in_channels, .. } = self.geometry;
        for input in inputs {
            assert_eq!(input.shape().channels, in_channels, "channels of the input");
            assert!(input.border() >= padding, "a border of {} is below {padding}", input.border());
        }
        match (&self.kernel, inputs, &mut *outs) {
            (Kernel::Winograd(kernel), [input], [out]) if bands > 1 => {
                kernel.run_bands(input, out, epilogue, bands);
            }
            (Kernel::Winograd(kernel), ..) => kernel.run(inputs, outs, epilogue),
            (Kernel::Direct(kernel), ..) => {
                for (input, out) in inputs.iter().zip(outs) {
                    kernel.run(input, out, epilogue, bands);
                }
            }
        }
    }
}

/// Creates the output map of a convolution, with a border of 1: the largest padding of any later layer.
pub(super) fn output_map(geometry: &Convolution, input: &PaddedMap, buffers: &mut Buffers) -> PaddedMap {
    let Convolution { kernel, stride, padding, out_channels, .. } = *geometry;
    let side = |side: usize| (side + 2 * padding - kernel) / stride + 1;
    let MapShape { height, width, .. } = input.shape();
    PaddedMap::new(MapShape { height: side(height), width: side(width), channels: out_channels }, 1, buffers)
}

/// Applies the epilogue to the sums of one pixel and stores them.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `with_simd`")]
pub(super) fn apply_epilogue<S: Simd>(simd: S, epilogue: Epilogue, sums: &[S::f32s], out: &mut [f32]) {
    let zero = simd.splat_f32s(0.0);
    for (out, &sum) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
        *out = match epilogue {
            Epilogue::Identity => sum,
            Epilogue::Relu => simd.max_f32s(sum, zero),
            Epilogue::AddRelu => simd.max_f32s(simd.add_f32s(*out, sum), zero),
        };
    }
}
