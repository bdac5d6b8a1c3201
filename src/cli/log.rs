//! `patchflow log`: the logs of a stage's cached tasks.

use std::fmt::Write as _;

use clap::Args;

use super::error::CliError;
use super::session;
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::cache::{Cache, Digest};
use crate::plan::{Plan, Record, TaskId};
use crate::text::on_one_line;

/// Arguments of `log`.
#[derive(Args)]
pub(super) struct LogArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// The stage.
    stage: String,
}

/// Prints the logs of a stage's cached tasks. Those of failed tasks are in the run's folder.
pub(super) fn run(arguments: &LogArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (experiment, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    session::check_stage(&experiment, &arguments.stage)?;
    let statuses = session::survey(&arguments.manifest, &plan, &project)?;
    let (mut shown, mut found) = (0, 0);
    for (index, (task, status)) in plan.tasks.iter().zip(&statuses).enumerate() {
        if task.stage != arguments.stage {
            continue;
        }
        found += 1;
        let key = status.resolution.as_ref().map(|resolution| resolution.key);
        if let Some(log) = key.and_then(|key| log_of(&plan, TaskId(index), &key, &project.cache)) {
            terminal::print(&log);
            shown += 1;
        } else if status.state().is_hit() {
            terminal::message(&format!("{}: {}", title(&plan, TaskId(index)), status.reason));
        } else {
            terminal::message(&format!(
                "{}: not in the cache ({})",
                title(&plan, TaskId(index)),
                status.reason
            ));
        }
    }
    if found == 0 {
        terminal::message(&format!("no variant needs `{}`", arguments.stage));
    }
    Ok(if shown > 0 || found == 0 { Exit::Done } else { Exit::Failed })
}

/// The name of a task with the axis values that distinguish it from others of its stage.
pub(super) fn title(plan: &Plan, id: TaskId) -> String {
    let name = &plan.tasks[id.0].name;
    match plan.values_of(id).as_str() {
        "" => name.clone(),
        values => format!("{name} ({values})"),
    }
}

/// As [`title`], with the name in backquotes: for sentences.
pub(super) fn quoted_title(plan: &Plan, id: TaskId) -> String {
    let name = &plan.tasks[id.0].name;
    format!("`{name}`{}", super::session::of_values(&plan.values_of(id)))
}

/// The titles of all tasks of a plan.
pub(super) fn titles(plan: &Plan) -> Vec<String> {
    (0..plan.tasks.len()).map(|index| title(plan, TaskId(index))).collect()
}

/// The log of a cached task, under a heading with its time and host; `None` without a record.
pub(super) fn log_of(plan: &Plan, id: TaskId, key: &Digest, cache: &Cache) -> Option<String> {
    let record = Record::from_bytes(&cache.records().get(key).ok()??)?;
    let made = &record.provenance;
    let finished = on_one_line(made.finished.get(..19).unwrap_or(&made.finished));
    let host = on_one_line(&made.host);
    let mut text = format!("== {}: {:.2} s on {host}, {finished}\n", title(plan, id), made.seconds);
    match made.log.as_ref().map(|log| log.read(cache)) {
        None => text += "(the log is empty)\n",
        Some(None) => text += "(its log is gone from the cache)\n",
        Some(Some(log)) => {
            let _ = writeln!(text, "{}", log.trim_end());
        }
    }
    Some(text)
}
