//! `patchflow runs`.

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::{Environment, Exit, terminal};
use crate::manifest;
use crate::report::{PastRun, past_runs};

/// Arguments of `runs`.
#[derive(Args)]
pub(super) struct RunsArguments {
    /// Only the runs of this experiment.
    experiment: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Lists the project's runs, the newest first.
pub(super) fn run(arguments: &RunsArguments, environment: &Environment) -> Exit {
    let project = manifest::find_project(&environment.folder);
    let runs = past_runs(&project, arguments.experiment.as_deref());
    if arguments.json {
        terminal::print(&format!("{}\n", json!({ "runs": runs })));
    } else if runs.is_empty() {
        let runs = project.join("runs");
        match &arguments.experiment {
            Some(name) if !runs.join(name).is_dir() => {
                terminal::message(&format!(
                    "no experiment `{name}` has run: nothing in `{}`",
                    runs.display()
                ));
            }
            _ => terminal::message(&format!("no runs in `{}`", runs.display())),
        }
    } else {
        terminal::print(&format!("{}\n", to_text(&runs)));
    }
    Exit::Done
}

fn to_text(runs: &[PastRun]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["run", "began", "manifest", "outcome", "executed", "cached", "seconds", "image AUROC"]);
    for run in runs {
        let best = run.best.as_ref().map(|best| format!("{:.4} of {}", best.value, best.variant));
        table.add_row([
            format!("{}/{}", run.experiment, run.id),
            run.started.get(..19).unwrap_or_default().replace('T', " "),
            run.manifest.clone(),
            run.outcome.word().to_owned(),
            run.executed.to_string(),
            run.cached.to_string(),
            run.seconds.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            best.unwrap_or_default(),
        ]);
    }
    table
}
