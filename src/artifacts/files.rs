//! A read-only view of an artifact's files, wherever each of them lies.
//!
//! A stage sees its inputs as [`Files`]: names within the artifact, each with the path to read and the
//! digest of its content. The executor makes them from the store or, for a source, from the user's folder.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ArtifactError;
use crate::digest::Digest;

/// One file of an artifact.
#[derive(Clone, Debug)]
pub struct File {
    /// Where its bytes can be read.
    pub path: PathBuf,
    /// Digest of its content; `None` for a file outside a run that was not hashed.
    pub digest: Option<Digest>,
    /// Its length.
    pub size_bytes: u64,
    /// Whether its owner may execute it.
    pub is_executable: bool,
}

/// Files by their name within the artifact, `/`-separated, in order.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, File>);

impl Files {
    /// Gathers files.
    pub fn new(files: impl IntoIterator<Item = (String, File)>) -> Self {
        Self(files.into_iter().collect())
    }

    /// Lists a folder on disk, without digests: for tests and for tools outside a run.
    pub fn of_folder(folder: &std::path::Path) -> Result<Self, ArtifactError> {
        let mut files = BTreeMap::new();
        for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
            let entry = entry.map_err(|source| ArtifactError::Io {
                path: source.path().unwrap_or(folder).to_owned(),
                source: source.into(),
            })?;
            if entry.file_type().is_file() {
                let name = entry.path().strip_prefix(folder).unwrap_or(entry.path());
                let size_bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                let is_executable = false;
                let file = File { path: entry.path().to_owned(), digest: None, size_bytes, is_executable };
                files.insert(name.to_string_lossy().replace('\\', "/"), file);
            }
        }
        Ok(Self(files))
    }

    /// The file of that name.
    pub fn get(&self, name: &str) -> Option<&File> {
        self.0.get(name)
    }

    /// The file of that name, or an error that names the artifact.
    pub fn require(&self, artifact: &'static str, name: &str) -> Result<&File, ArtifactError> {
        self.get(name).ok_or_else(|| ArtifactError::MissingFile { artifact, file: name.to_owned() })
    }

    /// All files, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl File {
    /// The hexadecimal digest of its content; empty if it was not hashed.
    pub fn digest_text(&self) -> String {
        self.digest.map(|digest| digest.to_string()).unwrap_or_default()
    }

    /// Reads the whole file.
    pub fn read(&self) -> Result<Vec<u8>, ArtifactError> {
        std::fs::read(&self.path).map_err(|source| ArtifactError::Io { path: self.path.clone(), source })
    }

    /// Reads a file of the user's, which anyone may edit meanwhile: fails if the bytes are not those that were
    /// hashed, so that nothing is ever kept under the digest of other bytes.
    pub fn read_unchanged(&self) -> Result<Vec<u8>, ArtifactError> {
        let bytes = self.read()?;
        if self.digest.is_some_and(|digest| Digest::of_bytes(&bytes) != digest) {
            return Err(ArtifactError::Changed { path: self.path.clone() });
        }
        Ok(bytes)
    }

    /// Reads the file as JSON.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, ArtifactError> {
        serde_json::from_slice(&self.read()?)
            .map_err(|source| ArtifactError::Json { path: self.path.clone(), source })
    }
}

/// Writes bytes, making the folders above them.
pub fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    let error = |source| ArtifactError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    std::fs::write(path, bytes).map_err(error)
}

/// Writes JSON with sorted struct fields as declared, two spaces, and a closing newline.
pub fn write_json<T: Serialize>(path: &std::path::Path, value: &T) -> Result<(), ArtifactError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| ArtifactError::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// A field of a CSV file, quoted where it must be (RFC 4180).
pub fn csv_field(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_other_than_those_hashed_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"then").unwrap();
        let digest = Some(Digest::of_bytes(b"then"));
        let file = File { path: path.clone(), digest, size_bytes: 4, is_executable: false };
        assert_eq!(file.read_unchanged().unwrap(), b"then");
        std::fs::write(&path, b"now!").unwrap();
        assert!(matches!(file.read_unchanged(), Err(ArtifactError::Changed { .. })));
    }
}
