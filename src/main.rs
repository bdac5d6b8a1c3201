//! Parses the command line, runs it, and maps the outcome to an exit code.

use std::process::ExitCode;

use clap::Parser;
use patchflow::cli::{self, Arguments, Environment};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let environment = Environment {
        variables: std::env::vars().collect(),
        folder: std::env::current_dir().unwrap_or_default(),
    };
    cli::run(arguments, &environment).into()
}
