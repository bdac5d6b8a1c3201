//! Checks the chunks of a PNG file (ISO/IEC 15948, clause 5).

use super::ImageFault;
use super::fault::{check_size, damaged};

/// The first bytes of a file.
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Position of the bits per level.
const BITS: usize = 24;

/// Checks that a file is whole up to its last chunk, and that every chunk has its checksum. The decoder passes over
/// wrong checksums of some chunks, and needs no last chunk.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageFault> {
    let mut rest = bytes.strip_prefix(SIGNATURE).ok_or(damaged("its first bytes are not those of a PNG"))?;
    let mut has_header = false;
    loop {
        let cut = || damaged("it ends before its last chunk");
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(length.saturating_add(4)).ok_or_else(cut)?;
        let (sum, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        if crc32fast::hash(chunk) != u32::from_be_bytes(*sum) {
            return Err(damaged("a checksum does not fit"));
        }
        match &chunk[..4] {
            b"IHDR" => {
                check_header(&chunk[4..])?;
                has_header = true;
            }
            b"acTL" => return Err(ImageFault::unread("an animated PNG")),
            b"IEND" if has_header => return Ok(()),
            _ => {}
        }
        rest = after;
    }
}

fn check_header(header: &[u8]) -> Result<(), ImageFault> {
    let &[w3, w2, w1, w0, h3, h2, h1, h0, bits, ..] = header else {
        return Err(damaged("its header is cut off"));
    };
    let (width, height) = (u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]));
    check_size(height.into(), width.into(), if bits == 16 { 2 } else { 1 })
}

pub(super) fn is_deep(bytes: &[u8]) -> bool {
    bytes.get(BITS) == Some(&16)
}
