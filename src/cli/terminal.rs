//! All output to the terminal: data to stdout, messages and logs to stderr.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::Environment;
use super::error::CliError;
use crate::report::{DEFAULT_WIDTH, filled};
use crate::text::{escaped, without_secrets};

/// Columns at which diagnostics wrap.
const MESSAGE_WIDTH: usize = 100;

/// How much is shown beside results, warnings and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verbosity {
    /// Nothing.
    Quiet,
    /// Progress.
    Usual,
    /// A log line for each step.
    Steps,
    /// More log lines.
    Details,
}

/// Sends log lines to stderr.
pub(super) fn start_logging(verbosity: Verbosity, environment: &Environment) {
    let default = match verbosity {
        Verbosity::Quiet => "warn",
        // Without a terminal there are no progress bars, so log lines show the progress.
        Verbosity::Usual if std::io::stderr().is_terminal() => "warn",
        Verbosity::Usual | Verbosity::Steps => "patchflow=info",
        Verbosity::Details => "patchflow=debug",
    };
    let wanted = environment.variables.get("RUST_LOG").and_then(|wanted| wanted.to_str()).unwrap_or(default);
    let filter: Targets = wanted.parse().or_else(|_| default.parse()).unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        // A log line that cannot be written is no reason to end.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // Only the first call in a process has an effect; tests call this more than once.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// The columns of the screen that tables are drawn for: what `COLUMNS` says, else those of the terminal, else 80, as for a
/// pipe or a file.
pub(super) fn width(environment: &Environment) -> usize {
    known_width(environment).unwrap_or(DEFAULT_WIDTH)
}

fn known_width(environment: &Environment) -> Option<usize> {
    let stated = environment.variables.get("COLUMNS").and_then(|columns| columns.to_str()?.parse().ok());
    let of_terminal = || comfy_table::Table::new().width().map(usize::from);
    stated.filter(|&columns| columns > 0).or_else(of_terminal).filter(|&columns| columns > 0)
}

/// Wraps sentences for a screen of known width. Those in a pipe stay whole, for `grep`.
pub(super) fn prose(text: &str, indent: usize, environment: &Environment) -> String {
    known_width(environment).map_or_else(|| text.to_owned(), |width| filled(text, width, indent))
}

/// What kept data from being written to stdout; kept until [`take_output_failure`].
static OUTPUT_FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Stdout, for data. A failure is kept, so that the command can end with an error; a closed pipe, as after `| head`, is
/// none.
pub(super) struct StandardOutput;

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        noted(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        noted(io::stdout().flush())
    }
}

fn noted<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() != io::ErrorKind::BrokenPipe
        && error.kind() != io::ErrorKind::Interrupted
    {
        let error = error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
        OUTPUT_FAILURE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
    result
}

/// The first failure to write data since the last call.
pub(super) fn take_output_failure() -> Option<io::Error> {
    OUTPUT_FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Writes data to stdout, without anything that steers a terminal.
pub(super) fn print(text: &str) {
    // The failure is kept.
    let _ = StandardOutput.write_all(escaped(text).as_bytes()).and_then(|()| StandardOutput.flush());
}

/// Writes a message to stderr, without secrets and without anything that steers a terminal.
pub(super) fn message(text: &str) {
    write_message(&format!("{}\n", escaped(&without_secrets(text))));
}

/// Writes to stderr. A failure cannot be reported anywhere.
fn write_message(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Shows an error with its causes and what to do about it.
pub(super) fn show_error(error: &CliError) {
    if let CliError::Manifest(manifest) = error {
        let is_terminal = std::io::stderr().is_terminal();
        write_message(&manifest.render(MESSAGE_WIDTH, is_terminal));
        return;
    }
    show_chain("error", error, error.help().as_deref());
}

/// Shows an error with its causes, each on a line, and a hint.
pub(super) fn show_chain(head: &str, error: &dyn std::error::Error, help: Option<&str>) {
    message(&format!("{head}: {error}"));
    let mut shown = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !shown.ends_with(&text) {
            message(&format!("  because {text}"));
        }
        shown = text;
        source = cause.source();
    }
    if let Some(help) = help {
        message(&format!("  help: {}", help.replace('\n', "\n        ")));
    }
}
