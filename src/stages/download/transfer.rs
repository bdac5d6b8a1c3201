//! Downloads a file by HTTP: with resumption, retries, several mirrors, and a check of the digest.
//!
//! ```text
//! work/<name>.part         the bytes received so far
//! work/<name>.part.json    their origin: address, validator, length of the whole file
//! work/<name>.whole        an answer from the first byte on that may replace the part file, or is no file at all
//! ```
//! Mirrors are not trusted: a file is accepted only if it has the expected digest. Nor is a single answer: a page to sign
//! in or an outdated mirror costs no byte that was received before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::{StatusCode, header};

use super::HttpSource;
use super::answer::{range_start, receive_rest, receive_whole, refused, whole_length};
use super::problem::DownloadCause;
use crate::stages::{Context, StageError};

/// How often an address is tried, and with which timeouts.
pub(super) struct Policy {
    /// Number of attempts per address. Received bytes reset the count, see [`FRESH_START_BYTES`].
    pub(super) tries: u32,
    /// Wait after the first failure. It doubles with each further failure.
    pub(super) first_wait: Duration,
    /// Longest wait, even if the server asks for more (`Retry-After`).
    pub(super) longest_wait: Duration,
    /// Timeout of a connection without data.
    pub(super) silence: Duration,
}

impl Default for Policy {
    /// Chosen: four tries within about four seconds outlast the restart of a proxy, and a dead mirror does not delay
    /// the next one for long.
    fn default() -> Self {
        Self {
            tries: 4,
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(20),
            silence: Duration::from_secs(30),
        }
    }
}

/// Number of new bytes after which the count of failures starts again, so that a large file can be downloaded over a
/// poor connection.
const FRESH_START_BYTES: u64 = 1 << 20;

/// The origin of the bytes in the part file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartState {
    pub(super) url: String,
    /// A strong `ETag` if the server sent one, else `Last-Modified`.
    pub(super) validator: Option<String>,
    /// Length of the whole file.
    pub(super) total: Option<u64>,
}

/// Why an attempt failed.
pub(super) enum FetchFailure {
    /// A failure that may be temporary: try again, after `wait` if the server asked for it.
    Again { message: String, wait: Option<Duration> },
    /// A permanent failure of this address.
    Never(String),
    /// The address leads to something else than the expected file.
    NotTheFile { message: String, cause: DownloadCause },
    /// An error that ends the download, such as cancellation.
    Stop(StageError),
}

impl From<StageError> for FetchFailure {
    fn from(error: StageError) -> Self {
        Self::Stop(error)
    }
}

pub(super) fn again(message: impl Into<String>) -> FetchFailure {
    FetchFailure::Again { message: message.into(), wait: None }
}

/// Downloads `source` into the part file and returns its path. The file has the expected digest.
pub(super) fn obtain(
    source: &HttpSource,
    policy: &Policy,
    context: &Context<'_>,
) -> Result<PathBuf, StageError> {
    let part = context.work.join(format!("{}.part", source.name));
    std::fs::create_dir_all(context.work).map_err(|source| StageError::io("write", context.work, source))?;
    if read_state(&part).total == Some(length(&part)) && source.digest.check(&part, context)?.is_ok() {
        return Ok(part);
    }
    if context.is_offline {
        return Err(StageError::Download {
            url: source.urls.first().cloned().unwrap_or_default(),
            message: "the run is offline".to_owned(),
            cause: DownloadCause::Offline,
        });
    }
    let mut failures = Vec::new();
    for url in &source.urls {
        let (message, cause) = match obtain_from(url, &part, source, policy, context) {
            Ok(()) => return Ok(part),
            Err(FetchFailure::Stop(error)) => return Err(error),
            Err(FetchFailure::NotTheFile { message, cause }) => (message, cause),
            Err(FetchFailure::Again { message, .. } | FetchFailure::Never(message)) => {
                (message, DownloadCause::Unreachable)
            }
        };
        context.progress.log(&format!("`{url}`: {message}"));
        failures.push((url, message, cause));
    }
    Err(refusal(&failures))
}

/// The error of all addresses. Its cause is the first that says more than that nothing answered.
fn refusal(failures: &[(&String, String, DownloadCause)]) -> StageError {
    let mut messages: Vec<String> = failures.iter().take(1).map(|(_, message, _)| message.clone()).collect();
    messages.extend(failures.iter().skip(1).map(|(url, message, _)| format!("`{url}`: {message}")));
    let mut causes = failures.iter().map(|&(_, _, cause)| cause);
    let cause = causes.find(|&cause| cause != DownloadCause::Unreachable);
    let url = failures.first().map_or_else(String::new, |one| one.0.clone());
    let cause = cause.unwrap_or(DownloadCause::Unreachable);
    StageError::Download { url, message: messages.join("; "), cause }
}

/// Downloads from one address and checks the digest. Deletes the part file if the digest is wrong. If a part of it came
/// from an earlier attempt, downloads once more from the first byte.
fn obtain_from(
    url: &str,
    part: &Path,
    source: &HttpSource,
    policy: &Policy,
    context: &Context<'_>,
) -> Result<(), FetchFailure> {
    loop {
        let is_mixed = length(part) > 0;
        transfer(url, part, source, policy, context)?;
        let Err(found) = source.digest.check(part, context)? else { return Ok(()) };
        remove_part(part);
        let message = format!("its digest is `{found}`, not `{}`", source.digest);
        if !is_mixed {
            return Err(FetchFailure::NotTheFile { message, cause: DownloadCause::OtherFile });
        }
        context.progress.log(&format!("{message}: starting over"));
    }
}

/// Downloads the whole file, with retries.
fn transfer(
    url: &str,
    part: &Path,
    source: &HttpSource,
    policy: &Policy,
    context: &Context<'_>,
) -> Result<(), FetchFailure> {
    let request = FileRequest { agent: agent(url, policy, context), url, part, source, context };
    let (mut failures, mut longest) = (0, length(part));
    loop {
        context.check()?;
        let (message, wait) = match request.send(Ask::Rest) {
            Err(FetchFailure::Again { message, wait }) => (message, wait),
            other => return other,
        };
        if length(part) >= longest + FRESH_START_BYTES {
            (failures, longest) = (0, length(part));
        }
        failures += 1;
        if failures >= policy.tries {
            return Err(FetchFailure::Never(format!("{message} ({failures} tries)")));
        }
        context.progress.log(&format!("`{url}`: {message}, trying again at byte {}", length(part)));
        let doubled = policy.first_wait * 2_u32.pow(failures - 1);
        context.sleep(wait.unwrap_or(doubled).min(policy.longest_wait))?;
    }
}

fn agent(url: &str, policy: &Policy, context: &Context<'_>) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(policy.silence))
        .timeout_resolve(Some(policy.silence))
        .timeout_per_read(Some(policy.silence))
        .timeout_per_write(Some(policy.silence))
        .user_agent(concat!("patchflow/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .proxy(proxy(url, context));
    config.build().into()
}

/// Returns the proxy for `url` from the environment variables of the context, if any.
fn proxy(url: &str, context: &Context<'_>) -> Option<ureq::Proxy> {
    // Addresses are ASCII: a value that is no text names no proxy.
    let of = |name: &str| {
        let lower = context.environment.get(&name.to_lowercase());
        let value = lower.or_else(|| context.environment.get(name))?;
        value.to_str().filter(|value| !value.is_empty())
    };
    let scheme = if url.starts_with("https") { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let named = ureq::Proxy::new(of(scheme).or_else(|| of("ALL_PROXY"))?).ok()?;
    let mut builder = ureq::Proxy::builder(named.protocol()).host(named.host()).port(named.port());
    if let (Some(user), Some(password)) = (named.username(), named.password()) {
        builder = builder.username(user).password(password);
    }
    for host in of("NO_PROXY").into_iter().flat_map(|hosts| hosts.split(',')) {
        builder = builder.no_proxy(host.trim());
    }
    builder.build().ok()
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// The bytes after the end of the part file.
    Rest,
    /// The whole file.
    Whole,
}

/// A request for a file, and where its bytes go.
pub(super) struct FileRequest<'a> {
    agent: ureq::Agent,
    pub(super) url: &'a str,
    pub(super) part: &'a Path,
    pub(super) source: &'a HttpSource,
    pub(super) context: &'a Context<'a>,
}

impl FileRequest<'_> {
    /// Sends the request once; again for the whole file if the server does not have the rest of it.
    fn send(&self, ask: Ask) -> Result<(), FetchFailure> {
        let Self { agent, url, part, context, .. } = self;
        let offset = if ask == Ask::Rest { length(part) } else { 0 };
        let state = read_state(part);
        let mut request = agent.get(*url);
        if offset > 0 {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            if let Some(validator) = state.validator.as_ref().filter(|_| state.url == *url) {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let response = request.call().map_err(|error| failed_call(&error))?;
        match response.status() {
            StatusCode::OK => receive_whole(self, response),
            StatusCode::PARTIAL_CONTENT if offset > 0 && range_start(&response) == Some(offset) => {
                context.progress.log(&format!("`{url}`: resumed at byte {offset}"));
                receive_rest(self, response, offset)
            }
            StatusCode::PARTIAL_CONTENT if offset > 0 => {
                self.send_whole("the server sent a different range than requested")
            }
            StatusCode::PARTIAL_CONTENT => Err(again("the server sent a range that was not requested")),
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 && whole_length(&response) == Some(offset) => {
                Ok(())
            }
            StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                self.send_whole("the length of the file has changed")
            }
            status => Err(refused(status, &response)),
        }
    }

    /// Asks for the whole file because of `why`. The part file stays until the answer has proven itself.
    fn send_whole(&self, why: &str) -> Result<(), FetchFailure> {
        self.context.progress.log(&format!("`{}`: {why}: asking for the whole file", self.url));
        self.send(Ask::Whole)
    }
}

fn failed_call(error: &ureq::Error) -> FetchFailure {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects | ureq::Error::InvalidProxyUrl => {
            FetchFailure::Never(error.to_string())
        }
        _ => again(error.to_string()),
    }
}

pub(super) fn length(part: &Path) -> u64 {
    part.metadata().map_or(0, |metadata| metadata.len())
}

/// Returns the path of an answer from the first byte on, beside the part file.
pub(super) fn whole_path(part: &Path) -> PathBuf {
    part.with_extension("whole")
}

fn state_path(part: &Path) -> PathBuf {
    part.with_added_extension("json")
}

pub(super) fn read_state(part: &Path) -> PartState {
    let bytes = std::fs::read(state_path(part)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

pub(super) fn write_state(part: &Path, state: &PartState) -> Result<(), StageError> {
    Ok(crate::artifacts::files::write_json(&state_path(part), state)?)
}

/// Deletes the part file, the file that describes it, and an answer that did not replace it.
pub(super) fn remove_part(part: &Path) {
    for path in [part.to_owned(), state_path(part), whole_path(part)] {
        // A missing file is fine. A file that cannot be deleted causes an error when it is written next.
        let _ = std::fs::remove_file(path);
    }
}
