//! Matrix products of the small parts: linear layers and attention.

use pulp::NullaryFnOnce;

use super::map::Map;

/// Adds the product `left · right`: `left` is `[n, k]`, `right` is `[k, m]`, `out` is `[n, m]`, all row-major. Each sum runs
/// over `k` in order, by fused multiply-adds.
pub(super) fn add_product(left: &[f32], right: &[f32], k: usize, out: &mut [f32]) {
    pulp::Arch::new().dispatch(Product { left, right, k, out });
}

struct Product<'a> {
    left: &'a [f32],
    right: &'a [f32],
    k: usize,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Product<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn call(self) {
        let Self { left, right, k, out } = self;
        let m = right.len() / k;
        for (left, out) in left.chunks_exact(k).zip(out.chunks_exact_mut(m)) {
            for (&factor, right) in left.iter().zip(right.chunks_exact(m)) {
                for (out, &value) in out.iter_mut().zip(right) {
                    *out = factor.mul_add(value, *out);
                }
            }
        }
    }
}

/// The transpose of `[n, m]`.
pub(super) fn transpose(matrix: &[f32], m: usize) -> Vec<f32> {
    let n = matrix.len() / m;
    (0..m * n).map(|index| matrix[index % n * m + index / n]).collect()
}

/// Channels `first..first + count` of a map: `[pixel, channel]`.
pub(super) fn pixels(map: &Map, first: usize, count: usize) -> Vec<f32> {
    let of_row = |row| map.row(row).chunks_exact(map.stride());
    (0..map.side).flat_map(of_row).flat_map(|pixel| &pixel[first..first + count]).copied().collect()
}

/// Writes `[pixel, channel]` into the channels of a map from `first` on.
pub(super) fn write_pixels(map: &mut Map, first: usize, values: &[f32]) {
    let (side, stride) = (map.side, map.stride());
    let count = values.len() / (side * side);
    let mut values = values.chunks_exact(count);
    for row in 0..side {
        for (pixel, values) in map.row_mut(row).chunks_exact_mut(stride).zip(&mut values) {
            pixel[first..first + count].copy_from_slice(values);
        }
    }
}

/// Turns each row of `[n, m]` into its softmax.
pub(super) fn softmax(rows: &mut [f32], m: usize) {
    for row in rows.chunks_exact_mut(m) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for value in row.iter_mut() {
            *value = libm::expf(*value - largest);
        }
        let sum: f32 = row.iter().sum();
        for value in row {
            *value /= sum;
        }
    }
}

/// Takes the gradient of a softmax to that of what it was made of, in place.
pub(super) fn softmax_gradient(softmax: &[f32], gradient: &mut [f32], m: usize) {
    for (softmax, gradient) in softmax.chunks_exact(m).zip(gradient.chunks_exact_mut(m)) {
        let sum: f32 = softmax.iter().zip(gradient.iter()).map(|(a, b)| a * b).sum();
        for (gradient, softmax) in gradient.iter_mut().zip(softmax) {
            *gradient = softmax * (*gradient - sum);
        }
    }
}
