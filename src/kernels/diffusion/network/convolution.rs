//! Convolutions of one patch and their gradients, channels last. The hot loops of the diffusion model.
//!
//! Each output is accumulated by fused multiply-adds in f32 in a fixed order: kernel row, kernel column, input channel;
//! for a gradient of weights row by row of the patch. No order depends on the vector width or on the division of the
//! work, so the bits are the same on every machine.

use pulp::{Simd, WithSimd};

use super::map::Map;
use crate::kernels::product::panel::PANEL;
use crate::kernels::product::tile::{ReceptiveFields, multiply};

/// Output pixels that are computed for all panels before the next pixels (chosen: their inputs stay in the cache).
const PIXEL_BLOCK: usize = 210;

/// Rows of a patch that a gradient of weights takes at once (chosen: they stay in the first-level cache).
const ROW_BLOCK: usize = 4;

/// What an output starts with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    /// A bias for each output channel.
    Bias(&'a [f32]),
    /// What the output holds: the convolution is added.
    Held,
    /// Zero.
    Zero,
}

/// Weights in the order in which the kernel reads them.
#[derive(Debug)]
pub(super) struct Packed {
    kernel: usize,
    in_stride: usize,
    /// `[out / PANEL, kernel, kernel, in]`; each element holds those of [`PANEL`] output channels.
    weights: Vec<[f32; PANEL]>,
}

/// Number of output and input channels, and side of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelShape {
    pub(super) out: usize,
    pub(super) inside: usize,
    pub(super) kernel: usize,
}

impl Packed {
    /// Packs weights `[out, in, kernel, kernel]`.
    pub(super) fn new(shape: KernelShape, weights: &[f32]) -> Self {
        let area = shape.kernel.pow(2);
        Self::pack(shape, |out, inside, tap| weights[(out * shape.inside + inside) * area + tap])
    }

    /// Packs the transposed weights: those of the convolution that takes a gradient of the output to one of the input.
    pub(super) fn transposed(shape: KernelShape, weights: &[f32]) -> Self {
        let area = shape.kernel.pow(2);
        let turned = KernelShape { out: shape.inside, inside: shape.out, ..shape };
        Self::pack(turned, |out, inside, tap| weights[(inside * shape.inside + out) * area + area - 1 - tap])
    }

    fn pack(
        KernelShape { out, inside, kernel }: KernelShape,
        weight: impl Fn(usize, usize, usize) -> f32,
    ) -> Self {
        let in_stride = inside.next_multiple_of(PANEL);
        let mut weights = vec![[0.0; PANEL]; out.div_ceil(PANEL) * kernel.pow(2) * in_stride];
        for (panel, packed) in weights.chunks_exact_mut(kernel.pow(2) * in_stride).enumerate() {
            let first = panel * PANEL;
            for (tap, packed) in packed.chunks_exact_mut(in_stride).enumerate() {
                for (channel, packed) in packed.iter_mut().enumerate().take(inside) {
                    for (index, value) in packed.iter_mut().enumerate().take(out - first.min(out)) {
                        *value = weight(first + index, channel, tap);
                    }
                }
            }
        }
        Self { kernel, in_stride, weights }
    }
}

/// Convolves with padding, so that the side is kept with stride 1 and halved with stride 2.
pub(super) fn convolve(input: &Map, packed: &Packed, stride: usize, start: Start<'_>, out: &mut Map) {
    assert_eq!(input.stride(), packed.in_stride, "channels of the input");
    assert_eq!(input.side, out.side * stride, "side of the output");
    pulp::Arch::new().dispatch(Convolution { input, packed, stride, start, out });
}

struct Convolution<'a> {
    input: &'a Map,
    packed: &'a Packed,
    stride: usize,
    start: Start<'a>,
    out: &'a mut Map,
}

impl WithSimd for Convolution<'_> {
    type Output = ();

    /// Chooses a tile that fills the vector registers.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: Simd>(mut self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 14, 2>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 6, 4>(simd),
            _ => self.run::<S, 1, 1>(simd),
        }
    }
}

impl Convolution<'_> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn run<S: Simd, const PIXELS: usize, const VECTORS: usize>(&mut self, simd: S) {
        let Packed { kernel, in_stride, ref weights } = *self.packed;
        let (side, run_len, row_len) = (self.out.side, kernel * in_stride, self.input.row_len());
        // A kernel of 3 starts in the border, one of 1 inside it.
        let margin = usize::from(kernel == 1);
        let mut fields = [0; PIXEL_BLOCK];
        let mut outs = [0; PIXEL_BLOCK];
        let zeros = [0.0; PANEL];
        for block in (0..side * side).step_by(PIXEL_BLOCK) {
            let count = PIXEL_BLOCK.min(side * side - block);
            for index in 0..count {
                let (row, column) = ((block + index) / side, (block + index) % side);
                fields[index] =
                    (row * self.stride + margin) * row_len + (column * self.stride + margin) * in_stride;
                outs[index] = self.out.start(row, column);
            }
            for (panel, weights) in weights.chunks_exact(kernel * run_len).enumerate() {
                let mut bias = zeros;
                if let Start::Bias(all) = self.start {
                    let of_panel = &all[panel * PANEL..];
                    let len = of_panel.len().min(PANEL);
                    bias[..len].copy_from_slice(&of_panel[..len]);
                }
                for first in (0..count).step_by(PIXELS) {
                    // The last tile repeats the last pixel, which is computed more than once and stored once.
                    let starts: [usize; PIXELS] =
                        std::array::from_fn(|index| fields[(first + index).min(count - 1)]);
                    for channel in (0..PANEL).step_by(VECTORS * S::F32_LANES) {
                        let fields = ReceptiveFields { input: &self.input.values, starts, row_len, run_len };
                        let sums: [[S::f32s; VECTORS]; PIXELS] =
                            multiply(simd, &fields, weights, &bias, channel);
                        let is_held = matches!(self.start, Start::Held);
                        for (&out, sums) in outs[first..count].iter().zip(&sums) {
                            let out = &mut self.out.values[out + panel * PANEL + channel..]
                                [..VECTORS * S::F32_LANES];
                            for (out, &sum) in S::as_mut_simd_f32s(out).0.iter_mut().zip(sums) {
                                *out = if is_held { simd.add_f32s(*out, sum) } else { sum };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of a convolution's weights, `[out, in, kernel, kernel]`: for each of them the sum over the pixels of the
/// gradient of the output times the input.
pub(super) fn weight_gradient(input: &Map, gradient: &Map, shape: KernelShape, stride: usize) -> Vec<f32> {
    assert_eq!(input.side, gradient.side * stride, "side of the gradient");
    let KernelShape { out, inside, kernel } = shape;
    let (area, in_stride) = (kernel.pow(2), input.stride());
    // `[panel, tap, in]`
    let mut sums = vec![[0.0; PANEL]; gradient.stride() / PANEL * area * in_stride];
    pulp::Arch::new().dispatch(WeightGradient { input, gradient, kernel, stride, sums: &mut sums });
    let mut weights = vec![0.0; out * inside * area];
    for (panel, weights) in weights.chunks_mut(PANEL * inside * area).enumerate() {
        for (channel, filter) in weights.chunks_exact_mut(inside * area).enumerate() {
            for (from, kernel) in filter.chunks_exact_mut(area).enumerate() {
                for (tap, value) in kernel.iter_mut().enumerate() {
                    *value = sums[(panel * area + tap) * in_stride + from][channel];
                }
            }
        }
    }
    weights
}

struct WeightGradient<'a> {
    input: &'a Map,
    gradient: &'a Map,
    kernel: usize,
    stride: usize,
    sums: &'a mut [[f32; PANEL]],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 8, 2>(simd),
            8 => self.run::<S, 4, 2>(simd),
            4 => self.run::<S, 4, 4>(simd),
            _ => self.run::<S, 1, 1>(simd),
        }
    }
}

impl WeightGradient<'_> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let Self { input, gradient, kernel, stride, sums } = self;
        let (in_stride, out_stride, side) = (input.stride(), gradient.stride(), gradient.side);
        let margin = usize::from(kernel == 1);
        let (area, row_len) = (kernel.pow(2), input.row_len());
        for block in (0..side).step_by(ROW_BLOCK) {
            let rows = block..side.min(block + ROW_BLOCK);
            for (panel, sums) in sums.chunks_exact_mut(area * in_stride).enumerate() {
                for (tap, sums) in sums.chunks_exact_mut(in_stride).enumerate() {
                    for (tile, sums) in sums.chunks_exact_mut(ROWS).enumerate() {
                        for channel in (0..PANEL).step_by(VECTORS * S::F32_LANES) {
                            let held: [[S::f32s; VECTORS]; ROWS] = std::array::from_fn(|row| {
                                let held = &S::as_simd_f32s(&sums[row]).0[channel / S::F32_LANES..];
                                std::array::from_fn(|vector| held[vector])
                            });
                            let start = (block * stride + margin + tap / kernel) * row_len
                                + (margin + tap % kernel) * in_stride
                                + tile * ROWS;
                            let inputs = Strided {
                                values: &input.values[start..],
                                row: stride * row_len,
                                pixel: stride * in_stride,
                            };
                            let outs = Strided {
                                values: &gradient.values
                                    [gradient.start(block, 0) + panel * PANEL + channel..],
                                row: gradient.row_len(),
                                pixel: out_stride,
                            };
                            let held = accumulate(simd, held, inputs, outs, [rows.len(), side]);
                            for (sums, held) in sums.iter_mut().zip(&held) {
                                S::as_mut_simd_f32s(sums).0[channel / S::F32_LANES..][..VECTORS]
                                    .copy_from_slice(held);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of some rows.
#[derive(Clone, Copy)]
struct Strided<'a> {
    values: &'a [f32],
    /// Values from one row to the next.
    row: usize,
    /// Values from one pixel to the next.
    pixel: usize,
}

/// Adds the products of `ROWS` values of each input pixel and the vectors of each output pixel.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `with_simd`")]
fn accumulate<S: Simd, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    mut sums: [[S::f32s; VECTORS]; ROWS],
    inputs: Strided<'_>,
    outs: Strided<'_>,
    [height, width]: [usize; 2],
) -> [[S::f32s; VECTORS]; ROWS] {
    for row in 0..height {
        let (input, out) = (&inputs.values[row * inputs.row..], &outs.values[row * outs.row..]);
        for column in 0..width {
            let input: &[f32; ROWS] =
                input[column * inputs.pixel..].first_chunk().expect("a pixel's channels");
            let out = S::as_simd_f32s(&out[column * outs.pixel..][..VECTORS * S::F32_LANES]).0;
            let out: [S::f32s; VECTORS] = std::array::from_fn(|vector| out[vector]);
            for (sums, &input) in sums.iter_mut().zip(input) {
                let input = simd.splat_f32s(input);
                for (sum, out) in sums.iter_mut().zip(out) {
                    *sum = simd.mul_add_f32s(input, out, *sum);
                }
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::map::Memory;
    use super::*;
    use crate::kernels::random::Rng;

    fn numbers(name: &str, count: usize) -> Vec<f32> {
        let mut rng = Rng::new(5, name);
        (0..count).map(|_| rng.normal() as f32).collect()
    }

    fn map(name: &str, side: usize, channels: usize) -> Map {
        let mut map = Memory::default().map(side, channels);
        map.read_planes(0, &numbers(name, channels * side * side));
        map
    }

    /// Calls `visit(output index, weight index, input value)` for each product of a convolution by its definition, in the
    /// kernel's order.
    fn products(
        input: &Map,
        shape: KernelShape,
        stride: usize,
        mut visit: impl FnMut([usize; 3], usize, Option<[usize; 3]>),
    ) {
        let KernelShape { out, inside, kernel } = shape;
        let (side, padding) = (input.side / stride, kernel / 2);
        for (channel, row, column) in (0..out).flat_map(|channel| {
            (0..side).flat_map(move |row| (0..side).map(move |column| (channel, row, column)))
        }) {
            for tap in 0..kernel * kernel {
                let (y, x) = (row * stride + tap / kernel, column * stride + tap % kernel);
                let range = padding..input.side + padding;
                let is_inside = range.contains(&y) && range.contains(&x);
                for from in 0..inside {
                    let weight = (channel * inside + from) * kernel * kernel + tap;
                    visit(
                        [channel, row, column],
                        weight,
                        is_inside.then(|| [from, y - padding, x - padding]),
                    );
                }
            }
        }
    }

    fn index([channel, row, column]: [usize; 3], side: usize) -> usize {
        (channel * side + row) * side + column
    }

    const SHAPES: [(KernelShape, usize, usize); 5] = [
        (KernelShape { out: 8, inside: 7, kernel: 3 }, 8, 1),
        (KernelShape { out: 3, inside: 40, kernel: 3 }, 5, 1),
        (KernelShape { out: 40, inside: 33, kernel: 3 }, 6, 2),
        (KernelShape { out: 24, inside: 8, kernel: 1 }, 4, 1),
        (KernelShape { out: 70, inside: 16, kernel: 3 }, 16, 1),
    ];

    #[test]
    fn a_convolution_has_the_bits_of_the_definition_with_every_vector_width() {
        for (shape, side, stride) in SHAPES {
            let (input, bias) = (map("input", side, shape.inside), numbers("bias", shape.out));
            let weights = numbers("weights", shape.out * shape.inside * shape.kernel.pow(2));
            let planes = input.planes();
            let out_side = side / stride;
            let mut expected: Vec<f32> =
                (0..shape.out * out_side * out_side).map(|at| bias[at / (out_side * out_side)]).collect();
            products(&input, shape, stride, |to, weight, from| {
                let value = from.map_or(0.0, |from| planes[index(from, side)]);
                let sum = &mut expected[index(to, out_side)];
                *sum = value.mul_add(weights[weight], *sum);
            });
            let packed = Packed::new(shape, &weights);
            let run = |scalar: bool, start: Start<'_>, out: &mut Map| {
                if scalar {
                    let call = Convolution { input: &input, packed: &packed, stride, start, out };
                    call.with_simd(pulp::Scalar::new());
                } else {
                    convolve(&input, &packed, stride, start, out);
                }
            };
            for scalar in [false, true] {
                let mut out = Memory::default().map(out_side, shape.out);
                run(scalar, Start::Bias(&bias), &mut out);
                assert!(out.planes() == expected, "{shape:?} {side} {stride} {scalar}");
                let mut twice = map("held", out_side, shape.out);
                let held = twice.planes();
                run(scalar, Start::Held, &mut twice);
                run(scalar, Start::Zero, &mut out);
                let sums: Vec<f32> =
                    held.iter().zip(out.planes()).map(|(held, added)| held + added).collect();
                assert!(twice.planes() == sums, "{shape:?}: held");
            }
        }
    }

    #[test]
    fn gradients_are_the_sums_of_their_definition() {
        for (shape, side, stride) in SHAPES {
            let out_side = side / stride;
            let (input, gradient) = (map("input", side, shape.inside), map("gradient", out_side, shape.out));
            let weights = numbers("weights", shape.out * shape.inside * shape.kernel.pow(2));
            let (inputs, gradients) = (input.planes(), gradient.planes());
            let (mut of_weights, mut of_input) = (vec![0.0_f64; weights.len()], vec![0.0_f64; inputs.len()]);
            products(&input, shape, stride, |to, weight, from| {
                let Some(from) = from else { return };
                let given = f64::from(gradients[index(to, out_side)]);
                of_weights[weight] += given * f64::from(inputs[index(from, side)]);
                of_input[index(from, side)] += given * f64::from(weights[weight]);
            });
            let close = |found: &[f32], expected: &[f64]| {
                let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
                found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5 * largest)
            };
            let found = weight_gradient(&input, &gradient, shape, stride);
            assert!(found.len() == weights.len() && close(&found, &of_weights), "{shape:?}: weights");
            let transposed = Packed::transposed(shape, &weights);
            let mut spread = Memory::default().zeros(side, shape.out);
            if stride == 2 {
                gradient.spread(&mut spread);
            } else {
                gradient.copy_into(&mut spread, 0);
            }
            let mut back = Memory::default().map(side, shape.inside);
            convolve(&spread, &transposed, 1, Start::Zero, &mut back);
            assert!(close(&back.planes(), &of_input), "{shape:?}: input");
        }
    }

    #[test]
    fn a_gradient_of_weights_has_the_same_bits_with_every_vector_width() {
        for (shape, side, stride) in SHAPES {
            let (input, gradient) =
                (map("input", side, shape.inside), map("gradient", side / stride, shape.out));
            let count = gradient.stride() / PANEL * shape.kernel.pow(2) * input.stride();
            let (mut wide, mut narrow) = (vec![[0.0; PANEL]; count], vec![[0.0; PANEL]; count]);
            let call = |sums| WeightGradient {
                input: &input,
                gradient: &gradient,
                kernel: shape.kernel,
                stride,
                sums,
            };
            pulp::Arch::new().dispatch(call(&mut wide));
            call(&mut narrow).with_simd(pulp::Scalar::new());
            assert!(wide == narrow, "{shape:?}");
        }
    }
}
