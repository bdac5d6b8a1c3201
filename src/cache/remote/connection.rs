//! The clients of servers: which variables they read, how long they wait, what they repeat.

use std::env;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::address::{Opened, RemoteAddress, RemoteError};
use super::cause::{RemoteCause, on_line};
use super::client::{Client, Notes};
use super::folders::Folders;
use super::transport::{Rules, TransportConnector};
use super::warning::RemoteWarning;

const CONNECT: Duration = Duration::from_secs(5);

/// How long a failed request is retried.
const RETRY: Duration = Duration::from_secs(10);

/// The longest time without an answer.
const WAIT: Duration = Duration::from_secs(10);

/// The variable with another [`WAIT`], in seconds.
const WAIT_VARIABLE: &str = "PATCHFLOW_REMOTE_TIMEOUT";

/// The longest time without an answer, as the environment has it. Values that are no positive number are ignored.
pub(super) fn longest_wait() -> Duration {
    let seconds = env::var(WAIT_VARIABLE).ok().and_then(|text| text.trim().parse::<f64>().ok());
    seconds.filter(|seconds| *seconds > 0.0 && *seconds < 1e6).map_or(WAIT, Duration::from_secs_f64)
}

/// The factor by which the environment stretches all limits on time.
pub(super) fn stretch() -> f64 {
    longest_wait().as_secs_f64() / WAIT.as_secs_f64()
}

/// Creates the client of a server. A client that cannot be set up with what the environment says is not used.
pub(super) fn open(address: &RemoteAddress) -> Result<Opened, RemoteError> {
    install_crypto_provider();
    let (scheme, rest) = address.url.split_once("://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let notes = Arc::<Notes>::default();
    let settings = Settings { notes: Arc::clone(&notes), address: address.shown() };
    let needed = |part| if bucket.is_empty() { Err(RemoteError::Incomplete { part }) } else { Ok(bucket) };
    let built = match scheme {
        "s3" => settings.s3(needed("bucket")?, prefix),
        "gs" => settings.gs(needed("bucket")?, prefix),
        "az" => settings.az(needed("container")?, prefix),
        "http" | "https" => {
            return Ok(Opened { objects: settings.http(&address.url)?, notes, warning: None });
        }
        other => return Err(RemoteError::UnknownScheme { scheme: other.to_owned() }),
    };
    Ok(match built {
        Ok(objects) => Opened { objects, notes, warning: None },
        Err(error) => {
            let (address, failure) = (settings.address, on_line(&error));
            let cause = RemoteCause::NoCredentials;
            let warning = Some(RemoteWarning::NotConfigured { address, cause, failure });
            Opened { objects: Arc::new(InMemory::new()), notes, warning }
        }
    })
}

/// What the clients have in common.
struct Settings {
    notes: Arc<Notes>,
    address: String,
}

type Built = object_store::Result<Arc<dyn ObjectStore>>;

impl Settings {
    fn s3(&self, bucket: &str, prefix: &str) -> Built {
        let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry());
        let builder = builder.with_client_options(options()).with_http_connector(self.connector(None, None));
        Ok(self.within(builder.build()?, prefix))
    }

    fn gs(&self, bucket: &str, prefix: &str) -> Built {
        let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry());
        let builder = builder.with_client_options(options()).with_http_connector(self.connector(None, None));
        Ok(self.within(builder.build()?, prefix))
    }

    fn az(&self, container: &str, prefix: &str) -> Built {
        let builder = MicrosoftAzureBuilder::from_env().with_container_name(container).with_retry(retry());
        let builder = builder.with_client_options(options()).with_http_connector(self.connector(None, None));
        Ok(self.within(builder.build()?, prefix))
    }

    fn http(&self, url: &str) -> Result<Arc<dyn ObjectStore>, RemoteError> {
        let failed = |failure: String| RemoteError::Client { failure };
        let mut url = Url::parse(url).map_err(|error| failed(error.to_string()))?;
        let authorization = authorization(&url);
        // Without them, since the client shows the address in its errors.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let connector = self.connector(authorization, Some(Folders::new(url.path())));
        let builder = HttpBuilder::new().with_url(url.as_str()).with_retry(retry());
        let builder = builder.with_client_options(options()).with_http_connector(connector);
        let store = builder.build().map_err(|error| failed(on_line(&error)))?;
        Ok(Arc::new(Client::new(store, Arc::clone(&self.notes))))
    }

    fn connector(&self, authorization: Option<HeaderValue>, folders: Option<Folders>) -> TransportConnector {
        TransportConnector(Arc::new(Rules {
            address: self.address.clone(),
            longest_wait: longest_wait(),
            authorization,
            folders,
            is_waiting: AtomicBool::new(false),
        }))
    }

    /// A client, limited to a prefix.
    fn within(&self, store: impl ObjectStore, prefix: &str) -> Arc<dyn ObjectStore> {
        let prefix = prefix.trim_matches('/');
        let notes = Arc::clone(&self.notes);
        if prefix.is_empty() {
            Arc::new(Client::new(store, notes))
        } else {
            Arc::new(Client::new(PrefixStore::new(store, prefix), notes))
        }
    }
}

fn retry() -> RetryConfig {
    let retry_timeout = RETRY.min(longest_wait());
    RetryConfig { max_retries: 2, retry_timeout, ..RetryConfig::default() }
}

fn options() -> ClientOptions {
    let connect = CONNECT.min(longest_wait());
    ClientOptions::new().with_connect_timeout(connect).with_timeout_disabled().with_allow_http(true)
}

/// The header with user and password of a plain HTTP server: those of the address, else those of the environment.
fn authorization(url: &Url) -> Option<HeaderValue> {
    let user = env::var("PATCHFLOW_HTTP_USER").ok();
    if url.username().is_empty() && user.is_none() {
        return None;
    }
    // It takes them from the address by itself.
    let mut request = reqwest::Client::new().get(url.clone());
    if let Some(user) = user.filter(|_| url.username().is_empty()) {
        request = request.basic_auth(user, env::var("PATCHFLOW_HTTP_PASSWORD").ok());
    }
    request.build().ok()?.headers().get(AUTHORIZATION).cloned()
}

/// Makes ring the cryptography of this process's TLS connections.
///
/// `reqwest` is built without a provider of its own (see `Cargo.toml`), so a client cannot be made before this.
fn install_crypto_provider() {
    // `Err` means that the process has a provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
