//! The results of a run that has ended: how they are gathered, written to its folder and shown.

use super::RunArguments;
use crate::artifacts::scores::Metrics;
use crate::cache::Cache;
use crate::cli::error::CliError;
use crate::cli::session::{self, Project};
use crate::cli::{Environment, Exit, hints, log, terminal};
use crate::engine::{self, Failure, Options, Outcome, OutcomeCounts, Run};
use crate::plan::{EqualValues, Notice, Plan, Record, Sizes, TaskId, equal_values};
use crate::report::{
    Differences, Folder, ResultTable, RunRequest, RunSummary, TableWarnings, differences, filled,
    variant_table,
};
use crate::text::counted;

/// The tables and the summary of a run.
pub(super) struct Results {
    table: ResultTable,
    differences: Differences,
    summary: RunSummary,
}

impl Results {
    /// Reads the metrics of a run and gathers its tables and its summary.
    pub(super) fn of(request: RunRequest, plan: &Plan, run: &Run, cache: &Cache) -> Self {
        let metrics = read_metrics(plan, run, cache);
        let of_task = |task: usize| metrics[task].clone();
        let outputs = |task: TaskId| run.tasks[task.0].outputs.as_ref();
        let summary = RunSummary::new(request, plan, run, &of_task, &|task| notices(run, task, cache));
        let equal_values = equal_values(plan, &mut Sizes::new(plan, cache), &outputs);
        Self {
            table: variant_table(plan, run, &of_task),
            differences: differences(plan, &of_task),
            summary: RunSummary { equal_values, ..summary },
        }
    }

    /// Writes the tables and the summary to the run's folder.
    pub(super) fn write(&self, folder: &Folder) -> Result<(), CliError> {
        folder.write(&self.summary, &self.table, &self.differences).map_err(CliError::Report)
    }

    /// Shows the results and what a reader has to know about them: with `--json` only the warnings that `expected` lacks.
    pub(super) fn show(
        &self,
        arguments: &RunArguments,
        (plan, run): (&Plan, &Run),
        expected: &[EqualValues],
        folder: &Folder,
        environment: &Environment,
    ) {
        if arguments.json {
            let unexpected = self.summary.equal_values.iter().filter(|equal| !expected.contains(equal));
            session::warn_of_equal_values(&unexpected.cloned().collect::<Vec<_>>());
        } else {
            terminal::print(&self.text(plan, run, folder, terminal::width(environment)));
        }
    }

    /// The text at the end of a run.
    fn text(&self, plan: &Plan, run: &Run, folder: &Folder, width: usize) -> String {
        let mut lines = self.tables(plan, width);
        if self.table.missing() > 0 {
            lines.push(format!("{} without metrics", counted(self.table.missing(), "evaluation")));
        }
        if self.table.has_values() {
            lines.extend(TableWarnings::new(&self.summary).lines());
        }
        lines.push(filled(&counts_text(plan, run), width, 2));
        lines.push(format!("files: {}", folder.relative().display()));
        if run.is_interrupted {
            lines.push("interrupted: finished work is kept; run again to continue".to_owned());
        }
        lines.join("\n") + "\n"
    }

    /// The tables under the question, each with what explains it.
    fn tables(&self, plan: &Plan, width: usize) -> Vec<String> {
        let Self { table, differences, summary: _ } = self;
        let mut lines = Vec::new();
        if !table.has_values() {
            return lines;
        }
        lines.extend(plan.question.as_ref().map(|question| filled(question, width, 0)));
        lines.push(table.to_text(width));
        if table.repeats() > 1 {
            lines.push(format!("mean ± standard deviation over {} repeats", table.repeats()));
        }
        if (1..=SHOWN_DIFFERENCES).contains(&differences.0.len()) {
            lines.push(differences.to_text(width));
            lines.push(filled(&differences.caption(), width, 2));
        } else if !differences.0.is_empty() {
            let count = counted(differences.0.len(), "paired difference");
            lines.push(format!("{count} between the axes' values: differences.md"));
        }
        lines
    }
}

/// The most differences that are printed at the end of a run.
const SHOWN_DIFFERENCES: usize = 24;

/// How the tasks ended: `16 tasks for 4 variants: 14 executed, 2 cached in 1.40 s`.
fn counts_text(plan: &Plan, run: &Run) -> String {
    let OutcomeCounts { executed, hits, remote_hits, merged, failed, blocked } = run.counts();
    let mut counts = vec![format!("{executed} executed"), format!("{hits} cached")];
    let others =
        [(remote_hits, "from the remote"), (merged, "merged"), (failed, "failed"), (blocked, "blocked")];
    counts
        .extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
    if run.remade > 0 {
        counts.push(format!("{} made again", run.remade));
    }
    format!(
        "{} for {}: {} in {:.2} s",
        counted(plan.tasks.len(), "task"),
        counted(plan.variants.len(), "variant"),
        counts.join(", "),
        run.duration.as_secs_f64()
    )
}

/// The metrics of each task, if it has any.
fn read_metrics(plan: &Plan, run: &Run, cache: &Cache) -> Vec<Option<Metrics>> {
    let read = |task: usize| session::metrics(cache, &run.tasks[task].outputs.as_ref()?.get("scores")?.tree);
    (0..plan.tasks.len()).map(|task| if plan.tasks[task].is_shown { read(task) } else { None }).collect()
}

/// What the stage of a task has noted and warned of, from the task's record.
fn notices(run: &Run, task: usize, cache: &Cache) -> Vec<Notice> {
    let bytes = run.tasks[task].key.and_then(|key| cache.records().get(&key).ok().flatten());
    let record = bytes.and_then(|bytes| Record::from_bytes(&bytes));
    record.map(|record| record.provenance.notices).unwrap_or_default()
}

/// Shows the logs of the cached tasks.
pub(super) fn replay_logs(plan: &Plan, run: &Run, cache: &Cache) {
    for (index, end) in run.tasks.iter().enumerate() {
        let (Outcome::Hit, Some(key)) = (end.outcome, &end.key) else { continue };
        if let Some(log) = log::log_of(plan, TaskId(index), key, cache) {
            terminal::message(log.trim_end());
        }
    }
}

/// Shows the warnings of the cache and its remote.
pub(super) fn show_cache_warnings(project: &Project) {
    let cache = &project.cache;
    session::show_remote_warnings(cache);
    if let Some(error) = cache.take_flush_error() {
        terminal::show_chain("warning", &error, Some(hints::UNFLUSHED));
    }
    if let Some(warning) = cache.index().take_warning() {
        terminal::show_chain("warning", &warning, Some("sources and objects are hashed again by each run"));
    }
}

/// Shows the error of each task that failed, and where its log is.
pub(super) fn show_failures(plan: &Plan, run: &Run, options: &Options<'_>) {
    for (index, (task, end)) in plan.tasks.iter().zip(&run.tasks).enumerate() {
        let (Outcome::Failed, Some(failure)) = (end.outcome, &end.failure) else { continue };
        let head = format!("error in {}", log::quoted_title(plan, TaskId(index)));
        terminal::show_chain(&head, failure, hints::of(failure).as_deref());
        if let Some(key) = &end.key {
            terminal::message(&format!("  log: {}", engine::log_path(options, task, key).display()));
        }
    }
}

/// The exit code of a run that was not interrupted. The codes of a violated lock take precedence over that of a failed
/// task.
pub(super) fn exit(run: &Run) -> Exit {
    let mut exit = Exit::Done;
    for failure in run.tasks.iter().filter_map(|task| task.failure.as_ref()) {
        exit = match failure {
            Failure::LockedOutput { .. } => return Exit::Differs,
            Failure::LockedKey { .. } => Exit::Refused,
            _ if exit == Exit::Refused => exit,
            _ => Exit::Failed,
        };
    }
    exit
}
