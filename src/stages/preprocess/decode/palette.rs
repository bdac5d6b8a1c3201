//! The indices of a palette image. A mask of classes may have a palette whose colours are all black, or the same for several
//! classes: the classes are then in the indices alone.
//!
//! The palette is replaced by grey levels that are the indices, and the file is decoded as any other.

use image::DynamicImage;

use super::bmp::palette_range;
use super::{Decoded, ImageFault, decode_bytes, format::Format, png};

/// Returns whether the pixels of a file are indices.
pub(super) fn is_indexed(format: Format, bytes: &[u8]) -> bool {
    match format {
        Format::Png => bytes.get(25) == Some(&3),
        Format::Bmp => palette_range(bytes).is_some(),
        Format::Jpeg | Format::Tiff | Format::WebP | Format::Pnm => false,
    }
}

/// Returns the indices of an image as grey levels, turned as the image; `None` if it has no palette.
pub(super) fn indices(bytes: &[u8]) -> Result<Option<DynamicImage>, ImageFault> {
    let format = Format::of(bytes)?;
    let replaced = match format {
        _ if !is_indexed(format, bytes) => None,
        Format::Png => png_with_indices(bytes),
        Format::Bmp => bmp_with_indices(bytes),
        Format::Jpeg | Format::Tiff | Format::WebP | Format::Pnm => None,
    };
    let Some(replaced) = replaced else { return Ok(None) };
    let Decoded { image, .. } = decode_bytes(&replaced)?;
    Ok(Some(DynamicImage::ImageLuma8(image.into_luma8())))
}

/// Returns a PNG whose palette has the indices as colours and no transparency; `None` without a palette.
fn png_with_indices(bytes: &[u8]) -> Option<Vec<u8>> {
    let (signature, mut rest) = bytes.split_at_checked(8)?;
    let mut replaced = signature.to_vec();
    let mut has_palette = false;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(length.checked_add(8)?)?;
        match &chunk[..4] {
            b"PLTE" => {
                has_palette = true;
                let colours: Vec<u8> = (0..length / 3).flat_map(|index| [index as u8; 3]).collect();
                png::chunk(&mut replaced, b"PLTE", &colours);
            }
            b"tRNS" => {}
            _ => {
                replaced.extend((length as u32).to_be_bytes());
                replaced.extend_from_slice(chunk);
            }
        }
        rest = after;
    }
    has_palette.then_some(replaced)
}

/// Returns a BMP whose palette has the indices as colours; `None` without a palette.
fn bmp_with_indices(bytes: &[u8]) -> Option<Vec<u8>> {
    let (start, entry_bytes) = palette_range(bytes)?;
    let mut replaced = bytes.to_vec();
    let end = u32::from_le_bytes(*bytes.get(10..)?.first_chunk()?) as usize;
    let palette = replaced.get_mut(start..end)?;
    for (index, entry) in palette.chunks_exact_mut(entry_bytes).take(256).enumerate() {
        entry[..3].fill(index as u8);
    }
    Some(replaced)
}
