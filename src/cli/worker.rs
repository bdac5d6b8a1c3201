//! `patchflow worker`: runs one sealed unit from the cache alone, for an executor that starts processes.
//!
//! The last line of stdout is a [`UnitReport`] as JSON. Exit codes: 0 it ran or a record answered it, 1 it failed or
//! its inputs are lost, 4 the unit is of another build, 130 it was stopped.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::interrupt::{CANCELLED, handle_interrupts};
use super::session;
use super::{Environment, Exit, hints, terminal};
use crate::engine::{self, Options, Unit, UnitReport};

/// Arguments of `worker`.
#[derive(Args)]
pub(super) struct WorkerArguments {
    /// The sealed unit; `-` for standard input.
    unit: PathBuf,
}

/// Runs one unit.
pub(super) fn run(arguments: &WorkerArguments, environment: &Environment) -> Result<Exit, CliError> {
    let path = environment.folder.join(&arguments.unit);
    let sealed = read(&arguments.unit, &path).map_err(|source| CliError::UnitFile { path, source })?;
    let unit = Unit::open(&sealed).map_err(CliError::Unit)?;
    let project = session::open_project(environment)?;
    let project = session::with_remote(project, None, unit.is_offline, environment)?;
    handle_interrupts();
    let options = Options {
        threads: unit.threads,
        is_offline: unit.is_offline,
        search_device: project.config.search_device(),
        environment: environment.variables.clone(),
        ..Options::new(project.root.clone(), &CANCELLED, &|_| {})
    };
    let report = engine::work(&unit, &project.cache, &options, &|failure| hints::of(failure))
        .map_err(CliError::Engine)?;
    let line = serde_json::to_string(&report).expect("a report holds only strings and finite numbers");
    terminal::print(&format!("{line}\n"));
    Ok(exit(&report))
}

fn read(typed: &Path, path: &Path) -> std::io::Result<Vec<u8>> {
    if typed != Path::new("-") {
        return std::fs::read(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn exit(report: &UnitReport) -> Exit {
    match report {
        UnitReport::Executed { .. } | UnitReport::Hit { .. } => Exit::Done,
        UnitReport::Failed { is_cancelled: true, .. } => Exit::Interrupted,
        UnitReport::InputsLost { .. } | UnitReport::Failed { .. } => Exit::Failed,
    }
}
