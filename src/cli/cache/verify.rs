//! `patchflow cache verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cache::{Described, Digest, VerifyProgress, VerifyReport};
use crate::cli::error::CliError;
use crate::cli::run::{self as run_command, RunArguments};
use crate::cli::session::{self, Project};
use crate::cli::terminal::Verbosity;
use crate::cli::{Environment, Exit, terminal};
use crate::engine;
use crate::text::counted;

/// Arguments of `cache verify`.
#[derive(Args)]
pub(super) struct VerifyArguments {
    /// Then run this manifest and make every damaged, missing or evicted object of its tasks again.
    #[arg(long, value_name = "MANIFEST")]
    repair: Option<PathBuf>,
}

/// Verifies the cache, and repairs it on request.
pub(super) fn run(arguments: &VerifyArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let report = verify(&project)?;
    show(&project, &report);
    let Some(manifest) = &arguments.repair else {
        if report.damaged.is_empty() {
            return Ok(Exit::Done);
        }
        terminal::message("the next run that reads a damaged object makes it again");
        return Ok(Exit::Differs);
    };
    // The run opens the cache again: this instance would still trust the objects that it has verified.
    drop(project.cache);
    let exit = run_command::run(&RunArguments::restoring(manifest.clone()), Verbosity::Usual, environment)?;
    let left: Vec<&PathBuf> = report.damaged.iter().filter(|path| !path.exists()).collect();
    for path in &left {
        terminal::print(&format!("not made by this manifest, so not repaired: {}\n", path.display()));
    }
    Ok(if exit == Exit::Done && !left.is_empty() { Exit::Differs } else { exit })
}

fn verify(project: &Project) -> Result<VerifyReport, CliError> {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("verifying {bar:30} {pos}/{len} objects  {eta} left") {
        bar.set_style(style);
    }
    let progress = |progress: VerifyProgress| {
        bar.set_length(progress.objects_total);
        bar.set_position(progress.objects);
    };
    let report = project.cache.housekeeping().verify(&progress).map_err(CliError::Cache)?;
    bar.finish_and_clear();
    Ok(report)
}

fn show(project: &Project, report: &VerifyReport) {
    let damaged = report.damaged.iter().filter_map(|path| project.cache.housekeeping().object_at(path));
    let wanted: BTreeSet<Digest> = damaged.collect();
    let holders = project.cache.housekeeping().holders(&wanted, &engine::describe);
    for path in &report.damaged {
        let of = project
            .cache
            .housekeeping()
            .object_at(path)
            .map(|digest| owner(&holders, &digest))
            .unwrap_or_default();
        terminal::print(&format!("damaged, moved to the quarantine: {}{of}\n", path.display()));
    }
    for path in &report.foreign {
        terminal::print(&format!("not a file of the cache, left unchanged: {}\n", path.display()));
    }
    terminal::print(&format!(
        "{} ({} bytes), {}, {}: {} damaged\n",
        counted(report.objects as usize, "object"),
        report.object_bytes,
        counted(report.trees as usize, "tree"),
        counted(report.records as usize, "record"),
        report.damaged.len()
    ));
}

/// `, of extract "features" in dual_aug`: the task to which an object belongs.
fn owner(holders: &BTreeMap<Digest, Vec<Described>>, digest: &Digest) -> String {
    let holders = holders.get(digest).map(Vec::as_slice).unwrap_or_default();
    // A task identifies the object better than a per-image record.
    let Some(holder) = holders.iter().max_by_key(|holder| !holder.stage.is_empty()) else {
        return ", held by no record".to_owned();
    };
    let stage = if holder.stage.is_empty() { String::new() } else { format!(" `{}`", holder.stage) };
    let experiments = holder.experiments.join(", ");
    let of = if experiments.is_empty() { String::new() } else { format!(" in {experiments}") };
    format!(", of {}{stage}{of}", holder.kind)
}
