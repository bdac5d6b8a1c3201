//! The depth of images with 16 bits per level: how many of these bits are in use.
//!
//! Cameras of 10, 12 or 14 bits are stored in files of 16. Read as 16 bits, a 12-bit image is almost black: its largest
//! level is 4095 of 65535. A file does not say its depth, so it is a field of the stage, or is decided once for the set
//! from the largest level of the training split. Levels are scaled by the same factor in all images: never by the range
//! of a single image, never clipped.

use image::{DynamicImage, GrayImage, RgbImage};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::decode::{DecodeLimits, Decoded, Strips, is_deep};
use super::layout::{self, Source};
use crate::stages::fields::{Value, fields};
use crate::stages::{Context, StageError};
use crate::text::counted;

/// Depths that cameras have.
pub(super) const DEPTHS: [u8; 5] = [8, 10, 12, 14, 16];

/// Bits per level that are in use in images with 16 bits per level. Images with 8 bits are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Depth {
    /// The largest level of the training split, rounded up to 8, 10, 12, 14 or 16 bits.
    Auto,
    /// This number of bits.
    Bits(u8),
}

impl Depth {
    pub(super) fn value(self) -> Value {
        match self {
            Self::Auto => "auto".into(),
            Self::Bits(bits) => i64::from(bits).into(),
        }
    }
}

/// Returns the depth of a set's images with 16 bits per level; `None` if it has no such images. Logs what was decided
/// and warns of a set with both 8 and 16 bits.
pub(super) fn resolve(
    depth: Depth,
    sources: &[Source<'_>],
    context: &Context<'_>,
) -> Result<Option<u8>, StageError> {
    let are_deep: Vec<bool> = sources.par_iter().map(|source| is_deep(source.image)).collect();
    let of_kind = |kind: bool| {
        let of_kind = sources.iter().zip(&are_deep).filter(move |&(_, &is_deep)| is_deep == kind);
        of_kind.map(|(source, _)| source).collect::<Vec<_>>()
    };
    let (deep, shallow) = (of_kind(true), of_kind(false));
    let Some(first) = deep.first() else { return Ok(None) };
    if let Some(other) = shallow.first() {
        context.progress.warn(&format!(
            "{} with 16 bits per level and {} with 8, such as `{}` and `{}`: they are equally bright only if the depth of \
             the former is right",
            counted(deep.len(), "image"),
            shallow.len(),
            first.image.path.display(),
            other.image.path.display(),
        ));
    }
    match depth {
        Depth::Bits(bits) => Ok(Some(bits)),
        Depth::Auto => decide(&deep, context).map(Some),
    }
}

/// Decides the depth from the largest level of the training images among `deep`, which is never empty.
fn decide(deep: &[&Source<'_>], context: &Context<'_>) -> Result<u8, StageError> {
    let training: Vec<&Source<'_>> =
        deep.iter().filter(|source| source.split == layout::TRAIN).copied().collect();
    let levels = training.par_iter().map(|source| largest_level(source, context));
    let levels: Vec<u16> = levels.collect::<Result<_, _>>()?;
    let brightest = levels.iter().zip(&training).max_by_key(|&(&level, source)| (level, &source.id));
    let Some((&level, source)) = brightest else {
        let message = format!(
            "`{}` has 16 bits per level, but no training image has, so its depth cannot be decided",
            deep[0].image.path.display()
        );
        return Err(StageError::data(
            message,
            "set `depth` to the bits that are in use: 8, 10, 12, 14 or 16",
        ));
    };
    let bits = rounded_up(level);
    let line = format!(
        "depth: the images with 16 bits per level are read as {bits}-bit images, since the largest level of the \
         training split is {level} (`{}`); `depth` fixes it",
        source.image.path.display()
    );
    // All 16 bits are what the file says; fewer are a decision that another image may refute.
    if bits == 16 {
        context.progress.note(&line);
    } else {
        context.progress.warn(&line);
    }
    Ok(bits)
}

/// Returns the least depth that holds a level.
fn rounded_up(level: u16) -> u8 {
    DEPTHS.into_iter().find(|&bits| level <= largest(bits)).unwrap_or(16)
}

/// Returns the largest level of a depth.
fn largest(bits: u8) -> u16 {
    ((1_u32 << bits) - 1) as u16
}

/// Returns the largest level of an image. It is kept as an item, so that a new image is the only one that is decoded.
fn largest_level(source: &Source<'_>, context: &Context<'_>) -> Result<u16, StageError> {
    context.check()?;
    let fields = fields([("largest_level_of", source.image.digest_text().into())]);
    if let Some(level) = context.items.recall(&fields).and_then(|item| item.note.parse().ok()) {
        return Ok(level);
    }
    let mut level = 0;
    let mut strips = Strips::open(source.image, DecodeLimits::default())?;
    while let Some(strip) = strips.next()? {
        level = strip.decoded.image.into_rgb16().iter().copied().fold(level, u16::max);
    }
    context.items.keep(&fields, &[], &level.to_string())?;
    Ok(level)
}

/// Converts the strips of an image to 8 bits per level.
pub(super) struct Conversion {
    /// The depth of the set.
    bits: Option<u8>,
    /// The largest level of the strips with 16 bits per level.
    brightest: u16,
}

impl Conversion {
    /// Begins an image of a set of so many bits per level.
    pub(super) fn new(bits: Option<u8>) -> Self {
        Self { bits, brightest: 0 }
    }

    /// Converts a strip to grey, if it is grey without transparency, or to RGB. Its levels are right if
    /// [`Conversion::check`] succeeds.
    pub(super) fn convert(&mut self, strip: Decoded) -> DynamicImage {
        let Some(bits) = self.bits.filter(|_| strip.is_deep) else {
            return match strip.image {
                grey @ DynamicImage::ImageLuma8(_) => grey,
                other => DynamicImage::ImageRgb8(other.into_rgb8()),
            };
        };
        let most = largest(bits);
        let mut scaled = |levels: &[u16]| -> Vec<u8> {
            self.brightest = levels.iter().copied().fold(self.brightest, u16::max);
            let scaled = |level: &u16| (u32::from(*level) * 255 + u32::from(most) / 2) / u32::from(most);
            levels.iter().map(|level| scaled(level) as u8).collect()
        };
        let (width, height) = (strip.image.width(), strip.image.height());
        let converted = match strip.image {
            DynamicImage::ImageLuma16(grey) => {
                GrayImage::from_raw(width, height, scaled(&grey)).map(DynamicImage::ImageLuma8)
            }
            other => {
                RgbImage::from_raw(width, height, scaled(&other.into_rgb16())).map(DynamicImage::ImageRgb8)
            }
        };
        converted.expect("as many levels as before")
    }

    /// Checks that no level was beyond the depth, after the last strip.
    ///
    /// # Errors
    /// [`StageError::Data`] naming the image.
    pub(super) fn check(&self, source: &Source<'_>) -> Result<(), StageError> {
        let Some(bits) = self.bits.filter(|&bits| self.brightest > largest(bits)) else { return Ok(()) };
        let message = format!(
            "`{}` has the level {}, but the depth of its set is {bits} bits, whose largest level is {}",
            source.image.path.display(),
            self.brightest,
            largest(bits),
        );
        let help = format!("set `depth = {}`, if the image is right", rounded_up(self.brightest));
        Err(StageError::data(message, help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_rounded_up_to_the_depth_of_a_camera() {
        for (level, bits) in [
            (0, 8),
            (255, 8),
            (256, 10),
            (1023, 10),
            (1024, 12),
            (4095, 12),
            (4096, 14),
            (16383, 14),
            (16384, 16),
        ] {
            assert_eq!(rounded_up(level), bits, "{level}");
        }
        assert_eq!(rounded_up(65535), 16);
        assert_eq!(largest(16), 65535);
    }
}
