//! Checks that a JPEG file is whole.
//!
//! Decoders go on with grey or zeros where data are missing: `image` 0.25.10 takes a file that ends after half of its
//! blocks as an image, in its strict mode too where the rest was overwritten with zeros. This module follows the
//! file from its first marker to its end marker, and reads every Huffman code of every block without computing pixels.
//! A file is whole if each scan has the codes of exactly its blocks, restart markers are where they belong, and the end
//! marker follows. What comes after the end marker is not read: many cameras append previews there.
//!
//! Source: ITU-T T.81. Cost: one pass over the codes, without the inverse transform; 8 bytes a block for progressive files.

mod bits;
mod frame;
mod scan;

use self::bits::Huffman;
use self::frame::JpegFrame;
use self::scan::Tables;
use super::ImageFault;
use super::fault::damaged;

/// The first byte of a marker.
const MARKER: u8 = 0xff;
/// Largest number of scans. Encoders write 10; the limit bounds the time for a small file of many scans (libjpeg-turbo
/// and `zune-jpeg` have limits of the same order).
const MOST_SCANS: usize = 100;

/// How image data are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// A marker comes before all blocks were read.
    Short,
    /// Data are left when all blocks were read.
    Long,
    /// The file ends without the end marker.
    NoEnd,
    /// A code that the table does not have.
    Code,
    /// A block has more than 64 coefficients.
    Block,
    /// A coefficient is too large for an image.
    Range,
    /// A restart marker is missing, or has the wrong number.
    Restart,
    /// A scan uses a table that was not defined.
    NoTable,
}

impl From<Damage> for ImageFault {
    fn from(damage: Damage) -> Self {
        damaged(match damage {
            Damage::Short => "image data are missing",
            Damage::Long => "image data are left over after the last block",
            Damage::NoEnd => "it has no end marker, so its end is missing",
            Damage::Code => "its image data hold an invalid code",
            Damage::Block => "its image data overflow a block",
            Damage::Range => "its image data are out of range",
            Damage::Restart => "a restart marker is missing",
            Damage::NoTable => "a table is missing",
        })
    }
}

/// Returns the fault of a header that contradicts itself.
fn bad_header() -> ImageFault {
    damaged("a header contradicts itself")
}

/// The size of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegSize {
    pub(super) height: usize,
    pub(super) width: usize,
    /// Levels of a pixel.
    pub(super) channels: usize,
}

/// Checks a file from its first to its end marker. Returns its size.
pub(super) fn check(bytes: &[u8]) -> Result<JpegSize, ImageFault> {
    let mut file = Reader { bytes, position: 2 };
    let (mut frame, mut tables, mut scans) = (None::<JpegFrame>, Tables::default(), 0);
    let mut colours = Colours::default();
    loop {
        let marker = file.marker(scans)?;
        match marker {
            0xd9 => return finish(frame.as_ref().ok_or_else(|| end(0))?, &colours),
            // Restart markers and TEM stand alone.
            0x01 | 0xd0..=0xd7 => continue,
            // Reserved: no file has them, but a damaged marker may look so.
            0x02..=0xbf => return Err(bad_header()),
            _ => {}
        }
        let header = file.segment(scans)?;
        match marker {
            0xc4 => define_tables(&mut tables, header)?,
            0xdb => define_steps(&mut tables, header)?,
            0xe0 if header.starts_with(b"JFIF\0") => colours.is_jfif = true,
            0xee if header.starts_with(b"Adobe") => colours.adobe = header.get(11).copied(),
            0xdd => {
                let &[high, low] = header else { return Err(bad_header()) };
                tables.restart_interval = usize::from(u16::from_be_bytes([high, low]));
            }
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf if frame.is_none() => {
                frame = Some(JpegFrame::read(marker, header)?);
            }
            0xc0..=0xcf => return Err(bad_header()),
            0xda => {
                let frame = frame.as_mut().ok_or_else(bad_header)?;
                let scan = frame.scan(header)?;
                frame.begin(&scan)?;
                scans += 1;
                if scans > MOST_SCANS {
                    return Err(ImageFault::unread(format!("a JPEG with more than {MOST_SCANS} scans")));
                }
                file.position = scan::walk(bytes, file.position, frame, &scan, &tables)?;
            }
            // Comments, profiles and other application data.
            _ => {}
        }
    }
}

/// What application data say about the colours.
#[derive(Default)]
struct Colours {
    /// JFIF means YCbCr.
    is_jfif: bool,
    /// Adobe's transform: 0 is RGB, others are YCbCr.
    adobe: Option<u8>,
}

/// Checks the end of a file: that no scan is missing, and that its headers agree on the colours. Decoders believe different
/// headers if they do not.
fn finish(frame: &JpegFrame, colours: &Colours) -> Result<JpegSize, ImageFault> {
    if !frame.is_complete() {
        return Err(damaged("it ends before its last scan"));
    }
    let is_rgb = frame.is_named_rgb() || colours.adobe == Some(0);
    let is_ycbcr = colours.is_jfif || colours.adobe.is_some_and(|transform| transform > 0);
    if frame.components.len() == 3 && is_rgb && is_ycbcr {
        return Err(ImageFault::unread("a JPEG whose headers contradict each other about its colours"));
    }
    Ok(JpegSize { height: frame.size.0, width: frame.size.1, channels: frame.components.len() })
}

/// Reads markers and their segments.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Reads the next marker. Bytes in front of it are passed over before the image data, as all decoders do, but are
    /// damage after it.
    fn marker(&mut self, scans: usize) -> Result<u8, ImageFault> {
        let rest = self.bytes.get(self.position..).ok_or_else(|| end(scans))?;
        let found = rest.windows(2).position(|pair| pair[0] == MARKER && !matches!(pair[1], 0 | MARKER));
        let found = found.ok_or_else(|| end(scans))?;
        if scans > 0 && rest[..found].iter().any(|&byte| byte != MARKER) {
            return Err(Damage::Long.into());
        }
        self.position += found + 2;
        Ok(rest[found + 1])
    }

    /// Reads the segment of a marker: a length that includes its own two bytes, and the data.
    fn segment(&mut self, scans: usize) -> Result<&'a [u8], ImageFault> {
        let rest = self.bytes.get(self.position..).ok_or_else(|| end(scans))?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(|| end(scans))?;
        let length = usize::from(u16::from_be_bytes(*length)).checked_sub(2).ok_or_else(bad_header)?;
        self.position += 2 + length;
        rest.get(..length).ok_or_else(|| end(scans))
    }
}

/// Returns the fault of a file that ends after so many scans.
fn end(scans: usize) -> ImageFault {
    if scans > 0 { Damage::NoEnd.into() } else { damaged("it ends before its image data") }
}

fn define_tables(tables: &mut Tables, mut header: &[u8]) -> Result<(), ImageFault> {
    while let [class, rest @ ..] = header {
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or_else(bad_header)?;
        let count = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(count).ok_or_else(bad_header)?;
        let table = Huffman::new(counts, symbols).ok_or_else(bad_header)?;
        let of_class = if class >> 4 == 0 { &mut tables.dc } else { &mut tables.ac };
        *of_class.get_mut(usize::from(class & 15)).ok_or_else(bad_header)? = Some(table);
        header = rest;
    }
    Ok(())
}

fn define_steps(tables: &mut Tables, mut header: &[u8]) -> Result<(), ImageFault> {
    while let [class, rest @ ..] = header {
        let size = if class >> 4 == 0 { 1 } else { 2 };
        let (steps, rest) = rest.split_at_checked(64 * size).ok_or_else(bad_header)?;
        let steps = steps
            .chunks_exact(size)
            .map(|bytes| bytes.iter().fold(0, |step, &byte| step << 8 | u16::from(byte)));
        let table = tables.steps.get_mut(usize::from(class & 15)).ok_or_else(bad_header)?;
        *table = Some(steps.collect());
        header = rest;
    }
    Ok(())
}
