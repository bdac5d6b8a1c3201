//! Masks of the size of their image, with one bit for each pixel: the mask of a line scan of 600 million pixels takes 80 MB.

use image::GrayImage;

/// A mask: the bits of marked pixels are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BitMask {
    height: usize,
    width: usize,
    /// `[height, words of a row]`; the bits after a row are 0.
    words: Vec<u64>,
}

impl BitMask {
    /// Creates a mask of so many pixels (height, width) that marks nothing.
    pub(super) fn new(height: usize, width: usize) -> Self {
        Self { height, width, words: vec![0; height * width.div_ceil(64)] }
    }

    /// Creates a mask of an image's levels, which marks those that are not 0.
    pub(super) fn of_levels(levels: &GrayImage) -> Self {
        let mut mask = Self::new(levels.height() as usize, levels.width() as usize);
        mask.mark_rows(0, levels.iter().map(|&level| level > 0));
        mask
    }

    /// Returns height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    /// Marks pixels of whole rows from row `first` on, in addition to those that are marked.
    pub(super) fn mark_rows(&mut self, first: usize, marks: impl IntoIterator<Item = bool>) {
        let (mut marks, stride) = (marks.into_iter(), self.width.div_ceil(64));
        for row in self.words[first * stride..].chunks_exact_mut(stride) {
            for column in 0..self.width {
                match marks.next() {
                    Some(is_marked) => row[column / 64] |= u64::from(is_marked) << (column % 64),
                    None => return,
                }
            }
        }
    }

    /// Marks all pixels that another mask of the same size marks.
    pub(super) fn unite(&mut self, other: &Self) {
        assert_eq!(self.size(), other.size(), "masks of different sizes");
        self.words.iter_mut().zip(&other.words).for_each(|(all, one)| *all |= one);
    }

    /// Returns the number of marked pixels.
    pub(super) fn count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Returns whether no pixel is marked.
    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Returns the rows from the top as levels, 255 for marked pixels and else 0.
    pub(super) fn rows(&self) -> impl Iterator<Item = Vec<u8>> {
        let stride = self.width.div_ceil(64);
        self.words.chunks_exact(stride.max(1)).map(|row| {
            let level = |column: usize| if row[column / 64] >> (column % 64) & 1 == 1 { 255 } else { 0 };
            (0..self.width).map(level).collect()
        })
    }

    /// Returns the mask as an image of the levels 0 and 255.
    pub(super) fn to_grey(&self) -> GrayImage {
        let levels: Vec<u8> = self.rows().flatten().collect();
        GrayImage::from_raw(self.width as u32, self.height as u32, levels).expect("one level per pixel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::random::Rng;

    #[test]
    fn a_mask_comes_back_and_counts() {
        let mut rng = Rng::new(1, "bits");
        for width in [1, 2, 63, 64, 65, 127, 128, 200] {
            let levels: Vec<u8> = (0..7 * width).map(|_| if rng.below(3) == 0 { 255 } else { 0 }).collect();
            let image = GrayImage::from_raw(width, 7, levels.clone()).unwrap();
            let mask = BitMask::of_levels(&image);
            assert_eq!((mask.to_grey(), mask.size()), (image, (7, width as usize)));
            assert_eq!(mask.count(), levels.iter().filter(|&&level| level > 0).count() as u64);
            assert_eq!(mask.is_empty(), mask.count() == 0);
        }
    }

    #[test]
    fn rows_and_masks_are_united() {
        let mut mask = BitMask::new(3, 70);
        mask.mark_rows(1, (0..140).map(|index| index == 69 || index == 70));
        mask.mark_rows(2, (0..70).map(|column| column == 1));
        assert_eq!(mask.count(), 3);
        let mut other = BitMask::new(3, 70);
        assert!(other.is_empty());
        other.mark_rows(0, [true]);
        other.unite(&mask);
        let marked: Vec<usize> = other
            .to_grey()
            .iter()
            .enumerate()
            .filter(|(_, level)| **level > 0)
            .map(|(index, _)| index)
            .collect();
        assert_eq!(marked, [0, 139, 140, 141]);
    }
}
