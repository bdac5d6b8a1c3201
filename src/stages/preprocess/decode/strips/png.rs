//! Strips of a PNG file: its rows, after their filters were undone.

use std::io::{BufRead, Seek, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use png::{Decoder, DecodingError, Reader};

use super::{Header, ImageFault, StripFiles};
use crate::stages::preprocess::decode::fault::damaged;
use crate::stages::preprocess::decode::png::{SIGNATURE, chunk, read_chunks};

/// The rows of a file that were not read yet.
pub(super) struct Remaining<R: BufRead + Seek> {
    reader: Reader<R>,
    /// The chunks that say what the levels mean: header, palette, transparency.
    chunks: Vec<Vec<u8>>,
    /// Rows of a strip.
    rows: u32,
    is_finished: bool,
}

impl<R: BufRead + Seek> Remaining<R> {
    pub(super) fn open(mut file: R, whole: &Header, rows: u32) -> Result<Self, ImageFault> {
        let chunks = read_chunks(&mut file)?;
        file.rewind().map_err(image::ImageError::from)?;
        let reader = Decoder::new(file).read_info().map_err(fault)?;
        if reader.info().interlaced {
            return Err(whole.undivided("an interlaced PNG"));
        }
        Ok(Self { reader, chunks, rows, is_finished: false })
    }
}

impl<R: BufRead + Seek> StripFiles for Remaining<R> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, ImageFault> {
        let (mut rows, mut data) = (0_u32, ZlibEncoder::new(Vec::new(), Compression::none()));
        while rows < self.rows && !self.is_finished {
            // The call after the last row checks the end of the compressed data.
            let Some(row) = self.reader.next_row().map_err(fault)? else {
                self.is_finished = true;
                break;
            };
            // Each row begins with its filter: none.
            let written = data.write_all(&[0]).and_then(|()| data.write_all(row.data()));
            written.map_err(image::ImageError::from)?;
            rows += 1;
        }
        if rows == 0 {
            return Ok(None);
        }
        let data = data.finish().map_err(image::ImageError::from)?;
        let mut strip = SIGNATURE.to_vec();
        for known in &self.chunks {
            let (name, content) = known.split_at(4);
            let mut content = content.to_vec();
            if name == b"IHDR" {
                content[4..8].copy_from_slice(&rows.to_be_bytes());
            }
            chunk(&mut strip, name, &content);
        }
        chunk(&mut strip, b"IDAT", &data);
        chunk(&mut strip, b"IEND", &[]);
        Ok(Some(strip))
    }
}

fn fault(error: DecodingError) -> ImageFault {
    match error {
        DecodingError::IoError(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            ImageFault::Decoder(error.into())
        }
        _ => damaged("its compressed data cannot be read"),
    }
}
