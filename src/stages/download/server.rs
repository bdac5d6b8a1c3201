//! A small HTTP server on the loopback interface, for tests of downloads.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// How the server answers one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    /// The file, or the requested range of it.
    File,
    /// The whole file, even if a range is requested.
    Whole,
    /// As `File`, but the connection breaks after this many bytes.
    Break(usize),
    /// An empty answer with this status.
    Status(u16),
    /// A redirect to `/login?next=secret`.
    Redirect,
    /// These bytes under status 200, whatever is requested, as this type of content.
    Other(&'static str, &'static [u8]),
    /// As `Other` without a type, but the connection breaks after this many bytes, and another file is announced.
    BrokenOther(&'static [u8], usize),
}

/// A request, and how many bytes of the body were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
    pub(super) sent: usize,
}

/// Serves `body` until the test ends. Requests after the end of the script get the file.
pub(super) struct TestServer {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl TestServer {
    pub(super) fn start(body: Vec<u8>, etag: &'static str, script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/set.zip", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut script = script.into_iter();
            for stream in listener.incoming() {
                let answer = script.next().unwrap_or(Answer::File);
                serve(&stream.unwrap(), &body, etag, answer, &log);
            }
        });
        Self { url, seen }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: &TcpStream, body: &[u8], etag: &str, answer: Answer, log: &Mutex<Vec<Seen>>) {
    let mut seen = Seen::default();
    for line in BufReader::new(stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_lowercase().as_str() {
            "range" => seen.range = Some(value.to_owned()),
            "if-range" => seen.if_range = Some(value.to_owned()),
            _ => {}
        }
    }
    let requested: Option<usize> =
        seen.range.as_ref().and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let is_same = seen.if_range.as_ref().is_none_or(|tag| tag == etag);
    let start = requested.filter(|_| is_same && answer != Answer::Whole);
    let (head, mut sent) = match (answer, start) {
        (Answer::Status(status), _) => (format!("{status} No"), &body[..0]),
        (Answer::Redirect, _) => ("302 Found\r\nLocation: /login?next=secret".to_owned(), &body[..0]),
        (Answer::Other(kind, bytes), _) => (format!("200 OK\r\nContent-Type: {kind}"), bytes),
        (Answer::BrokenOther(bytes, _), _) => ("200 OK".to_owned(), bytes),
        (_, Some(start)) if start >= body.len() => {
            (format!("416 No\r\nContent-Range: bytes */{}", body.len()), &body[..0])
        }
        (_, Some(start)) => {
            let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
            (format!("206 Part\r\nContent-Range: {range}"), &body[start..])
        }
        (_, None) => ("200 OK".to_owned(), body),
    };
    let etag = if matches!(answer, Answer::BrokenOther(..)) { "\"other\"" } else { etag };
    let head = format!(
        "HTTP/1.1 {head}\r\nETag: {etag}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        sent.len()
    );
    if let Answer::Break(length) | Answer::BrokenOther(_, length) = answer {
        sent = &sent[..length.min(sent.len())];
    }
    seen.sent = sent.len();
    log.lock().unwrap().push(seen);
    let mut stream = stream;
    // The client may close the connection first.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
}
