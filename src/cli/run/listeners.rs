//! Who follows the events of a run: its log file, its profile, the log lines, the standard output, the progress bars.

use std::fs::File;
use std::io::BufWriter;

use super::RunArguments;
use crate::cli::error::CliError;
use crate::cli::log;
use crate::cli::run_log::RunLog;
use crate::cli::terminal::{StandardOutput, Verbosity};
use crate::engine::Event;
use crate::plan::Plan;
use crate::report::{Bars, EventLog, Folder, Profile};

/// Passes each event on.
pub(super) struct Listeners {
    /// `events.ndjson` in the run's folder.
    file: EventLog<BufWriter<File>>,
    /// The trace of `--profile`.
    pub(super) profile: Option<Profile>,
    lines: RunLog,
    /// The events of `--json`.
    stdout: Option<EventLog<StandardOutput>>,
    bars: Option<Bars>,
}

impl Listeners {
    /// Opens what the arguments ask for.
    pub(super) fn new(
        arguments: &RunArguments,
        verbosity: Verbosity,
        plan: &Plan,
        folder: &Folder,
        profile: Option<Profile>,
    ) -> Result<Self, CliError> {
        let file = EventLog::new(BufWriter::new(folder.events().map_err(CliError::Report)?));
        let has_bars = !arguments.json && verbosity != Verbosity::Quiet;
        Ok(Self {
            file,
            profile,
            lines: RunLog::new(plan),
            stdout: arguments.json.then(|| EventLog::new(StandardOutput)),
            bars: has_bars.then(|| Bars::new(log::titles(plan), plan.tasks.len())),
        })
    }

    /// Shows and writes an event.
    pub(super) fn write(&self, event: &Event) {
        self.file.write(event);
        if let Some(profile) = &self.profile {
            profile.note(event);
        }
        self.lines.write(event);
        if let Some(stdout) = &self.stdout {
            stdout.write(event);
        }
        if let Some(bars) = &self.bars {
            bars.show(event);
        }
    }
}
