//! The max pooling after the stem: 3×3, stride 2, padding 1.

use pulp::{Simd, WithSimd};

use super::padded::{Buffers, MapShape, PaddedMap};

/// Applies 3×3 max pooling with stride 2 and padding 1. The output's rows are divided into `bands` that run in
/// parallel.
///
/// The padding is the zeros of the input's border, so `input` must not hold negative values (it follows a ReLU).
pub(super) fn max_pool(input: &PaddedMap, buffers: &mut Buffers, bands: usize) -> PaddedMap {
    let MapShape { height, width, channels } = input.shape();
    let shape = MapShape { height: height.div_ceil(2), width: width.div_ceil(2), channels };
    let mut out = PaddedMap::new(shape, 1, buffers);
    let (side, pixel_stride, row_len) =
        (out.border() * out.pixel_stride(), out.pixel_stride(), out.row_len());
    out.for_rows(bands, |first_row, rows| {
        for (index, row) in rows.chunks_exact_mut(row_len).enumerate() {
            let row = &mut row[side..row_len - side];
            pulp::Arch::new().dispatch(PooledRow { input, row: first_row + index, out: row, pixel_stride });
        }
    });
    out
}

/// One row of the output.
struct PooledRow<'a> {
    input: &'a PaddedMap,
    row: usize,
    out: &'a mut [f32],
    pixel_stride: usize,
}

impl WithSimd for PooledRow<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: Simd>(self, simd: S) {
        let margin = self.input.border() - 1;
        for (column, pixel) in self.out.chunks_exact_mut(self.pixel_stride).enumerate() {
            pixel.fill(0.0);
            for row in 0..3 {
                for kernel_column in 0..3 {
                    let start =
                        self.input.start(2 * self.row + row + margin, 2 * column + kernel_column + margin);
                    let values = &self.input.values()[start..start + pixel.len()];
                    let (maxima, _) = S::as_mut_simd_f32s(pixel);
                    for (maximum, &value) in maxima.iter_mut().zip(S::as_simd_f32s(values).0) {
                        *maximum = simd.max_f32s(*maximum, value);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn each_output_is_the_maximum_of_its_nine() {
        for (height, width) in (1..=7).flat_map(|height| (1..=7).map(move |width| (height, width))) {
            let shape = MapShape { height, width, channels: 64 };
            let mut rng = Rng::new(9, "pooling");
            let planes: Vec<f32> = (0..64 * height * width).map(|_| rng.uniform() as f32).collect();
            let mut buffers = Buffers::default();
            let input = PaddedMap::from_planes(&planes, shape, 1, &mut buffers);
            let out = max_pool(&input, &mut buffers, 2);
            let (rows, columns) = (height.div_ceil(2), width.div_ceil(2));
            let mut found = vec![0.0; 64 * rows * columns];
            out.write_planes(&mut found);
            for (index, &value) in found.iter().enumerate() {
                let (channel, row, column) =
                    (index / (rows * columns), index / columns % rows, index % columns);
                let near =
                    |center: usize, side: usize| (2 * center).saturating_sub(1)..(2 * center + 2).min(side);
                let maximum = near(row, height)
                    .flat_map(|y| near(column, width).map(move |x| (y, x)))
                    .map(|(y, x)| planes[(channel * height + y) * width + x])
                    .fold(0.0, f32::max);
                assert!(value.to_bits() == maximum.to_bits(), "{height}×{width} at {index}");
            }
        }
    }
}
