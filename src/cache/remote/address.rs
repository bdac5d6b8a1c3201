//! Where a remote is.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;

use super::client::Notes;
use super::connection;
use super::warning::RemoteWarning;
use crate::text::without_secrets;

/// How this machine uses a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteMode {
    /// Fetches results and pushes its own.
    ReadWrite,
    /// Fetches results.
    ReadOnly,
}

/// The kinds of addresses, as help, messages and documents show them.
pub const REMOTE_ADDRESSES: &str = "a folder, file:///folder, s3://bucket/prefix, gs://bucket/prefix, \
                                    az://container/prefix, http://host/folder or https://host/folder";

/// The schemes of [`REMOTE_ADDRESSES`]; a folder needs none.
pub const REMOTE_SCHEMES: [&str; 6] = ["file", "s3", "gs", "az", "http", "https"];

/// The address of a remote, from `patchflow.toml` or the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAddress {
    /// One of [`REMOTE_ADDRESSES`].
    pub url: String,
    /// How it is used.
    pub mode: RemoteMode,
}

impl RemoteAddress {
    /// The address as it is shown and recorded: without passwords and tokens.
    pub fn shown(&self) -> String {
        without_secrets(&self.url).into_owned()
    }
}

/// Why the address of a remote cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum RemoteError {
    #[error("`{scheme}://` is not known; known are {REMOTE_ADDRESSES}")]
    UnknownScheme { scheme: String },
    #[error("it names no {part}")]
    Incomplete { part: &'static str },
    #[error("its client cannot be set up: {failure}")]
    Client { failure: String },
    #[error("its folder cannot be resolved")]
    Folder {
        #[source]
        source: io::Error,
    },
    #[error("its folder `{}` cannot be addressed", path.display())]
    FolderName {
        path: PathBuf,
        #[source]
        source: object_store::path::Error,
    },
    #[error("its thread cannot be started")]
    Thread {
        #[source]
        source: io::Error,
    },
}

/// A remote that is ready to be asked.
pub(super) struct Opened {
    /// Its files.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// What its client notices.
    pub(super) notes: Arc<Notes>,
    /// Why it cannot be used in this run, although its address is right.
    pub(super) warning: Option<RemoteWarning>,
}

/// Creates the client; credentials come from the environment.
pub(super) fn open(address: &RemoteAddress, project: &Path) -> Result<Opened, RemoteError> {
    if let Some(path) = folder_of(&address.url, project) {
        let warning = missing_folder(address.mode, &path);
        let warning = warning.map(|folder| RemoteWarning::NoFolder { address: address.shown(), folder });
        return Ok(Opened { objects: folder(path)?, notes: Arc::default(), warning });
    }
    connection::open(address)
}

/// The folder that an address names; `None` for another kind of remote.
pub(super) fn folder_of(url: &str, project: &Path) -> Option<PathBuf> {
    match url.split_once("://") {
        None => Some(resolved(&project.join(url))),
        Some(("file", path)) => Some(resolved(Path::new(path))),
        Some(_) => None,
    }
}

/// A path without `..`. What exists is resolved by the file system, so that `..` after a link leads out of the folder
/// that the link leads to.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            resolved = resolved.canonicalize().unwrap_or(resolved);
            resolved.pop();
        } else {
            resolved.push(component);
        }
    }
    resolved
}

/// A folder, such as one that a team's machines have mounted. It is created with the first file.
fn folder(path: PathBuf) -> Result<Arc<dyn ObjectStore>, RemoteError> {
    let path = std::path::absolute(path).map_err(|source| RemoteError::Folder { source })?;
    let prefix = object_store::path::Path::from_absolute_path(&path)
        .map_err(|source| RemoteError::FolderName { path, source })?;
    Ok(Arc::new(PrefixStore::new(LocalFileSystem::new(), prefix)))
}

/// The folder whose absence makes a remote unusable: its own if it is only read, else the one that it would be
/// created in.
fn missing_folder(mode: RemoteMode, path: &Path) -> Option<PathBuf> {
    let needed = match mode {
        RemoteMode::ReadOnly => path,
        RemoteMode::ReadWrite if path.exists() => return None,
        RemoteMode::ReadWrite => path.parent()?,
    };
    (!needed.is_dir()).then(|| needed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(url: &str, project: &Path) -> Result<Opened, RemoteError> {
        open(&RemoteAddress { url: url.to_owned(), mode: RemoteMode::ReadWrite }, project)
    }

    #[test]
    fn every_scheme_is_known_shown_and_opened() {
        let project = tempfile::tempdir().unwrap();
        let manual = include_str!("../../../docs/sharing.md");
        for scheme in REMOTE_SCHEMES {
            assert!(REMOTE_ADDRESSES.contains(&format!("{scheme}://")), "{scheme}");
            assert!(manual.contains(&format!("{scheme}://")), "docs/sharing.md has no {scheme}");
            let address =
                format!("{scheme}://{}", if scheme == "file" { "/tmp/a" } else { "example/results" });
            assert!(opened(&address, project.path()).is_ok(), "{address}");
        }
        let error = opened("ftp://host/x", project.path()).err().unwrap().to_string();
        assert!(REMOTE_SCHEMES.iter().all(|scheme| error.contains(scheme)), "{error}");
        for address in ["s3://", "s3:///prefix", "az://", "http://", "http://[/x"] {
            assert!(opened(address, project.path()).is_err(), "{address}");
        }
    }

    #[test]
    fn a_relative_folder_leads_where_the_shell_leads() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("project/deep/er")).unwrap();
        std::os::unix::fs::symlink(root.join("project/deep/er"), root.join("project/link")).unwrap();
        let project = root.join("project");
        for (url, folder) in [
            ("shared", "project/shared"),
            ("./shared", "project/shared"),
            ("../shared", "shared"),
            ("deep/../../shared", "shared"),
            ("new/../shared", "project/shared"),
            ("link/../shared", "project/deep/shared"),
            ("../with space % # ü", "with space % # ü"),
        ] {
            assert_eq!(folder_of(url, &project), Some(root.join(folder)), "{url}");
            assert!(opened(url, &project).is_ok(), "{url}");
        }
        assert_eq!(folder_of("../../..", Path::new("/a")), Some(PathBuf::from("/")));
    }
}
