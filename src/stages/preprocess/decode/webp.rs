//! Checks the chunks of a WebP file (RFC 9649).

use super::ImageFault;
use super::fault::damaged;

/// Checks that a file is as long as it says, and that its chunks are whole.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageFault> {
    let cut = || damaged("it is shorter than its header says");
    let size = bytes.get(4..8).and_then(|size| size.first_chunk()).ok_or_else(cut)?;
    let end = (u32::from_le_bytes(*size) as usize).checked_add(8).ok_or_else(cut)?;
    let mut rest = bytes.get(12..end).ok_or_else(cut)?;
    let mut has_image = false;
    while !rest.is_empty() {
        let (name, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_le_bytes(*length) as usize;
        match name {
            b"ANIM" | b"ANMF" => return Err(ImageFault::unread("an animated WebP")),
            b"VP8 " | b"VP8L" => has_image = true,
            _ => {}
        }
        // Chunks are padded to an even length.
        rest = after.get(length..).ok_or_else(cut)?;
        rest = rest.get(length % 2..).unwrap_or_default();
    }
    if has_image { Ok(()) } else { Err(damaged("it has no image data")) }
}
