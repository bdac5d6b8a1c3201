//! Recognises the format of an image by its first bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use image::ImageFormat;

use super::fault::DECODED_AT_ONCE;
use super::{ImageFault, bmp, jpeg, png, pnm, tiff, webp};
use crate::artifacts::files::is_lfs_pointer;

/// Bytes of a file that its header fits in, except for TIFF (chosen: a PNM header with long comments).
const HEADER_BYTES: u64 = 4096;

/// A format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    Tiff,
    Bmp,
    WebP,
    Pnm,
}

/// First bytes of other files that lie among images, and what they are.
const FOREIGN: [(usize, &[u8], &str); 15] = [
    (0, b"GIF8", "a GIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif", "a HEIC image"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"jP  ", "a JPEG 2000 image"),
    (4, b"JXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (128, b"DICM", "a DICOM image"),
    (0, b"SIMPLE  ", "a FITS image"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"%PDF", "a PDF"),
    (0, b"<!", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"PK\x03\x04", "a zip archive"),
];

impl Format {
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ImageFault> {
        match bytes {
            [] => Err(ImageFault::Empty),
            [0x89, b'P', b'N', b'G', ..] => Ok(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Self::WebP),
            [b'P', b'1'..=b'7', b' ' | b'\t' | b'\n' | b'\r' | b'#', ..] => Ok(Self::Pnm),
            _ if is_lfs_pointer(bytes) => Err(ImageFault::LfsPointer),
            _ => {
                let starts = |&&(at, start, _): &&(usize, &[u8], &str)| {
                    bytes.get(at..).is_some_and(|rest| rest.starts_with(start))
                };
                let what = FOREIGN.iter().find(starts).map_or("of an unknown format", |&(.., what)| what);
                Err(ImageFault::Foreign { what })
            }
        }
    }

    pub(super) fn of_decoder(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Tiff => ImageFormat::Tiff,
            Self::Bmp => ImageFormat::Bmp,
            Self::WebP => ImageFormat::WebP,
            Self::Pnm => ImageFormat::Pnm,
        }
    }

    /// Returns the images of the format that are decoded at once.
    pub(super) fn undivided(self) -> &'static str {
        match self {
            Self::Jpeg => "a JPEG",
            Self::WebP => "a WebP",
            Self::Png | Self::Tiff | Self::Bmp | Self::Pnm => DECODED_AT_ONCE,
        }
    }

    /// Checks the structure of a whole file. Returns whether its levels have 16 bits of which an unknown number may be
    /// in use.
    pub(super) fn check(self, bytes: &[u8]) -> Result<bool, ImageFault> {
        match self {
            Self::Png => png::check(bytes).map(|()| png::is_deep(bytes)),
            Self::Jpeg => jpeg::check(bytes).map(|_| false),
            Self::Tiff => tiff::check(bytes),
            Self::Bmp => bmp::check(bytes).map(|()| false),
            Self::WebP => webp::check(bytes).map(|()| false),
            Self::Pnm => pnm::check(bytes).map(|()| pnm::is_deep(bytes)),
        }
    }
}

/// Returns whether the levels of a file have 16 bits of which an unknown number may be in use; `None` if its header
/// cannot be read.
pub(super) fn is_deep(path: &Path) -> Option<bool> {
    let mut file = File::open(path).ok()?;
    let mut header = Vec::new();
    file.by_ref().take(HEADER_BYTES).read_to_end(&mut header).ok()?;
    match Format::of(&header).ok()? {
        Format::Png => Some(png::is_deep(&header)),
        Format::Pnm => Some(pnm::is_deep(&header)),
        Format::Tiff => {
            file.rewind().ok()?;
            tiff::bits(&mut ::tiff::decoder::Decoder::new(BufReader::new(file)).ok()?)
                .map(|bits| bits == 16)
                .ok()
        }
        Format::Jpeg | Format::Bmp | Format::WebP => Some(false),
    }
}
