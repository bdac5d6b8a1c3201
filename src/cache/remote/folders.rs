//! The folders of a WebDAV server. A file can be put into a folder that exists; servers answer 404, 409 or 500
//! otherwise. Then the missing folders are made, from the address on.

use std::collections::BTreeSet;
use std::sync::Mutex;

use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse};
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, StatusCode};

use super::lock;
use super::refusal::Refusal;
use super::transport::TransportError;

/// Makes missing folders; see the module.
#[derive(Debug)]
pub(super) struct Folders {
    /// The path of the address, without a slash at its end.
    base: String,
    /// Folders that exist or were tried.
    tried: Mutex<BTreeSet<String>>,
}

impl Folders {
    /// The folders below the path of an address.
    pub(super) fn new(base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), tried: Mutex::default() }
    }

    /// Whether a server may answer so to a file whose folder does not exist.
    pub(super) fn may_be_missing(status: StatusCode) -> bool {
        matches!(status.as_u16(), 404 | 409 | 500)
    }

    /// Makes the folders that a file needs, each once. The file can then be put again.
    pub(super) async fn make_for<F>(
        &self,
        file: &HttpRequest,
        send: impl Fn(HttpRequest) -> F,
    ) -> Result<(), HttpError>
    where
        F: Future<Output = Result<HttpResponse, HttpError>>,
    {
        let folders = self.folders_of(file.uri().path());
        if lock(&self.tried).contains(folders.first().map_or("", String::as_str)) {
            // Made by another request meanwhile, or in vain.
            return Ok(());
        }
        let mut missing = Vec::new();
        for folder in folders {
            let status = send(make(file, &folder)).await?.status();
            missing.push(folder);
            if status != StatusCode::CONFLICT && status != StatusCode::NOT_FOUND {
                break;
            }
        }
        // The first that could be made, or was there, is the last of these.
        let existing = missing.pop();
        for folder in missing.iter().rev() {
            let status = send(make(file, folder)).await?.status();
            if status == StatusCode::CONFLICT || status == StatusCode::NOT_FOUND {
                return Err(no_folder(existing.unwrap_or_default(), status.to_string()));
            }
        }
        lock(&self.tried).extend(missing.into_iter().chain(existing));
        Ok(())
    }

    /// The error of a file that was refused again after its folders were made.
    pub(super) fn still_missing(&self, error: HttpError) -> HttpError {
        match Refusal::of(&error) {
            Some(refusal) if refusal.status != 500 => {
                no_folder(format!("{}/", self.base), refusal.to_string())
            }
            _ => error,
        }
    }

    /// The folders of a file, the innermost first, down to that of the address.
    fn folders_of(&self, path: &str) -> Vec<String> {
        let within = path.strip_prefix(&self.base).unwrap_or_default();
        let slashes = within.char_indices().filter(|&(_, letter)| letter == '/').map(|(at, _)| at);
        let mut folders: Vec<String> =
            slashes.map(|at| format!("{}{}/", self.base, &within[..at])).filter(|path| path != "/").collect();
        folders.reverse();
        folders
    }
}

fn no_folder(folder: String, answer: String) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, TransportError::NoFolder { folder, answer })
}

/// The request that makes a folder beside the file of another request.
fn make(file: &HttpRequest, folder: &str) -> HttpRequest {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    if let Ok(method) = Method::from_bytes(b"MKCOL") {
        *request.method_mut() = method;
    }
    let host = file.uri().authority().map_or("", |authority| authority.as_str());
    let uri = format!("{}://{host}{folder}", file.uri().scheme_str().unwrap_or("http"));
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    if let Some(authorization) = file.headers().get(AUTHORIZATION) {
        request.headers_mut().insert(AUTHORIZATION, authorization.clone());
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_file_reach_from_its_own_to_that_of_the_address() {
        let folders = |base: &str, path: &str| Folders::new(base).folders_of(path);
        assert_eq!(
            folders("/dav/cache/", "/dav/cache/v1/records/ab/cd"),
            ["/dav/cache/v1/records/ab/", "/dav/cache/v1/records/", "/dav/cache/v1/", "/dav/cache/"]
        );
        assert_eq!(folders("/", "/v1/x"), ["/v1/"]);
        assert_eq!(folders("", "/v1/x"), ["/v1/"]);
    }
}
