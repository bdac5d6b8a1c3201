//! An answer of a server: what it says about itself, and its body.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use ureq::ResponseExt;
use ureq::http::{Response, StatusCode, header};

use super::content::{FileContent, START_BYTES, is_text};
use super::problem::DownloadCause;
use super::transfer::{
    FetchFailure, FileRequest, PartState, again, length, read_state, whole_path, write_state,
};
use crate::stages::StageError;

/// Classifies an error status: temporary (such as overload or a broken gateway) or permanent.
pub(super) fn refused(status: StatusCode, response: &Response<ureq::Body>) -> FetchFailure {
    let message = format!("the server answered {status}");
    let is_temporary =
        status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) || status.is_redirection();
    if !is_temporary {
        return FetchFailure::Never(message);
    }
    let seconds = text_header(response, &header::RETRY_AFTER).and_then(|text| text.parse().ok());
    FetchFailure::Again { message, wait: seconds.map(Duration::from_secs) }
}

/// Appends the body of an answer to the part file, which has `offset` bytes.
pub(super) fn receive_rest(
    request: &FileRequest<'_>,
    mut response: Response<ureq::Body>,
    offset: u64,
) -> Result<(), FetchFailure> {
    let state = state_of(request, &response, offset)?;
    write_state(request.part, &state)?;
    let reader = response.body_mut().as_reader();
    write_body(request, reader, request.part, offset, state.total)
}

/// Receives an answer that begins with the first byte. Its bytes become the part file at once if there is none and they
/// could be the file; else only once they have the expected digest, or are more than the part file has.
pub(super) fn receive_whole(
    request: &FileRequest<'_>,
    mut response: Response<ureq::Body>,
) -> Result<(), FetchFailure> {
    let state = state_of(request, &response, 0)?;
    let is_html =
        text_header(&response, &header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
    let at = final_address(request.url, &response);
    let body = Body::begin(response.body_mut().as_reader());
    let found = FileContent::of(&body.start);
    let stand_in = match found {
        Some(found) if found.is_stand_in() => Some(found),
        None if is_html && is_text(&body.start) => Some(FileContent::WebPage { title: None }),
        _ => None,
    };
    let part = request.part;
    if stand_in.is_none() && length(part) == 0 {
        write_state(part, &state)?;
        return write_body(request, body, part, 0, state.total);
    }
    let whole = whole_path(part);
    let received = write_body(request, body, &whole, 0, state.total).and_then(|()| check(request, &whole));
    let is_taken = match &received {
        Ok(()) => true,
        Err(FetchFailure::Again { .. }) => stand_in.is_none() && is_better(part, &state, length(&whole)),
        Err(_) => false,
    };
    if is_taken {
        write_state(part, &state)?;
        std::fs::rename(&whole, part).map_err(|source| StageError::io("write", part, source))?;
        return received;
    }
    // An answer that cannot be removed is overwritten by the next one.
    let _ = std::fs::remove_file(&whole);
    match (stand_in, received) {
        (Some(stand_in), Err(FetchFailure::NotTheFile { .. })) => Err(no_file(&stand_in, at)),
        (_, received) => received,
    }
}

/// Checks the digest of a whole answer.
fn check(request: &FileRequest<'_>, whole: &Path) -> Result<(), FetchFailure> {
    let expected = &request.source.digest;
    expected.check(whole, request.context)?.map_err(|found| FetchFailure::NotTheFile {
        message: format!("its digest is `{found}`, not `{expected}`"),
        cause: DownloadCause::OtherFile,
    })
}

/// Returns whether an incomplete answer is worth more than the part file: it has more bytes, or the server says that the
/// file is not the one of the part file any more.
fn is_better(part: &Path, fresh: &PartState, bytes: u64) -> bool {
    let old = read_state(part);
    let has_changed = old.url == fresh.url
        && old.validator.is_some()
        && fresh.validator.is_some()
        && old.validator != fresh.validator;
    bytes > length(part) || has_changed
}

fn no_file(stand_in: &FileContent, at: Option<String>) -> FetchFailure {
    let at = at.map(|at| format!(" at `{at}`")).unwrap_or_default();
    let cause =
        if *stand_in == FileContent::LfsPointer { DownloadCause::LfsPointer } else { DownloadCause::WebPage };
    FetchFailure::NotTheFile {
        message: format!("the server answered with {stand_in}{at}, not with the file"),
        cause,
    }
}

/// Returns the address to which the server redirected, without its query, which may hold a secret. `None` if it did not.
fn final_address(url: &str, response: &Response<ureq::Body>) -> Option<String> {
    let uri = response.get_uri();
    let plain = |address: &str| address.split(['?', '#']).next().unwrap_or_default().to_owned();
    let at = plain(&uri.to_string());
    (at != plain(url)).then_some(at)
}

/// Describes the bytes of an answer that begins at `offset`.
fn state_of(
    request: &FileRequest<'_>,
    response: &Response<ureq::Body>,
    offset: u64,
) -> Result<PartState, FetchFailure> {
    let total = response.body().content_length().map(|length| offset + length);
    let limit = request.source.max_size_bytes;
    match total {
        Some(total) if total > limit => Err(too_large(total, limit)),
        _ => Ok(PartState { url: request.url.to_owned(), validator: validator(response), total }),
    }
}

/// Writes a body into the file at `path`, starting at `offset`.
fn write_body(
    request: &FileRequest<'_>,
    mut body: impl Read,
    path: &Path,
    offset: u64,
    total: Option<u64>,
) -> Result<(), FetchFailure> {
    let FileRequest { source, context, .. } = request;
    let failed = |source| StageError::io("write", path, source);
    let mut file = open(path, offset).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    let mut done = offset;
    loop {
        context.check()?;
        let received = match body.read(&mut buffer) {
            Ok(received) => received,
            Err(error) => return Err(again(format!("the connection broke: {error}"))),
        };
        if received == 0 {
            break;
        }
        file.write_all(&buffer[..received]).map_err(failed)?;
        done += received as u64;
        context.progress.report(done, total.unwrap_or(0), "byte");
        if done > source.max_size_bytes {
            return Err(too_large(done, source.max_size_bytes));
        }
    }
    if total.is_some_and(|total| done < total) { Err(again("the connection broke")) } else { Ok(()) }
}

fn too_large(size: u64, limit: u64) -> FetchFailure {
    FetchFailure::Never(format!("it has at least {size} bytes, but `max_size_bytes` allows {limit}"))
}

fn open(path: &Path, offset: u64) -> std::io::Result<File> {
    if offset > 0 {
        return OpenOptions::new().append(true).open(path);
    }
    File::create(path)
}

/// A body whose first bytes have been looked at.
struct Body<R> {
    start: Vec<u8>,
    /// Number of bytes of `start` that have been read again.
    done: usize,
    /// Why `start` is short, if the connection broke.
    broken: Option<std::io::Error>,
    rest: R,
}

impl<R: Read> Body<R> {
    /// Reads the first bytes.
    fn begin(mut rest: R) -> Self {
        let mut start = Vec::new();
        // What was read before a failure is in `start`.
        let broken = rest.by_ref().take(START_BYTES as u64).read_to_end(&mut start).err();
        Self { start, done: 0, broken, rest }
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut left = &self.start[self.done..];
        if !left.is_empty() {
            let count = left.read(buffer)?;
            self.done += count;
            return Ok(count);
        }
        self.broken.take().map_or_else(|| self.rest.read(buffer), Err)
    }
}

/// Returns a value for `If-Range`. Weak tags are ignored, because they do not guarantee equal bytes.
fn validator(response: &Response<ureq::Body>) -> Option<String> {
    let tag = text_header(response, &header::ETAG).filter(|tag| tag.starts_with('"'));
    tag.or_else(|| text_header(response, &header::LAST_MODIFIED)).map(str::to_owned)
}

fn text_header<'a>(response: &'a Response<ureq::Body>, name: &header::HeaderName) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Returns `a` of `FileContent-Range: bytes a-b/total`.
pub(super) fn range_start(response: &Response<ureq::Body>) -> Option<u64> {
    let range = text_header(response, &header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

/// Returns `total` of `FileContent-Range: bytes */total`.
pub(super) fn whole_length(response: &Response<ureq::Body>) -> Option<u64> {
    text_header(response, &header::CONTENT_RANGE)?.rsplit_once('/')?.1.trim().parse().ok()
}
