//! Checks the structure of a TIFF file.

mod grid;

use std::io::{BufRead, Cursor, Seek, SeekFrom};

use flate2::bufread::ZlibDecoder;
use tiff::TiffError;
use tiff::decoder::Decoder;
use tiff::decoder::ifd::Value;
use tiff::tags::{ByteOrder, Tag};

pub(super) use grid::ChunkGrid;

use super::ImageFault;
use super::fault::{DECODED_AT_ONCE, check_size, damaged, unreadable};
use super::jpeg::{self, JpegSize};

/// A page that is a smaller copy of another page, in `NewSubfileType`.
const REDUCED: u32 = 1;
/// Pages that are looked at (chosen; a file with more has more than one image).
const MOST_PAGES: usize = 64;

/// Tags that are looked at (chosen: the most that a header other than of `BigTIFF` can have).
const MOST_TAGS: u64 = 65535;
/// What is wrong with a file that ends within its header.
const CUT: &str = "its header is cut off";

/// Values of `PhotometricInterpretation`.
const WHITE_IS_ZERO: u32 = 0;
const BLACK_IS_ZERO: u32 = 1;
const RGB: u32 = 2;

/// The value of `PlanarConfiguration` for channels side by side.
const CHUNKY: u32 = 1;
/// The value of `ExtraSamples` for an alpha that the colours are multiplied by.
const ASSOCIATED: u64 = 1;

/// Tags that say where the pixels are and what they mean: from `ImageWidth` to `SampleFormat`.
const STRUCTURAL: [u16; 17] =
    [256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 322, 323, 324, 325, 338, 339];
/// Types of whole numbers without a sign: `BYTE`, `SHORT`, `LONG`, `LONG8`.
const UNSIGNED: [u16; 4] = [1, 3, 4, 16];

/// Values of `Compression`.
const FAX: std::ops::RangeInclusive<u32> = 2..=4;
const LZW: u32 = 5;
const JPEG: u32 = 7;
const DEFLATE: [u32; 2] = [8, 32946];

/// The first and last marker of a JPEG.
const JPEG_START: &[u8] = b"\xff\xd8";
const JPEG_END: &[u8] = b"\xff\xd9";

/// Checks that a file has one image of a kind that all readers read alike, and that its data are within the file.
/// Returns whether its levels have 16 bits.
pub(super) fn check(bytes: &[u8]) -> Result<bool, ImageFault> {
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(fault)?;
    let (width, height) = decoder.dimensions().map_err(fault)?;
    check_size(height.into(), width.into(), 1, DECODED_AT_ONCE)?;
    check_data(&mut decoder, bytes)?;
    check_structure(&mut decoder)
}

/// Checks a file as [`check`], without reading the data of its pixels. Afterwards the decoder is at the last page.
pub(super) fn check_structure<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<bool, ImageFault> {
    check_types(decoder)?;
    let bits = bits(decoder)?;
    check_levels(decoder, bits)?;
    check_coding(decoder)?;
    check_extents(decoder)?;
    check_pages(decoder)?;
    Ok(bits == 16)
}

/// Checks that the tags of the structure are whole numbers. The decoder passes over a tag of an unknown type, and fills in
/// what it stands for if it is missing.
fn check_types<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<(), ImageFault> {
    let is_little = decoder.byte_order() == ByteOrder::LittleEndian;
    let start = decoder.ifd_pointer().ok_or(damaged(CUT))?.0;
    let file = decoder.inner();
    let number = |bytes: &[u8]| {
        let digits = bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        if is_little { digits } else { digits.swap_bytes() >> (64 - 8 * bytes.len()) }
    };
    let is_big = number(&read(file, 2, 2)?) == 43;
    let (count_bytes, entry_bytes) = if is_big { (8, 20) } else { (2, 12) };
    let count = number(&read(file, start, count_bytes)?).min(MOST_TAGS);
    for index in 0..count {
        let at = start + count_bytes as u64 + index * entry_bytes;
        let entry = read(file, at, 4)?;
        let (tag, kind) = (number(&entry[..2]) as u16, number(&entry[2..]) as u16);
        if STRUCTURAL.contains(&tag) && !UNSIGNED.contains(&kind) {
            return Err(damaged("a tag of its header is of a wrong type"));
        }
    }
    Ok(())
}

fn read(file: &mut (impl BufRead + Seek), start: u64, length: usize) -> Result<Vec<u8>, ImageFault> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(start)).map_err(|error| unreadable(error, CUT))?;
    file.read_exact(&mut bytes).map_err(|error| unreadable(error, CUT))?;
    Ok(bytes)
}

/// Returns the bits per level.
pub(super) fn bits<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<u32, ImageFault> {
    let bits = tags(decoder, Tag::BitsPerSample)?;
    let samples = tag(decoder, Tag::SamplesPerPixel)?.unwrap_or(1);
    match bits.split_first() {
        None if is_bilevel(decoder)? => Ok(1),
        None => Err(damaged("it has no BitsPerSample")),
        _ if bits.len() as u64 != u64::from(samples) => {
            Err(damaged("its BitsPerSample is not one of each channel"))
        }
        Some((&first, others)) if others.iter().all(|&other| other == first) => Ok(first as u32),
        Some(_) => Err(ImageFault::unread("a TIFF whose channels differ in bits per level")),
    }
}

/// Returns whether the data of a file without `BitsPerSample` have the length of 1 bit per pixel.
fn is_bilevel<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<bool, ImageFault> {
    let (width, height) = decoder.dimensions().map_err(fault)?;
    let length: u64 =
        tags(decoder, Tag::StripByteCounts)?.iter().fold(0, |sum, size| sum.saturating_add(*size));
    let is_plain = tag(decoder, Tag::Compression)?.is_none_or(|kind| kind == 1);
    Ok(is_plain && length == u64::from(width.div_ceil(8)) * u64::from(height))
}

fn check_levels<R: BufRead + Seek>(decoder: &mut Decoder<R>, bits: u32) -> Result<(), ImageFault> {
    match tags(decoder, Tag::SampleFormat)?.iter().find(|&&format| format != 1) {
        None => {}
        Some(2) => return Err(ImageFault::unread("a TIFF with signed levels")),
        Some(3) => return Err(ImageFault::unread("a TIFF with floating-point levels")),
        Some(_) => return Err(ImageFault::unread("a TIFF with levels that are no numbers")),
    }
    if ![1, 8, 16].contains(&bits) {
        return Err(ImageFault::unread(format!("a TIFF with {bits} bits per level")));
    }
    let colours = tag(decoder, Tag::PhotometricInterpretation)?;
    match colours.ok_or(damaged("it has no PhotometricInterpretation"))? {
        BLACK_IS_ZERO | RGB => {}
        // Pillow 13 inverts levels of 1 and 8 bits, but not of 16.
        WHITE_IS_ZERO if bits < 16 => {}
        WHITE_IS_ZERO => {
            return Err(ImageFault::unread(
                "a TIFF of 16 bits in which 0 is white (PhotometricInterpretation 0)",
            ));
        }
        3 => return Err(ImageFault::unread("a TIFF with a palette")),
        5 => return Err(ImageFault::unread("a CMYK TIFF")),
        6 => return Err(ImageFault::unread("a YCbCr TIFF")),
        other => return Err(ImageFault::unread(format!("a TIFF with PhotometricInterpretation {other}"))),
    }
    if tags(decoder, Tag::ExtraSamples)?.contains(&ASSOCIATED) {
        return Err(ImageFault::unread("a TIFF whose colours are multiplied by its alpha (ExtraSamples 1)"));
    }
    match tag(decoder, Tag::FillOrder)? {
        None | Some(1) => Ok(()),
        Some(_) => Err(ImageFault::unread("a TIFF with reversed bits (FillOrder 2)")),
    }
}

/// Refuses codings that are not read right: `tiff` 0.11.3 panics on tiles of single channels, fails at the end of an
/// LZW-coded tile (<https://github.com/image-rs/image-tiff/issues/395>), and takes damaged fax codes for an image.
fn check_coding<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<(), ImageFault> {
    let is_tiled = tag(decoder, Tag::TileWidth)?.is_some();
    if is_tiled && tag(decoder, Tag::PlanarConfiguration)?.is_some_and(|planes| planes != CHUNKY) {
        return Err(ImageFault::unread("a TIFF with tiles of single channels (PlanarConfiguration 2)"));
    }
    match tag(decoder, Tag::Compression)? {
        Some(fax) if FAX.contains(&fax) => Err(ImageFault::unread("a TIFF with CCITT (fax) compression")),
        Some(LZW) if is_tiled => Err(ImageFault::unread("a TIFF with LZW compression in tiles")),
        _ => Ok(()),
    }
}

/// The tags of the offsets and of the sizes of strips and tiles.
const EXTENTS: [(Tag, Tag); 2] =
    [(Tag::StripOffsets, Tag::StripByteCounts), (Tag::TileOffsets, Tag::TileByteCounts)];

/// Returns where every strip or tile begins, and its bytes.
pub(super) fn extents<R: BufRead + Seek>(
    decoder: &mut Decoder<R>,
    grid: &ChunkGrid,
) -> Result<Vec<(u64, u64)>, ImageFault> {
    let (offsets, sizes) = EXTENTS[usize::from(grid.tile_width.is_some())];
    let (offsets, sizes) = (tags(decoder, offsets)?, tags(decoder, sizes)?);
    if offsets.len() != sizes.len() {
        return Err(damaged("its header contradicts itself"));
    }
    grid.check_sizes(&sizes)?;
    Ok(offsets.into_iter().zip(sizes).collect())
}

/// Checks that every strip or tile is within the file, and whole.
fn check_extents<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<(), ImageFault> {
    let length = decoder.inner().seek(SeekFrom::End(0)).map_err(|error| unreadable(error, CUT))?;
    let grid = ChunkGrid::read(decoder)?;
    let is_within = |&(offset, size): &(u64, u64)| offset.saturating_add(size) <= length;
    if extents(decoder, &grid)?.iter().all(is_within) {
        Ok(())
    } else {
        Err(damaged("its image data reach beyond its end"))
    }
}

/// Checks the data of every strip or tile with a compression that says what is damaged: the checksum of Deflate, before which
/// the decoder stops, and the codes of JPEG, where it goes on with grey.
fn check_data(decoder: &mut Decoder<Cursor<&[u8]>>, bytes: &[u8]) -> Result<(), ImageFault> {
    let compression = tag(decoder, Tag::Compression)?.unwrap_or(1);
    if compression != JPEG && !DEFLATE.contains(&compression) {
        return Ok(());
    }
    let tables = decoder.find_tag(Tag::JPEGTables).map_err(fault)?;
    let tables = tables.map(Value::into_u8_vec).transpose().map_err(fault)?.unwrap_or_default();
    let grid = ChunkGrid::read(decoder)?;
    for (index, (offset, size)) in extents(decoder, &grid)?.into_iter().enumerate() {
        let data = usize::try_from(offset).ok().and_then(|start| bytes.get(start..));
        let data = data.and_then(|data| data.get(..usize::try_from(size).ok()?));
        let data = data.ok_or(damaged("its image data reach beyond its end"))?;
        if compression == JPEG {
            grid.check_jpeg(index, jpeg_size(&tables, data)?)?;
        } else if std::io::copy(&mut ZlibDecoder::new(data), &mut std::io::sink()).is_err() {
            return Err(damaged("its compressed data do not fit their checksum"));
        }
    }
    Ok(())
}

/// Checks a strip or tile that is a JPEG, whose tables may be apart: a JPEG of them alone. Returns its size.
fn jpeg_size(tables: &[u8], data: &[u8]) -> Result<JpegSize, ImageFault> {
    let Some(tables) = tables.strip_suffix(JPEG_END) else { return jpeg::check(data) };
    let data = data.strip_prefix(JPEG_START).ok_or(damaged("its image data are no JPEG"))?;
    jpeg::check(&[tables, data].concat())
}

/// Checks that all further pages are smaller copies.
fn check_pages<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<(), ImageFault> {
    for _ in 0..MOST_PAGES {
        if !decoder.more_images() {
            return Ok(());
        }
        decoder.next_image().map_err(fault)?;
        if tag(decoder, Tag::NewSubfileType)?.unwrap_or(0) & REDUCED == 0 {
            break;
        }
    }
    Err(ImageFault::unread("a TIFF with several pages"))
}

pub(super) fn tag<R: BufRead + Seek>(decoder: &mut Decoder<R>, tag: Tag) -> Result<Option<u32>, ImageFault> {
    decoder.find_tag_unsigned(tag).map_err(fault)
}

pub(super) fn tags<R: BufRead + Seek>(decoder: &mut Decoder<R>, tag: Tag) -> Result<Vec<u64>, ImageFault> {
    Ok(decoder.find_tag_unsigned_vec(tag).map_err(fault)?.unwrap_or_default())
}

pub(super) fn fault(error: TiffError) -> ImageFault {
    match error {
        TiffError::UnsupportedError(what) => ImageFault::unread(format!("a TIFF with {what}")),
        TiffError::LimitsExceeded => damaged("a list in its header is too long"),
        TiffError::FormatError(_)
        | TiffError::IoError(_)
        | TiffError::IntSizeError
        | TiffError::UsageError(_) => damaged("its header contradicts itself"),
    }
}
