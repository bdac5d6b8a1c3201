//! As much of HTTP/1.1 as the tests' servers need: one request a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads one; `None` at the end of the connection.
    pub(crate) fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let first = line(&mut reader)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let headers = headers(&mut reader)?;
        let mut request = Self { method, target, headers, body: Vec::new() };
        request.body =
            vec![0; request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)];
        reader.read_exact(&mut request.body).ok()?;
        Some(request)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        of(&self.headers, name)
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A parameter of the query, as it stands there.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, text)| text)
    }

    /// Sends it to a server and reads the whole answer.
    pub(crate) fn send(&self, server: SocketAddr) -> Option<Answer> {
        let mut stream = TcpStream::connect(server).ok()?;
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.target);
        for (name, text) in self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection")) {
            head = format!("{head}{name}: {text}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
        stream.write_all(&self.body).ok()?;
        Answer::read(&stream, self.method == "HEAD")
    }
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    #[expect(clippy::needless_pass_by_value, reason = "texts and numbers alike")]
    pub(crate) fn with(mut self, name: &str, text: impl ToString) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), text.to_string()));
        self
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        of(&self.headers, name)
    }

    fn read(stream: &TcpStream, is_head: bool) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let first = line(&mut reader)?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut answer = Self { status, headers: headers(&mut reader)?, body: Vec::new() };
        if status == 100 {
            return Self::read(stream, is_head);
        }
        if is_head || matches!(status, 204 | 304) {
            return Some(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|text| text.eq_ignore_ascii_case("chunked")) {
            answer.body = chunks(&mut reader)?;
            answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
        } else if let Some(length) = answer.header("content-length").and_then(|text| text.parse().ok()) {
            answer.body = vec![0; length];
            reader.read_exact(&mut answer.body).ok()?;
        } else {
            reader.read_to_end(&mut answer.body).ok()?;
        }
        Some(answer)
    }

    /// The status line and the headers. The length is that of the body unless the headers have another.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Word\r\nConnection: close\r\n", self.status);
        if self.header("content-length").is_none() {
            head = format!("{head}Content-Length: {}\r\n", self.body.len());
        }
        for (name, text) in self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("connection")) {
            head = format!("{head}{name}: {text}\r\n");
        }
        head + "\r\n"
    }

    pub(crate) fn write(&self, mut stream: &TcpStream, is_head: bool) {
        let body = if is_head { &[][..] } else { &self.body };
        // The client may have left.
        let _ = stream.write_all(self.head().as_bytes()).and_then(|()| stream.write_all(body));
    }
}

fn of<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, text)| text.as_str())
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    Some(line.trim_end().to_owned())
}

fn headers(reader: &mut impl BufRead) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Some(headers);
        }
        let (name, text) = line.split_once(':')?;
        headers.push((name.to_owned(), text.trim().to_owned()));
    }
}

fn chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = usize::from_str_radix(line(reader)?.split(';').next()?.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// Handles each connection on a thread of its own, until the test process ends; returns the address.
pub(crate) fn serve(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handle = Arc::new(handle);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            std::thread::spawn(move || handle(stream));
        }
    });
    address
}
