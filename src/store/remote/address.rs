//! Where a remote is, and the client for it.

use std::path::Path;
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
const REQUEST: Duration = Duration::from_mins(5);
/// How long a request that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Makes the client; credentials come from the environment.
pub(super) fn open(address: &RemoteAddress, project: &Path) -> Result<Arc<dyn ObjectStore>, String> {
    let url = address.url.as_str();
    let Some((scheme, rest)) = url.split_once("://") else { return folder(&project.join(url), address.mode) };
    let retry = RetryConfig { max_retries: 2, retry_timeout: RETRY, ..RetryConfig::default() };
    let options =
        || ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST).with_allow_http(true);
    let told = |error: object_store::Error| super::chain(&error);
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match scheme {
        "file" => folder(Path::new(rest), address.mode),
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

/// A folder, such as one that a team's machines have mounted. Only who writes makes it.
fn folder(path: &Path, mode: RemoteMode) -> Result<Arc<dyn ObjectStore>, String> {
    if mode == RemoteMode::ReadWrite {
        std::fs::create_dir_all(path).map_err(|error| format!("cannot make the folder: {error}"))?;
    }
    let store = LocalFileSystem::new_with_prefix(path).map_err(|error| super::chain(&error))?;
    Ok(Arc::new(store))
}
