//! All output to the terminal: data to stdout, messages and logs to stderr.
#![expect(clippy::print_stderr, reason = "this file is the terminal")]

use std::io::{IsTerminal, Write};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use super::Environment;
use super::error::CliError;

/// Columns at which diagnostics wrap.
const MESSAGE_WIDTH: usize = 100;

/// Sends log lines to stderr.
pub(super) fn start_logging(verbose: u8, environment: &Environment) {
    let default = match verbose {
        // Without a terminal there are no progress bars, so log lines show the progress.
        0 if std::io::stderr().is_terminal() => "warn",
        0 | 1 => "patchflow=info",
        _ => "patchflow=debug",
    };
    let wanted = environment.variables.get("RUST_LOG").map_or(default, String::as_str);
    let filter: Targets = wanted.parse().or_else(|_| default.parse()).unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // Only the first call in a process has an effect; tests call this more than once.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// Writes data to stdout. A closed pipe, as after `| head`, is not an error.
pub(super) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes a message to stderr.
pub(super) fn message(text: &str) {
    eprintln!("{text}");
}

/// Shows an error with its causes and what to do about it.
pub(super) fn show_error(error: &CliError) {
    if let CliError::Manifest(manifest) = error {
        let is_terminal = std::io::stderr().is_terminal();
        eprint!("{}", manifest.render(MESSAGE_WIDTH, is_terminal));
        return;
    }
    show_chain("error", error, error.help().as_deref());
}

/// Shows an error with its causes, each on a line, and a hint.
pub(super) fn show_chain(head: &str, error: &dyn std::error::Error, help: Option<&str>) {
    eprintln!("{head}: {error}");
    let mut shown = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !shown.ends_with(&text) {
            eprintln!("  because {text}");
        }
        shown = text;
        source = cause.source();
    }
    if let Some(help) = help {
        eprintln!("  help: {}", help.replace('\n', "\n        "));
    }
}
