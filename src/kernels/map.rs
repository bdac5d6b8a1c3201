//! Upsampling and smoothing of score maps.
//!
//! Maps are f32 `[h, w]`, row-major. All functions are deterministic and sequential: a map is small, and callers
//! process images in parallel.

/// σ for a map whose short side is 224 px, as in PatchCore (Roth et al. 2022, section 3.3).
const SIGMA_AT_224: f64 = 4.0;

/// Standard deviations after which the Gaussian kernel is truncated; the default of scipy.
const TRUNCATE: f64 = 4.0;

/// Box blurs by which Pillow approximates a Gaussian blur.
const BOX_PASSES: usize = 3;

/// Returns the default σ, in pixels, for a map of this size: `4·min(h, w)/224`.
pub fn default_sigma(height: usize, width: usize) -> f64 {
    SIGMA_AT_224 * height.min(width) as f64 / 224.0
}

/// Resizes a map bilinearly: `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
///
/// Target pixel `i` samples the source at `max(0, (i + 0.5)·from/to - 0.5)`, without antialiasing. Agrees with
/// PyTorch within 1e-6 of the map's range: both interpolate along rows, then along columns, in f32. Up to rounding,
/// each pixel lies between its four sources, so finite maps stay finite. NaN spreads to every pixel that reads it,
/// even with weight 0. Cost: `h·to_w + to_h·to_w`.
///
/// # Panics
/// If the map is not `[h, w]`, or a side is 0.
pub fn upsample(map: &[f32], h: usize, w: usize, to_h: usize, to_w: usize) -> Vec<f32> {
    assert_map(map, h, w);
    assert!(to_h > 0 && to_w > 0, "cannot resize a map to {to_h}×{to_w}");
    let columns: Vec<Tap> = (0..to_w).map(|x| Tap::new(x, w, to_w)).collect();
    let across: Vec<f32> =
        map.chunks(w).flat_map(|line| columns.iter().map(|column| column.mix(line))).collect();
    let mut resized = Vec::with_capacity(to_h * to_w);
    for y in 0..to_h {
        let row = Tap::new(y, h, to_h);
        let (upper, lower) = (&across[row.low * to_w..][..to_w], &across[row.high * to_w..][..to_w]);
        let pairs = upper.iter().zip(lower);
        resized.extend(pairs.map(|(above, below)| (1.0 - row.share) * above + row.share * below));
    }
    resized
}

/// Two neighbouring source pixels and the weight (`share`) of the second.
struct Tap {
    low: usize,
    high: usize,
    share: f32,
}

impl Tap {
    fn new(index: usize, from: usize, to: usize) -> Self {
        let scale = from as f32 / to as f32;
        let position = ((index as f32 + 0.5) * scale - 0.5).max(0.0);
        let low = (position as usize).min(from - 1);
        Self { low, high: (low + 1).min(from - 1), share: (position - low as f32).clamp(0.0, 1.0) }
    }

    fn mix(&self, values: &[f32]) -> f32 {
        (1.0 - self.share) * values[self.low] + self.share * values[self.high]
    }
}

/// Smooths a map with a Gaussian filter: `scipy.ndimage.gaussian_filter(map, sigma)`.
///
/// The filter is separable and runs along columns first. The kernel is `exp(-x²/2σ²)` for `|x| <= r = ⌊4σ + 0.5⌋`,
/// normalised. At the borders the map is mirrored with the edge pixel repeated (mode `reflect` of scipy). If σ is 0
/// or less, the map is returned unchanged. NaN and infinities spread to the pixels that read them. Cost: `2r + 1`
/// products per pixel and axis.
///
/// Each pixel is summed in f64 (the pairs at distance 1, 2, …, then the centre) and rounded to f32 after each axis,
/// as in scipy. The order of the f64 sum differs from scipy's, so results agree within the last bit of an f32. The
/// inner loops run over pixels and the outer loops over the kernel, so every vector width gives the same sum for each
/// pixel: the result has the same bits on every machine.
///
/// # Panics
/// If the map is not `[h, w]`, or σ is NaN.
pub fn gaussian_blur(map: &[f32], h: usize, w: usize, sigma: f64) -> Vec<f32> {
    assert_map(map, h, w);
    assert!(!sigma.is_nan(), "the blur has no width");
    if sigma <= 0.0 {
        return map.to_vec();
    }
    let kernel = gaussian_kernel(sigma);
    pulp::Arch::new().dispatch(|| {
        let down = blur_columns(map, h, w, &kernel);
        blur_rows(&down, w, &kernel)
    })
}

/// Returns how many pixels to each side [`gaussian_blur`] reads.
pub fn gaussian_radius(sigma: f64) -> usize {
    (TRUNCATE * sigma + 0.5) as usize
}

/// Returns one half of the symmetric kernel: the centre, then the weights at distance 1, 2, ….
fn gaussian_kernel(sigma: f64) -> Vec<f64> {
    let radius = gaussian_radius(sigma);
    let weights: Vec<f64> =
        (0..=radius).map(|x| libm::exp(-0.5 / (sigma * sigma) * (x * x) as f64)).collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    weights.iter().map(|weight| weight / sum).collect()
}

#[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
#[inline(always)]
fn blur_columns(map: &[f32], h: usize, w: usize, kernel: &[f64]) -> Vec<f32> {
    let row = |y: isize| &map[mirrored(y, h) * w..][..w];
    let mut blurred = Vec::with_capacity(h * w);
    let mut sums = vec![0.0_f64; w];
    for y in 0..h as isize {
        sums.fill(0.0);
        for (x, &weight) in (1..).zip(&kernel[1..]) {
            for ((sum, &above), &below) in sums.iter_mut().zip(row(y - x)).zip(row(y + x)) {
                *sum += weight * (f64::from(above) + f64::from(below));
            }
        }
        blurred.extend(row(y).iter().zip(&sums).map(|(&at, sum)| (kernel[0] * f64::from(at) + sum) as f32));
    }
    blurred
}

#[expect(clippy::inline_always, reason = "pulp compiles it for the widest vectors only if inlined")]
#[inline(always)]
fn blur_rows(map: &[f32], w: usize, kernel: &[f64]) -> Vec<f32> {
    let radius = kernel.len() - 1;
    let sources: Vec<usize> =
        (0..w + 2 * radius).map(|index| mirrored(index as isize - radius as isize, w)).collect();
    let mut blurred = Vec::with_capacity(map.len());
    let (mut padded, mut sums) = (vec![0.0_f64; sources.len()], vec![0.0_f64; w]);
    for line in map.chunks(w) {
        padded.iter_mut().zip(&sources).for_each(|(value, &source)| *value = f64::from(line[source]));
        sums.fill(0.0);
        for (x, &weight) in (1..).zip(&kernel[1..]) {
            let (left, right) = (&padded[radius - x..][..w], &padded[radius + x..][..w]);
            for ((sum, before), after) in sums.iter_mut().zip(left).zip(right) {
                *sum += weight * (before + after);
            }
        }
        let centre = &padded[radius..][..w];
        blurred.extend(centre.iter().zip(&sums).map(|(at, sum)| (kernel[0] * at + sum) as f32));
    }
    blurred
}

/// Maps an index beyond the borders into `0..length`: `d c b a | a b c d | d c b a`.
fn mirrored(index: isize, length: usize) -> usize {
    let length = length as isize;
    let folded = index.rem_euclid(2 * length);
    folded.min(2 * length - 1 - folded) as usize
}

/// Smooths a map as the `ExDD` reference code does: as an 8-bit image, with Pillow's `GaussianBlur(radius)`. The
/// reference uses radius 2.
///
/// The map is divided by its maximum and truncated to levels 0..=255 (`ToPILImage` of torchvision), blurred in 8 bits
/// by three extended box blurs per axis (Gwosdek et al. 2011, "Theoretical Foundations of Gaussian Convolution by
/// Extended Box Filtering", as in Pillow's `BoxBlur.c`), and scaled back. The levels equal those of Pillow. Negative
/// values count as 0. A map without positive values is returned unchanged (the reference divides by 0).
///
/// # Panics
/// If the map is not `[h, w]`, or the radius is negative or not finite.
pub fn reference_blur(map: &[f32], h: usize, w: usize, radius: f32) -> Vec<f32> {
    assert_map(map, h, w);
    assert!(radius.is_finite() && radius >= 0.0, "a blur of radius {radius}");
    let maximum = map.iter().copied().fold(0.0_f32, f32::max);
    if maximum <= 0.0 {
        return map.to_vec();
    }
    let levels: Vec<u8> = map.iter().map(|value| (value / maximum * 255.0) as u8).collect();
    let blurred = blur_levels(&levels, h, w, radius);
    blurred.iter().map(|&level| f32::from(level) / 255.0 * maximum).collect()
}

/// Blurs an 8-bit image `[h, w]`: `PIL.ImageFilter.GaussianBlur(radius)` for one channel.
fn blur_levels(levels: &[u8], h: usize, w: usize, radius: f32) -> Vec<u8> {
    if radius <= 0.0 {
        return levels.to_vec();
    }
    let box_blur = BoxBlur::new(box_radius(radius));
    let across: Vec<u8> = levels.chunks(w).flat_map(|line| box_blur.repeat(line)).collect();
    let columns: Vec<u8> = (0..w)
        .flat_map(|x| box_blur.repeat(&across.iter().skip(x).step_by(w).copied().collect::<Vec<_>>()))
        .collect();
    (0..h).flat_map(|y| columns.iter().skip(y).step_by(h).copied()).collect()
}

/// Returns the radius of the extended box blur that, applied [`BOX_PASSES`] times, has the variance of the Gaussian
/// (Gwosdek et al. 2011, equations 7, 11 and 14). Computed in f32 as in Pillow.
fn box_radius(radius: f32) -> f32 {
    let variance = radius * radius / BOX_PASSES as f32;
    let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
    let whole = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
    let mut part = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    part /= 6.0 * (variance - (whole + 1.0) * (whole + 1.0));
    whole + part
}

/// An extended box blur: `2·radius + 1` full pixels and a fraction of one more on each side. Weights are in 24-bit
/// fixed point.
struct BoxBlur {
    radius: usize,
    whole_weight: u32,
    edge_weight: u32,
}

impl BoxBlur {
    fn new(radius: f32) -> Self {
        let one = 1_u32 << 24;
        let whole = radius as u32;
        let whole_weight = (one as f32 / (radius * 2.0 + 1.0)) as u32;
        let edge_weight = (one - (whole * 2 + 1) * whole_weight) / 2;
        Self { radius: whole as usize, whole_weight, edge_weight }
    }

    fn repeat(&self, line: &[u8]) -> Vec<u8> {
        let mut blurred = line.to_vec();
        for _ in 0..BOX_PASSES {
            blurred = self.once(&blurred);
        }
        blurred
    }

    /// Applies the blur once. Beyond the borders, the edge pixel is repeated.
    fn once(&self, line: &[u8]) -> Vec<u8> {
        let at = |index: isize| u32::from(line[index.clamp(0, line.len() as isize - 1) as usize]);
        let radius = self.radius as isize;
        let mut sum: u32 = (-radius - 1..radius).map(at).sum();
        (0..line.len() as isize)
            .map(|x| {
                sum = sum + at(x + radius) - at(x - radius - 1);
                let edges = at(x - radius - 1) + at(x + radius + 1);
                ((sum * self.whole_weight + edges * self.edge_weight + (1 << 23)) >> 24) as u8
            })
            .collect()
    }
}

fn assert_map(map: &[f32], h: usize, w: usize) {
    assert!(h > 0 && w > 0 && map.len() == h * w, "{} numbers are no map of {h}×{w}", map.len());
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are promised to the bit")]
mod tests {
    use super::*;
    use crate::kernels::golden_file;
    use crate::kernels::random::Rng;

    /// Expected results of the map kernels, written by `tests/golden/kernels.py`. The first line of the file names
    /// the library versions.
    const GOLDEN: &str = include_str!("../../tests/golden/map.txt");

    fn hashed(count: u32) -> Vec<f32> {
        (0..count).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0).collect()
    }

    fn golden(name: &str) -> Vec<f32> {
        golden_file::line(GOLDEN, name)
    }

    fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= tolerance, "differs by {worst}");
    }

    #[test]
    fn resizing_is_pytorchs() {
        let map = hashed(7 * 5);
        for (name, h, w) in [("up", 23, 16), ("down", 3, 4), ("mixed", 14, 2), ("same", 7, 5)] {
            assert_close(&upsample(&map, 7, 5, h, w), &golden(name), 1e-6);
        }
        assert_eq!(upsample(&[2.5], 1, 1, 3, 2), [2.5; 6]);
    }

    #[test]
    fn blurring_is_scipys() {
        let map = hashed(12 * 9);
        for (name, sigma) in [("gauss_0.7", 0.7), ("gauss_2", 2.0), ("gauss_4", 4.0)] {
            assert_close(&gaussian_blur(&map, 12, 9, sigma), &golden(name), 1e-6);
        }
        assert_eq!(gaussian_blur(&map, 12, 9, 0.0), map);
    }

    /// One pixel of the blur along one axis, computed directly from the formula.
    fn written(at: impl Fn(isize) -> f32, kernel: &[f64]) -> f32 {
        let pair = |x: usize| kernel[x] * (f64::from(at(-(x as isize))) + f64::from(at(x as isize)));
        (kernel[0] * f64::from(at(0)) + (1..kernel.len()).map(pair).fold(0.0, |sum, one| sum + one)) as f32
    }

    #[test]
    fn all_small_maps_blur_as_the_formula_to_the_bit() {
        let mut rng = Rng::new(2, "map");
        for h in 1..=20 {
            let (w, kernel) = (21 - h, gaussian_kernel(0.3 * h as f64));
            let map: Vec<f32> = (0..h * w).map(|_| rng.normal() as f32).collect();
            let down: Vec<f32> = (0..h * w)
                .map(|i| written(|dy| map[mirrored((i / w) as isize + dy, h) * w + i % w], &kernel))
                .collect();
            let expected: Vec<f32> = (0..h * w)
                .map(|i| written(|dx| down[i / w * w + mirrored((i % w) as isize + dx, w)], &kernel))
                .collect();
            assert_eq!(gaussian_blur(&map, h, w, 0.3 * h as f64), expected, "{h}×{w}");
        }
    }

    #[test]
    fn a_blur_keeps_the_mean_and_a_flat_map() {
        let mut rng = Rng::new(1, "map");
        for side in 1..=20 {
            let map: Vec<f32> = (0..side * 6).map(|_| rng.uniform() as f32).collect();
            let blurred = gaussian_blur(&map, side, 6, 1.5);
            let (before, after): (f32, f32) = (map.iter().sum(), blurred.iter().sum());
            assert!((before - after).abs() < 1e-4 * before, "{side}: {before} {after}");
            assert_close(&gaussian_blur(&vec![0.7; side * 6], side, 6, 1.5), &vec![0.7; side * 6], 1e-6);
        }
    }

    #[test]
    fn the_reference_blur_is_pillows_to_the_level() {
        let map = hashed(12 * 9);
        for (name, radius) in [("pillow_2", 2.0), ("pillow_4", 4.0), ("pillow_0.5", 0.5)] {
            assert_close(&reference_blur(&map, 12, 9, radius), &golden(name), 1e-6);
        }
        assert_close(&reference_blur(&hashed(3), 1, 3, 2.0), &golden("pillow_line"), 1e-6);
        assert_eq!(reference_blur(&[0.0; 4], 2, 2, 2.0), [0.0; 4]);
    }

    #[test]
    fn sigma_follows_the_short_side() {
        assert_eq!(default_sigma(224, 300), 4.0);
        assert_eq!(default_sigma(316, 112), 2.0);
    }
}
