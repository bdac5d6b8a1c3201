//! Group norm with the `SiLU` after it, and their gradients.
//!
//! Sums are over the pixels of a row in f32 and over rows in f64, channel by channel; a group adds its channels in order.

use pulp::NullaryFnOnce;

use super::map::Map;

/// Epsilon of a group norm; the default of PyTorch.
const EPSILON: f64 = 1e-5;

/// Mean and inverse deviation of each group.
#[derive(Clone, Debug)]
pub(super) struct Statistics(Vec<[f32; 2]>);

/// What a group norm is: its groups, scales and shifts, and whether `SiLU` follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm<'a> {
    pub(super) groups: usize,
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) is_activated: bool,
}

/// `e^x` for `x` between -87 and 87, with a relative error below 2e-7, by operations whose bits are the same everywhere.
/// The polynomial of Cephes (`expf`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// 1.5 · 2^23: adding it rounds to an integer, which is then in the lowest bits.
    const ROUNDER: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let count = shifted - ROUNDER;
    let rest = count.mul_add(-LN_2_LOW, count.mul_add(-LN_2_HIGH, x));
    let mut sum = 1.987_569_2e-4_f32;
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        sum = sum.mul_add(rest, factor);
    }
    let sum = sum.mul_add(rest * rest, rest) + 1.0;
    sum * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()))
}

/// The logistic function.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of a call that pulp compiles")]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `SiLU`: `x · sigmoid(x)`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of a call that pulp compiles")]
pub(super) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// The derivative of [`silu`].
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of a call that pulp compiles")]
pub(super) fn silu_derivative(x: f32) -> f32 {
    let sigmoid = sigmoid(x);
    sigmoid * x.mul_add(1.0 - sigmoid, 1.0)
}

/// The sum over all pixels of what `of` gives for the pixels' values, for each channel.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of a call that pulp compiles")]
fn channel_sums(map: &Map, of: impl Fn(usize, f32) -> f32) -> Vec<f64> {
    let channels = map.channels;
    let (mut sums, mut of_row) = (vec![0.0_f64; channels], vec![0.0_f32; channels]);
    for row in map.rows() {
        of_row.fill(0.0);
        for pixel in row.chunks_exact(map.stride()) {
            for (channel, (sum, &value)) in of_row.iter_mut().zip(pixel).enumerate() {
                *sum += of(channel, value);
            }
        }
        for (sum, &of_row) in sums.iter_mut().zip(&of_row) {
            *sum += f64::from(of_row);
        }
    }
    sums
}

/// [`Norm::apply`], compiled for the widest vectors.
struct Apply<'a> {
    norm: Norm<'a>,
    input: &'a Map,
    out: &'a mut Map,
}

impl NullaryFnOnce for Apply<'_> {
    type Output = Statistics;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn call(self) -> Statistics {
        self.norm.apply_here(self.input, self.out)
    }
}

/// [`Norm::gradient`], compiled for the widest vectors.
struct Gradient<'a> {
    norm: Norm<'a>,
    input: &'a Map,
    statistics: &'a Statistics,
    of_output: &'a Map,
    of_input: &'a mut Map,
}

impl NullaryFnOnce for Gradient<'_> {
    type Output = [Vec<f32>; 2];

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn call(self) -> [Vec<f32>; 2] {
        self.norm.gradient_here(self.input, self.statistics, self.of_output, self.of_input)
    }
}

impl Norm<'_> {
    /// Normalises a map into another one, and returns the statistics that the gradient needs.
    pub(super) fn apply(&self, input: &Map, out: &mut Map) -> Statistics {
        pulp::Arch::new().dispatch(Apply { norm: *self, input, out })
    }

    /// Takes the gradient of the output to that of the input, and returns those of scales and shifts.
    pub(super) fn gradient(
        &self,
        input: &Map,
        statistics: &Statistics,
        of_output: &Map,
        of_input: &mut Map,
    ) -> [Vec<f32>; 2] {
        pulp::Arch::new().dispatch(Gradient { norm: *self, input, statistics, of_output, of_input })
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn apply_here(&self, input: &Map, out: &mut Map) -> Statistics {
        let of_group = input.channels / self.groups;
        let count = (input.side.pow(2) * of_group) as f64;
        let by_group = |sums: Vec<f64>| -> Vec<f64> {
            sums.chunks_exact(of_group).map(|sums| sums.iter().sum::<f64>() / count).collect()
        };
        let means: Vec<f32> =
            by_group(channel_sums(input, |_, value| value)).into_iter().map(|mean| mean as f32).collect();
        let of_channel: Vec<f32> = (0..input.channels).map(|channel| means[channel / of_group]).collect();
        let squares = channel_sums(input, |channel, value| {
            let difference = value - of_channel[channel];
            difference * difference
        });
        let inverses =
            by_group(squares).into_iter().map(|variance| (1.0 / (variance + EPSILON).sqrt()) as f32);
        let statistics =
            Statistics(means.into_iter().zip(inverses).map(|(mean, inverse)| [mean, inverse]).collect());
        let lines = self.lines(&statistics, of_group);
        let stride = input.stride();
        for row in 0..input.side {
            let pixels = input.row(row).chunks_exact(stride).zip(out.row_mut(row).chunks_exact_mut(stride));
            for (pixel, out) in pixels {
                for ((out, &value), &[factor, shift]) in out.iter_mut().zip(pixel).zip(&lines) {
                    let value = value.mul_add(factor, shift);
                    *out = if self.is_activated { silu(value) } else { value };
                }
            }
        }
        statistics
    }

    /// Factor and shift of each channel: the norm as a straight line.
    fn lines(&self, statistics: &Statistics, of_group: usize) -> Vec<[f32; 2]> {
        let line = |(channel, (&scale, &shift)): (usize, (&f32, &f32))| {
            let [mean, inverse] = statistics.0[channel / of_group];
            let factor = scale * inverse;
            [factor, (-mean).mul_add(factor, shift)]
        };
        self.scale.iter().zip(self.shift).enumerate().map(line).collect()
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
    fn gradient_here(
        &self,
        input: &Map,
        statistics: &Statistics,
        of_output: &Map,
        of_input: &mut Map,
    ) -> [Vec<f32>; 2] {
        let (channels, stride) = (input.channels, input.stride());
        let of_group = channels / self.groups;
        let lines = self.lines(statistics, of_group);
        let means: Vec<f32> = (0..channels).map(|channel| statistics.0[channel / of_group][0]).collect();
        // The gradient before the activation goes into `of_input`; its sums, and those of its products with the input.
        let (mut sums, mut products) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
        let (mut row_sums, mut row_products) = (vec![0.0_f32; channels], vec![0.0_f32; channels]);
        for row in 0..input.side {
            row_sums.fill(0.0);
            row_products.fill(0.0);
            let pixels = input.row(row).chunks_exact(stride).zip(of_output.row(row).chunks_exact(stride));
            for ((pixel, given), out) in pixels.zip(of_input.row_mut(row).chunks_exact_mut(stride)) {
                let (pixel, given, out) = (&pixel[..channels], &given[..channels], &mut out[..channels]);
                for channel in 0..channels {
                    let [factor, shift] = lines[channel];
                    let mut gradient = given[channel];
                    if self.is_activated {
                        gradient *= silu_derivative(pixel[channel].mul_add(factor, shift));
                    }
                    out[channel] = gradient;
                    row_sums[channel] += gradient;
                    row_products[channel] += gradient * (pixel[channel] - means[channel]);
                }
            }
            for channel in 0..channels {
                sums[channel] += f64::from(row_sums[channel]);
                products[channel] += f64::from(row_products[channel]);
            }
        }
        let inverse = |channel: usize| f64::from(statistics.0[channel / of_group][1]);
        let of_scales: Vec<f64> = (0..channels).map(|channel| products[channel] * inverse(channel)).collect();
        // of_input = gradient·a + input·b + c for each channel.
        let count = (input.side.pow(2) * of_group) as f64;
        let mut coefficients = Vec::with_capacity(channels);
        for group in 0..self.groups {
            let members = group * of_group..(group + 1) * of_group;
            let weighted = |of: &[f64]| -> f64 {
                members.clone().map(|channel| f64::from(self.scale[channel]) * of[channel]).sum::<f64>()
                    / count
            };
            let (mean, along) = (weighted(&sums), weighted(&of_scales));
            let [centre, inverse] = statistics.0[group].map(f64::from);
            let b = -inverse * inverse * along;
            for channel in members {
                let a = f64::from(self.scale[channel]) * inverse;
                coefficients.push([a as f32, b as f32, (-inverse * mean - centre * b) as f32]);
            }
        }
        for row in 0..input.side {
            let pixels =
                input.row(row).chunks_exact(stride).zip(of_input.row_mut(row).chunks_exact_mut(stride));
            for (pixel, out) in pixels {
                for ((out, &value), &[a, b, c]) in out.iter_mut().zip(pixel).zip(&coefficients) {
                    *out = out.mul_add(a, value.mul_add(b, c));
                }
            }
        }
        let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        [single(of_scales), single(sums)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::Memory;
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn the_exponential_is_that_of_libm() {
        for index in -870_000..=870_000 {
            let x = index as f32 * 1e-4;
            let (found, wanted) = (f64::from(exp(x)), libm::exp(f64::from(x)));
            assert!((found / wanted - 1.0).abs() < 2e-7, "{x}: {found} {wanted}");
        }
        assert_eq!((sigmoid(200.0), sigmoid(0.0)), (1.0, 0.5));
        assert!(sigmoid(-200.0) < 1e-37);
    }

    const SIDE: usize = 5;
    const CHANNELS: usize = 12;
    const GROUPS: usize = 4;

    fn numbers(name: &str, count: usize) -> Vec<f32> {
        let mut rng = Rng::new(6, name);
        (0..count).map(|_| rng.normal() as f32 + 0.3).collect()
    }

    /// The norm by its definition, in f64.
    fn defined(planes: &[f64], scale: &[f32], shift: &[f32], is_activated: bool) -> Vec<f64> {
        let pixels = SIDE * SIDE;
        let mut out = Vec::new();
        for (group, values) in planes.chunks_exact(CHANNELS / GROUPS * pixels).enumerate() {
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
            for (index, value) in values.iter().enumerate() {
                let channel = group * (CHANNELS / GROUPS) + index / pixels;
                let value = (value - mean) / (variance + EPSILON).sqrt() * f64::from(scale[channel])
                    + f64::from(shift[channel]);
                out.push(if is_activated { value / (1.0 + libm::exp(-value)) } else { value });
            }
        }
        out
    }

    #[test]
    fn norms_and_gradients_are_those_of_the_definition() {
        let count = CHANNELS * SIDE * SIDE;
        let (planes, given) = (numbers("input", count), numbers("given", count));
        let (scale, shift) = (numbers("scale", CHANNELS), numbers("shift", CHANNELS));
        let map = |planes: &[f32]| {
            let mut map = Memory::default().map(SIDE, CHANNELS);
            map.read_planes(0, planes);
            map
        };
        for is_activated in [false, true] {
            let norm = Norm { groups: GROUPS, scale: &scale, shift: &shift, is_activated };
            let (input, mut out) = (map(&planes), Memory::default().map(SIDE, CHANNELS));
            let statistics = norm.apply(&input, &mut out);
            let exact: Vec<f64> = planes.iter().map(|&value| f64::from(value)).collect();
            for (found, wanted) in out.planes().iter().zip(defined(&exact, &scale, &shift, is_activated)) {
                assert!((f64::from(*found) - wanted).abs() < 3e-6, "{found} {wanted}");
            }
            let mut of_input = Memory::default().map(SIDE, CHANNELS);
            let [scales, shifts] = norm.gradient(&input, &statistics, &map(&given), &mut of_input);
            // The loss is the sum of the outputs times `given`: its differences.
            let loss = |planes: &[f64], scale: &[f32], shift: &[f32]| -> f64 {
                let out = defined(planes, scale, shift, is_activated);
                out.iter().zip(&given).map(|(out, &given)| out * f64::from(given)).sum()
            };
            for (index, found) in of_input.planes().into_iter().enumerate() {
                let moved = |by: f64| {
                    let mut moved = exact.clone();
                    moved[index] += by;
                    loss(&moved, &scale, &shift)
                };
                let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((f64::from(found) - wanted).abs() < 2e-5, "{index}: {found} {wanted}");
            }
            for channel in 0..CHANNELS {
                let moved = |values: &[f32], by: f32| {
                    let mut moved = values.to_vec();
                    moved[channel] += by;
                    moved
                };
                let step = |low: f64, high: f64| (high - low) / f64::from(2.0_f32.powi(-9));
                let by = 2.0_f32.powi(-10);
                let of_scale =
                    step(loss(&exact, &moved(&scale, -by), &shift), loss(&exact, &moved(&scale, by), &shift));
                let of_shift =
                    step(loss(&exact, &scale, &moved(&shift, -by)), loss(&exact, &scale, &moved(&shift, by)));
                assert!((f64::from(scales[channel]) - of_scale).abs() < 1e-3, "{channel}: {of_scale}");
                assert!((f64::from(shifts[channel]) - of_shift).abs() < 1e-3, "{channel}: {of_shift}");
            }
        }
    }
}
