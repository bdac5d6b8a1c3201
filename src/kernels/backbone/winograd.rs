//! Winograd convolution F(4×4, 3×3), channels last: a 3×3 convolution of stride 1 with a quarter of the multiplications.
//!
//! The output is divided into tiles of 4×4 pixels. A tile needs 6×6 input pixels; both, and the 3×3 weights, are taken to
//! 36 *points*, at which a convolution is a product:
//!
//! ```text
//! tile = Aᵀ [ Σ over input channels of (G g Gᵀ) ∘ (Bᵀ d B) ] A
//! ```
//! Source: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), equation 8. The points are 0, ±√½,
//! ±√2 and ∞, whose errors are smaller than those of the paper's 0, ±1, ±2 and ∞ (Barabasz et al., "Error analysis and
//! improving the accuracy of Winograd convolution", 2018).
//!
//! For a block of tiles the products are 36 matrix products, tiles × input channels by input channels × output channels.
//! Every operation on a channel is the same for any vector width, and the sums over input channels have one order. So the
//! bits do not depend on the vector width, on the blocks, or on the division of the work.

mod points;

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::convolution::{Epilogue, apply_epilogue};
use super::network::Convolution;
use super::padded::{PaddedMap, RowsMut};
use super::weights::FoldedConvolution;
use crate::kernels::product::panel::{PANEL, multiply};
use points::{input_points, output_values, weights_at_points};

/// Side of an output tile.
const TILE: usize = 4;

/// Side of an input tile.
const SIDE: usize = TILE + 2;

/// Weights of a kernel: 3×3.
const KERNEL: usize = 9;

/// Points of a tile.
const POINTS: usize = SIDE * SIDE;

/// Values between the rows of two tiles at one point, after the channels: a cache line, so that rows do not share few sets
/// of the first-level cache.
const GAP: usize = 16;

/// Bytes of a block's input tiles: they stay in the second-level cache while the weights stream through (chosen).
const BLOCK_BYTES: usize = 768 * 1024;

/// Tiles of a block if the channels are many: the weights are then larger than the caches, and are read once for so many
/// tiles (chosen).
const MANY_TILES: usize = 112;

/// Input channels up to which [`BLOCK_BYTES`] decides.
const MANY_CHANNELS: usize = 256;

/// Input channels up to which a block's input tiles stay in the second-level cache. Up to here the products of one panel
/// are made at all points, and taken back while they are in the cache. Beyond, those of all panels are made at one point,
/// so that the input tiles of a point stay in the cache.
const FEW_CHANNELS: usize = 128;

/// A 3×3 convolution of stride 1 and padding 1, with its weights at the 36 points.
pub(super) struct WinogradConvolution {
    in_channels: usize,
    /// Panels whose products are made together: a divisor of their number.
    together: usize,
    /// Weights: `[out / PANEL / together, point, together, in]`; each element holds those of `PANEL` output channels.
    weights: Vec<[f32; PANEL]>,
    /// Biases: `[out / PANEL]`.
    bias: Vec<[f32; PANEL]>,
}

/// Rows of an image's output map, and its input map.
struct Rows<'a> {
    input: &'a PaddedMap,
    /// They start at a multiple of [`TILE`].
    out: RowsMut<'a>,
}

impl<'a> Rows<'a> {
    fn of(input: &'a PaddedMap, out: RowsMut<'a>) -> Self {
        Self { input, out }
    }
}

thread_local! {
    /// Inputs and products of a block of tiles, at the points; 1 to 17 MB.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Where a tile is: the index of its rows, its first row within them, and its first column.
type TilePosition = (usize, usize, usize);

impl WinogradConvolution {
    /// Takes folded weights to the points.
    ///
    /// # Panics
    /// If the number of output channels is not a multiple of [`PANEL`].
    pub(super) fn new(geometry: &Convolution, folded: &FoldedConvolution) -> Self {
        let Convolution { in_channels, out_channels, .. } = *geometry;
        assert!(out_channels.is_multiple_of(PANEL), "{out_channels} channels are not panels of {PANEL}");
        let panels = out_channels / PANEL;
        let together = if in_channels <= FEW_CHANNELS { 1 } else { panels };
        let filters: Vec<&[f32]> = folded.weight.chunks_exact(in_channels * KERNEL).collect();
        let packed: Vec<_> = filters.par_chunks_exact(PANEL).map(pack_panel).collect();
        let mut weights = Vec::with_capacity(POINTS * panels * in_channels);
        for group in packed.chunks_exact(together) {
            for point in 0..POINTS {
                for panel in group {
                    weights.extend_from_slice(&panel[point * in_channels..][..in_channels]);
                }
            }
        }
        Self { in_channels, together, weights, bias: folded.bias.as_chunks().0.to_vec() }
    }

    /// Whether a convolution is one that this can do, and gains by it: a function of the layer's shape alone, the same on
    /// every machine.
    pub(super) fn suits(geometry: &Convolution) -> bool {
        let Convolution { kernel, stride, padding, in_channels, out_channels, .. } = *geometry;
        (kernel, stride, padding) == (3, 1, 1)
            && in_channels.is_multiple_of(PANEL)
            && out_channels.is_multiple_of(PANEL)
    }

    /// Convolves the input of each image into its output.
    pub(super) fn run(&self, inputs: &[PaddedMap], outs: &mut [PaddedMap], epilogue: Epilogue) {
        let mut rows: Vec<Rows<'_>> =
            inputs.iter().zip(outs).map(|(input, out)| Rows::of(input, out.rows())).collect();
        self.run_rows(&mut rows, epilogue);
    }

    /// As [`Self::run`] for one image, whose rows are divided into `bands` that run in parallel.
    pub(super) fn run_bands(&self, input: &PaddedMap, out: &mut PaddedMap, epilogue: Epilogue, bands: usize) {
        let rows = out.shape().height.div_ceil(TILE).div_ceil(bands) * TILE;
        let bands: Vec<_> = out.rows().split(rows).collect();
        bands.into_par_iter().for_each(|band| self.run_rows(&mut [Rows::of(input, band)], epilogue));
    }

    fn run_rows(&self, rows: &mut [Rows<'_>], epilogue: Epilogue) {
        let positions = positions(rows);
        SCRATCH.with_borrow_mut(|scratch| {
            pulp::Arch::new().dispatch(Blocks {
                convolution: self,
                rows,
                positions: &positions,
                epilogue,
                scratch,
            });
        });
    }
}

/// The weights of one panel at the points, `[point, in]`, from the filters of its output channels.
fn pack_panel(filters: &[&[f32]]) -> Vec<[f32; PANEL]> {
    let in_channels = filters[0].len() / KERNEL;
    let mut packed = vec![[0.0; PANEL]; POINTS * in_channels];
    for channel in 0..in_channels {
        let mut points = [[0.0; PANEL]; POINTS];
        for (out, filter) in filters.iter().enumerate() {
            let kernel = filter[channel * KERNEL..].first_chunk().expect("each channel has nine weights");
            for (point, value) in points.iter_mut().zip(weights_at_points(kernel)) {
                point[out] = value;
            }
        }
        for (point, values) in points.into_iter().enumerate() {
            packed[point * in_channels + channel] = values;
        }
    }
    packed
}

/// The tiles of some rows.
fn positions(rows: &[Rows<'_>]) -> Vec<TilePosition> {
    let of_rows = |(index, Rows { out, .. }): (usize, &Rows<'_>)| {
        let (height, width) = (out.height(), out.width);
        let columns = move |row| (0..width).step_by(TILE).map(move |column| (index, row, column));
        (0..height).step_by(TILE).flat_map(columns)
    };
    rows.iter().enumerate().flat_map(of_rows).collect()
}

/// The tiles of some rows, block by block.
struct Blocks<'a, 'b> {
    convolution: &'a WinogradConvolution,
    rows: &'a mut [Rows<'b>],
    positions: &'a [TilePosition],
    epilogue: Epilogue,
    scratch: &'a mut Vec<f32>,
}

impl WithSimd for Blocks<'_, '_> {
    type Output = ();

    /// Chooses tiles of the products that fill the vector registers, as for the direct convolution.
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

impl Blocks<'_, '_> {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `with_simd`")]
    fn run<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, simd: S) {
        let WinogradConvolution { in_channels, together, weights, .. } = self.convolution;
        let stride = in_channels + GAP;
        let fitting = BLOCK_BYTES / (POINTS * stride * size_of::<f32>());
        let most = if *in_channels > MANY_CHANNELS { MANY_TILES } else { fitting.next_multiple_of(ROWS) };
        let most = most.min(self.positions.len());
        // Values from one point to the next.
        let (input_point, product_point) = (most * stride + GAP, most * PANEL + GAP);
        let mut scratch = std::mem::take(self.scratch);
        let (inputs, products) = (POINTS * input_point, POINTS * together * product_point);
        if scratch.len() < inputs + products {
            scratch.resize(inputs + products, 0.0);
        }
        let (inputs, products) = scratch.split_at_mut(inputs);
        let zeros = vec![0.0; *in_channels];
        for positions in self.positions.chunks(most) {
            for (tile, &position) in positions.iter().enumerate() {
                self.take_tile(simd, position, &zeros, &mut inputs[tile * stride..], input_point);
            }
            for (group, weights) in weights.chunks_exact(POINTS * together * in_channels).enumerate() {
                for product in 0..POINTS * together {
                    let (weights, next) = weights[product * in_channels..].split_at(*in_channels);
                    let inputs = &inputs[product / together * input_point..][..positions.len() * stride];
                    let products = &mut products[product * product_point..][..positions.len() * PANEL];
                    multiply::<S, ROWS, VECTORS>(simd, inputs, stride, [weights, next], products);
                }
                for panel in 0..*together {
                    for (tile, &position) in positions.iter().enumerate() {
                        let products = &products[panel * product_point + tile * PANEL..];
                        let panel = group * together + panel;
                        self.give_tile(simd, position, panel, products, together * product_point);
                    }
                }
            }
        }
        *self.scratch = scratch;
    }

    /// Takes an input tile to the points. `out` gets the values of point `p` at `p * point_stride`.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `with_simd`")]
    fn take_tile<S: Simd>(
        &self,
        simd: S,
        (index, row, column): TilePosition,
        zeros: &[f32],
        out: &mut [f32],
        point_stride: usize,
    ) {
        let rows = &self.rows[index];
        let (input, channels) = (rows.input, self.convolution.in_channels);
        let shape = input.shape();
        let pixels: [&[S::f32s]; POINTS] = std::array::from_fn(|pixel| {
            let (row, column) = (rows.out.first + row + pixel / SIDE, column + pixel % SIDE);
            let is_inside = row < shape.height + 2 && column < shape.width + 2;
            let margin = input.border() - 1;
            let start = input.start(row + margin, column + margin);
            S::as_simd_f32s(if is_inside { &input.values()[start..start + channels] } else { zeros }).0
        });
        for (vector, _) in pixels[0].iter().enumerate() {
            let mut half = [[simd.splat_f32s(0.0); SIDE]; SIDE];
            for column in 0..SIDE {
                let values =
                    input_points(simd, std::array::from_fn(|row| pixels[row * SIDE + column][vector]));
                for (half, value) in half.iter_mut().zip(values) {
                    half[column] = value;
                }
            }
            for (row, half) in half.into_iter().enumerate() {
                for (column, value) in input_points(simd, half).into_iter().enumerate() {
                    let start = (row * SIDE + column) * point_stride + vector * S::F32_LANES;
                    S::as_mut_simd_f32s(&mut out[start..start + S::F32_LANES]).0[0] = value;
                }
            }
        }
    }

    /// Takes the products of one panel back to an output tile.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of `with_simd`")]
    fn give_tile<S: Simd>(
        &mut self,
        simd: S,
        (index, row, column): TilePosition,
        panel: usize,
        products: &[f32],
        point_stride: usize,
    ) {
        let out = &mut self.rows[index].out;
        let bias = S::as_simd_f32s(&self.convolution.bias[panel]).0;
        let points: [&[S::f32s]; POINTS] =
            std::array::from_fn(|point| S::as_simd_f32s(&products[point * point_stride..][..PANEL]).0);
        let height = out.height();
        for (vector, &bias) in bias.iter().enumerate() {
            let mut half = [[bias; SIDE]; TILE];
            for column in 0..SIDE {
                let values =
                    output_values(simd, std::array::from_fn(|row| points[row * SIDE + column][vector]));
                for (half, value) in half.iter_mut().zip(values) {
                    half[column] = value;
                }
            }
            for (down, half) in half.into_iter().enumerate().take(height - row) {
                let values = output_values(simd, half);
                for (right, value) in values.into_iter().enumerate().take(out.width - column) {
                    let start = out.start(row + down, column + right) + panel * PANEL + vector * S::F32_LANES;
                    let out = &mut out.values[start..start + S::F32_LANES];
                    apply_epilogue(simd, self.epilogue, &[simd.add_f32s(value, bias)], out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::padded::{Buffers, MapShape};
    use super::*;
    use crate::kernels::random::Rng;

    /// No multiple of the channels that are summed up at once.
    const CHANNELS: usize = 96;

    /// Weights, and the planes of some images.
    struct Case {
        kernel: WinogradConvolution,
        folded: FoldedConvolution,
        shape: MapShape,
        images: Vec<Vec<f32>>,
    }

    fn case(height: usize, width: usize, images: usize) -> Case {
        let mut rng = Rng::new(3, "winograd");
        let mut numbers = |count: usize| (0..count).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let folded = FoldedConvolution { weight: numbers(CHANNELS * CHANNELS * 9), bias: numbers(CHANNELS) };
        let shape = MapShape { height, width, channels: CHANNELS };
        let images = (0..images).map(|_| numbers(CHANNELS * height * width)).collect();
        Case {
            kernel: WinogradConvolution::new(&geometry(CHANNELS, CHANNELS), &folded),
            folded,
            shape,
            images,
        }
    }

    fn geometry(in_channels: usize, out_channels: usize) -> Convolution {
        let (name, norm) = (String::new(), String::new());
        Convolution { name, norm, out_channels, in_channels, kernel: 3, stride: 1, padding: 1 }
    }

    impl Case {
        fn maps(&self, border: usize) -> Vec<PaddedMap> {
            let map = |planes: &Vec<f32>| {
                PaddedMap::from_planes(planes, self.shape, border, &mut Buffers::default())
            };
            self.images.iter().map(map).collect()
        }

        fn planes(&self, map: &PaddedMap) -> Vec<f32> {
            let mut planes = vec![0.0; self.images[0].len()];
            map.write_planes(&mut planes);
            planes
        }

        /// The outputs of all images together; the outputs held the images before.
        fn together(&self, border: usize, epilogue: Epilogue) -> Vec<Vec<f32>> {
            let mut outs = self.maps(1);
            self.kernel.run(&self.maps(border), &mut outs, epilogue);
            outs.iter().map(|out| self.planes(out)).collect()
        }

        /// As [`Self::together`] with [`Epilogue::AddRelu`], with vectors of this width.
        fn computed(&self, simd: impl Simd) -> Vec<Vec<f32>> {
            let (inputs, mut outs) = (self.maps(1), self.maps(1));
            let mut rows: Vec<_> =
                inputs.iter().zip(&mut outs).map(|(input, out)| Rows::of(input, out.rows())).collect();
            let (positions, scratch) = (positions(&rows), &mut Vec::new());
            let blocks = Blocks {
                convolution: &self.kernel,
                rows: &mut rows,
                positions: &positions,
                epilogue: Epilogue::AddRelu,
                scratch,
            };
            blocks.with_simd(simd);
            outs.iter().map(|out| self.planes(out)).collect()
        }

        /// One value by the definition, in f64, and before the epilogue.
        fn defined(&self, image: usize, channel: usize, row: usize, column: usize) -> f64 {
            let MapShape { height, width, .. } = self.shape;
            let mut sum = f64::from(self.folded.bias[channel]);
            for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                let (y, x) = (row + dy, column + dx);
                if y == 0 || x == 0 || y > height || x > width {
                    continue;
                }
                for from in 0..CHANNELS {
                    let weight = self.folded.weight[((channel * CHANNELS + from) * 3 + dy) * 3 + dx];
                    let input = self.images[image][(from * height + y - 1) * width + x - 1];
                    sum += f64::from(weight) * f64::from(input);
                }
            }
            sum
        }
    }

    #[test]
    fn values_are_those_of_the_definition() {
        for (height, width) in [(1, 1), (2, 3), (4, 4), (5, 9), (13, 6)] {
            let case = case(height, width, 2);
            for epilogue in [Epilogue::Identity, Epilogue::Relu, Epilogue::AddRelu] {
                let (mut error, mut square) = (0.0_f64, 0.0_f64);
                for (image, found) in case.together(1, epilogue).iter().enumerate() {
                    for (index, &found) in found.iter().enumerate() {
                        let (channel, pixel) = (index / (height * width), index % (height * width));
                        let sum = case.defined(image, channel, pixel / width, pixel % width);
                        let expected = match epilogue {
                            Epilogue::Identity => sum,
                            Epilogue::Relu => sum.max(0.0),
                            Epilogue::AddRelu => (f64::from(case.images[image][index]) + sum).max(0.0),
                        };
                        error = error.max((f64::from(found) - expected).abs());
                        square += sum * sum;
                    }
                }
                let size = (square / (2 * CHANNELS * height * width) as f64).sqrt();
                assert!(error < 1e-5 * size, "{height}×{width} {epilogue:?}: {error} of {size}");
            }
        }
    }

    #[test]
    fn every_vector_width_division_and_company_gives_the_same_bits() {
        for (height, width) in [(1, 1), (7, 5), (18, 33)] {
            let case = case(height, width, 3);
            let expected = case.together(1, Epilogue::AddRelu);
            assert!(case.together(3, Epilogue::AddRelu) == expected, "another border");
            let inputs = case.maps(1);
            for bands in [1, 2, 3, 9] {
                let mut outs = case.maps(1);
                for (input, out) in inputs.iter().zip(&mut outs) {
                    case.kernel.run_bands(input, out, Epilogue::AddRelu, bands);
                }
                let found: Vec<_> = outs.iter().map(|out| case.planes(out)).collect();
                assert!(found == expected, "{height}×{width} alone, in {bands} bands");
            }
            assert!(case.computed(pulp::Scalar::new()) == expected, "{height}×{width}, one value at a time");
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = pulp::x86::V3::try_new() {
                assert!(case.computed(avx2) == expected, "{height}×{width}, AVX2");
            }
        }
    }

    #[test]
    fn weights_are_packed_alike_for_few_and_many_channels() {
        let mut rng = Rng::new(4, "winograd");
        let (few, many) = (FEW_CHANNELS, FEW_CHANNELS + PANEL);
        let mut numbers = |count: usize| (0..count).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let (weight, pixels) = (numbers(2 * PANEL * many * 9), numbers(many * 20));
        let out = |channels: usize| {
            // The further channels are 0.
            let weight = weight.chunks_exact(few * 9).take(2 * PANEL).flat_map(|filter| {
                filter.iter().copied().chain(std::iter::repeat_n(0.0, (channels - few) * 9))
            });
            let folded = FoldedConvolution { weight: weight.collect(), bias: vec![0.5; 2 * PANEL] };
            let kernel = WinogradConvolution::new(&geometry(channels, 2 * PANEL), &folded);
            let shape = MapShape { height: 4, width: 5, channels };
            let input = PaddedMap::from_planes(&pixels[..channels * 20], shape, 1, &mut Buffers::default());
            let shape = MapShape { channels: 2 * PANEL, ..shape };
            let mut outs = [PaddedMap::new(shape, 1, &mut Buffers::default())];
            kernel.run(&[input], &mut outs, Epilogue::Identity);
            let mut planes = vec![0.0; 2 * PANEL * 20];
            outs[0].write_planes(&mut planes);
            planes
        };
        assert_eq!(out(few), out(many));
    }
}
