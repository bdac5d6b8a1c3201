//! `patchflow completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, terminal};

/// Arguments of `completions`.
#[derive(Args)]
pub(super) struct CompletionArguments {
    /// The shell.
    shell: Shell,
}

/// Prints a completion script.
pub(super) fn run(arguments: &CompletionArguments) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "patchflow", &mut script);
    terminal::print(&String::from_utf8_lossy(&script));
}
