//! Spreads a code evenly over its numbers, for the sake of its rounding to int8.
//!
//! The first numbers of a code, along the axes of most variance, are much larger than the others, but all are rounded to
//! multiples of one step, which the largest determines. An orthogonal transformation leaves all distances as they are, and
//! makes the largest number smaller. Here it is the Walsh-Hadamard transform of groups of numbers, each with numbers from
//! all parts of the code (measured 2026-11-29 on patches of `ResNet18`, 20,000 rows, integers of AVX2: two fifths fewer
//! rows pass).
//!
//! **Rounding**, `u = 2^-24`: in exact arithmetic the transform, which is `√g` times an orthogonal one, doubles the sum of
//! two squares at each of its `log2 g` steps. A step errs by `u` of each number, so the vector by `u` of its length; the
//! product with `1/√g`, which is rounded itself, by `2·u`. For `g <= 32` the code errs by less than `8·u` of its length
//! ([`ERROR`]).

/// Most numbers of a group: a power of two that divides the lengths of codes.
const GROUP: usize = 32;

/// Error of a code that was spread, per length of the code.
pub(super) const ERROR: f64 = 8.0 / 16_777_216.0;

/// Spreads each of `codes: [n, width]` in place.
pub(super) fn spread(codes: &mut [f32], width: usize) {
    pulp::Arch::new().dispatch(Spread { codes, width });
}

struct Spread<'a> {
    codes: &'a mut [f32],
    width: usize,
}

impl pulp::WithSimd for Spread<'_> {
    type Output = ();

    /// A group has the numbers `i`, `i + stride`, `i + 2·stride` and so on, so that steps pair runs of `stride` numbers.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let group = (1 << self.width.trailing_zeros()).min(GROUP);
        let scale = 1.0 / (group as f32).sqrt();
        for code in self.codes.chunks_exact_mut(self.width) {
            let mut half = self.width / 2;
            while half * group >= self.width {
                for pair in code.chunks_exact_mut(2 * half) {
                    let (left, right) = pair.split_at_mut(half);
                    for (left, right) in left.iter_mut().zip(right) {
                        (*left, *right) = (*left + *right, *left - *right);
                    }
                }
                if half * group == self.width {
                    break;
                }
                half /= 2;
            }
            for x in code {
                *x *= scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::distance::squared_norm;
    use crate::kernels::random::Rng;

    #[test]
    fn distances_stay_and_the_largest_number_becomes_smaller() {
        let mut stream = Rng::new(1, "spread");
        for width in [1, 2, 7, 8, 32, 48, 96, 128, 256] {
            let mut codes: Vec<f32> = (0..2 * width).map(|_| stream.normal() as f32).collect();
            (codes[0], codes[width]) = (50.0, -50.0);
            let distance = |codes: &[f32]| {
                let difference: Vec<f32> =
                    codes[..width].iter().zip(&codes[width..]).map(|(a, b)| a - b).collect();
                squared_norm(&difference).sqrt()
            };
            let before = distance(&codes);
            spread(&mut codes, width);
            assert!((distance(&codes) / before - 1.0).abs() < 1e-5, "{width}");
            let largest = codes.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            assert!(width % 8 != 0 || largest < 25.0, "{width}: {largest}");
        }
    }

    #[test]
    fn a_group_is_multiplied_with_the_hadamard_matrix() {
        let mut code = [1.0, 10.0, 100.0, 1000.0];
        spread(&mut code, 4);
        let expected = [1111.0, -909.0, -1089.0, 891.0];
        assert!(code.iter().zip(expected).all(|(x, expected)| (2.0 * x - expected).abs() < 1e-3), "{code:?}");
    }
}
