//! Downloads a file by HTTP: with resumption, retries, several mirrors, and a check of the digest.
//!
//! ```text
//! work/<name>.part         the bytes received so far
//! work/<name>.part.json    their origin: address, validator, length of the whole file
//! ```
//! Mirrors are not trusted: a file is accepted only if it has the expected digest.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::http::{Response, StatusCode, header};

use super::HttpSource;
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
struct State {
    url: String,
    /// A strong `ETag` if the server sent one, else `Last-Modified`.
    validator: Option<String>,
    /// Length of the whole file.
    total: Option<u64>,
}

/// Why an attempt failed.
enum Failure {
    /// A failure that may be temporary: try again, after `wait` if the server asked for it.
    Again { message: String, wait: Option<Duration> },
    /// A permanent failure of this address.
    Never(String),
    /// The file at this address has another digest than the expected one.
    OtherFile(String),
    /// An error that ends the download, such as cancellation.
    Stop(StageError),
}

impl From<StageError> for Failure {
    fn from(error: StageError) -> Self {
        Self::Stop(error)
    }
}

fn again(message: impl Into<String>) -> Failure {
    Failure::Again { message: message.into(), wait: None }
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
            help: Some("run once without `--offline`, or use a local copy with `path = \"…\"`".to_owned()),
        });
    }
    let mut failures = Vec::new();
    let mut is_other_file = false;
    for url in &source.urls {
        match obtain_from(url, &part, source, policy, context) {
            Ok(()) => return Ok(part),
            Err(Failure::Stop(error)) => return Err(error),
            Err(Failure::OtherFile(message)) => {
                is_other_file = true;
                failures.push((url, message));
            }
            Err(Failure::Again { message, .. } | Failure::Never(message)) => {
                failures.push((url, message));
            }
        }
        if let Some((url, message)) = failures.last() {
            context.progress.log(&format!("`{url}`: {message}"));
        }
    }
    Err(refusal(&failures, is_other_file))
}

fn refusal(failures: &[(&String, String)], is_other_file: bool) -> StageError {
    let mut messages: Vec<String> = failures.iter().take(1).map(|(_, message)| message.clone()).collect();
    messages.extend(failures.iter().skip(1).map(|(url, message)| format!("`{url}`: {message}")));
    let message = messages.join("; ");
    let help = if is_other_file {
        "the server has a different file: check `digest`, or whether the publisher has changed the file"
    } else {
        "check the address, or download the file by other means and use it with `path = \"…\"`"
    };
    let url = failures.first().map_or_else(String::new, |one| one.0.clone());
    StageError::Download { url, message, help: Some(help.to_owned()) }
}

/// Downloads from one address and checks the digest. Deletes the part file if the digest is wrong. If a part of it came
/// from an earlier attempt, downloads once more from the first byte.
fn obtain_from(
    url: &str,
    part: &Path,
    source: &HttpSource,
    policy: &Policy,
    context: &Context<'_>,
) -> Result<(), Failure> {
    loop {
        let is_mixed = length(part) > 0;
        transfer(url, part, source, policy, context)?;
        let Err(found) = source.digest.check(part, context)? else { return Ok(()) };
        remove_part(part);
        let message = format!("its digest is `{found}`, not `{}`", source.digest);
        if !is_mixed {
            return Err(Failure::OtherFile(message));
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
) -> Result<(), Failure> {
    let agent = agent(url, policy, context);
    let (mut failures, mut longest) = (0, length(part));
    loop {
        context.check()?;
        let (message, wait) = match attempt(&agent, url, part, source.max_size_bytes, context) {
            Err(Failure::Again { message, wait }) => (message, wait),
            other => return other,
        };
        if length(part) >= longest + FRESH_START_BYTES {
            (failures, longest) = (0, length(part));
        }
        failures += 1;
        if failures >= policy.tries {
            return Err(Failure::Never(format!("{message} ({failures} tries)")));
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
    let of = |name: &str| {
        let lower = context.environment.get(&name.to_lowercase());
        lower.or_else(|| context.environment.get(name)).filter(|value| !value.is_empty())
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

/// Sends one request, for the bytes after the end of the part file.
fn attempt(
    agent: &ureq::Agent,
    url: &str,
    part: &Path,
    limit: u64,
    context: &Context<'_>,
) -> Result<(), Failure> {
    let (offset, state) = (length(part), read_state(part));
    let mut request = agent.get(url);
    if offset > 0 {
        request = request.header(header::RANGE, format!("bytes={offset}-"));
        if let Some(validator) = state.validator.as_ref().filter(|_| state.url == url) {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    let response = request.call().map_err(|error| failed_call(&error))?;
    match response.status() {
        StatusCode::OK => receive(response, url, part, 0, limit, context),
        StatusCode::PARTIAL_CONTENT if range_start(&response) == Some(offset) => {
            context.progress.log(&format!("`{url}`: resumed at byte {offset}"));
            receive(response, url, part, offset, limit, context)
        }
        StatusCode::PARTIAL_CONTENT => start_over(part, "the server sent a different range than requested"),
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 && whole_length(&response) == Some(offset) => Ok(()),
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
            start_over(part, "the length of the file has changed")
        }
        status => Err(refused(status, &response)),
    }
}

fn start_over(part: &Path, message: &str) -> Result<(), Failure> {
    remove_part(part);
    Err(again(message))
}

fn failed_call(error: &ureq::Error) -> Failure {
    match error {
        ureq::Error::BadUri(_) | ureq::Error::TooManyRedirects | ureq::Error::InvalidProxyUrl => {
            Failure::Never(error.to_string())
        }
        _ => again(error.to_string()),
    }
}

/// Classifies an error status: temporary (such as overload or a broken gateway) or permanent.
fn refused(status: StatusCode, response: &Response<ureq::Body>) -> Failure {
    let message = format!("the server answered {status}");
    let is_temporary =
        status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) || status.is_redirection();
    if !is_temporary {
        return Failure::Never(message);
    }
    let seconds = text_header(response, &header::RETRY_AFTER).and_then(|text| text.parse().ok());
    Failure::Again { message, wait: seconds.map(Duration::from_secs) }
}

/// Writes the body of the response into the part file, starting at `offset`.
fn receive(
    mut response: Response<ureq::Body>,
    url: &str,
    part: &Path,
    offset: u64,
    limit: u64,
    context: &Context<'_>,
) -> Result<(), Failure> {
    let total = response.body().content_length().map(|length| offset + length);
    if total.is_some_and(|total| total > limit) {
        return Err(too_large(total.unwrap_or_default(), limit));
    }
    write_state(part, &State { url: url.to_owned(), validator: validator(&response), total })?;
    let mut file = open(part, offset).map_err(|source| StageError::io("write", part, source))?;
    let mut reader = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut done = offset;
    loop {
        context.check()?;
        let received = match reader.read(&mut buffer) {
            Ok(received) => received,
            Err(error) => return Err(again(format!("the connection broke: {error}"))),
        };
        if received == 0 {
            break;
        }
        file.write_all(&buffer[..received]).map_err(|source| StageError::io("write", part, source))?;
        done += received as u64;
        context.progress.report(done, total.unwrap_or(0), "byte");
        if done > limit {
            return Err(too_large(done, limit));
        }
    }
    if total.is_some_and(|total| done < total) { Err(again("the connection broke")) } else { Ok(()) }
}

fn too_large(size: u64, limit: u64) -> Failure {
    Failure::Never(format!("it has at least {size} bytes, but `max_size_bytes` allows {limit}"))
}

fn open(part: &Path, offset: u64) -> std::io::Result<File> {
    if offset > 0 {
        return OpenOptions::new().append(true).open(part);
    }
    File::create(part)
}

/// Returns a value for `If-Range`. Weak tags are ignored, because they do not guarantee equal bytes.
fn validator(response: &Response<ureq::Body>) -> Option<String> {
    let tag = text_header(response, &header::ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text_header(response, &header::LAST_MODIFIED)).map(str::to_owned)
}

fn text_header<'a>(response: &'a Response<ureq::Body>, name: &header::HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Returns `a` of `Content-Range: bytes a-b/total`.
fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = text_header(response, &header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// Returns `total` of `Content-Range: bytes */total`.
fn whole_length(response: &Response<ureq::Body>) -> Option<u64> {
    text_header(response, &header::CONTENT_RANGE)?.rsplit_once('/')?.1.trim().parse().ok()
}

fn length(part: &Path) -> u64 {
    part.metadata().map_or(0, |metadata| metadata.len())
}

fn state_path(part: &Path) -> PathBuf {
    part.with_added_extension("json")
}

fn read_state(part: &Path) -> State {
    let bytes = std::fs::read(state_path(part)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn write_state(part: &Path, state: &State) -> Result<(), StageError> {
    Ok(crate::artifacts::files::write_json(&state_path(part), state)?)
}

/// Deletes the part file and the file that describes it.
pub(super) fn remove_part(part: &Path) {
    for path in [part.to_owned(), state_path(part)] {
        // A missing file is fine. A file that cannot be deleted causes an error when it is written next.
        let _ = std::fs::remove_file(path);
    }
}
