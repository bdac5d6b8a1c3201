//! Checks the header of a BMP file, and run-length coding.

use super::ImageFault;
use super::fault::{DECODED_AT_ONCE, check_size, damaged};

/// The values of `biCompression` for run-length coding.
const RLE8: u32 = 1;
const RLE4: u32 = 2;

/// Checks that the image data begin after the palette, and that run-length coding sets every pixel. Readers fill a skipped pixel differently: `image` 0.25.10 with black,
/// Pillow 13 and `OpenCV` 5 with entry 0 of the palette.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageFault> {
    let number =
        |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|four| u32::from_le_bytes(*four));
    let cut = || damaged("its header is cut off");
    let header = number(14).ok_or_else(cut)?;
    // A core header (12 bytes) has no compression.
    if header < 40 {
        return Ok(());
    }
    let [start, width, height, compression] = [10, 18, 22, 30].map(number);
    let (width, height) = (width.ok_or_else(cut)? as i32, height.ok_or_else(cut)? as i32);
    let (width, height) = (u64::from(width.unsigned_abs()), u64::from(height.unsigned_abs()));
    check_size(height, width, 1, DECODED_AT_ONCE)?;
    let start = start.ok_or_else(cut)? as usize;
    let palette = 4 * palette_entries(bytes, number(46).unwrap_or_default());
    if start < 14 + header as usize + palette {
        return Err(damaged("its image data begin within its palette"));
    }
    if !is_run_length_coded(bytes) {
        return Ok(());
    }
    let is_half = compression == Some(RLE4);
    let data = bytes.get(start..).ok_or_else(cut)?;
    let set = set_pixels(data, is_half, width, height).ok_or(damaged("its image data are cut off"))?;
    if set < width * height {
        return Err(ImageFault::unread("a BMP whose run-length coding skips pixels"));
    }
    Ok(())
}

/// Returns whether the pixels have run-length coding.
pub(super) fn is_run_length_coded(bytes: &[u8]) -> bool {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four));
    number(14).is_some_and(|header| header >= 40) && matches!(number(30), Some(RLE8 | RLE4))
}

/// Returns the number of colours in the palette. `used` is the number in the header, where 0 stands for all of the bits.
fn palette_entries(bytes: &[u8], used: u32) -> usize {
    match bytes.get(28) {
        Some(&bits @ 1..=8) if used == 0 => 1 << bits,
        Some(1..=8) => used as usize,
        _ => 0,
    }
}

/// Returns where the palette begins, and the bytes of an entry; `None` without a palette.
pub(super) fn palette_range(bytes: &[u8]) -> Option<(usize, usize)> {
    let header = u32::from_le_bytes(*bytes.get(14..)?.first_chunk()?);
    // A core header has 16-bit sides, and entries of three bytes.
    let (bits_at, entry_bytes) = if header == 12 { (24, 3) } else { (28, 4) };
    let bits = *bytes.get(bits_at)?;
    (1..=8).contains(&bits).then_some((14 + header as usize, entry_bytes))
}

/// Returns the number of pixels that the codes set; `None` if the data end first. `is_half` is set for 4-bit indices.
fn set_pixels(mut data: &[u8], is_half: bool, width: u64, height: u64) -> Option<u64> {
    let (mut x, mut y, mut set) = (0, 0, 0);
    while y < height {
        let (&[count, value], rest) = data.split_first_chunk()?;
        data = rest;
        let run = match (count, value) {
            (0, 0) => {
                (x, y) = (0, y + 1);
                continue;
            }
            (0, 1) => return Some(set),
            (0, 2) => {
                let (&[right, down], rest) = data.split_first_chunk()?;
                (x, y, data) = (x + u64::from(right), y + u64::from(down), rest);
                continue;
            }
            (0, length) => {
                let bytes = if is_half { usize::from(length).div_ceil(2) } else { usize::from(length) };
                data = data.get(bytes.next_multiple_of(2)..)?;
                length
            }
            (count, _) => count,
        };
        let run = u64::from(run).min(width.saturating_sub(x));
        (x, set) = (x + run, set + run);
    }
    Some(set)
}
