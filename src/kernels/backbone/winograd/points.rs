//! From pixels and weights to the points, and back. The matrices are those of the points 0, ±√½, ±√2 and ∞.

use pulp::Simd;

use super::{POINTS, SIDE, TILE};

const SQRT_2: f32 = std::f32::consts::SQRT_2;
const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;

/// `G g Gᵀ`, in f64.
pub(super) fn weights_at_points(kernel: &[f32; 9]) -> [f32; POINTS] {
    let kernel = kernel.map(f64::from);
    let half: [[f64; SIDE]; 3] =
        std::array::from_fn(|column| weight_points([kernel[column], kernel[3 + column], kernel[6 + column]]));
    let mut points = [0.0; POINTS];
    for row in 0..SIDE {
        let values = weight_points([half[0][row], half[1][row], half[2][row]]);
        for (column, value) in values.into_iter().enumerate() {
            points[row * SIDE + column] = value as f32;
        }
    }
    points
}

/// The values of a polynomial of degree 2 at the points, divided by the products of the points' distances.
fn weight_points([g0, g1, g2]: [f64; 3]) -> [f64; SIDE] {
    let at = |point: f64, scale: f64| scale * (g0 + point * (g1 + point * g2));
    let (half, two) = (std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::SQRT_2);
    [g0, at(half, -2.0 / 3.0), at(-half, -2.0 / 3.0), at(two, 1.0 / 6.0), at(-two, 1.0 / 6.0), g2]
}

/// `Bᵀ d` of a column of six.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `with_simd`")]
pub(super) fn input_points<S: Simd>(simd: S, [d0, d1, d2, d3, d4, d5]: [S::f32s; SIDE]) -> [S::f32s; SIDE] {
    let splat = |value| simd.splat_f32s(value);
    let fused = |factor: f32, value, sum| simd.mul_add_f32s(splat(factor), value, sum);
    let (even, odd) = (fused(-2.0, d2, d4), simd.mul_f32s(splat(SQRT_HALF), fused(-2.0, d1, d3)));
    let (even_2, odd_2) = (fused(-0.5, d2, d4), simd.mul_f32s(splat(SQRT_2), fused(-0.5, d1, d3)));
    [
        fused(-2.5, d2, simd.add_f32s(d0, d4)),
        simd.add_f32s(even, odd),
        simd.sub_f32s(even, odd),
        simd.add_f32s(even_2, odd_2),
        simd.sub_f32s(even_2, odd_2),
        fused(-2.5, d3, simd.add_f32s(d1, d5)),
    ]
}

/// `Aᵀ m` of a column of six.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of `with_simd`")]
pub(super) fn output_values<S: Simd>(simd: S, [m0, m1, m2, m3, m4, m5]: [S::f32s; SIDE]) -> [S::f32s; TILE] {
    let splat = |value| simd.splat_f32s(value);
    let fused = |factor: f32, value, sum| simd.mul_add_f32s(splat(factor), value, sum);
    let (sum, sum_2) = (simd.add_f32s(m1, m2), simd.add_f32s(m3, m4));
    let odd = simd.mul_f32s(splat(SQRT_HALF), simd.sub_f32s(m1, m2));
    let odd_2 = simd.mul_f32s(splat(SQRT_2), simd.sub_f32s(m3, m4));
    [
        simd.add_f32s(m0, simd.add_f32s(sum, sum_2)),
        simd.add_f32s(odd, odd_2),
        fused(2.0, sum_2, simd.mul_f32s(splat(0.5), sum)),
        fused(2.0, odd_2, fused(0.5, odd, m5)),
    ]
}
