//! Strips of a BMP file: its rows follow its header and palette, most often from bottom to top.

use std::io::{Read, Seek};

use super::{Header, ImageFault, StripFiles, append, length};
use crate::stages::preprocess::decode::bmp::is_run_length_coded;
use crate::stages::preprocess::decode::fault::damaged;

/// The rows of a file that were not read yet.
pub(super) struct Remaining<R> {
    file: R,
    /// Everything in front of the pixels.
    header: Vec<u8>,
    /// Rows of a strip.
    rows: u32,
    row_bytes: u64,
    /// The first row that was not read, from the top.
    next: u32,
    height: u32,
    is_top_down: bool,
}

impl<R: Read + Seek> Remaining<R> {
    pub(super) fn open(mut file: R, whole: &Header, rows: u32) -> Result<Self, ImageFault> {
        let mut header = Vec::new();
        append(&mut header, &mut file, 0, 26)?;
        let start = length(number(&header, 10).into())?;
        header.clear();
        append(&mut header, &mut file, 0, start)?;
        let bits_at = if is_core(&header) { 24 } else { 28 };
        if header.len() < bits_at + 6 {
            return Err(damaged("its image data begin within its header"));
        }
        if is_run_length_coded(&header) {
            return Err(whole.undivided("a BMP with run-length coding"));
        }
        let bits = u64::from(u16::from_le_bytes([header[bits_at], header[bits_at + 1]]));
        let row_bytes = (bits * u64::from(whole.width)).div_ceil(32) * 4;
        let is_top_down = !is_core(&header) && (number(&header, 22) as i32) < 0;
        Ok(Self { file, header, rows, row_bytes, next: 0, height: whole.height, is_top_down })
    }
}

/// Returns whether the header is the one of 12 bytes, whose sides have 16 bits.
fn is_core(header: &[u8]) -> bool {
    number(header, 14) == 12
}

fn number(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

impl<R: Read + Seek> StripFiles for Remaining<R> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, ImageFault> {
        let rows = self.rows.min(self.height - self.next);
        if rows == 0 {
            return Ok(None);
        }
        let mut strip = self.header.clone();
        if is_core(&strip) {
            strip[20..22].copy_from_slice(&(rows as u16).to_le_bytes());
        } else {
            let height = if self.is_top_down { -(rows as i32) } else { rows as i32 };
            strip[22..26].copy_from_slice(&height.to_le_bytes());
        }
        let first = if self.is_top_down { self.next } else { self.height - self.next - rows };
        let start = self.header.len() as u64 + u64::from(first) * self.row_bytes;
        append(&mut strip, &mut self.file, start, length(u64::from(rows) * self.row_bytes)?)?;
        self.next += rows;
        Ok(Some(strip))
    }
}
