//! How the image of a TIFF file is divided into strips or tiles.

use std::io::{BufRead, Seek};

use tiff::decoder::Decoder;
use tiff::tags::Tag;

use super::{ImageFault, bits, damaged, fault, tag};
use crate::stages::preprocess::decode::jpeg::JpegSize;

/// The value of `PlanarConfiguration` for channels that are stored one after another.
const PLANAR: u32 = 2;
/// The value of `Compression` for none.
const PLAIN: u32 = 1;

/// How an image is divided.
pub(in super::super) struct ChunkGrid {
    pub(in super::super) height: u32,
    pub(in super::super) width: u32,
    /// Rows of a strip or tile.
    pub(in super::super) rows: u32,
    /// Width of a tile; `None` for strips.
    pub(in super::super) tile_width: Option<u32>,
    /// Channels that are stored one after another; 1 if they are side by side.
    pub(in super::super) planes: u32,
    /// Levels of a pixel in a strip or tile.
    channels: u32,
    /// Bytes of a row of a strip or tile, if the data are not compressed.
    pub(in super::super) row_bytes: Option<u64>,
}

impl ChunkGrid {
    pub(in super::super) fn read<R: BufRead + Seek>(decoder: &mut Decoder<R>) -> Result<Self, ImageFault> {
        let (width, height) = decoder.dimensions().map_err(fault)?;
        let tile_width = tag(decoder, Tag::TileWidth)?;
        let rows = match tile_width {
            Some(_) => tag(decoder, Tag::TileLength)?.unwrap_or(0),
            None => tag(decoder, Tag::RowsPerStrip)?.unwrap_or(height).min(height),
        };
        let samples = tag(decoder, Tag::SamplesPerPixel)?.unwrap_or(1);
        let is_planar = tag(decoder, Tag::PlanarConfiguration)? == Some(PLANAR);
        let planes = if is_planar { samples } else { 1 };
        let is_plain = tag(decoder, Tag::Compression)?.is_none_or(|kind| kind == PLAIN);
        if rows == 0 || tile_width == Some(0) || samples == 0 {
            return Err(damaged("its header contradicts itself"));
        }
        let row_bits = u64::from(samples / planes) * u64::from(bits(decoder)?);
        let row_bits = row_bits.saturating_mul(tile_width.unwrap_or(width).into());
        let row_bytes = is_plain.then_some(row_bits.div_ceil(8));
        Ok(Self { height, width, rows, tile_width, planes, channels: samples / planes, row_bytes })
    }

    /// Returns the number of strips or tiles side by side.
    pub(in super::super) fn across(&self) -> usize {
        self.tile_width.map_or(1, |tile| self.width.div_ceil(tile)) as usize
    }

    /// Returns the number of strips or tiles one below another.
    pub(in super::super) fn down(&self) -> usize {
        self.height.div_ceil(self.rows) as usize
    }

    /// Returns the rows of a strip or tile.
    fn rows_of(&self, index: usize) -> u32 {
        let first = (index / self.across() % self.down()) as u32 * self.rows;
        if self.tile_width.is_some() { self.rows } else { self.rows.min(self.height - first) }
    }

    /// Checks that the JPEG of a strip or tile has its size. The decoder takes the levels of another size as they come.
    pub(in super::super) fn check_jpeg(&self, index: usize, size: JpegSize) -> Result<(), ImageFault> {
        let width = self.tile_width.unwrap_or(self.width) as usize;
        let is_whole = size.height >= self.rows_of(index) as usize && size.width == width;
        if is_whole && size.channels == self.channels as usize {
            Ok(())
        } else {
            Err(damaged("its image data are of another size than its header says"))
        }
    }

    /// Checks that every strip or tile is there, and that those that are not compressed have all of their bytes. The decoder
    /// goes on with the bytes that follow a strip that is too short.
    pub(in super::super) fn check_sizes(&self, sizes: &[u64]) -> Result<(), ImageFault> {
        let (across, down) = (self.across(), self.down());
        let missing = || damaged("image data are missing");
        let chunks = across.checked_mul(down).and_then(|chunks| chunks.checked_mul(self.planes as usize));
        let sizes = chunks.and_then(|chunks| sizes.get(..chunks)).ok_or_else(missing)?;
        let Some(row_bytes) = self.row_bytes else { return Ok(()) };
        for (index, &size) in sizes.iter().enumerate() {
            if size < row_bytes.saturating_mul(self.rows_of(index).into()) {
                return Err(missing());
            }
        }
        Ok(())
    }
}
