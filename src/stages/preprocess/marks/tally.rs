//! Decides what a mask marks, from strips that arrive from top to bottom.

use std::collections::BTreeSet;

use image::DynamicImage;

use super::{KEPT_LEVELS, MaskFacts, PaletteFacts};
use crate::stages::preprocess::bit_mask::BitMask;

/// Share of marked pixels from which a mask may be inverted (chosen: defects are smaller than the surface).
const INVERTED_SHARE: f64 = 0.5;

/// What one way of reading a mask finds: by its colours, its transparency, or the indices of its palette.
pub(super) struct LevelTally {
    /// The level above which a pixel is marked.
    limit: u16,
    marks: BitMask,
    /// Whether a level occurs.
    seen: Vec<bool>,
}

impl LevelTally {
    pub(super) fn new((height, width): (usize, usize), limit: u16) -> Self {
        Self { limit, marks: BitMask::new(height, width), seen: vec![false; 1 << 16] }
    }

    /// Adds the levels of whole rows from row `first` on.
    pub(super) fn add(&mut self, first: usize, levels: &[u16]) {
        for &level in levels {
            self.seen[usize::from(level)] = true;
        }
        self.marks.mark_rows(first, levels.iter().map(|&level| level > self.limit));
    }

    fn levels(&self) -> impl Iterator<Item = u16> {
        self.seen.iter().enumerate().filter(|(_, is_seen)| **is_seen).map(|(level, _)| level as u16)
    }

    /// Returns whether the level is the same everywhere.
    fn is_flat(&self) -> bool {
        self.levels().take(2).count() < 2
    }

    /// Adds what is known of the mask to `facts`. Returns what is marked.
    pub(super) fn finish(self, facts: &mut MaskFacts) -> BitMask {
        let distinct: BTreeSet<u16> = self.levels().filter(|&level| level > 0).collect();
        facts.level_count = facts.level_count.max(distinct.len());
        facts.levels.extend(distinct.iter().take(KEPT_LEVELS).copied().chain(distinct.last().copied()));
        let (height, width) = self.marks.size();
        facts.is_mostly_marked |= self.marks.count() as f64 > INVERTED_SHARE * (height * width) as f64;
        self.marks
    }
}

/// All ways of reading a mask. Which one counts is known at its end.
pub(super) struct MaskTally {
    colours: LevelTally,
    /// `None` without transparency.
    alpha: Option<LevelTally>,
    /// `None` without a palette.
    indices: Option<LevelTally>,
    /// Whether an index 0 is not black, or another one is: reading by colours and by indices differ.
    differs: bool,
    is_deep: bool,
    /// Rows that have arrived.
    arrived: usize,
}

impl MaskTally {
    /// Begins with the first strip of a mask of `size` (height, width). Levels above `threshold` (of 255) are marked.
    pub(super) fn new(size: (usize, usize), threshold: u8, strip: &DynamicImage, has_palette: bool) -> Self {
        let color = strip.color();
        let is_deep = color.bytes_per_pixel() / color.channel_count() > 1;
        let limit = if is_deep { u16::from(threshold) * 257 } else { u16::from(threshold) };
        Self {
            colours: LevelTally::new(size, limit),
            alpha: color.has_alpha().then(|| LevelTally::new(size, limit)),
            // An index is a class, so that no threshold applies.
            indices: has_palette.then(|| LevelTally::new(size, 0)),
            differs: false,
            is_deep,
            arrived: 0,
        }
    }

    /// Adds a strip. Its levels are the strongest channels: channels are not weighted and 16-bit levels are not rounded,
    /// so that masks with class numbers or colours work too.
    pub(super) fn add(&mut self, strip: &DynamicImage, indices: Option<&DynamicImage>) {
        let row = self.arrived;
        self.arrived += strip.height() as usize;
        let colours: Vec<u16> = if let DynamicImage::ImageLuma8(grey) = strip {
            grey.iter().map(|&level| u16::from(level)).collect()
        } else {
            let divisor = if self.is_deep { 1 } else { 257 };
            let pixels = strip.to_rgba16();
            if let Some(alpha) = &mut self.alpha {
                let levels: Vec<u16> = pixels.pixels().map(|pixel| pixel.0[3] / divisor).collect();
                alpha.add(row, &levels);
            }
            let strongest = |pixel: &image::Rgba<u16>| pixel.0[..3].iter().copied().max().unwrap_or(0);
            pixels.pixels().map(|pixel| strongest(pixel) / divisor).collect()
        };
        if let (Some(tally), Some(indices)) = (&mut self.indices, indices) {
            let indices: Vec<u16> = indices.to_luma8().iter().map(|&index| u16::from(index)).collect();
            self.differs |= indices.iter().zip(&colours).any(|(&index, &level)| (level > 0) != (index > 0));
            tally.add(row, &indices);
        }
        self.colours.add(row, &colours);
    }

    /// Adds what is known of the mask to `facts`. Returns what is marked: by the colours, unless they are the same
    /// everywhere; then by the transparency, or by the indices of the palette.
    pub(super) fn finish(self, facts: &mut MaskFacts) -> BitMask {
        let is_flat = self.colours.is_flat();
        if let Some(alpha) = self.alpha.filter(|alpha| is_flat && !alpha.is_flat()) {
            facts.is_by_alpha = true;
            return alpha.finish(facts);
        }
        if let Some(indices) = self.indices.filter(|indices| is_flat && !indices.is_flat()) {
            facts.palette = PaletteFacts::ByIndex;
            return indices.finish(facts);
        }
        if self.differs {
            facts.palette = PaletteFacts::Differs;
        }
        self.colours.finish(facts)
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage};

    use super::*;

    fn read(mask: &DynamicImage, threshold: u8) -> (Vec<bool>, MaskFacts) {
        let size = (mask.height() as usize, mask.width() as usize);
        let mut tally = MaskTally::new(size, threshold, mask, false);
        tally.add(mask, None);
        let mut facts = MaskFacts::default();
        let marks = tally.finish(&mut facts);
        (marks.to_grey().iter().map(|&level| level > 0).collect(), facts)
    }

    fn marked(mask: &DynamicImage, threshold: u8) -> Vec<bool> {
        read(mask, threshold).0
    }

    #[test]
    fn faint_and_coloured_marks_are_defects() {
        let faint = DynamicImage::ImageLuma8(GrayImage::from_pixel(1, 1, Luma([1])));
        assert_eq!((marked(&faint, 0), marked(&faint, 1)), (vec![true], vec![false]));
        let blue = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, Rgb([0, 0, 1])));
        assert_eq!(marked(&blue, 0), [true]);
        let deep = DynamicImage::ImageLuma16(ImageBuffer::from_pixel(1, 1, Luma([3_u16])));
        assert_eq!(marked(&deep, 0), [true]);
        let grey = DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, Rgb([128, 128, 128])));
        assert_eq!((marked(&grey, 127), marked(&grey, 128)), (vec![true], vec![false]));
    }

    #[test]
    fn transparency_counts_only_if_the_colours_say_nothing() {
        let alone = ImageBuffer::from_fn(2, 1, |x, _| LumaA([255_u8, if x == 0 { 0 } else { 200 }]));
        assert_eq!(marked(&DynamicImage::ImageLumaA8(alone), 0), [false, true]);
        let both = ImageBuffer::from_fn(2, 1, |x, _| LumaA([if x == 0 { 255_u8 } else { 0 }, 255]));
        assert_eq!(marked(&DynamicImage::ImageLumaA8(both), 0), [true, false]);
        let opaque = ImageBuffer::from_pixel(2, 1, LumaA([0_u8, 255]));
        assert_eq!(marked(&DynamicImage::ImageLumaA8(opaque), 0), [false, false]);
    }

    /// Colours that are the same in each strip, but not in the whole mask, count.
    #[test]
    fn strips_are_read_as_the_whole() {
        let strip = |level: u8, alpha: [u8; 2]| {
            DynamicImage::ImageLumaA8(ImageBuffer::from_fn(2, 1, |x, _| LumaA([level, alpha[x as usize]])))
        };
        let read = |strips: [DynamicImage; 2]| {
            let mut tally = MaskTally::new((2, 2), 0, &strips[0], false);
            for strip in &strips {
                tally.add(strip, None);
            }
            let mut facts = MaskFacts::default();
            (tally.finish(&mut facts).to_grey().into_raw(), facts.is_by_alpha)
        };
        assert_eq!(read([strip(0, [0, 9]), strip(7, [0, 0])]), (vec![0, 0, 255, 255], false));
        assert_eq!(read([strip(7, [0, 9]), strip(7, [0, 0])]), (vec![0, 255, 0, 0], true));
        assert_eq!(read([strip(7, [9, 9]), strip(7, [0, 0])]), (vec![255, 255, 0, 0], true));
    }

    #[test]
    fn indices_count_only_if_the_colours_say_nothing() {
        let read = |colours: [u8; 4], indices: [u8; 4]| {
            let grey = |levels: [u8; 4]| {
                DynamicImage::ImageLuma8(GrayImage::from_raw(4, 1, levels.to_vec()).unwrap())
            };
            let mut tally = MaskTally::new((1, 4), 0, &grey(colours), true);
            tally.add(&grey(colours), Some(&grey(indices)));
            let mut facts = MaskFacts::default();
            let marks = tally.finish(&mut facts).to_grey();
            let marks: Vec<u8> = marks.iter().map(|&level| u8::from(level > 0)).collect();
            (marks, facts.levels.into_iter().collect::<Vec<_>>(), facts.palette)
        };
        let (by_index, plain, differs) = (PaletteFacts::ByIndex, PaletteFacts::Plain, PaletteFacts::Differs);
        assert_eq!(read([0, 0, 0, 0], [0, 0, 1, 2]), (vec![0, 0, 1, 1], vec![1, 2], by_index));
        assert_eq!(read([9, 9, 9, 9], [0, 3, 3, 3]), (vec![0, 1, 1, 1], vec![3], by_index));
        assert_eq!(read([0, 0, 200, 90], [0, 0, 1, 2]), (vec![0, 0, 1, 1], vec![90, 200], plain));
        assert_eq!(read([0, 0, 200, 0], [0, 0, 1, 2]), (vec![0, 0, 1, 0], vec![200], differs));
        assert_eq!(read([200, 200, 0, 0], [0, 0, 1, 1]), (vec![1, 1, 0, 0], vec![200], differs));
        assert_eq!(read([0, 0, 0, 0], [0, 0, 0, 0]), (vec![0; 4], vec![], plain));
    }

    #[test]
    fn levels_are_counted_and_the_lowest_and_highest_kept() {
        let ramp = GrayImage::from_fn(16, 16, |x, y| Luma([(16 * y + x) as u8]));
        let (_, facts) = read(&DynamicImage::ImageLuma8(ramp), 0);
        assert_eq!((facts.level_count, facts.levels.len()), (255, KEPT_LEVELS + 1));
        assert!(facts.is_mostly_marked && facts.levels_text() == "1, 2, 3, 4, 5, 6, 7, 8, 255 of 255 levels");
    }
}
