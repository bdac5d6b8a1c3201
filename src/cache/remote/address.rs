//! Where a remote is, and the client for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

/// How this machine uses a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteMode {
    /// Fetches results and pushes its own.
    ReadWrite,
    /// Fetches results.
    ReadOnly,
}

/// The address of a remote, from `patchflow.toml` or the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAddress {
    /// A folder, or `file://`, `s3://bucket/prefix`, `gs://`, `az://container/prefix`, `http(s)://`.
    pub url: String,
    /// How it is used.
    pub mode: RemoteMode,
}

/// Why the address of a remote cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum RemoteError {
    #[error("`{scheme}://` is not known; a folder, file, s3, gs, az, http and https are")]
    UnknownScheme { scheme: String },
    #[error("its client cannot be set up")]
    Client {
        #[source]
        source: object_store::Error,
    },
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

const CONNECT: Duration = Duration::from_secs(5);
/// A connection is ended after so long without data. The caller bounds the whole time of a file.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a failed request is retried.
const RETRY: Duration = Duration::from_secs(10);

/// Creates the client; credentials come from the environment.
pub(super) fn open(address: &RemoteAddress, project: &Path) -> Result<Arc<dyn ObjectStore>, RemoteError> {
    let url = address.url.as_str();
    if let Some(path) = folder_of(url, project) {
        return folder(&path);
    }
    install_crypto_provider();
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let retry = RetryConfig { max_retries: 2, retry_timeout: RETRY, ..RetryConfig::default() };
    let options = || {
        let options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout_disabled();
        options.with_read_timeout(SILENCE).with_allow_http(true)
    };
    let failed = |source: object_store::Error| RemoteError::Client { source };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            let store = builder.with_retry(retry).with_client_options(options()).build().map_err(failed)?;
            Ok(within(store, prefix))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            let store = builder.with_retry(retry).with_client_options(options()).build().map_err(failed)?;
            Ok(within(store, prefix))
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            let store = builder.with_retry(retry).with_client_options(options()).build().map_err(failed)?;
            Ok(within(store, prefix))
        }
        "http" | "https" => {
            let builder = HttpBuilder::new().with_url(url).with_retry(retry).with_client_options(options());
            Ok(Arc::new(builder.build().map_err(failed)?))
        }
        other => Err(RemoteError::UnknownScheme { scheme: other.to_owned() }),
    }
}

/// Makes ring the cryptography of this process's TLS connections.
///
/// `reqwest` is built without a provider of its own (see `Cargo.toml`), so a client cannot be made before this.
fn install_crypto_provider() {
    // `Err` means that the process has a provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn within(store: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) }
}

/// The folder that an address names; `None` for another kind of remote.
pub(super) fn folder_of(url: &str, project: &Path) -> Option<PathBuf> {
    match url.split_once("://") {
        None => Some(project.join(url)),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    }
}

/// A folder, such as one that a team's machines have mounted. It is created with the first file.
fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, RemoteError> {
    let path = std::path::absolute(path).map_err(|source| RemoteError::Folder { source })?;
    let prefix = object_store::path::Path::from_absolute_path(&path)
        .map_err(|source| RemoteError::FolderName { path, source })?;
    Ok(Arc::new(PrefixStore::new(LocalFileSystem::new(), prefix)))
}

/// The folder whose absence makes a remote unusable: its own if it is only read, else the one that it would be
/// created in.
pub(super) fn missing_folder(address: &RemoteAddress, project: &Path) -> Option<PathBuf> {
    let path = folder_of(&address.url, project)?;
    let needed = match address.mode {
        RemoteMode::ReadOnly => path.as_path(),
        RemoteMode::ReadWrite if path.exists() => return None,
        RemoteMode::ReadWrite => path.parent()?,
    };
    (!needed.is_dir()).then(|| needed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remote_over_tls_gets_a_client() {
        let project = tempfile::tempdir().unwrap();
        for url in ["s3://bucket/results", "gs://bucket/results", "https://example.org/results"] {
            let address = RemoteAddress { url: url.to_owned(), mode: RemoteMode::ReadOnly };
            let client = open(&address, project.path());
            assert!(client.is_ok(), "{url}: {:?}", client.err());
        }
    }
}
