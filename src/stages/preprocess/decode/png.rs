//! Checks the chunks of a PNG file (ISO/IEC 15948, clause 5).

use std::io::BufRead;

use super::ImageFault;
use super::fault::{damaged, unreadable};

/// The first bytes of a file.
pub(super) const SIGNATURE: &[u8; 8] = b"\x89PNG\r\n\x1a\n";
/// Position of the bits per level.
const BITS: usize = 24;
/// Bytes of a header.
const HEADER_BYTES: usize = 13;
/// Longest palette: 256 colours.
const PALETTE_BYTES: usize = 768;

/// Checks that a file is whole up to its last chunk, and that every chunk has its checksum. The decoder passes over
/// wrong checksums of some chunks, and needs no last chunk.
pub(super) fn check(mut bytes: &[u8]) -> Result<(), ImageFault> {
    read_chunks(&mut bytes).map(drop)
}

/// Checks a file as [`check`]. Returns the chunks that say what the levels mean, each with its name: header, palette,
/// transparency.
pub(super) fn read_chunks(file: &mut impl BufRead) -> Result<Vec<Vec<u8>>, ImageFault> {
    let signature: [u8; 8] = take(file)?;
    if signature != *SIGNATURE {
        return Err(damaged("its first bytes are not those of a PNG"));
    }
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut has_data = false;
    loop {
        let length = u32::from_be_bytes(take(file)?);
        let name: [u8; 4] = take(file)?;
        let most = match &name {
            b"IHDR" => HEADER_BYTES,
            b"PLTE" | b"tRNS" => PALETTE_BYTES,
            b"acTL" => return Err(ImageFault::unread("an animated PNG")),
            _ => 0,
        };
        let (content, sum) = read_content(file, name, length as usize, most)?;
        if sum != u32::from_be_bytes(take(file)?) {
            return Err(damaged("a checksum does not fit"));
        }
        match &name {
            b"IHDR" if length as usize != HEADER_BYTES => return Err(damaged("its header is cut off")),
            b"IHDR" | b"PLTE" | b"tRNS" if !has_data => kept.push(content),
            b"IDAT" => has_data = true,
            b"IEND" if kept.first().is_some_and(|first| first.starts_with(b"IHDR")) => return Ok(kept),
            _ => {}
        }
    }
}

/// Returns the name and at most `most` bytes of a chunk, and the checksum of all of it.
fn read_content(
    file: &mut impl BufRead,
    name: [u8; 4],
    mut length: usize,
    most: usize,
) -> Result<(Vec<u8>, u32), ImageFault> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&name);
    let mut content = name.to_vec();
    while length > 0 {
        let buffer = file.fill_buf().map_err(|error| unreadable(error, CUT))?;
        if buffer.is_empty() {
            return Err(damaged(CUT));
        }
        let part = &buffer[..buffer.len().min(length)];
        sum.update(part);
        let kept = part.len().min(most + 4 - content.len());
        content.extend_from_slice(&part[..kept]);
        let read = part.len();
        file.consume(read);
        length -= read;
    }
    Ok((content, sum.finalize()))
}

const CUT: &str = "it ends before its last chunk";

fn take<const N: usize>(file: &mut impl BufRead) -> Result<[u8; N], ImageFault> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes).map_err(|error| unreadable(error, CUT))?;
    Ok(bytes)
}

/// Appends a chunk to a file.
pub(super) fn chunk(file: &mut Vec<u8>, name: &[u8], content: &[u8]) {
    file.extend((content.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend_from_slice(name);
    file.extend_from_slice(content);
    let sum = crc32fast::hash(&file[start..]);
    file.extend(sum.to_be_bytes());
}

pub(super) fn is_deep(bytes: &[u8]) -> bool {
    bytes.get(BITS) == Some(&16)
}
