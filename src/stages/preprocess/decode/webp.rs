//! Checks the chunks of a WebP file (RFC 9649), and the headers of its image data.

use super::ImageFault;
use super::fault::damaged;

/// The first byte of lossless data.
const LOSSLESS: u8 = 0x2f;
/// The start code of lossy data.
const LOSSY: [u8; 3] = [0x9d, 0x01, 0x2a];
/// Bytes of the header of lossy data.
const LOSSY_HEADER_BYTES: usize = 10;
/// The largest profile of lossy data (RFC 6386, 9.1).
const MOST_PROFILE: u32 = 3;

/// Checks that a file is as long as it says, that its chunks are whole, and that it has one image of the size that it states.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageFault> {
    let cut = || damaged("it is shorter than its header says");
    let size = bytes.get(4..8).and_then(|size| size.first_chunk()).ok_or_else(cut)?;
    let end = (u32::from_le_bytes(*size) as usize).checked_add(8).ok_or_else(cut)?;
    let mut rest = bytes.get(12..end).ok_or_else(cut)?;
    let (mut canvas, mut image) = (None, None);
    while !rest.is_empty() {
        let (name, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        let data = after.get(..length).ok_or_else(cut)?;
        match name {
            b"ANIM" | b"ANMF" => return Err(ImageFault::unread("an animated WebP")),
            b"VP8X" => canvas = Some(canvas_size(data)?),
            b"VP8 " | b"VP8L" if image.is_some() => return Err(damaged("it has image data twice")),
            b"VP8 " => image = Some(lossy_size(data)?),
            b"VP8L" => image = Some(lossless_size(data)?),
            _ => {}
        }
        // Chunks are padded to an even length.
        rest = after[length..].get(length % 2..).unwrap_or_default();
    }
    let image = image.ok_or(damaged("it has no image data"))?;
    match canvas {
        Some(canvas) if canvas != image => Err(damaged("its headers state different sizes")),
        _ => Ok(()),
    }
}

/// Returns width and height of the header of extended files.
fn canvas_size(data: &[u8]) -> Result<(u32, u32), ImageFault> {
    let &[_, _, _, _, w0, w1, w2, h0, h1, h2] = data else { return Err(damaged("its header is cut off")) };
    Ok((1 + u32::from_le_bytes([w0, w1, w2, 0]), 1 + u32::from_le_bytes([h0, h1, h2, 0])))
}

/// Checks the header of lossy data (RFC 6386, 9.1). Returns width and height. The decoder passes over the profile, and over
/// whether the frame is shown.
fn lossy_size(data: &[u8]) -> Result<(u32, u32), ImageFault> {
    let header = data.first_chunk::<LOSSY_HEADER_BYTES>().ok_or(damaged("its image data are cut off"))?;
    let &[t0, t1, t2, s0, s1, s2, w0, w1, h0, h1] = header;
    let tag = u32::from_le_bytes([t0, t1, t2, 0]);
    let (is_between, profile, is_shown) = (tag & 1 == 1, tag >> 1 & 7, tag >> 4 & 1 == 1);
    if is_between || profile > MOST_PROFILE || !is_shown || [s0, s1, s2] != LOSSY {
        return Err(damaged("the header of its image data is no image's"));
    }
    if (tag >> 5) as usize > data.len() - LOSSY_HEADER_BYTES {
        return Err(damaged("its image data are cut off"));
    }
    // The upper two bits ask for a larger display.
    let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Ok((side(w0, w1), side(h0, h1)))
}

/// Checks the header of lossless data (RFC 9649, 3.4). Returns width and height.
fn lossless_size(data: &[u8]) -> Result<(u32, u32), ImageFault> {
    let Some(&[LOSSLESS, b0, b1, b2, b3]) = data.first_chunk() else {
        return Err(damaged("the header of its image data is no image's"));
    };
    let bits = u32::from_le_bytes([b0, b1, b2, b3]);
    if bits >> 29 != 0 {
        return Err(damaged("the header of its image data is no image's"));
    }
    Ok((1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)))
}
