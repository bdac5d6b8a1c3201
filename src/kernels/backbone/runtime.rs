//! The interface that every backend implements, and the checks that all of them share.

use super::error::{BackboneError, RuntimeError};
use super::feature_map::FeatureMap;
use super::network::{INPUT_CHANNELS, Layer, Network};

/// A network with its weights, loaded on one backend.
pub(super) trait Runtime: Send + Sync {
    /// Runs the network; the contract is that of [`super::Backbone::forward`].
    fn forward(&self, pixels: &[f32], n: usize, h: usize, w: usize) -> Result<Vec<FeatureMap>, RuntimeError>;
}

/// Refuses an empty list of layers and a repeated layer.
pub(super) fn check_layers(network: Network, layers: &[Layer]) -> Result<(), BackboneError> {
    if layers.is_empty() {
        return Err(BackboneError::NoLayer { network });
    }
    for (index, &layer) in layers.iter().enumerate() {
        if layers[..index].contains(&layer) {
            return Err(BackboneError::RepeatedLayer { layer });
        }
    }
    Ok(())
}

/// Refuses a batch of the wrong length (panic), images without pixels, and pixels that are not finite.
pub(super) fn check_pixels(pixels: &[f32], n: usize, h: usize, w: usize) -> Result<(), BackboneError> {
    let image_len = INPUT_CHANNELS * h * w;
    let expected = n * image_len;
    assert_eq!(pixels.len(), expected, "a batch of {n} images of 3×{h}×{w} has {expected} values");
    if image_len == 0 {
        return Err(BackboneError::EmptyImage { height: h, width: w });
    }
    match pixels.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(BackboneError::NotFinite { image: index / image_len }),
        None => Ok(()),
    }
}
