//! What every HTTP request to a remote goes through, below the client of its kind.
//!
//! It bounds the time without an answer, turns every answer that is not the one asked for into a [`Refusal`], says
//! so when a server keeps everything waiting, adds the user and password of a plain HTTP remote, and makes missing
//! folders of a WebDAV server. The clients above repeat what failed for a moment.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};

use super::cause::RemoteCause;
use super::folders::Folders;
use super::refusal::{READ, Refusal};

/// Time without an answer after which the user is informed.
const NOTICE: Duration = Duration::from_secs(2);

/// Bytes a second that an upload makes at least.
const SLOWEST_UPLOAD: u64 = 100_000;

/// The longest time for the service that gives credentials to machines of a cloud. It is on the same machine.
const METADATA: Duration = Duration::from_secs(2);

/// Hosts that give credentials to machines of a cloud.
const METADATA_HOSTS: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "metadata.google.internal", "metadata"];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::enum_variant_names, reason = "each says what there is none of")]
pub(super) enum TransportError {
    #[error("no answer in {} s", seconds(*limit))]
    NoAnswer { limit: Duration },
    #[error("no credentials in the environment, and this machine has no role in a cloud")]
    NoCredentials,
    #[error("the server has no folder `{folder}`, and does not make it ({answer})")]
    NoFolder { folder: String, answer: String },
}

impl TransportError {
    /// What stands behind it.
    pub(super) fn cause(&self) -> RemoteCause {
        match self {
            Self::NoAnswer { .. } => RemoteCause::NoAnswer,
            Self::NoCredentials => RemoteCause::NoCredentials,
            Self::NoFolder { .. } => RemoteCause::NoFolder,
        }
    }
}

fn seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        limit.as_secs().to_string()
    } else {
        format!("{:.1}", limit.as_secs_f64())
    }
}

/// How requests of one remote are made.
#[derive(Debug)]
pub(super) struct Rules {
    /// The address, as it is shown.
    pub(super) address: String,
    /// The longest time without an answer, or without further data of one.
    pub(super) longest_wait: Duration,
    /// User and password of a plain HTTP server.
    pub(super) authorization: Option<HeaderValue>,
    /// The folders of a WebDAV server.
    pub(super) folders: Option<Folders>,
    /// Whether the user was informed of the present wait.
    pub(super) is_waiting: AtomicBool,
}

/// Makes the clients of one remote.
#[derive(Debug, Clone)]
pub(super) struct TransportConnector(pub(super) Arc<Rules>);

impl HttpConnector for TransportConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let connector = ReqwestConnector::default();
        // The limit on reading begins with the request, so that it would end long uploads.
        let reads = options.clone().with_read_timeout(self.0.longest_wait);
        Ok(HttpClient::new(Transport {
            reads: connector.connect(&reads)?,
            writes: connector.connect(options)?,
            rules: Arc::clone(&self.0),
        }))
    }
}

/// See the module.
#[derive(Debug)]
struct Transport {
    reads: HttpClient,
    writes: HttpClient,
    rules: Arc<Rules>,
}

type PendingAnswer<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'a>>;

impl HttpService for Transport {
    fn call<'life0, 'async_trait>(&'life0 self, request: HttpRequest) -> PendingAnswer<'async_trait>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.answer(request))
    }
}

impl Transport {
    async fn answer(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(authorization) = &self.rules.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        if request.uri().host().is_some_and(|host| METADATA_HOSTS.contains(&host)) {
            return self.ask_for_credentials(request).await;
        }
        let method = request.method().clone();
        let folders = self.rules.folders.as_ref().filter(|_| method == Method::PUT);
        let again = folders.map(|_| request.clone());
        let mut answer = self.send(request).await?;
        if let (Some(folders), Some(again)) = (folders, again)
            && Folders::may_be_missing(answer.status())
        {
            let send = |request| self.send(request);
            folders.make_for(&again, send).await?;
            answer = self.send(again).await?;
            if Folders::may_be_missing(answer.status()) {
                return Err(folders.still_missing(refused(&method, answer).await));
            }
        }
        judge(&method, answer, self.rules.longest_wait).await
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let upload = Duration::from_secs(request.body().content_length() as u64 / SLOWEST_UPLOAD);
        let limit = self.rules.longest_wait + upload;
        let mut answer = pin!((if is_read { &self.reads } else { &self.writes }).execute(request));
        let notice = NOTICE.min(self.rules.longest_wait / 2) + upload;
        let answer = if let Ok(answer) = tokio::time::timeout(notice, &mut answer).await {
            answer
        } else {
            self.inform(limit);
            let rest = limit.saturating_sub(notice);
            tokio::time::timeout(rest, answer).await.unwrap_or_else(|_| Err(no_answer(limit)))
        };
        self.rules.is_waiting.store(false, Ordering::Relaxed);
        // The client above would repeat a request that ran out of time, and wait as long again.
        answer.map_err(|error| if error.kind() == HttpErrorKind::Timeout { no_answer(limit) } else { error })
    }

    /// Informs the user that a server keeps requests waiting, once for each silence.
    fn inform(&self, limit: Duration) {
        if !self.rules.is_waiting.swap(true, Ordering::Relaxed) {
            let address = &self.rules.address;
            tracing::warn!("waiting for `{address}`, which does not answer: {} s at most", seconds(limit));
        }
    }

    async fn ask_for_credentials(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let none = || HttpError::new(HttpErrorKind::Unknown, TransportError::NoCredentials);
        match tokio::time::timeout(METADATA, self.reads.execute(request)).await {
            Ok(Ok(answer)) if answer.status().is_success() => Ok(answer),
            _ => Err(none()),
        }
    }
}

fn no_answer(limit: Duration) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, TransportError::NoAnswer { limit })
}

/// Decides what an answer means to the client above.
async fn judge(
    method: &Method,
    answer: HttpResponse,
    longest_wait: Duration,
) -> Result<HttpResponse, HttpError> {
    let status = answer.status();
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match status.as_u16() {
        200..=299 | 304 => Ok(answer),
        // Clients take these apart themselves. They show the body, so it is left out.
        404 | 409 | 412 | 416 => known(answer).await,
        // Some servers answer so to a question for a folder.
        405 if is_read => known(answer).await,
        429 | 503 => {
            let wanted = retry_after(&answer);
            let error = refused(method, answer).await;
            match wanted {
                Some(wanted) if wanted > longest_wait / 5 => Err(lasting(error)),
                Some(wanted) => {
                    tokio::time::sleep(wanted).await;
                    Err(error)
                }
                None => Err(error),
            }
        }
        _ => Err(refused(method, answer).await),
    }
}

/// An answer that the client above understands by its status, unless its code says more.
async fn known(answer: HttpResponse) -> Result<HttpResponse, HttpError> {
    let (parts, body) = answer.into_parts();
    let refusal = read(parts.status, header_code(&parts.headers), body).await;
    if refusal.cause() == RemoteCause::NoBucket || refusal.is_archived() {
        return Err(HttpError::new(HttpErrorKind::Unknown, refusal));
    }
    Ok(HttpResponse::from_parts(parts, Vec::new().into()))
}

/// The error of an answer: one that the client above repeats if the server may have failed for a moment.
async fn refused(method: &Method, answer: HttpResponse) -> HttpError {
    let (parts, body) = answer.into_parts();
    let refusal = read(parts.status, header_code(&parts.headers), body).await;
    let is_lasting = !matches!(parts.status.as_u16(), 408 | 429 | 500 | 502..=504);
    let is_repeated = *method != Method::POST && !is_lasting;
    HttpError::new(if is_repeated { HttpErrorKind::Request } else { HttpErrorKind::Unknown }, refusal)
}

/// The same error, not to be repeated.
fn lasting(error: HttpError) -> HttpError {
    let refusal = Refusal::of(&error).cloned();
    refusal.map_or(error, |refusal| HttpError::new(HttpErrorKind::Unknown, refusal))
}

/// Reads the beginning of an answer. A body that breaks off is read up to there.
async fn read(
    status: StatusCode,
    code: Option<String>,
    body: object_store::client::HttpResponseBody,
) -> Refusal {
    let mut stream = body.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(Ok(part)) = stream.next().await {
        bytes.extend_from_slice(&part);
        if bytes.len() >= READ {
            break;
        }
    }
    Refusal::read(status, code.as_deref(), &bytes)
}

/// The error code of Azure, which stands in a header, so that answers to HEAD have it too.
fn header_code(headers: &reqwest::header::HeaderMap) -> Option<String> {
    headers.get("x-ms-error-code").and_then(|code| code.to_str().ok()).map(str::to_owned)
}

/// How long the server wants no request.
fn retry_after(answer: &HttpResponse) -> Option<Duration> {
    let wanted = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    wanted.trim().parse().ok().map(Duration::from_secs)
}
