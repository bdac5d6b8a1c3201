//! One output of a running program, read without waiting for its end: a process that has left the program's group can
//! hold the other end of the pipe for as long as it likes.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::fs::OFlags;

use crate::stages::StageError;

/// Length in bytes at which a line is split, and of one read.
const LONGEST_LINE: usize = 64 * 1024;

/// What one read of a pipe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PipeRead {
    /// This many bytes.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The end: no process holds the other end any more.
    End,
}

/// The reading end of a pipe.
pub(super) struct Pipe {
    /// `None` after the end.
    from: Option<File>,
    /// The begin of a line whose end has not been read.
    line: Vec<u8>,
    buffer: Vec<u8>,
}

impl Pipe {
    /// Wraps the reading end of a pipe, which never waits from then on.
    pub(super) fn new(from: Option<impl Into<OwnedFd>>) -> std::io::Result<Self> {
        let from = from.map(|from| File::from(from.into()));
        if let Some(from) = &from {
            let flags = rustix::fs::fcntl_getfl(from)?;
            rustix::fs::fcntl_setfl(from, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self { from, line: Vec::new(), buffer: vec![0; LONGEST_LINE] })
    }

    /// Reads what is there, at most [`LONGEST_LINE`] bytes, and passes each finished line to `to`. A line ends at a line
    /// feed, at a carriage return (progress bars) or after [`LONGEST_LINE`] bytes; the last one at the end of the pipe.
    pub(super) fn read(
        &mut self,
        to: &mut dyn FnMut(&str) -> Result<(), StageError>,
    ) -> Result<PipeRead, StageError> {
        let Some(from) = &mut self.from else { return Ok(PipeRead::End) };
        let count = match from.read(&mut self.buffer) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(PipeRead::Nothing);
            }
            // A pipe that cannot be read has nothing more to say.
            Err(_) => 0,
        };
        if count == 0 {
            self.from = None;
            self.end_line(to)?;
            return Ok(PipeRead::End);
        }
        for byte in 0..count {
            match self.buffer[byte] {
                b'\n' | b'\r' => self.pass(to)?,
                byte => self.line.push(byte),
            }
            if self.line.len() >= LONGEST_LINE {
                self.pass(to)?;
            }
        }
        Ok(PipeRead::Bytes(count))
    }

    /// The end that can be waited for, until the pipe has ended.
    pub(super) fn open_end(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(AsFd::as_fd)
    }

    /// Passes a line that has not ended.
    pub(super) fn end_line(
        &mut self,
        to: &mut dyn FnMut(&str) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        if self.line.is_empty() { Ok(()) } else { self.pass(to) }
    }

    fn pass(&mut self, to: &mut dyn FnMut(&str) -> Result<(), StageError>) -> Result<(), StageError> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        to(&line)
    }

    /// The processes that hold the other end, as `sleep (process 123)`; those of other users cannot be seen.
    pub(super) fn holders(&self) -> Vec<String> {
        let inode = self.from.as_ref().and_then(|from| from.metadata().ok()).map(|metadata| metadata.ino());
        let (Some(inode), Ok(processes)) = (inode, std::fs::read_dir("/proc")) else { return Vec::new() };
        let link = format!("pipe:[{inode}]");
        let names = processes.filter_map(|process| process.ok()?.file_name().into_string().ok());
        let ids = names.filter_map(|name| name.parse::<u32>().ok()).filter(|&id| id != std::process::id());
        ids.filter(|&id| has_open(id, &link)).map(named).collect()
    }
}

/// Returns whether a process has a file open that `/proc` shows as `link`.
fn has_open(process: u32, link: &str) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link))
}

fn named(process: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("{} (process {process})", name.trim())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(pipe: &mut Pipe) -> (PipeRead, Vec<String>) {
        let mut lines = Vec::new();
        let found = pipe.read(&mut |line| {
            lines.push(line.to_owned());
            Ok(())
        });
        (found.unwrap(), lines)
    }

    #[test]
    fn lines_end_at_feeds_returns_and_their_longest_length() {
        let (from, mut to) = std::io::pipe().unwrap();
        let mut pipe = Pipe::new(Some(from)).unwrap();
        assert_eq!(read(&mut pipe), (PipeRead::Nothing, vec![]));
        to.write_all(b"one\n10 %\r20 %\rbeg").unwrap();
        assert_eq!(
            read(&mut pipe),
            (PipeRead::Bytes(17), ["one", "10 %", "20 %"].map(str::to_owned).to_vec())
        );
        to.write_all(b"un\n").unwrap();
        assert_eq!(read(&mut pipe), (PipeRead::Bytes(3), vec!["begun".to_owned()]));
        to.write_all(&vec![b'x'; LONGEST_LINE]).unwrap();
        assert_eq!(read(&mut pipe), (PipeRead::Bytes(LONGEST_LINE), vec!["x".repeat(LONGEST_LINE)]));
        to.write_all(b"last").unwrap();
        drop(to);
        assert_eq!(read(&mut pipe), (PipeRead::Bytes(4), vec![]));
        assert_eq!(read(&mut pipe), (PipeRead::End, vec!["last".to_owned()]));
        assert_eq!(read(&mut pipe), (PipeRead::End, vec![]));
    }

    #[test]
    fn who_holds_the_other_end_is_named() {
        let (from, to) = std::io::pipe().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").stdout(to).spawn().unwrap();
        let pipe = Pipe::new(Some(from)).unwrap();
        // Until the child has become `sleep`, it bears the name of this process.
        let named = format!("sleep (process {})", child.id());
        let is_named = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            pipe.holders().contains(&named)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_named, "{named}");
        assert!(!pipe.holders().contains(&named));
    }
}
