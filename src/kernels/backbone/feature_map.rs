//! Feature maps, the outputs of a backbone.

/// The feature maps of one layer for a batch of images.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMap {
    /// Number of channels.
    pub channels: usize,
    /// Number of rows of each map.
    pub height: usize,
    /// Number of columns of each map.
    pub width: usize,
    /// Values of all images: `[n, channels, height, width]`, row-major.
    pub data: Vec<f32>,
}

/// The feature map of one layer for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageMap<'a> {
    /// Number of channels.
    pub channels: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// Values: `[channels, height, width]`, row-major.
    pub data: &'a [f32],
}

impl FeatureMap {
    /// Returns the number of images.
    pub fn images(&self) -> usize {
        self.data.len() / (self.channels * self.height * self.width)
    }

    /// Returns the map of image `index`.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn image(&self, index: usize) -> ImageMap<'_> {
        let Self { channels, height, width, ref data } = *self;
        let size = channels * height * width;
        ImageMap { channels, height, width, data: &data[index * size..(index + 1) * size] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_follow_each_other() {
        let data: Vec<f32> = (0..24_u8).map(f32::from).collect();
        let map = FeatureMap { channels: 2, height: 2, width: 3, data };
        assert_eq!(map.images(), 2);
        assert_eq!(map.image(1).data[0].to_bits(), 12.0_f32.to_bits());
        assert_eq!(map.image(1).data.len(), 12);
    }
}
