//! What the masks of an image mark, and what their levels say about them.

use std::collections::{BTreeMap, BTreeSet};

use image::{DynamicImage, GrayImage};
use serde::{Deserialize, Serialize};

use super::annotation::OutlineFacts;
use super::decode::{Decoded, decode, decode_indices};
use super::layout::Source;
use crate::artifacts::File;
use crate::stages::{Progress, StageError};

/// Number of distinct levels that are kept of a mask. Masks with more have soft edges or come from lossy files.
const KEPT_LEVELS: usize = 8;
/// Share of marked pixels from which a mask may be inverted (chosen: defects are smaller than the surface).
const INVERTED_SHARE: f64 = 0.5;

/// What the palette of a mask says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PaletteFacts {
    /// There is none, or its colours and indices agree.
    #[default]
    Plain,
    /// The region is in the indices, because the colours are the same everywhere.
    ByIndex,
    /// The colours, which decide, say something else than the indices.
    Differs,
}

impl PaletteFacts {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

/// What is known of the masks of an image before they are resized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MaskFacts {
    /// The lowest distinct levels above 0, at most [`KEPT_LEVELS`], and the highest.
    pub(super) levels: BTreeSet<u16>,
    /// The number of distinct levels above 0.
    pub(super) level_count: usize,
    /// Whether the region is in the transparency, because the colours are the same everywhere.
    pub(super) is_by_alpha: bool,
    /// Whether most pixels are marked.
    pub(super) is_mostly_marked: bool,
    /// What the palette says.
    #[serde(default, skip_serializing_if = "PaletteFacts::is_plain")]
    pub(super) palette: PaletteFacts,
    /// What is known of the outlines of an annotation.
    #[serde(default, skip_serializing_if = "OutlineFacts::is_plain")]
    pub(super) outlines: OutlineFacts,
}

/// Reads and unites the masks of an image. Marks defects with 255: pixels whose strongest channel is greater than
/// `threshold` (of 255). Without masks nothing is marked.
pub(super) fn read(
    threshold: u8,
    source: &Source<'_>,
    size: (u32, u32),
    is_turned: bool,
) -> Result<(GrayImage, MaskFacts), StageError> {
    let mut united = GrayImage::new(size.0, size.1);
    let mut facts = MaskFacts::default();
    for file in &source.masks {
        let Decoded { image: mask, has_palette, .. } = decode(file)?;
        if (mask.width(), mask.height()) != size {
            let is_swapped = is_turned && (mask.height(), mask.width()) == size;
            return Err(wrong_size(file, &mask, source.image, size, is_swapped));
        }
        let mut levels = levels(&mask, threshold);
        if has_palette && let Some(indices) = decode_indices(file)? {
            facts.compare(&mut levels, &indices);
        }
        let Levels { values, limit, is_by_alpha } = levels;
        facts.add(&values, limit, is_by_alpha);
        for (mark, value) in united.iter_mut().zip(values) {
            *mark = if value > limit { 255 } else { *mark };
        }
    }
    if let Some(annotation) = &source.annotation {
        let (drawn, outlines) = annotation.draw(size, source.image, is_turned)?;
        facts.add_drawn(&drawn, outlines);
        united = drawn;
    }
    Ok((united, facts))
}

fn wrong_size(
    file: &File,
    mask: &DynamicImage,
    image: &File,
    (width, height): (u32, u32),
    is_swapped: bool,
) -> StageError {
    let message = format!(
        "the mask `{}` has {}×{} px, its image `{}` has {height}×{width} px (height × width)",
        file.path.display(),
        mask.height(),
        mask.width(),
        image.path.display(),
    );
    let help = if is_swapped {
        "the image is turned as its EXIF orientation says: turn the mask too, or remove the tag from the image"
    } else {
        "a mask must have the size of its image"
    };
    StageError::data(message, help)
}

/// The levels of a mask, and the one above which a pixel is marked.
struct Levels {
    values: Vec<u16>,
    limit: u16,
    is_by_alpha: bool,
}

/// Returns the levels of a mask: its strongest channels. Channels are not weighted and 16-bit levels are not rounded, so
/// that masks with class numbers or colours work too. If all colours are equal, the transparency counts.
fn levels(mask: &DynamicImage, threshold: u8) -> Levels {
    if let DynamicImage::ImageLuma8(grey) = mask {
        let values = grey.iter().map(|&level| u16::from(level)).collect();
        return Levels { values, limit: u16::from(threshold), is_by_alpha: false };
    }
    let is_deep = mask.color().bytes_per_pixel() / mask.color().channel_count() > 1;
    let (divisor, limit) =
        if is_deep { (1, u16::from(threshold) * 257) } else { (257, u16::from(threshold)) };
    let pixels = mask.to_rgba16();
    let of = |value: fn(&image::Rgba<u16>) -> u16| -> Vec<u16> {
        pixels.pixels().map(|pixel| value(pixel) / divisor).collect()
    };
    let colours = of(|pixel| pixel.0[..3].iter().copied().max().unwrap_or(0));
    let is_flat = |values: &[u16]| values.windows(2).all(|pair| pair[0] == pair[1]);
    if mask.color().has_alpha() && is_flat(&colours) {
        let alpha = of(|pixel| pixel.0[3]);
        if !is_flat(&alpha) {
            return Levels { values: alpha, limit, is_by_alpha: true };
        }
    }
    Levels { values: colours, limit, is_by_alpha: false }
}

impl MaskFacts {
    /// Takes the indices of a palette as the levels, if its colours say nothing. An index is a class, so that no threshold
    /// applies. Notes if one colour stands for several indices.
    fn compare(&mut self, levels: &mut Levels, indices: &DynamicImage) {
        let indices: Vec<u16> = indices.to_luma8().iter().map(|&index| u16::from(index)).collect();
        let is_flat = levels.values.windows(2).all(|pair| pair[0] == pair[1]);
        if is_flat && indices.windows(2).any(|pair| pair[0] != pair[1]) {
            *levels = Levels { values: indices, limit: 0, is_by_alpha: false };
            self.palette = PaletteFacts::ByIndex;
            return;
        }
        let pairs: BTreeSet<(u16, u16)> =
            indices.iter().copied().zip(levels.values.iter().copied()).collect();
        // An index 0 that is not black, or another one that is: the two ways of reading differ.
        if !levels.is_by_alpha && pairs.iter().any(|&(index, level)| (level > 0) != (index > 0)) {
            self.palette = PaletteFacts::Differs;
        }
    }

    fn add(&mut self, values: &[u16], limit: u16, is_by_alpha: bool) {
        let distinct: BTreeSet<u16> = values.iter().copied().filter(|&value| value > 0).collect();
        self.level_count = self.level_count.max(distinct.len());
        self.levels.extend(distinct.iter().take(KEPT_LEVELS).copied().chain(distinct.last().copied()));
        self.is_by_alpha |= is_by_alpha;
        let marked = values.iter().filter(|&&value| value > limit).count();
        self.is_mostly_marked |= marked as f64 > INVERTED_SHARE * values.len() as f64;
    }

    fn add_drawn(&mut self, drawn: &GrayImage, outlines: OutlineFacts) {
        let levels: Vec<u16> = drawn.iter().map(|&level| u16::from(level)).collect();
        self.add(&levels, 0, false);
        self.outlines = outlines;
    }

    fn levels_text(&self) -> String {
        let text: Vec<String> = self.levels.iter().map(u16::to_string).collect();
        if self.level_count > self.levels.len() {
            format!("{} of {} levels", text.join(", "), self.level_count)
        } else {
            text.join(", ")
        }
    }
}

/// Warns of masks whose meaning is open, once for each reason: soft edges or classes, transparency, inversion. A level
/// that `codes` does not have is an error.
pub(super) fn report<'a>(
    masks: impl Iterator<Item = (&'a Source<'a>, &'a MaskFacts)>,
    codes: Option<&BTreeSet<u8>>,
    threshold: u8,
    progress: &dyn Progress,
) -> Result<(), StageError> {
    let masks: Vec<_> = masks.filter(|(source, _)| source.has_marks()).collect();
    report_outlines(&masks, progress);
    let masks: Vec<_> = masks.into_iter().filter(|(source, _)| !source.masks.is_empty()).collect();
    let mut seen: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for (source, facts) in &masks {
        let name = source.masks[0].path.display();
        if let Some(codes) = codes {
            let is_known = |level: &u16| u8::try_from(*level).is_ok_and(|level| codes.contains(&level));
            if let Some(level) = facts.levels.iter().find(|level| !is_known(level)) {
                return Err(StageError::data(
                    format!("the mask `{name}` has the level {level}, which the data set does not list"),
                    "correct the mask or the list of levels (`defects_config.json`)",
                ));
            }
        } else if facts.level_count > 1 {
            let first = || (0, format!("`{name}` has the levels {}", facts.levels_text()));
            seen.entry("levels").or_insert_with(first).0 += 1;
        }
        if facts.is_by_alpha {
            seen.entry("alpha").or_insert_with(|| (0, format!("`{name}`"))).0 += 1;
        }
        let palette = match facts.palette {
            PaletteFacts::Plain => None,
            PaletteFacts::ByIndex => Some("index"),
            PaletteFacts::Differs => Some("palette"),
        };
        if let Some(what) = palette {
            seen.entry(what).or_insert_with(|| (0, format!("`{name}`"))).0 += 1;
        }
        if facts.is_mostly_marked {
            seen.entry("inverted").or_insert_with(|| (0, format!("`{name}`"))).0 += 1;
        }
    }
    let marking = masks.iter().filter(|(_, facts)| facts.level_count > 0).count();
    for (what, (count, example)) in seen {
        match what {
            "levels" => progress.warn(&format!(
                "{count} masks have more than one grey level, such as {example}: all above `mask_threshold = \
                 {threshold}` count as defective; if these are soft edges or a lossy file, set `mask_threshold = 127`"
            )),
            "alpha" => progress.warn(&format!(
                "{count} masks have one colour everywhere, such as {example}: their transparency marks the defects"
            )),
            "index" => progress.warn(&format!(
                "{count} masks have a palette of one colour, such as {example}: all indices above 0 count as defective"
            )),
            "palette" => progress.warn(&format!(
                "{count} masks have a palette whose colours say something else than its indices, such as {example}: the \
                 colours count; if the indices are classes, save them as grey levels"
            )),
            _ if 2 * count > marking => progress.warn(&format!(
                "{count} of {marking} masks mark most of their image, such as {example}: are they inverted? Defects \
                 must be brighter than the rest"
            )),
            _ => {}
        }
    }
    Ok(())
}

/// Warns of outlines that cover nothing, and of those that fall apart.
fn report_outlines(masks: &[(&Source<'_>, &MaskFacts)], progress: &dyn Progress) {
    let report = |count: fn(&OutlineFacts) -> usize, what: &str| {
        let sum: usize = masks.iter().map(|(_, facts)| count(&facts.outlines)).sum();
        if let Some((source, _)) = masks.iter().find(|(_, facts)| count(&facts.outlines) > 0) {
            let name = source.image.path.display();
            progress.warn(&format!("{sum} polygons {what}, such as of `{name}`: see `polygon_rule`"));
        }
    };
    report(|facts| facts.empty_count, "cover no pixel");
    report(|facts| facts.torn_count, "are thinner than a pixel and fall apart into several regions");
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Luma, LumaA, Rgb, RgbImage};

    use super::*;

    fn marked(mask: &DynamicImage, threshold: u8) -> Vec<bool> {
        let Levels { values, limit, .. } = levels(mask, threshold);
        values.into_iter().map(|value| value > limit).collect()
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

    #[test]
    fn indices_count_only_if_the_colours_say_nothing() {
        let read = |colours: [u16; 4], indices: [u8; 4]| {
            let mut facts = MaskFacts::default();
            let mut levels = Levels { values: colours.to_vec(), limit: 0, is_by_alpha: false };
            let indices = GrayImage::from_raw(4, 1, indices.to_vec()).unwrap();
            facts.compare(&mut levels, &DynamicImage::ImageLuma8(indices));
            (levels.values, facts.palette)
        };
        let (by_index, plain, differs) = (PaletteFacts::ByIndex, PaletteFacts::Plain, PaletteFacts::Differs);
        assert_eq!(read([0, 0, 0, 0], [0, 0, 1, 2]), (vec![0, 0, 1, 2], by_index));
        assert_eq!(read([9, 9, 9, 9], [0, 3, 3, 3]), (vec![0, 3, 3, 3], by_index));
        assert_eq!(read([0, 0, 200, 90], [0, 0, 1, 2]), (vec![0, 0, 200, 90], plain));
        assert_eq!(read([0, 0, 200, 0], [0, 0, 1, 2]), (vec![0, 0, 200, 0], differs));
        assert_eq!(read([200, 200, 0, 0], [0, 0, 1, 1]), (vec![200, 200, 0, 0], differs));
        assert_eq!(read([0, 0, 0, 0], [0, 0, 0, 0]), (vec![0; 4], plain));
    }

    #[test]
    fn levels_are_counted_and_the_lowest_and_highest_kept() {
        let mut facts = MaskFacts::default();
        let values: Vec<u16> = (0..=255).collect();
        facts.add(&values, 0, false);
        assert_eq!((facts.level_count, facts.levels.len()), (255, KEPT_LEVELS + 1));
        assert!(facts.is_mostly_marked && facts.levels_text() == "1, 2, 3, 4, 5, 6, 7, 8, 255 of 255 levels");
    }
}
