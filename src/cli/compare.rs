//! `patchflow compare`.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::{Environment, Exit, terminal};
use crate::manifest;
use crate::report::{Comparison, MetricsShown, find_run};

/// Arguments of `compare`.
#[derive(Args)]
pub(super) struct CompareArguments {
    /// A run: its id or the beginning of it, `EXPERIMENT/ID`, `latest`, `EXPERIMENT/latest`, or a folder.
    #[arg(value_name = "RUN")]
    old: String,
    /// The run to compare it with.
    #[arg(value_name = "RUN")]
    new: String,
    /// Also show equal metrics.
    #[arg(long)]
    all: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints the differences between two runs.
pub(super) fn run(arguments: &CompareArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = manifest::find_project(&environment.folder);
    let find = |name: &str| find_run(&project, &environment.folder, name).map_err(CliError::History);
    let ((old_folder, old), (new_folder, new)) = (find(&arguments.old)?, find(&arguments.new)?);
    let shown = if arguments.all { MetricsShown::All } else { MetricsShown::Differing };
    let comparison = Comparison::of(&old, &new, shown);
    let name = |folder: &Path| {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let runs = project.join("runs");
        let runs = runs.canonicalize().unwrap_or(runs);
        folder.strip_prefix(runs).unwrap_or(&folder).display().to_string()
    };
    let (old_name, new_name) = (name(&old_folder), name(&new_folder));
    if arguments.json {
        let compared = json!({ "runs": [old_name, new_name], "differences": comparison });
        terminal::print(&format!("{compared}\n"));
    } else {
        let text = comparison.to_text(&old_name, &new_name);
        terminal::print(&terminal::prose(&text, 2, environment));
    }
    Ok(Exit::Done)
}
