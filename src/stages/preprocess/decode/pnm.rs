//! Checks the header of a PNM file (`P1` to `P7`), and its largest level.

use image::codecs::pnm::PnmDecoder;

use super::ImageFault;
use super::fault::damaged;

/// Checks that the file can have as many pixels as its header says.
pub(super) fn check(bytes: &[u8]) -> Result<(), ImageFault> {
    let (_, header) = PnmDecoder::new(bytes)?.into_inner();
    let pixels = u64::from(header.width()) * u64::from(header.height());
    // The smallest pixel has one bit.
    if pixels / 8 > bytes.len() as u64 {
        return Err(damaged("it is shorter than its header says"));
    }
    // Levels as text: if no space follows the last one, digits may be missing.
    let is_text = matches!(bytes, [_, b'2' | b'3', ..]);
    if is_text && !bytes.last().is_some_and(u8::is_ascii_whitespace) {
        return Err(damaged("it ends within its last level"));
    }
    Ok(())
}

/// Returns whether its levels go up to 65535. If the header states a smaller level as the largest one, the decoder
/// scales by it, and nothing is unknown.
pub(super) fn is_deep(header: &[u8]) -> bool {
    PnmDecoder::new(header).is_ok_and(|decoder| decoder.into_inner().1.maximal_sample() == 65535)
}
