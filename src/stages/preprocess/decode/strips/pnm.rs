//! Strips of a PNM file: its rows follow its header, without a gap.

use std::io::{BufRead, Seek};

use image::codecs::pnm::{
    ArbitraryHeader, BitmapHeader, GraymapHeader, PixmapHeader, PnmDecoder, PnmHeader, PnmSubtype,
    SampleEncoding,
};

use super::{Header, ImageFault, StripFiles, append, length};

/// The rows of a file that were not read yet.
pub(super) struct Remaining<R> {
    file: R,
    header: PnmHeader,
    /// Rows of a strip.
    rows: u32,
    row_bytes: u64,
    /// The first row that was not read.
    next: u32,
    /// Where the first row begins.
    start: u64,
}

impl<R: BufRead + Seek> Remaining<R> {
    pub(super) fn open(file: R, whole: &Header, rows: u32) -> Result<Self, ImageFault> {
        let (mut file, header) = PnmDecoder::new(file)?.into_inner();
        if header.subtype().sample_encoding() == SampleEncoding::Ascii {
            return Err(whole.undivided("a PNM with its levels as text"));
        }
        let start = file.stream_position().map_err(image::ImageError::from)?;
        let row_bytes = row_bytes(&header);
        Ok(Self { file, header, rows, row_bytes, next: 0, start })
    }
}

/// Returns the bytes of a row of a file whose levels are binary.
fn row_bytes(header: &PnmHeader) -> u64 {
    let channels = match header.subtype() {
        PnmSubtype::Bitmap(_) => return u64::from(header.width()).div_ceil(8),
        PnmSubtype::Graymap(_) => 1,
        PnmSubtype::Pixmap(_) => 3,
        PnmSubtype::ArbitraryMap => header.as_arbitrary().map_or(1, |header| header.depth),
    };
    let level_bytes = if header.maximal_sample() > 255 { 2 } else { 1 };
    u64::from(header.width()).saturating_mul(channels.into()).saturating_mul(level_bytes)
}

/// Returns the header of a file with other rows.
fn with_height(header: &PnmHeader, height: u32) -> PnmHeader {
    if let Some(header) = header.as_bitmap() {
        BitmapHeader { height, ..*header }.into()
    } else if let Some(header) = header.as_graymap() {
        GraymapHeader { height, ..*header }.into()
    } else if let Some(header) = header.as_pixmap() {
        PixmapHeader { height, ..*header }.into()
    } else {
        let header = header.as_arbitrary().expect("a header is one of four");
        ArbitraryHeader { height, ..header.clone() }.into()
    }
}

impl<R: BufRead + Seek> StripFiles for Remaining<R> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, ImageFault> {
        let rows = self.rows.min(self.header.height() - self.next);
        if rows == 0 {
            return Ok(None);
        }
        let mut strip = Vec::new();
        with_height(&self.header, rows).write(&mut strip).map_err(image::ImageError::from)?;
        let start = self.start + u64::from(self.next) * self.row_bytes;
        append(&mut strip, &mut self.file, start, length(u64::from(rows) * self.row_bytes)?)?;
        self.next += rows;
        Ok(Some(strip))
    }
}
