//! A read-only view of the files of an artifact.
//!
//! A stage sees its inputs as [`Files`]: names within the artifact, each with the path to read and the digest of the
//! content. The executor builds them from the store, or from the user's folder for a source.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ArtifactError;
use crate::digest::Digest;

/// A file of an artifact.
#[derive(Clone, Debug)]
pub struct File {
    /// Path on disk.
    pub path: PathBuf,
    /// Digest of the content; `None` for a file outside of a run that was not hashed.
    pub digest: Option<Digest>,
    /// Length of the content.
    pub size_bytes: u64,
    /// Whether the owner has the permission to execute the file.
    pub is_executable: bool,
}

/// Files ordered by their `/`-separated name within the artifact.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, File>);

impl Files {
    /// Creates a view of (name, file) pairs.
    pub fn new(files: impl IntoIterator<Item = (String, File)>) -> Self {
        Self(files.into_iter().collect())
    }

    /// Lists the files of a folder on disk, without digests. Used for the output of a command, for example.
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

    /// Returns the file with that name.
    pub fn get(&self, name: &str) -> Option<&File> {
        self.0.get(name)
    }

    /// Returns the file with that name.
    ///
    /// # Errors
    /// [`ArtifactError::MissingFile`], naming the `artifact`.
    pub fn require(&self, artifact: &'static str, name: &str) -> Result<&File, ArtifactError> {
        self.get(name).ok_or_else(|| ArtifactError::MissingFile { artifact, file: name.to_owned() })
    }

    /// Returns all files, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &File)> {
        self.0.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl File {
    /// Returns the digest in hexadecimal; empty if the file was not hashed.
    pub fn digest_text(&self) -> String {
        self.digest.map(|digest| digest.to_string()).unwrap_or_default()
    }

    /// Reads the whole file.
    pub fn read(&self) -> Result<Vec<u8>, ArtifactError> {
        std::fs::read(&self.path).map_err(|source| ArtifactError::Io { path: self.path.clone(), source })
    }

    /// Reads a file in the user's folder, which may be edited during a run. Fails if the content does not have the
    /// digest any more, so that no result is ever stored under the digest of other content.
    pub fn read_unchanged(&self) -> Result<Vec<u8>, ArtifactError> {
        let bytes = self.read()?;
        if self.digest.is_some_and(|digest| Digest::of_bytes(&bytes) != digest) {
            return Err(ArtifactError::Changed { path: self.path.clone() });
        }
        Ok(bytes)
    }

    /// Checks that a file in the user's folder, which was read in parts, still has its digest.
    pub fn check_unchanged(&self) -> Result<(), ArtifactError> {
        let Some(digest) = self.digest else { return Ok(()) };
        let found = Digest::of_file(&self.path)
            .map_err(|source| ArtifactError::Io { path: self.path.clone(), source })?;
        if found == digest { Ok(()) } else { Err(ArtifactError::Changed { path: self.path.clone() }) }
    }

    /// Reads the file as JSON.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, ArtifactError> {
        serde_json::from_slice(&self.read()?)
            .map_err(|source| ArtifactError::Json { path: self.path.clone(), source })
    }
}

/// Writes a file, creating parent folders as needed.
pub fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), ArtifactError> {
    let error = |source| ArtifactError::Io { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    std::fs::write(path, bytes).map_err(error)
}

/// Writes JSON with fields in the order of their declaration, indented by two spaces, with a final newline.
pub fn write_json<T: Serialize>(path: &std::path::Path, value: &T) -> Result<(), ArtifactError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|source| ArtifactError::Json { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Returns whether a file is a Git LFS pointer: the short text in the place of a file that was not fetched.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}

/// Formats a field of a CSV file, quoted if necessary (RFC 4180).
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
        file.check_unchanged().unwrap();
        std::fs::write(&path, b"now!").unwrap();
        assert!(matches!(file.read_unchanged(), Err(ArtifactError::Changed { .. })));
        assert!(matches!(file.check_unchanged(), Err(ArtifactError::Changed { .. })));
    }
}
