//! The expected digest of a download, and its comparison with a file.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::stages::{Context, StageError};

/// A digest algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Algorithm {
    Blake3,
    Sha256,
    Md5,
}

/// All algorithms with their names and the lengths of their hexadecimal forms.
const ALGORITHMS: [(&str, Algorithm, usize); 3] =
    [("blake3", Algorithm::Blake3, 64), ("sha256", Algorithm::Sha256, 64), ("md5", Algorithm::Md5, 32)];

/// A digest as written in the manifest: `sha256:…`, `blake3:…` or `md5:…`.
///
/// MD5 is supported because some publishers of data sets provide no other digest. It detects damage, not manipulation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    algorithm: Algorithm,
    hex: String,
}

impl Expected {
    /// Parses `algorithm:hexadecimal`. The error describes the problem.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(format!("`{text}` does not name its algorithm"));
        };
        let Some(&(_, algorithm, length)) = ALGORITHMS.iter().find(|(known, ..)| *known == name) else {
            return Err(format!("`{name}` is not a known digest"));
        };
        if hex.len() != length || !hex.bytes().all(|letter| letter.is_ascii_hexdigit()) {
            return Err(format!("a {name} digest has {length} hexadecimal digits, not `{hex}`"));
        }
        Ok(Self { algorithm, hex: hex.to_ascii_lowercase() })
    }

    /// Expects the first digits of a SHA-256, as in the file names of torchvision. They detect damage and other
    /// versions, not manipulation.
    pub(super) fn sha256_prefix(digits: &str) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: digits.to_ascii_lowercase() }
    }

    /// Stands for a digest that could not be parsed. It matches no file.
    pub(super) fn unknown() -> Self {
        Self { algorithm: Algorithm::Blake3, hex: String::new() }
    }

    /// Compares with the digest of the file at `path`. The inner error holds the digest of the file if they differ.
    pub(super) fn check(&self, path: &Path, context: &Context<'_>) -> Result<Result<(), Self>, StageError> {
        let error = |source| StageError::io("read", path, source);
        let mut file = File::open(path).map_err(error)?;
        let mut hasher = Hasher::new(self.algorithm);
        let mut buffer = vec![0; 1 << 20];
        loop {
            context.check()?;
            match file.read(&mut buffer).map_err(error)? {
                0 => break,
                length => hasher.update(&buffer[..length]),
            }
        }
        let found = Self { algorithm: self.algorithm, hex: hasher.finish() };
        let is_equal = !self.hex.is_empty() && found.hex.starts_with(&self.hex);
        Ok(if is_equal { Ok(()) } else { Err(found) })
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            ALGORITHMS.iter().find(|&&(_, known, _)| known == self.algorithm).map_or("", |known| known.0);
        write!(formatter, "{name}:{}", self.hex)
    }
}

enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
    Md5(md5::Md5),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Blake3 => Self::Blake3(Box::default()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Blake3(hasher) => hasher.finalize().to_hex().to_string(),
            Self::Sha256(hasher) => hexadecimal(&hasher.finalize()),
            Self::Md5(hasher) => hexadecimal(&hasher.finalize()),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes every write");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_written_alike() {
        let text = "md5:1ed0f628122776ace4965afa30dfe316";
        assert_eq!(Expected::parse(text).unwrap().to_string(), text);
        assert_eq!(Expected::parse(&text.to_uppercase()), Err("`MD5` is not a known digest".into()));
        let upper = format!("sha256:{}", "AB".repeat(32));
        assert_eq!(Expected::parse(&upper).unwrap().to_string(), upper.to_lowercase().replace("SHA", "sha"));
    }

    #[test]
    fn malformed_digests_say_what_is_wrong() {
        assert!(Expected::parse("abc").unwrap_err().contains("algorithm"));
        assert!(Expected::parse("crc32:abcd").unwrap_err().contains("not a known"));
        assert!(Expected::parse("md5:12").unwrap_err().contains("32 hexadecimal"));
        assert!(Expected::parse(&format!("md5:{}", "g".repeat(32))).is_err());
    }

    #[test]
    fn hashes_are_the_published_ones() {
        let digest = |algorithm| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"abc");
            hasher.finish()
        };
        assert_eq!(digest(Algorithm::Md5), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            digest(Algorithm::Sha256),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            digest(Algorithm::Blake3),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
    }
}
