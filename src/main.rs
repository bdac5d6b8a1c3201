//! Parses the command line, runs it, and maps the outcome to an exit code.

use std::process::ExitCode;

use patchflow::cli::{self, Environment};

fn main() -> ExitCode {
    let arguments = match cli::parse() {
        Ok(arguments) => arguments,
        Err(exit) => return exit.into(),
    };
    let environment = Environment {
        // A name that is not UTF-8 is none that a manifest or this program could ask for.
        variables: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect(),
        folder: std::env::current_dir().unwrap_or_default(),
    };
    cli::run(arguments, &environment).into()
}
