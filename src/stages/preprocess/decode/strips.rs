//! Decodes large images a strip of rows at a time, from top to bottom. Those of which this is not possible are decoded at once up
//! to a limit.
//!
//! Each strip is made into an image file of its own, with the header of the whole and fewer rows, which is checked and decoded as
//! any other file. So a strip has the levels that these rows have in the whole image, and features that are not read of
//! small files are not read of large ones either. Memory is that of a strip.
//!
//! | format | a strip | decoded at once |
//! |---|---|---|
//! | PNG | rows | interlaced |
//! | TIFF | a strip of the file or a row of its tiles; rows if they are not compressed | strips of more than [`MOST_STRIP_BYTES`] |
//! | BMP | rows | run-length coding |
//! | PNM | rows | levels as text |
//! | JPEG, WebP | | all: their decoders give no rows |

mod bmp;
mod png;
mod pnm;
mod tiff;

use std::fs;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};

use super::fault::{DECODED_AT_ONCE, Excess, LARGEST_BYTES, damaged, unreadable};
use super::format::Format;
use super::{Decoded, ImageFault, decode_bytes, orientation, palette};
use crate::artifacts::File;
use crate::stages::StageError;

/// The largest strip of a file that cannot be divided, in bytes (chosen: several of them fit beside a network).
const MOST_STRIP_BYTES: u64 = 64 << 20;
/// The largest image that is decoded by strips, in bytes (chosen: it bounds the time for a small file that claims a large size).
const LARGEST_IN_STRIPS_BYTES: u64 = 64 << 30;

/// When an image is decoded by strips.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the unit of each is in its name")]
pub(in super::super) struct DecodeLimits {
    /// The decoded size up to which every image is decoded at once.
    pub(in super::super) small_bytes: u64,
    /// The decoded size up to which an image is decoded at once if it cannot be decoded by strips.
    pub(in super::super) whole_bytes: u64,
    /// The decoded size of a strip where the file can be divided anywhere.
    pub(in super::super) strip_bytes: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        // Chosen: strips stay in the caches of the processor. `small_bytes`: below it, strips save no memory that matters.
        Self { small_bytes: 64 << 20, whole_bytes: LARGEST_BYTES, strip_bytes: 4 << 20 }
    }
}

/// Makes image files of the strips of a file.
trait StripFiles {
    /// Returns the file of the next strip; `None` after the last one.
    fn next(&mut self) -> Result<Option<Vec<u8>>, ImageFault>;
}

/// A strip of an image, or the whole.
pub(in super::super) struct Strip {
    pub(in super::super) decoded: Decoded,
    /// The file that it was decoded from, if it has a palette.
    indexed: Option<Vec<u8>>,
}

impl Strip {
    fn decode(bytes: Vec<u8>) -> Result<Self, ImageFault> {
        let decoded = decode_bytes(&bytes)?;
        let indexed = decoded.has_palette.then_some(bytes);
        Ok(Self { decoded, indexed })
    }

    /// Returns the indices of the palette as grey levels; `None` if there is none.
    pub(in super::super) fn indices(&self) -> Result<Option<DynamicImage>, ImageFault> {
        self.indexed.as_deref().map_or(Ok(None), palette::indices)
    }
}

/// The strips of an image file of the user.
pub(in super::super) struct Strips<'a> {
    file: &'a File,
    size: (u32, u32),
    orientation: Orientation,
    rest: Rest,
}

/// The strips that were not taken yet.
enum Rest {
    /// The image was decoded at once.
    Whole(Option<Box<Strip>>),
    Files(Box<dyn StripFiles>),
}

impl<'a> Strips<'a> {
    /// Opens an image file: for a single strip if it is small, else by strips.
    ///
    /// # Errors
    /// [`StageError::Image`] if it cannot be used, or is large and cannot be decoded by strips.
    pub(in super::super) fn open(file: &'a File, limits: DecodeLimits) -> Result<Self, StageError> {
        let large = Header::read(&file.path).filter(|header| header.size_bytes() > limits.small_bytes);
        let Some(header) = large else { return Self::whole(file) };
        let files = match header.strip_files(&file.path, limits) {
            Err(ImageFault::TooLarge(_)) if header.size_bytes() <= limits.whole_bytes => {
                return Self::whole(file);
            }
            files => files.map_err(|source| fault_of(file, source))?,
        };
        let size = (header.width, header.height);
        Ok(Self { file, size, orientation: Orientation::NoTransforms, rest: Rest::Files(files) })
    }

    /// Decodes an image file at once.
    pub(in super::super) fn whole(file: &'a File) -> Result<Self, StageError> {
        let bytes = file.read_unchanged()?;
        let strip = Strip::decode(bytes).map_err(|source| fault_of(file, source))?;
        let Decoded { image, orientation, .. } = &strip.decoded;
        let (size, orientation) = ((image.width(), image.height()), *orientation);
        Ok(Self { file, size, orientation, rest: Rest::Whole(Some(Box::new(strip))) })
    }

    /// Returns width and height in px, after the image was turned.
    pub(in super::super) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Returns whether the image was turned as its metadata say.
    pub(in super::super) fn is_turned(&self) -> bool {
        self.orientation != Orientation::NoTransforms
    }

    /// Returns the next strip; `None` after the last one. The strips of a file that was edited meanwhile end with an error.
    pub(in super::super) fn next(&mut self) -> Result<Option<Strip>, StageError> {
        let files = match &mut self.rest {
            Rest::Whole(strip) => return Ok(strip.take().map(|strip| *strip)),
            Rest::Files(files) => files,
        };
        let strip = files.next().and_then(|bytes| bytes.map(Strip::decode).transpose());
        match strip {
            Ok(None) => self.file.check_unchanged().map(|()| None).map_err(StageError::from),
            Ok(strip) => Ok(strip),
            Err(source) => Err(fault_of(self.file, source)),
        }
    }
}

fn fault_of(file: &File, source: ImageFault) -> StageError {
    StageError::Image { path: file.path.clone(), source }
}

/// What the header of a file says that may be decoded by strips.
struct Header {
    format: Format,
    height: u32,
    width: u32,
    bytes_a_pixel: u64,
    orientation: Orientation,
}

impl Header {
    /// Reads a header; `None` if the file is decoded at once, or cannot be read, which decoding reports.
    fn read(path: &Path) -> Option<Self> {
        let mut file = fs::File::open(path).ok()?;
        let mut start = [0; 16];
        file.read_exact(&mut start).ok()?;
        let format = Format::of(&start).ok()?;
        if matches!(format, Format::Jpeg | Format::WebP) {
            return None;
        }
        file.rewind().ok()?;
        let mut decoder =
            ImageReader::with_format(BufReader::new(file), format.of_decoder()).into_decoder().ok()?;
        let (width, height) = decoder.dimensions();
        let bytes_a_pixel = decoder.color_type().bytes_per_pixel().into();
        let orientation = orientation(&mut decoder).ok()?;
        Some(Self { format, height, width, bytes_a_pixel, orientation })
    }

    fn size_bytes(&self) -> u64 {
        u64::from(self.height).saturating_mul(u64::from(self.width)).saturating_mul(self.bytes_a_pixel)
    }

    fn row_bytes(&self) -> u64 {
        u64::from(self.width).saturating_mul(self.bytes_a_pixel)
    }

    /// Returns the rows of a strip of about `bytes`.
    fn rows(&self, bytes: u64) -> u32 {
        (bytes / self.row_bytes().max(1)).clamp(1, u64::from(self.height)) as u32
    }

    fn excess(&self, limit_bytes: u64, kind: &'static str) -> ImageFault {
        let (height, width, size_bytes) = (self.height.into(), self.width.into(), self.size_bytes());
        ImageFault::TooLarge(Excess { height, width, size_bytes, limit_bytes, kind })
    }

    /// Returns the fault of a kind of image that is decoded at once.
    fn undivided(&self, kind: &'static str) -> ImageFault {
        self.excess(LARGEST_BYTES, kind)
    }

    fn strip_files(&self, path: &Path, limits: DecodeLimits) -> Result<Box<dyn StripFiles>, ImageFault> {
        if self.size_bytes() > LARGEST_IN_STRIPS_BYTES {
            return Err(self.excess(LARGEST_IN_STRIPS_BYTES, "any image"));
        }
        if self.orientation != Orientation::NoTransforms {
            return Err(self.undivided("an image that its metadata turn"));
        }
        if self.row_bytes() > MOST_STRIP_BYTES {
            return Err(self.undivided("an image with rows of more than 64 MiB"));
        }
        let file = fs::File::open(path).map_err(|error| ImageFault::Decoder(error.into()))?;
        let (file, rows) = (BufReader::new(file), self.rows(limits.strip_bytes));
        Ok(match self.format {
            Format::Png => Box::new(png::Remaining::open(file, self, rows)?),
            Format::Tiff => Box::new(tiff::Chunks::open(file, self, rows)?),
            Format::Bmp => Box::new(bmp::Remaining::open(file, self, rows)?),
            Format::Pnm => Box::new(pnm::Remaining::open(file, self, rows)?),
            Format::Jpeg | Format::WebP => return Err(self.undivided(DECODED_AT_ONCE)),
        })
    }
}

/// Appends the bytes of a file from `start` to `to`.
fn append(
    to: &mut Vec<u8>,
    file: &mut (impl Read + Seek),
    start: u64,
    length: usize,
) -> Result<(), ImageFault> {
    const CUT: &str = "its image data reach beyond its end";
    let old = to.len();
    to.resize(old + length, 0);
    file.seek(SeekFrom::Start(start)).map_err(|error| unreadable(error, CUT))?;
    file.read_exact(&mut to[old..]).map_err(|error| unreadable(error, CUT))
}

/// Returns a number of the header as the length of a buffer.
fn length(number: u64) -> Result<usize, ImageFault> {
    usize::try_from(number)
        .ok()
        .filter(|&length| length as u64 <= 2 * MOST_STRIP_BYTES)
        .ok_or(damaged("its header contradicts itself"))
}

#[cfg(test)]
mod tests;
