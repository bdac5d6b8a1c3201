//! `patchflow explain`.

use clap::Args;

use super::session::{self, CliError};
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::plan::{Resolver, explain, survey};

/// Arguments of `explain`.
#[derive(Args)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// The stage.
    stage: String,
}

/// Says why a stage would run.
pub(super) fn run(arguments: &ExplainArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (experiment, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    session::check_stage(&experiment, &arguments.stage)?;
    let mut resolver = Resolver::new(&project.store, &project.root, session::rehash(&arguments.manifest));
    let statuses = survey(&plan, &mut resolver, &project.store).map_err(CliError::Plan)?;
    let explanations = explain(&plan, &statuses, &project.store, &arguments.stage);
    if explanations.is_empty() {
        terminal::tell(&format!("no variant needs `{}`", arguments.stage));
    }
    let mut shown = Vec::new();
    for explanation in explanations {
        let line = explanation.to_string();
        if !shown.contains(&line) {
            terminal::print(&format!("{line}\n"));
            shown.push(line);
        }
    }
    Ok(Exit::Done)
}
