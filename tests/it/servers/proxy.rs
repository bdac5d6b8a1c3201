//! A proxy that stands before a server and spoils what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Answer, Request, serve};
use super::store::error;

/// What the proxy does to the requests that pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Closes every connection at once, with the request unread: the client sees a reset.
    Reset,
    /// Reads the request and closes the connection.
    NoHead,
    /// Reads half of each upload and closes the connection.
    ResetUpload,
    /// Reads requests and never answers.
    Frozen,
    /// Sends the head of an answer, and no body.
    FrozenBody,
    /// Sends bodies in drops, which takes half a second.
    SlowBody,
    /// Ends bodies in the middle.
    Truncated,
    /// Announces more than it sends.
    TooLong,
    /// Announces less than there is.
    TooShort,
    /// Answers every request with this status and an HTML page.
    Always(u16),
    /// Answers every second request with this status.
    EverySecond(u16),
    /// Answers uploads with this status.
    Uploads(u16),
    /// Asks for fewer requests, once for each, and wants to be left for so many seconds.
    RetryAfter(u64),
    /// After so many requests, answers with this status and code.
    After(usize, u16, &'static str),
    /// Lists nothing.
    LaggingList,
    /// Does not show what was put after the fault began.
    Stale,
    /// Delivers every upload twice.
    Duplicate,
    /// Delivers every upload and loses the answer.
    LostAnswer,
    /// Sends bodies as if they were compressed.
    Gzip,
    /// Sends every request elsewhere, in a circle.
    Redirect,
    /// Redirects without saying to where.
    BareRedirect,
    /// Answers 200 with an empty body.
    Empty,
    /// Answers 200 with a page, such as that of a hotel.
    Page,
    /// Answers 200 with JSON that is none.
    Json,
    /// Gives another tag to a file each time, and cuts it, so that the rest does not fit.
    WrongTag,
    /// Changes a bit of every body.
    Flipped,
    /// Answers every request with the first body that it has seen.
    Swapped,
    /// Does not speak HTTP.
    Garbage,
    /// Sends chunks that are none.
    BadChunks,
    /// Has a clock of another year.
    Clock,
    /// Answers 204 to everything.
    NoContent,
    /// Shows nothing that is there, and takes everything.
    Blind,
}

/// A proxy that serves until the test process ends.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    fault: Mutex<Fault>,
    /// Requests since the fault began.
    count: AtomicUsize,
    first_body: Mutex<Option<Vec<u8>>>,
    /// Methods and targets.
    seen: Mutex<Vec<String>>,
    /// The same with the status of the server's answer.
    answers: Mutex<Vec<(String, u16)>>,
    /// Files that were put since the fault began.
    put: Mutex<Vec<String>>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            server,
            fault: Mutex::new(Fault::None),
            count: AtomicUsize::new(0),
            first_body: Mutex::default(),
            seen: Mutex::default(),
            answers: Mutex::default(),
            put: Mutex::default(),
        });
        let handler = Arc::clone(&shared);
        Self { address: serve(move |stream| handler.pass(&stream)), shared }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
        self.shared.count.store(0, Ordering::Relaxed);
        self.shared.put.lock().unwrap().clear();
    }

    /// The methods and targets of the requests since the last call.
    pub(crate) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }

    /// The requests that reached the server since the last call, with the status of its answer.
    pub(crate) fn take_answers(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.shared.answers.lock().unwrap())
    }
}

/// An HTML page of an error.
fn page(status: u16) -> Answer {
    let body = format!(
        "<html><head><title>{status} Oops</title></head><body><h1>Oops \u{1b}[31m</h1></body></html>"
    );
    Answer::new(status, body.repeat(20)).with("Content-Type", "text/html")
}

impl Shared {
    fn pass(&self, stream: &TcpStream) {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::Reset => {
                // Closing with unread data resets the connection.
                let _ = stream.peek(&mut [0; 1]);
                return;
            }
            Fault::ResetUpload => {
                let mut start = [0; 200];
                if (&mut &*stream).read(&mut start).is_ok() && start.starts_with(b"PUT") {
                    return;
                }
                // The rest of another request is answered as if it were broken.
                return page(502).write(stream, false);
            }
            _ => {}
        }
        let Some(request) = Request::read(stream) else { return };
        self.seen.lock().unwrap().push(format!("{} {}", request.method, request.target));
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(answer) = self.instead(fault, &request, number) {
            return answer.write(stream, request.method == "HEAD");
        }
        match fault {
            Fault::Frozen => std::thread::sleep(Duration::from_mins(1)),
            Fault::NoHead => {}
            Fault::Garbage => {
                let _ = (&mut &*stream).write_all(b"\x00\x01SSH-2.0-hello\r\n\r\n");
            }
            _ => self.forward(fault, &request, stream),
        }
    }

    /// The answer that is given instead of the server's.
    fn instead(&self, fault: Fault, request: &Request, number: usize) -> Option<Answer> {
        let is_upload = request.method == "PUT";
        let is_list = request.parameter("list-type").is_some() || request.method == "PROPFIND";
        Some(match fault {
            Fault::Always(status) => page(status),
            Fault::EverySecond(status) if number.is_multiple_of(2) => page(status),
            Fault::Uploads(status) if is_upload => page(status),
            Fault::RetryAfter(seconds) if number.is_multiple_of(2) => page(429).with("Retry-After", seconds),
            Fault::After(count, status, code) if number >= count => Answer::new(status, error(code)),
            Fault::LaggingList if is_list => Answer::new(200, "<ListBucketResult></ListBucketResult>"),
            Fault::Stale if !is_upload && self.put.lock().unwrap().contains(&request.target) => {
                Answer::new(404, error("NoSuchKey"))
            }
            Fault::Redirect => page(307).with("Location", "/elsewhere"),
            Fault::BareRedirect => page(301),
            Fault::Empty => Answer::new(200, ""),
            Fault::Page => page(200),
            Fault::Json => Answer::new(200, "{\"outputs\": [").with("Content-Type", "application/json"),
            Fault::NoContent => Answer::new(204, ""),
            Fault::Blind if !is_upload && request.method != "MKCOL" => Answer::new(404, error("NoSuchKey")),
            _ => return None,
        })
    }

    fn forward(&self, fault: Fault, request: &Request, stream: &TcpStream) {
        let is_upload = request.method == "PUT";
        if is_upload {
            self.put.lock().unwrap().push(request.target.clone());
        }
        let Some(mut answer) = request.send(self.server) else { return };
        self.answers.lock().unwrap().push((format!("{} {}", request.method, request.target), answer.status));
        if is_upload && fault == Fault::Duplicate {
            answer = request.send(self.server).unwrap_or(answer);
        }
        if is_upload && fault == Fault::LostAnswer {
            return;
        }
        if fault == Fault::Clock {
            answer = answer.with("Date", "Thu, 01 Jan 1970 00:00:00 GMT").with("Age", 9_999_999);
        }
        let is_file = request.method == "GET" && answer.status == 200 && answer.body.len() > 1;
        if is_file {
            self.spoil(fault, answer, stream);
        } else {
            answer.write(stream, request.method == "HEAD");
        }
    }

    /// Sends a file, spoiled.
    fn spoil(&self, fault: Fault, mut answer: Answer, mut stream: &TcpStream) {
        let (length, half) = (answer.body.len(), answer.body.len() / 2);
        match fault {
            Fault::FrozenBody => {
                let _ = stream.write_all(answer.head().as_bytes());
                std::thread::sleep(Duration::from_mins(1));
            }
            Fault::SlowBody => {
                let _ = stream.write_all(answer.head().as_bytes());
                for drop in answer.body.chunks(length.div_ceil(5)) {
                    let _ = stream.write_all(drop);
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            Fault::Truncated => {
                let _ = stream.write_all(answer.head().as_bytes());
                let _ = stream.write_all(&answer.body[..half]);
                let _ = stream.shutdown(Shutdown::Both);
            }
            Fault::TooLong => answer.with("Content-Length", length + 10).write(stream, false),
            Fault::TooShort => answer.with("Content-Length", half).write(stream, false),
            Fault::Gzip => answer.with("Content-Encoding", "gzip").write(stream, false),
            Fault::WrongTag => {
                let tag = format!("\"{}\"", self.count.load(Ordering::Relaxed));
                answer = answer.with("Content-Length", length).with("ETag", tag);
                answer.body.truncate(half);
                answer.write(stream, false);
            }
            Fault::Flipped => {
                answer.body[half] ^= 1;
                answer.write(stream, false);
            }
            Fault::Swapped => {
                let mut first = self.first_body.lock().unwrap();
                let body = first.get_or_insert_with(|| answer.body.clone()).clone();
                let answer = answer.with("Content-Length", body.len());
                Answer { body, ..answer }.write(stream, false);
            }
            Fault::BadChunks => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nshort\r\nzz\r\n";
                let _ = stream.write_all(head.as_bytes());
            }
            _ => answer.write(stream, false),
        }
    }
}
