//! Strips of a TIFF file: its own strips or rows of tiles. Strips that are not compressed are divided further.

use std::io::{BufRead, Seek};

use tiff::decoder::Decoder;
use tiff::tags::{ByteOrder, Tag};

use super::{Header, ImageFault, MOST_STRIP_BYTES, StripFiles, append, length};
use crate::stages::preprocess::decode::fault::damaged;
use crate::stages::preprocess::decode::tiff::{ChunkGrid, check_structure, extents, fault, tags};

/// Tags that say what the data of a strip mean, from `BitsPerSample` to `SampleFormat`. Their values have 16 bits.
const KEPT: [u16; 9] = [258, 259, 262, 266, 277, 284, 317, 338, 339];
/// The tables that the strips of a file with JPEG compression share.
const JPEG_TABLES: u16 = 347;

/// Types of tags: 16 bits, 32 bits, bytes.
const SHORT: u16 = 3;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

/// A tag of a header, with its type and values.
type Entry = (u16, u16, Vec<u64>);

/// The strips or tiles of a file that were not read yet.
pub(super) struct Chunks<R> {
    file: R,
    is_little: bool,
    kept: Vec<Entry>,
    grid: ChunkGrid,
    /// Where each strip or tile begins, and its bytes.
    extents: Vec<(u64, u64)>,
    /// Rows to read at a time.
    rows: u32,
    /// The first row that was not read.
    next: u32,
}

impl<R: BufRead + Seek> Chunks<R> {
    pub(super) fn open(mut file: R, whole: &Header, rows: u32) -> Result<Self, ImageFault> {
        check_structure(&mut Decoder::new(&mut file).map_err(fault)?)?;
        file.rewind().map_err(image::ImageError::from)?;
        let mut decoder = Decoder::new(&mut file).map_err(fault)?;
        let grid = ChunkGrid::read(&mut decoder)?;
        let extents = extents(&mut decoder, &grid)?;
        let kept = kept(&mut decoder)?;
        let is_little = decoder.byte_order() == ByteOrder::LittleEndian;
        let chunk_bytes = u64::from(grid.rows.min(grid.height)).saturating_mul(whole.row_bytes());
        if (grid.row_bytes.is_none() || grid.tile_width.is_some()) && chunk_bytes > MOST_STRIP_BYTES {
            return Err(whole.undivided("a TIFF with compressed strips or tiles of more than 64 MiB"));
        }
        Ok(Self { file, is_little, kept, grid, extents, rows, next: 0 })
    }

    /// Returns the extents of the next strips or tiles and their rows, plane after plane: as many as make a strip, or a
    /// part of one.
    fn next_extents(&self) -> (Vec<(u64, u64)>, u32) {
        let ChunkGrid { height, rows, planes, .. } = self.grid;
        let (index, across) = ((self.next / rows) as usize, self.grid.across());
        let plane = |number: u32| &self.extents[number as usize * self.grid.down() * across..];
        let is_divided = rows > self.rows && self.grid.tile_width.is_none();
        let Some(row_bytes) = self.grid.row_bytes.filter(|_| is_divided) else {
            let down = ((self.rows / rows).max(1) as usize).min(self.grid.down() - index);
            let extents =
                (0..planes).flat_map(|number| &plane(number)[index * across..(index + down) * across]);
            return (extents.copied().collect(), (down as u32).saturating_mul(rows).min(height - self.next));
        };
        let first = self.next % rows;
        let taken = self.rows.min(rows - first).min(height - self.next);
        let (start, length) = (u64::from(first) * row_bytes, u64::from(taken) * row_bytes);
        let part = |number: u32| (plane(number)[index].0.saturating_add(start), length);
        ((0..planes).map(part).collect(), taken)
    }

    /// Returns the tags of a file of so many rows, whose strips or tiles have these extents.
    fn entries(&self, extents: &[(u64, u64)], rows: u32) -> Vec<Entry> {
        let one = |tag, value: u32| (tag, LONG, vec![u64::from(value)]);
        let mut entries = self.kept.clone();
        entries.extend([one(256, self.grid.width), one(257, rows)]);
        let (offsets, sizes): (Vec<u64>, Vec<u64>) = extents.iter().copied().unzip();
        if let Some(tile_width) = self.grid.tile_width {
            entries.extend([one(322, tile_width), one(323, self.grid.rows)]);
            entries.extend([(324, LONG, offsets), (325, LONG, sizes)]);
        } else {
            entries.extend([one(278, self.grid.rows.min(rows))]);
            entries.extend([(273, LONG, offsets), (279, LONG, sizes)]);
        }
        entries.sort_unstable_by_key(|entry| entry.0);
        entries
    }

    fn number(&self, value: u64, bytes: usize) -> Vec<u8> {
        if self.is_little {
            value.to_le_bytes()[..bytes].to_vec()
        } else {
            value.to_be_bytes()[8 - bytes..].to_vec()
        }
    }

    /// Appends the list of tags to a file, and writes where it is into the header.
    fn append_entries(&self, to: &mut Vec<u8>, entries: &[Entry]) {
        let mut list = self.number(entries.len() as u64, 2);
        for (tag, kind, values) in entries {
            let bytes = match *kind {
                SHORT => 2,
                LONG => 4,
                _ => 1,
            };
            let mut content: Vec<u8> = values.iter().flat_map(|value| self.number(*value, bytes)).collect();
            if content.len() > 4 {
                let start = self.number(to.len() as u64, 4);
                to.extend(std::mem::replace(&mut content, start));
            }
            content.resize(4, 0);
            let parts = [self.number(u64::from(*tag), 2), self.number(u64::from(*kind), 2)];
            list.extend(parts.into_iter().chain([self.number(values.len() as u64, 4), content]).flatten());
        }
        list.extend(self.number(0, 4));
        let start = self.number(to.len() as u64, 4);
        to[4..8].copy_from_slice(&start);
        to.extend(list);
    }
}

/// Returns the tags that every strip keeps.
fn kept<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<Vec<Entry>, ImageFault> {
    let mut kept = Vec::new();
    for (tag, kind) in KEPT.iter().map(|&tag| (tag, SHORT)).chain([(JPEG_TABLES, UNDEFINED)]) {
        let values = if kind == SHORT {
            tags(decoder, Tag::from_u16_exhaustive(tag))?
        } else {
            let value = decoder.find_tag(Tag::from_u16_exhaustive(tag)).map_err(fault)?;
            let bytes = value.map(tiff::decoder::ifd::Value::into_u8_vec).transpose().map_err(fault)?;
            bytes.unwrap_or_default().into_iter().map(u64::from).collect()
        };
        if values.iter().any(|&value| value > u64::from(u16::MAX)) {
            return Err(damaged("its header contradicts itself"));
        }
        if !values.is_empty() {
            kept.push((tag, kind, values));
        }
    }
    Ok(kept)
}

impl<R: BufRead + Seek> StripFiles for Chunks<R> {
    fn next(&mut self) -> Result<Option<Vec<u8>>, ImageFault> {
        if self.next == self.grid.height {
            return Ok(None);
        }
        let (extents, rows) = self.next_extents();
        length(extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.1)))?;
        let mut strip = if self.is_little { b"II*\0\0\0\0\0".to_vec() } else { b"MM\0*\0\0\0\0".to_vec() };
        let mut moved = Vec::with_capacity(extents.len());
        for (start, size) in extents {
            moved.push((strip.len() as u64, size));
            append(&mut strip, &mut self.file, start, size as usize)?;
        }
        self.append_entries(&mut strip, &self.entries(&moved, rows));
        self.next += rows;
        Ok(Some(strip))
    }
}
