//! Errors of the cache. They carry facts; advice is added by the command line.

use std::io;
use std::path::{Path, PathBuf};

use crate::cache::remote::RemoteError;
use crate::cache::tree::PathFlaw;
use crate::digest::Digest;

/// An error of the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The address of the remote cannot be used.
    #[error("cannot use the remote `{address}`")]
    Remote {
        /// The address.
        address: String,
        /// Why it cannot be used.
        #[source]
        source: Box<RemoteError>,
    },
    /// A file or folder could not be opened, listed or read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A file or folder could not be created, written, moved or removed.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A symlink, socket, pipe or device was found where only regular files are allowed.
    #[error("`{}` is a {kind}; only regular files can be stored", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// Its type: `symlink`, for example.
        kind: &'static str,
    },
    /// A file name that is not UTF-8: digests of trees are over UTF-8 paths.
    #[error("the name of `{}` is not UTF-8", path.display())]
    NotUtf8 {
        /// Path of the file; bytes that are not UTF-8 are shown as replacement characters.
        path: PathBuf,
    },
    /// A symlink leads back to a folder that contains it.
    #[error("`{}` links back to `{}`, which contains it", path.display(), ancestor.display())]
    SymlinkLoop {
        /// The link.
        path: PathBuf,
        /// The folder it leads back to.
        ancestor: PathBuf,
    },
    /// A path that a tree must not contain.
    #[error("`{path}` cannot stand in a tree")]
    BadPath {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        #[source]
        flaw: PathFlaw,
    },
    /// A path is given twice in one tree.
    #[error("`{path}` stands twice in one tree")]
    DuplicatePath {
        /// The path.
        path: String,
    },
    /// A path is a file in one entry and a folder in another.
    #[error("`{path}` is both a file and a folder of one tree")]
    FileAndFolder {
        /// The path.
        path: String,
    },
    /// The encoding of a tree is truncated or malformed.
    #[error("the tree is malformed at byte {offset}")]
    BadTree {
        /// Offset in bytes at which reading stopped.
        offset: usize,
    },
    /// An object that is needed is missing.
    #[error("object `{digest}` is not in the cache")]
    Missing {
        /// Digest of the object.
        digest: Digest,
    },
    /// The content of an object does not have the digest that the object is named by.
    #[error("object `{digest}` was damaged and has been moved to the quarantine")]
    Damaged {
        /// Digest of the object.
        digest: Digest,
    },
    /// A file was written to after the stage that made it had ended.
    #[error("`{}` changed while it was being published", path.display())]
    ChangedWhilePublished {
        /// The file.
        path: PathBuf,
    },
    /// A name that no pin can have.
    #[error("`{name}` cannot name a pin")]
    BadPin {
        /// The name.
        name: String,
    },
    /// Another collection is running.
    #[error("{holder} is collecting garbage in this cache")]
    Collecting {
        /// The process that runs it: `process 12 on host`.
        holder: String,
    },
    /// A folder was expected.
    #[error("`{}` is not a folder", path.display())]
    NotAFolder {
        /// Path of what is there instead.
        path: PathBuf,
    },
}

impl CacheError {
    /// Whether this user may not write there, as on a read-only mount.
    pub fn is_write_refused(&self) -> bool {
        let refused = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        matches!(self, Self::Write { source, .. } if refused.contains(&source.kind()))
    }
}

/// Adds the path to an input or output error.
pub(super) trait AtPath<T> {
    /// As [`CacheError::Read`].
    fn reading(self, path: &Path) -> Result<T, CacheError>;
    /// As [`CacheError::Write`].
    fn writing(self, path: &Path) -> Result<T, CacheError>;
}

impl<T, E: Into<io::Error>> AtPath<T> for Result<T, E> {
    fn reading(self, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::Read { path: path.into(), source: source.into() })
    }

    fn writing(self, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::Write { path: path.into(), source: source.into() })
    }
}

/// Turns a failed walk into the error that names the path.
pub(super) fn walk_error(error: walkdir::Error, root: &Path) -> CacheError {
    let path = error.path().unwrap_or(root).to_path_buf();
    if let Some(ancestor) = error.loop_ancestor() {
        return CacheError::SymlinkLoop { path, ancestor: ancestor.into() };
    }
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("the walk failed"));
    CacheError::Read { path, source }
}
