//! Events as lines of JSON, for files and for other programs.

use std::io::Write;
use std::sync::Mutex;

use crate::engine::Event;

/// Writes each event as one line, except `task_progress`.
pub struct EventLog<W> {
    writer: Mutex<W>,
}

impl<W: Write> EventLog<W> {
    /// Writes to `writer`.
    pub fn new(writer: W) -> Self {
        Self { writer: Mutex::new(writer) }
    }

    /// Writes one event. Errors are ignored: a closed pipe must not stop a run, and results do not depend on events.
    pub fn write(&self, event: &Event) {
        if matches!(event, Event::TaskProgress { .. }) {
            return;
        }
        if let (Ok(mut writer), Ok(mut line)) = (self.writer.lock(), serde_json::to_vec(event)) {
            line.push(b'\n');
            let _ = writer.write_all(&line).and_then(|()| writer.flush());
        }
    }
}
