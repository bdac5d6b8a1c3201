//! The maximum after the stem: 3×3, stride 2, padding 1.

use pulp::{Simd, WithSimd};

use super::bordered::{BorderedMap, Buffers, Shape};

/// Returns the maximum of each 3×3 pixels around every second pixel, in `parts` of the rows at once.
///
/// The border's zeros stand for the padding: `input` must be rectified, so that no maximum is below them.
pub(super) fn max_pool(input: &BorderedMap, buffers: &mut Buffers, parts: usize) -> BorderedMap {
    let Shape { height, width, channels } = input.shape();
    let shape = Shape { height: height.div_ceil(2), width: width.div_ceil(2), channels };
    let mut out = BorderedMap::new(shape, 1, buffers);
    let (side, pitch, row_len) = (out.border() * out.pitch(), out.pitch(), out.row_len());
    out.for_rows(parts, |first_row, rows| {
        for (index, row) in rows.chunks_exact_mut(row_len).enumerate() {
            let row = &mut row[side..row_len - side];
            pulp::Arch::new().dispatch(PooledRow { input, row: first_row + index, out: row, pitch });
        }
    });
    out
}

/// One row of the output.
struct PooledRow<'a> {
    input: &'a BorderedMap,
    row: usize,
    out: &'a mut [f32],
    pitch: usize,
}

impl WithSimd for PooledRow<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: Simd>(self, simd: S) {
        let margin = self.input.border() - 1;
        for (column, pixel) in self.out.chunks_exact_mut(self.pitch).enumerate() {
            pixel.fill(0.0);
            for row in 0..3 {
                for place in 0..3 {
                    let start = self.input.start(2 * self.row + row + margin, 2 * column + place + margin);
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
