//! Decodes the image files of the user.
//!
//! The format is recognised by the first bytes, never by the name. A file is read whole or not at all: its structure is
//! checked before it is decoded, because decoders fill missing parts with grey or black and report nothing. Features
//! that decoders read differently are refused by name. Sizes are checked before memory is taken; large images are decoded a
//! strip at a time (`decode/strips.rs`).
//!
//! | format | checked here | decoded by |
//! |---|---|---|
//! | PNG | every chunk up to `IEND`, with its checksum | `image` |
//! | JPEG | every code of every block, up to the end marker (`decode/jpeg.rs`) | `image` (`zune-jpeg`) |
//! | TIFF | number of pages, kind of levels, extent of the strips or tiles | `image` (`tiff`) |
//! | BMP | pixels that run-length coding skips | `image` |
//! | WebP | every chunk, up to the length in the header | `image` (`image-webp`) |
//! | PNM | largest level | `image` |

mod bmp;
mod fault;
mod format;
mod jpeg;
mod palette;
mod png;
mod pnm;
mod strips;
mod tiff;
mod webp;

use std::io::Cursor;
use std::panic::AssertUnwindSafe;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use self::format::Format;
use crate::artifacts::File;

pub use fault::{Excess, ImageFault};
pub(super) use strips::{DecodeLimits, Strips};

/// A decoded image, turned as its metadata say.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) image: DynamicImage,
    /// How it was turned.
    pub(super) orientation: Orientation,
    /// Whether its levels have 16 bits of which an unknown number may be in use.
    pub(super) is_deep: bool,
    /// Whether its colours are those of a palette.
    pub(super) has_palette: bool,
}

/// Decodes the bytes of an image file.
pub(super) fn decode_bytes(bytes: &[u8]) -> Result<Decoded, ImageFault> {
    let format = Format::of(bytes)?;
    let is_deep = format.check(bytes)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format.of_decoder());
    // The decoded image is checked below; this bounds what a decoder takes beside it.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(2 * fault::LARGEST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let pixel_bytes = decoder.color_type().bytes_per_pixel().into();
    fault::check_size(height.into(), width.into(), pixel_bytes, format.undivided())?;
    let orientation = orientation(&mut decoder)?;
    // No decoder may panic on a file; if one does, it is an error of that file.
    let decoded = std::panic::catch_unwind(AssertUnwindSafe(|| DynamicImage::from_decoder(decoder)));
    let mut image = decoded.map_err(|_| ImageFault::unread("a file on which its decoder fails"))??;
    image.apply_orientation(orientation);
    Ok(Decoded { image, orientation, is_deep, has_palette: palette::is_indexed(format, bytes) })
}

/// Returns how an image is to be turned. Some programs write the EXIF data of a WebP or PNG with the prefix that they have in
/// a JPEG, which `image` does not expect there; and it takes data that are none for no orientation.
fn orientation(decoder: &mut impl ImageDecoder) -> Result<Orientation, ImageFault> {
    let found = decoder.orientation()?;
    if found != Orientation::NoTransforms {
        return Ok(found);
    }
    let Some(exif) = decoder.exif_metadata()? else { return Ok(found) };
    let inner = exif.strip_prefix(b"Exif\0\0");
    match inner.unwrap_or(&exif) {
        [] | [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => {}
        _ => return Err(fault::damaged("its EXIF data, which say how it is turned, have no header")),
    }
    Ok(inner.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms))
}

/// Returns whether the levels of a file have 16 bits of which an unknown number may be in use. Reads only its header.
/// `false` if the file cannot be read; decoding it reports why.
pub(super) fn is_deep(file: &File) -> bool {
    format::is_deep(&file.path).unwrap_or(false)
}

#[cfg(test)]
mod tests;
