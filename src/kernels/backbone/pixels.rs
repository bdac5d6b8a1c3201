//! Normalisation of RGB bytes to the input range that the networks were trained on.

/// ImageNet mean of each channel (red, green, blue) for pixels in \[0, 1\], as in torchvision.
pub const CHANNEL_MEANS: [f64; 3] = [0.485, 0.456, 0.406];

/// ImageNet standard deviation of each channel for pixels in \[0, 1\], as in torchvision.
pub const CHANNEL_DEVIATIONS: [f64; 3] = [0.229, 0.224, 0.225];

/// Writes `(byte / 255 - mean) / deviation` for each pixel and channel. `rgb` is `[h, w, 3]`, `out` is
/// `[3, h, w]`, both row-major. Computed in f64 and rounded once, so the error is at most 0.5 ULP (torchvision
/// rounds after each of the three steps).
///
/// # Panics
/// If `rgb` or `out` does not have `3 · h · w` elements.
pub fn normalise(rgb: &[u8], h: usize, w: usize, out: &mut [f32]) {
    let pixels = h * w;
    assert_eq!(rgb.len(), 3 * pixels, "an RGB image of {h}×{w} has {} bytes", 3 * pixels);
    assert_eq!(out.len(), 3 * pixels, "a normalised image of {h}×{w} has {} values", 3 * pixels);
    if pixels == 0 {
        return;
    }
    for (channel, plane) in out.chunks_exact_mut(pixels).enumerate() {
        let table: [f32; 256] = std::array::from_fn(|byte| {
            ((byte as f64 / 255.0 - CHANNEL_MEANS[channel]) / CHANNEL_DEVIATIONS[channel]) as f32
        });
        for (value, pixel) in plane.iter_mut().zip(rgb.chunks_exact(3)) {
            *value = table[usize::from(pixel[channel])];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_become_planes() {
        let mut out = [0.0; 6];
        normalise(&[0, 128, 255, 255, 0, 10], 1, 2, &mut out);
        let expected = |byte: f64, channel: usize| {
            ((byte / 255.0 - CHANNEL_MEANS[channel]) / CHANNEL_DEVIATIONS[channel]) as f32
        };
        let all = [(0.0, 0), (255.0, 0), (128.0, 1), (0.0, 1), (255.0, 2), (10.0, 2)];
        let bits = |values: [f32; 6]| values.map(f32::to_bits);
        assert_eq!(bits(out), bits(all.map(|(byte, channel)| expected(byte, channel))));
    }

    #[test]
    fn an_empty_image_is_nothing() {
        normalise(&[], 0, 5, &mut []);
    }
}
