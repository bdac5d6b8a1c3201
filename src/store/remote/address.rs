//! Where a remote is, and the client for it.

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

/// What this machine does with a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteMode {
    /// Takes results from it, and puts its own there.
    ReadWrite,
    /// Takes results from it.
    ReadOnly,
}

/// A remote, as `patchflow.toml` or the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteAddress {
    /// A folder, or `file://`, `s3://bucket/prefix`, `gs://`, `az://container/prefix`, `http(s)://`.
    pub url: String,
    /// What is done with it.
    pub mode: RemoteMode,
}

const CONNECT: Duration = Duration::from_secs(5);
/// A connection over which nothing comes for so long is ended. A file's whole time is bounded by who asks.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a request that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Makes the client; credentials come from the environment.
pub(super) fn open(address: &RemoteAddress, project: &Path) -> Result<Arc<dyn ObjectStore>, String> {
    let url = address.url.as_str();
    if let Some(path) = folder_of(url, project) {
        return folder(&path);
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    let retry = RetryConfig { max_retries: 2, retry_timeout: RETRY, ..RetryConfig::default() };
    let options = || {
        let options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout_disabled();
        options.with_read_timeout(SILENCE).with_allow_http(true)
    };
    let told = |error: object_store::Error| super::chain(&error);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
            let store = builder.with_retry(retry).with_client_options(options()).build().map_err(told)?;
            Ok(within(store, prefix))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
            let store = builder.with_retry(retry).with_client_options(options()).build().map_err(told)?;
            Ok(within(store, prefix))
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket);
            let store = builder.with_retry(retry).with_client_options(options()).build().map_err(told)?;
            Ok(within(store, prefix))
        }
        "http" | "https" => {
            let builder = HttpBuilder::new().with_url(url).with_retry(retry).with_client_options(options());
            Ok(Arc::new(builder.build().map_err(told)?))
        }
        other => Err(format!("`{other}://` is not known; a folder, file, s3, gs, az, http and https are")),
    }
}

fn within(store: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
    let prefix = prefix.trim_matches('/');
    if prefix.is_empty() { Arc::new(store) } else { Arc::new(PrefixStore::new(store, prefix)) }
}

/// The folder that an address names.
fn folder_of(url: &str, project: &Path) -> Option<PathBuf> {
    match url.split_once("://") {
        None => Some(project.join(url)),
        Some(("file", path)) => Some(PathBuf::from(path)),
        Some(_) => None,
    }
}

/// A folder, such as one that a team's machines have mounted. It is made when the first file is put there.
fn folder(path: &Path) -> Result<Arc<dyn ObjectStore>, String> {
    let path = std::path::absolute(path).map_err(|error| format!("cannot tell where it is: {error}"))?;
    let place = object_store::path::Path::from_absolute_path(&path).map_err(|error| super::chain(&error))?;
    Ok(Arc::new(PrefixStore::new(LocalFileSystem::new(), place)))
}

/// Why a folder cannot be used today: it is only read and not there, or the folder that it would be made in is not.
pub(super) fn absence(address: &RemoteAddress, project: &Path) -> Option<String> {
    let path = folder_of(&address.url, project)?;
    let needed = match address.mode {
        RemoteMode::ReadOnly => path.as_path(),
        RemoteMode::ReadWrite if path.exists() => return None,
        RemoteMode::ReadWrite => path.parent()?,
    };
    (!needed.is_dir()).then(|| format!("there is no folder `{}`", needed.display()))
}
