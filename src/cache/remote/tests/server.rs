//! A small HTTP server on the loopback interface, for the tests of the remote: it stores uploaded files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::site::Site;

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Behaviour {
    /// Serves and accepts files.
    Open,
    /// Serves files and accepts none.
    ReadOnly,
    /// Accepts requests and never answers.
    Silent,
    /// Fails.
    Broken,
    /// Answers every request for a file with 200 and this length, and closes the connection after some bytes.
    Long(u64),
    /// Answers every request for a file with a body in chunks, without a length, that ends after 64 MiB.
    Chunked,
    /// Answers every request for a file with a body that is shorter than its stated length.
    Cut,
    /// Answers every request for a file with this page.
    Page(&'static [u8]),
}

struct State {
    behaviour: Behaviour,
    files: BTreeMap<String, Vec<u8>>,
    /// Methods and paths, in order of arrival.
    requests: Vec<String>,
}

/// Serves until the test ends.
pub(super) struct Server {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/cache", listener.local_addr().unwrap());
        let state = State { behaviour: Behaviour::Open, files: BTreeMap::new(), requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || while serve(&stream, &state).is_some() {});
            }
        });
        Self { url, state }
    }

    pub(super) fn set_behaviour(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviour = behaviour;
    }

    /// The requests since the last call.
    pub(super) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Site for Server {
    fn url(&self) -> &str {
        &self.url
    }

    fn lists(&self) -> bool {
        false
    }

    fn change(&self, area: &str, change: &dyn Fn(&mut Vec<u8>)) {
        let (mut state, part) = (self.state.lock().unwrap(), format!("/v1/{area}/"));
        state.files.iter_mut().filter(|(path, _)| path.contains(&part)).for_each(|(_, file)| change(file));
    }

    fn remove(&self, area: &str) {
        let part = format!("/v1/{area}/");
        self.state.lock().unwrap().files.retain(|path, _| !path.contains(&part));
    }
}

/// Answers one request of a connection; `None` at its end.
fn serve(stream: &std::io::Result<TcpStream>, state: &Mutex<State>) -> Option<()> {
    let mut stream = stream.as_ref().ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (status, answer) = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{method} {path}"));
        match (state.behaviour, method.as_str()) {
            (Behaviour::Silent, _) => {
                drop(state);
                std::thread::sleep(std::time::Duration::from_mins(2));
                return None;
            }
            (Behaviour::Broken, _) => (500, Vec::new()),
            (Behaviour::Long(length), "GET") => {
                drop(state);
                write_head(stream, &format!("Content-Length: {length}"))?;
                stream.write_all(&vec![b'x'; 65536]).ok()?;
                return None;
            }
            (Behaviour::Cut, "GET") => {
                drop(state);
                write_head(stream, "Content-Length: 5000")?;
                stream.write_all(&[b'x'; 1000]).ok()?;
                return None;
            }
            (Behaviour::Chunked, "GET") => {
                drop(state);
                write_head(stream, "Transfer-Encoding: chunked")?;
                for _ in 0..64 {
                    stream.write_all(b"100000\r\n").ok()?;
                    stream.write_all(&vec![b'x'; 1 << 20]).ok()?;
                    stream.write_all(b"\r\n").ok()?;
                }
                stream.write_all(b"0\r\n\r\n").ok()?;
                return None;
            }
            (Behaviour::Page(page), "GET" | "HEAD") => (200, page.to_vec()),
            (Behaviour::Open, "PUT") => {
                state.files.insert(path, body);
                (201, Vec::new())
            }
            (_, "GET" | "HEAD") => {
                state.files.get(&path).map_or((404, Vec::new()), |file| (200, file.clone()))
            }
            _ => (405, Vec::new()),
        }
    };
    let head = format!(
        "HTTP/1.1 {status} Word\r\nContent-Length: {}\r\nLast-Modified: Sat, 28 Nov 2026 07:00:00 GMT\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    if method != "HEAD" {
        stream.write_all(&answer).ok()?;
    }
    Some(())
}

/// Begins the answer to a request for a file.
fn write_head(mut stream: &TcpStream, length: &str) -> Option<()> {
    let head = format!("HTTP/1.1 200 OK\r\n{length}\r\nLast-Modified: Sat, 28 Nov 2026 07:00:00 GMT\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()
}
