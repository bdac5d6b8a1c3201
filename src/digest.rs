//! The name of a content: its blake3 hash. Every layer may use it; it uses none.
//!
//! Hashing a file reads it through a buffer rather than through a memory map: a map of a file that
//! someone truncates meanwhile kills the process with SIGBUS, and sources are files that people edit.
//! It costs nothing: 4.3 GB/s through the buffer and 3.6 to 4.2 GB/s through a map (64 and 512 MB, page
//! cache warm, 2 cores shared with other work, 2026-11-24).

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Files up to this size are read whole and hashed on the calling thread (chosen: below it, the threads
/// are better used for other files).
const WHOLE_READ_BYTES: u64 = 1 << 20;

/// Longest buffer for larger files: enough for blake3 to share among threads.
const BUFFER_BYTES: usize = 4 << 20;

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a digest of 64 lower-case hexadecimal digits")]
pub struct ParseDigestError {
    /// The text.
    pub text: String,
}

/// A blake3 hash of 32 bytes, shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes the bytes of a hash as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The blake3 hash of `content`, on several threads where it is long.
    pub fn of_bytes(content: &[u8]) -> Self {
        if content.len() as u64 <= WHOLE_READ_BYTES {
            return Self(blake3::hash(content).into());
        }
        Self(blake3::Hasher::new().update_rayon(content).finalize().into())
    }

    /// The blake3 hash of a file's content; follows symlinks.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        Self::of_open_file(&mut File::open(path)?).map(|(digest, _)| digest)
    }

    /// Hashes from the current position to the end; also returns the number of bytes.
    pub fn of_open_file(file: &mut File) -> io::Result<(Self, u64)> {
        let expected = file.metadata()?.len();
        if expected > WHOLE_READ_BYTES {
            return hash_buffered(file, expected.min(BUFFER_BYTES as u64) as usize);
        }
        let mut content = Vec::with_capacity(expected as usize + 1);
        file.read_to_end(&mut content)?;
        Ok((Self::of_bytes(&content), content.len() as u64))
    }
}

fn hash_buffered(file: &mut File, buffer_bytes: usize) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; buffer_bytes];
    loop {
        let filled = fill(file, &mut buffer)?;
        hasher.update_rayon(&buffer[..filled]);
        if filled < buffer.len() {
            return Ok((Digest(hasher.finalize().into()), hasher.count()));
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self:.12})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Parses exactly 64 lower-case hexadecimal digits. Other spellings are refused, because digests name files.
    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let refuse = || ParseDigestError { text: text.into() };
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(refuse());
        }
        blake3::Hash::from_hex(text).map(|hash| Self(hash.into())).map_err(|_| refuse())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn digests_are_blake3_as_published() {
        // The first two vectors of test_vectors.json of the BLAKE3 repository (input byte i = i mod 251).
        assert_eq!(Digest::of_bytes(&[]).to_string(), EMPTY);
        let one = "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213";
        assert_eq!(Digest::of_bytes(&[0]).to_string(), one);
    }

    #[test]
    fn text_and_serde_round_trip_in_one_spelling() {
        let digest = Digest::of_bytes(b"a");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
        assert!("abc".parse::<Digest>().is_err());
        assert!(serde_json::from_str::<Digest>("\"zz\"").is_err());
    }

    #[test]
    fn files_of_any_size_hash_as_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let whole = WHOLE_READ_BYTES as usize;
        for size in [0, 1, 1000, whole, whole + 1, BUFFER_BYTES, BUFFER_BYTES + 1, 2 * BUFFER_BYTES] {
            let content: Vec<u8> = (0..size).map(|index| (index * 31 % 251) as u8).collect();
            let path = folder.path().join("f");
            std::fs::write(&path, &content).unwrap();
            let expected = Digest(blake3::hash(&content).into());
            assert_eq!(Digest::of_file(&path).unwrap(), expected, "{size}");
            assert_eq!(Digest::of_bytes(&content), expected);
            let counted = Digest::of_open_file(&mut File::open(&path).unwrap()).unwrap().1;
            assert_eq!(counted, size as u64);
        }
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let error = Digest::of_file(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
