//! A tile of a direct convolution, channels last: a few output pixels by a few vectors of output channels, which stay in
//! registers. The hot loop of the direct convolutions of the backbone and of the diffusion model.
//!
//! Each output is accumulated by fused multiply-adds in a fixed order: kernel row, kernel column, input channel. The order does
//! not depend on the tile or on the vector width, so the bits are the same on every machine.

use pulp::Simd;

use super::panel::PANEL;

/// The receptive fields of the pixels of one tile.
pub(crate) struct ReceptiveFields<'a, const PIXELS: usize> {
    /// The map, channels last, with its border.
    pub(crate) input: &'a [f32],
    /// Index in `input` at which each pixel's field starts.
    pub(crate) starts: [usize; PIXELS],
    /// Values from one kernel row to the next in `input`.
    pub(crate) row_len: usize,
    /// Values of one kernel row, which are contiguous: kernel width times input channels.
    pub(crate) run_len: usize,
}

/// Computes a tile: `bias + Σ weight · input` for each pixel and the channels of a panel from `channel` on.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must take the instruction set of its caller")]
pub(crate) fn multiply<S: Simd, const PIXELS: usize, const VECTORS: usize>(
    simd: S,
    fields: &ReceptiveFields<'_, PIXELS>,
    weights: &[[f32; PANEL]],
    bias: &[f32; PANEL],
    channel: usize,
) -> [[S::f32s; VECTORS]; PIXELS] {
    let vectors = |numbers: &[f32; PANEL]| -> [S::f32s; VECTORS] {
        let vectors = &S::as_simd_f32s(numbers).0[channel / S::F32_LANES..][..VECTORS];
        std::array::from_fn(|index| vectors[index])
    };
    let mut sums = [vectors(bias); PIXELS];
    for (kernel_row, weights) in weights.chunks_exact(fields.run_len).enumerate() {
        let offset = kernel_row * fields.row_len;
        let inputs: [&[f32]; PIXELS] =
            std::array::from_fn(|pixel| &fields.input[fields.starts[pixel] + offset..][..fields.run_len]);
        for index in 0..fields.run_len {
            let weights = vectors(&weights[index]);
            for (sums, input) in sums.iter_mut().zip(&inputs) {
                let input = simd.splat_f32s(input[index]);
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = simd.mul_add_f32s(input, weight, *sum);
                }
            }
        }
    }
    sums
}
