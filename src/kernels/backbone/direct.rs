//! Direct convolution of one image, channels last, with the batch norm folded in. The hot loop of the program.
//!
//! There is no im2col buffer. A tile of a few output pixels by [`PANEL`] output channels stays in vector
//! registers while the kernel is accumulated row by row; each kernel row reads contiguous values of the padded
//! input. The epilogue (residual sum and ReLU) is applied before the tile is stored. Measured: 105 to
//! 116 GFLOP/s on one Zen 4 core for every shape in the networks (2026-11-24), the best that matrix products of
//! `gemm` and `faer` reach there.
//!
//! Each output is `bias + Σ weight · input`, accumulated by fused multiply-adds in f32 in a fixed order (kernel
//! row, kernel column, input channel). The order does not depend on the tile, the row band or the vector width,
//! so the bits are the same on every machine and for any division of the work.

use pulp::{Simd, WithSimd};

use super::convolution::{Epilogue, apply_epilogue};
use super::network::Convolution;
use super::padded::PaddedMap;
use super::weights::FoldedConvolution;
use crate::kernels::product::panel::PANEL;
use crate::kernels::product::tile::{ReceptiveFields, multiply};

/// Output pixels that are computed for all panels before the next pixels: their inputs stay in the second-level
/// cache while the weights stream through. Chosen: a multiple of every tile's pixels, about 200 kB at 256 channels.
const PIXEL_BLOCK: usize = 210;

/// A convolution whose weights are packed in the order in which the kernel reads them.
pub(super) struct DirectConvolution {
    geometry: Convolution,
    /// Weights: `[out / PANEL, kernel, kernel, in]`; each element holds those of `PANEL` output channels.
    weights: Vec<[f32; PANEL]>,
    /// Biases: `[out / PANEL]`; each element holds those of `PANEL` output channels.
    bias: Vec<[f32; PANEL]>,
}

impl DirectConvolution {
    /// Packs folded weights.
    ///
    /// # Panics
    /// If the number of output channels is not a multiple of [`PANEL`].
    pub(super) fn new(geometry: Convolution, folded: &FoldedConvolution) -> Self {
        let [out_channels, in_channels, kernel, _] = geometry.shape();
        assert!(out_channels.is_multiple_of(PANEL), "{out_channels} channels are not panels of {PANEL}");
        let area = kernel * kernel;
        let mut weights = Vec::with_capacity(folded.weight.len() / PANEL);
        for filters in folded.weight.chunks_exact(PANEL * in_channels * area) {
            for offset in 0..area {
                for channel in 0..in_channels {
                    let weight = |out| filters[(out * in_channels + channel) * area + offset];
                    weights.push(std::array::from_fn(weight));
                }
            }
        }
        let bias = folded.bias.as_chunks().0.to_vec();
        Self { geometry, weights, bias }
    }

    /// Convolves `input` into `out`. The rows of `out` are divided into `bands` that run in parallel.
    ///
    /// # Panics
    /// If the input does not have the convolution's channels, or its border is smaller than the padding.
    pub(super) fn run(&self, input: &PaddedMap, out: &mut PaddedMap, epilogue: Epilogue, bands: usize) {
        let Convolution { kernel, padding, in_channels, .. } = self.geometry;
        assert_eq!(input.shape().channels, in_channels, "channels of the input");
        assert!(input.border() >= padding, "a border of {} is below {padding}", input.border());
        assert!(kernel == 1 || input.pixel_stride() == in_channels, "a kernel's row is not contiguous");
        let (border, pixel_stride, width) = (out.border(), out.pixel_stride(), out.shape().width);
        let row_len = out.row_len();
        out.for_rows(bands, |first_row, rows| {
            let band = RowBand {
                convolution: self,
                input,
                epilogue,
                first_row,
                rows,
                border,
                pixel_stride,
                width,
                row_len,
            };
            pulp::Arch::new().dispatch(band);
        });
    }

    /// Returns the index in the input's values at which the receptive field of an output pixel starts.
    fn field(&self, input: &PaddedMap, row: usize, column: usize) -> usize {
        let margin = input.border() - self.geometry.padding;
        input.start(row * self.geometry.stride + margin, column * self.geometry.stride + margin)
    }
}

/// A band of output rows, with everything needed to compute it.
struct RowBand<'a> {
    convolution: &'a DirectConvolution,
    input: &'a PaddedMap,
    epilogue: Epilogue,
    first_row: usize,
    rows: &'a mut [f32],
    border: usize,
    pixel_stride: usize,
    width: usize,
    row_len: usize,
}

impl WithSimd for RowBand<'_> {
    type Output = ();

    /// Chooses a tile that fills the vector registers: its accumulators take 28 of 32 registers with AVX-512, 12
    /// of 16 with AVX2 (half a panel: six pixels share each weight that is read), 24 of 32 with NEON.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 14, 2>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 3, 8>(simd),
            _ => self.run::<S, 1, 1>(simd),
        }
    }
}

impl RowBand<'_> {
    /// Computes the band in tiles of `PIXELS` pixels by `VECTORS` vectors of channels, which divide a panel.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `with_simd`")]
    fn run<S: Simd, const PIXELS: usize, const VECTORS: usize>(&mut self, simd: S) {
        let DirectConvolution { geometry, weights, bias } = self.convolution;
        let run_len = geometry.kernel * geometry.in_channels;
        let (input, row_len) = (self.input.values(), self.input.row_len());
        let pixels = self.rows.len() / self.row_len * self.width;
        let mut fields = [0; PIXEL_BLOCK];
        let mut out_offsets = [0; PIXEL_BLOCK];
        for block in (0..pixels).step_by(PIXEL_BLOCK) {
            let count = PIXEL_BLOCK.min(pixels - block);
            self.locate(block, &mut fields[..count], &mut out_offsets[..count]);
            for (panel, (weights, bias)) in
                weights.chunks_exact(geometry.kernel * run_len).zip(bias).enumerate()
            {
                for first in (0..count).step_by(PIXELS) {
                    // The last tile repeats the last pixel, which is computed more than once and stored once.
                    let starts = std::array::from_fn(|index| fields[(first + index).min(count - 1)]);
                    let fields = ReceptiveFields { input, starts, row_len, run_len };
                    for channel in (0..PANEL).step_by(VECTORS * S::F32_LANES) {
                        let tile: [[S::f32s; VECTORS]; PIXELS] =
                            multiply(simd, &fields, weights, bias, channel);
                        for (&offset, sums) in out_offsets[first..count].iter().zip(&tile) {
                            let start = offset + panel * PANEL + channel;
                            let out = &mut self.rows[start..start + VECTORS * S::F32_LANES];
                            apply_epilogue(simd, self.epilogue, sums, out);
                        }
                    }
                }
            }
        }
    }

    /// Finds the receptive fields and the offsets in `rows` of the pixels from `first` on.
    fn locate(&self, first: usize, fields: &mut [usize], out_offsets: &mut [usize]) {
        for (index, (field, offset)) in fields.iter_mut().zip(out_offsets).enumerate() {
            let (row, column) = ((first + index) / self.width, (first + index) % self.width);
            *field = self.convolution.field(self.input, self.first_row + row, column);
            *offset = row * self.row_len + (self.border + column) * self.pixel_stride;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::convolution::output_map;
    use super::super::padded::{Buffers, MapShape};
    use super::*;
    use crate::kernels::random::Rng;

    /// A convolution with random weights, and a random input.
    struct Case {
        convolution: Convolution,
        folded: FoldedConvolution,
        planes: Vec<f32>,
        shape: MapShape,
    }

    fn case(kernel: usize, stride: usize, [height, width]: [usize; 2]) -> Case {
        let (in_channels, out_channels) = (5, 64);
        let mut rng = Rng::new(7, "convolution");
        let mut numbers = |count: usize| (0..count).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let (name, norm) = (String::new(), String::new());
        let padding = kernel / 2;
        let convolution = Convolution { name, norm, out_channels, in_channels, kernel, stride, padding };
        let folded = FoldedConvolution {
            weight: numbers(out_channels * in_channels * kernel * kernel),
            bias: numbers(out_channels),
        };
        let shape = MapShape { height, width, channels: in_channels };
        Case { convolution, folded, planes: numbers(in_channels * height * width), shape }
    }

    /// Convolves by the definition, in the kernel's order of summation. `before` is the output's previous content.
    fn naive(case: &Case, epilogue: Epilogue, before: &[f32]) -> Vec<f32> {
        let Convolution { kernel, stride, padding, in_channels, out_channels, .. } = case.convolution;
        let MapShape { height, width, .. } = case.shape;
        let side = |side: usize| (side + 2 * padding - kernel) / stride + 1;
        let (rows, columns) = (side(height), side(width));
        let mut out = Vec::new();
        for channel in 0..out_channels {
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let mut sum = case.folded.bias[channel];
                for (dy, dx) in (0..kernel).flat_map(|dy| (0..kernel).map(move |dx| (dy, dx))) {
                    let (y, x) = (row * stride + dy, column * stride + dx);
                    let is_inside =
                        y >= padding && x >= padding && y < height + padding && x < width + padding;
                    for from in 0..in_channels {
                        let pixel = || case.planes[(from * height + y - padding) * width + x - padding];
                        let input = if is_inside { pixel() } else { 0.0 };
                        let weight = ((channel * in_channels + from) * kernel + dy) * kernel + dx;
                        sum = input.mul_add(case.folded.weight[weight], sum);
                    }
                }
                out.push(match epilogue {
                    Epilogue::Identity => sum,
                    Epilogue::Relu => sum.max(0.0),
                    Epilogue::AddRelu => (before[out.len()] + sum).max(0.0),
                });
            }
        }
        out
    }

    /// How the rows are computed: with the widest vectors in a number of bands, or one value at a time.
    #[derive(Clone, Copy, Debug)]
    enum How {
        Bands(usize),
        Scalar,
    }

    fn computed(case: &Case, epilogue: Epilogue, before: &[f32], how: How) -> Vec<f32> {
        let packed = DirectConvolution::new(case.convolution.clone(), &case.folded);
        let mut buffers = Buffers::default();
        let input = PaddedMap::from_planes(&case.planes, case.shape, case.convolution.padding, &mut buffers);
        let shape = output_map(&case.convolution, &input, &mut buffers).shape();
        let mut out = PaddedMap::from_planes(before, shape, 1, &mut buffers);
        match how {
            How::Bands(bands) => packed.run(&input, &mut out, epilogue, bands),
            How::Scalar => {
                let (border, pixel_stride, width, row_len) =
                    (out.border(), out.pixel_stride(), shape.width, out.row_len());
                out.for_rows(1, |first_row, rows| {
                    let (convolution, input) = (&packed, &input);
                    let band = RowBand {
                        convolution,
                        input,
                        epilogue,
                        first_row,
                        rows,
                        border,
                        pixel_stride,
                        width,
                        row_len,
                    };
                    band.with_simd(pulp::Scalar::new());
                });
            }
        }
        let mut planes = vec![0.0; shape.height * shape.width * shape.channels];
        out.write_planes(&mut planes);
        planes
    }

    #[test]
    fn every_vector_width_and_division_gives_the_bits_of_the_definition() {
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)] {
            for size in [[1, 1], [2, 3], [7, 5], [16, 15]] {
                let case = case(kernel, stride, size);
                let mut rng = Rng::new(8, "before");
                let count = naive(&case, Epilogue::Identity, &[]).len();
                let before: Vec<f32> = (0..count).map(|_| rng.normal() as f32).collect();
                for epilogue in [Epilogue::Identity, Epilogue::Relu, Epilogue::AddRelu] {
                    let expected = naive(&case, epilogue, &before);
                    for how in [How::Bands(1), How::Bands(2), How::Bands(4), How::Scalar] {
                        let found = computed(&case, epilogue, &before, how);
                        assert!(found == expected, "{kernel} {stride} {size:?} {epilogue:?} {how:?}");
                    }
                }
            }
        }
    }
}
