//! A small object store in memory: plain HTTP, and as much of the XML interface of S3 and GCS as clients use.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::http::{Answer, Request, serve};

/// A store that serves until the test process ends.
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    refuses_listings: bool,
}

impl Store {
    pub(crate) fn start() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let address = serve(move |stream| {
            if let Some(request) = Request::read(&stream) {
                let answer = shared.lock().unwrap().answer(&request);
                answer.write(&stream, request.method == "HEAD");
            }
        });
        Self { address, state }
    }

    /// Methods and targets, in order of arrival, since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Refuses listings from now on, as S3 does without `s3:ListBucket`.
    pub(crate) fn refuse_listings(&self) {
        self.state.lock().unwrap().refuses_listings = true;
    }

    /// The names of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        self.state.lock().unwrap().files.keys().cloned().collect()
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Answer {
        self.requests.push(format!("{} {}", request.method, request.target));
        // The client of GCS writes slashes so.
        let path = request.path().replace("%2F", "/");
        match request.method.as_str() {
            "GET" if request.parameter("list-type").is_some() && self.refuses_listings => {
                Answer::new(403, error("AccessDenied"))
            }
            "GET" if request.parameter("list-type").is_some() => self.list(request),
            "GET" | "HEAD" => match self.files.get(&path) {
                Some(file) => served(request, file),
                None => Answer::new(404, error("NoSuchKey")),
            },
            "PUT" => {
                let is_new = request.header("if-none-match") == Some("*")
                    || request.header("x-goog-if-generation-match") == Some("0");
                if is_new && self.files.contains_key(&path) {
                    return Answer::new(412, error("PreconditionFailed"));
                }
                self.files.insert(path, request.body.clone());
                described(Answer::new(200, ""), &request.body)
            }
            _ => Answer::new(405, error("MethodNotAllowed")),
        }
    }

    fn list(&self, request: &Request) -> Answer {
        let prefix = request.parameter("prefix").unwrap_or_default().replace("%2F", "/");
        let bucket = format!("{}/", request.path().trim_end_matches('/'));
        let keys =
            self.files.iter().filter_map(|(path, file)| Some((path.strip_prefix(&bucket)?, file.len())));
        let entries: Vec<String> = (keys.filter(|(key, _)| key.starts_with(&prefix)))
            .map(|(key, size)| {
                format!(
                    "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-11-28T07:00:00.000Z\
                     </LastModified><ETag>\"1\"</ETag></Contents>"
                )
            })
            .collect();
        let entries = entries.concat();
        Answer::new(200, format!("<?xml version=\"1.0\"?><ListBucketResult>{entries}</ListBucketResult>"))
    }
}

/// A file, or the part of it that is asked for.
fn served(request: &Request, file: &[u8]) -> Answer {
    let range = request.header("range").and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return described(Answer::new(200, file), file) };
    let first: usize = first.parse().unwrap();
    let end = last.parse::<usize>().map_or(file.len(), |last| last + 1).min(file.len());
    let part = Answer::new(206, &file[first..end]);
    described(part.with("Content-Range", format!("bytes {first}-{}/{}", end - 1, file.len())), file)
}

fn described(answer: Answer, file: &[u8]) -> Answer {
    let tag = format!("\"{}\"", file.iter().fold(7_u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte)));
    let answer = answer.with("ETag", tag).with("Last-Modified", "Sat, 28 Nov 2026 07:00:00 GMT");
    answer.with("x-goog-generation", 1)
}

/// An error as object stores describe it.
pub(crate) fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>It is so.</Message></Error>")
}
