//! `patchflow runs`.

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::{Environment, Exit, terminal};
use crate::manifest;
use crate::report::{Column, GroupResult, PastRun, TextTable, past_runs};
use crate::text::counted;

/// The most groups of variants that are shown for a run if no experiment is named.
const MOST_GROUPS: usize = 3;

/// Arguments of `runs`.
#[derive(Args)]
pub(super) struct RunsArguments {
    /// Only the runs of this experiment, with all their groups of variants.
    experiment: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Lists the project's runs, the newest first.
pub(super) fn run(arguments: &RunsArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = manifest::find_project(&environment.folder);
    let runs = past_runs(&project, arguments.experiment.as_deref()).map_err(CliError::History)?;
    if arguments.json {
        terminal::print(&format!("{}\n", json!({ "runs": runs })));
    } else if runs.is_empty() {
        terminal::message(&format!("no runs in `{}`", project.join("runs").display()));
    } else {
        let most = if arguments.experiment.is_some() { usize::MAX } else { MOST_GROUPS };
        terminal::print(&format!("{}\n", to_text(&runs, most, terminal::width(environment))));
    }
    Ok(Exit::Done)
}

fn to_text(runs: &[PastRun], most_groups: usize, width: usize) -> String {
    let mut table = TextTable::new([
        ("run", Column::Word),
        ("manifest", Column::Spare),
        ("outcome", Column::Word),
        ("executed", Column::Number),
        ("cached", Column::Number),
        ("seconds", Column::Number),
        ("image AUROC", Column::Number),
        ("of", Column::Text),
    ]);
    for run in runs {
        for (line, (auroc, group)) in results(&run.groups, most_groups).into_iter().enumerate() {
            let of_run = [
                // The id stays whole, so that it can be copied for `compare`.
                format!("{}/\n{}", run.experiment, run.id),
                run.manifest.clone(),
                run.outcome.word().to_owned(),
                run.executed.to_string(),
                run.cached.to_string(),
                run.seconds.map(|seconds| format!("{seconds:.2}")).unwrap_or_default(),
            ];
            let of_run = of_run.map(|cell| if line == 0 { cell } else { String::new() });
            table.add(of_run.into_iter().chain([auroc, group]));
        }
    }
    table.draw(width)
}

/// The last two cells of each line of a run: the metric of a group, and the group.
fn results(groups: &[GroupResult], most: usize) -> Vec<(String, String)> {
    let mean = |group: &GroupResult| match group.deviation {
        None => format!("{:.4}", group.mean),
        Some(deviation) => format!("{:.4} ± {deviation:.4}", group.mean),
    };
    let mut lines: Vec<(String, String)> =
        groups.iter().take(most).map(|group| (mean(group), group.group.clone())).collect();
    if groups.len() > most {
        let more = counted(groups.len() - most, "lower group");
        lines.push((String::new(), format!("and {more}")));
    }
    if lines.is_empty() {
        lines.push((String::new(), String::new()));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RunStatus;

    #[test]
    fn the_id_of_a_run_can_be_copied_on_a_screen_of_80_columns() {
        let group = |group: &str| GroupResult {
            group: group.to_owned(),
            metric: "image_auroc",
            mean: 0.75,
            deviation: Some(0.05),
            repeats: 3,
        };
        let run = |groups: Vec<GroupResult>| PastRun {
            experiment: "parts".to_owned(),
            id: "20261129-085547-20151".to_owned(),
            started: String::new(),
            manifest: "parts.toml".to_owned(),
            outcome: RunStatus::Interrupted,
            executed: 22,
            cached: 2,
            seconds: Some(5.0),
            groups,
            folder: "runs".into(),
        };
        let text = to_text(&[run(vec![group("backbone=wide_resnet50_2,ratio=0.1")])], 3, 80);
        assert!(text.lines().any(|line| line.starts_with("20261129-085547-20151 ")), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let without = to_text(&[run(Vec::new())], 3, 80);
        assert!(!without.contains("AUROC"), "no run has the metric: {without}");
    }
}
