//! `patchflow cache`.

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::session::{self, CliError};
use super::{Environment, Exit, terminal};
use crate::store::VerifyProgress;

/// Arguments of `cache`.
#[derive(Args)]
pub(super) struct CacheArguments {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Hash every object, listing and record again; put what is damaged aside. Exit code 3 if any was.
    Verify,
}

/// Looks after the cache.
pub(super) fn run(arguments: &CacheArguments, environment: &Environment) -> Result<Exit, CliError> {
    match arguments.command {
        CacheCommand::Verify => verify(environment),
    }
}

fn verify(environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("verifying {bar:30} {pos}/{len} objects  {eta} left") {
        bar.set_style(style);
    }
    let progress = |progress: VerifyProgress| {
        bar.set_length(progress.objects_total);
        bar.set_position(progress.objects);
    };
    let report = project.store.verify(&progress).map_err(CliError::Store)?;
    bar.finish_and_clear();
    for path in &report.damaged {
        terminal::print(&format!("damaged, put into quarantine: {}\n", path.display()));
    }
    for path in &report.foreign {
        terminal::print(&format!("not of the cache, left alone: {}\n", path.display()));
    }
    terminal::print(&format!(
        "{} objects ({} bytes), {} listings, {} records: {} damaged\n",
        report.objects,
        report.object_bytes,
        report.trees,
        report.records,
        report.damaged.len()
    ));
    if report.damaged.is_empty() {
        return Ok(Exit::Done);
    }
    terminal::tell("the next run that needs what was damaged makes it again");
    Ok(Exit::Differs)
}
