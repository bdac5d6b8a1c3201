//! Events as lines of JSON, for files and for other programs.

use std::io::Write;
use std::sync::Mutex;

use crate::engine::Event;
use crate::text::on_one_line;

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
        if let (Ok(mut writer), Ok(line)) = (self.writer.lock(), serde_json::to_string(event)) {
            // JSON leaves some characters that steer a terminal as they are; their escapes mean the same.
            let line = format!("{}\n", on_one_line(&line));
            let _ = writer.write_all(line.as_bytes()).and_then(|()| writer.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_cannot_steer_a_terminal_and_says_the_same() {
        let experiment = "a\u{9b}31m\u{202e}b\nc\u{1b}".to_owned();
        let event = Event::RunStarted { experiment: experiment.clone(), tasks: 1, variants: 1 };
        let log = EventLog::new(Vec::new());
        log.write(&event);
        let line = String::from_utf8(log.writer.into_inner().unwrap()).unwrap();
        assert!(!line.trim_end().contains(crate::text::steers), "{line:?}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["experiment"], experiment);
    }
}
