//! The log of one execution: a file in the run's folder, and its text for the cache, so that a later hit can show it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Failure, Options};
use crate::cache::Digest;
use crate::plan::{Notice, Task};

/// Bytes of a log's beginning that the cache keeps, and as many of its end (chosen: a program prints its settings first
/// and its result last).
const KEPT_BYTES: usize = 128 * 1024;

/// The log of one execution.
pub(super) struct Log {
    state: Mutex<State>,
}

struct State {
    file: std::fs::File,
    kept: Kept,
    notices: Vec<Notice>,
}

/// Returns the path of a task's log, in the run's folder.
pub fn log_path(options: &Options<'_>, task: &Task, key: &Digest) -> PathBuf {
    let safe: String = (task.name.chars())
        .map(|letter| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' })
        .collect();
    options.logs.join(format!("{safe}-{}.log", &key.to_string()[..8]))
}

/// The beginning and the end of a long text.
#[derive(Default)]
struct Kept {
    head: String,
    tail: VecDeque<String>,
    tail_bytes: usize,
    left_out: usize,
}

impl Log {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::Log { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        Ok(Self { state: Mutex::new(State { file, kept: Kept::default(), notices: Vec::new() }) })
    }

    /// Writes a line that the stage, or the program that it runs, has printed.
    pub(super) fn line(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written must not fail a task that can.
        let _ = writeln!(state.file, "{line}");
        state.kept.push(line);
    }

    /// Writes a line of the stage that its record keeps as well.
    pub(super) fn notice(&self, notice: Notice) {
        self.line(&if notice.is_warning { format!("warning: {}", notice.text) } else { notice.text.clone() });
        self.state.lock().unwrap_or_else(PoisonError::into_inner).notices.push(notice);
    }

    /// What the record keeps.
    pub(super) fn notices(&self) -> Vec<Notice> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).notices.clone()
    }

    /// Writes a line of the engine. The cache does not keep it: the record holds the same time.
    pub(super) fn note(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(state.file, "{line}");
    }

    /// Returns the text that the cache keeps.
    pub(super) fn kept(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).kept.text()
    }
}

impl Kept {
    fn push(&mut self, line: &str) {
        if self.tail.is_empty() && self.head.len() + line.len() < KEPT_BYTES {
            self.head.push_str(line);
            self.head.push('\n');
            return;
        }
        self.tail.push_back(line.to_owned());
        self.tail_bytes += line.len() + 1;
        while self.tail_bytes > KEPT_BYTES
            && let Some(gone) = self.tail.pop_front()
        {
            self.tail_bytes -= gone.len() + 1;
            self.left_out += gone.len() + 1;
        }
    }

    fn text(&self) -> String {
        let mut text = self.head.clone();
        if self.left_out > 0 {
            let _ = writeln!(text, "… {} bytes left out …", self.left_out);
        }
        for line in &self.tail {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_keeps_the_beginning_and_the_end_of_a_long_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(&folder.path().join("logs/task.log")).unwrap();
        assert_eq!(log.kept(), "");
        for number in 0..100_000 {
            log.line(&format!("line {number}"));
        }
        log.note("done in 1 s");
        let kept = log.kept();
        assert!(kept.starts_with("line 0\nline 1\n") && kept.ends_with("line 99998\nline 99999\n"));
        let whole = std::fs::read_to_string(folder.path().join("logs/task.log")).unwrap();
        assert!(whole.ends_with("line 99999\ndone in 1 s\n"));
        let marker = kept.lines().find(|line| line.starts_with('…')).unwrap();
        let left_out: usize = marker.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(kept.len() - marker.len() - 1 + left_out, whole.len() - "done in 1 s\n".len());
        assert!(kept.len() <= 2 * KEPT_BYTES + 64);
    }
}
