//! The estimate of a run in time and bytes, and its check against a budget; shared by `plan` and `run`.

use serde_json::{Value, json};

use super::amounts;
use super::disk::free_bytes;
use super::error::CliError;
use super::session::Project;
use crate::plan::{Basis, Estimate, History, Models, Plan, Status, estimate, makespan};

/// A limit of time or of bytes written, set by the user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Budget {
    /// Seconds of the whole run.
    Seconds(f64),
    /// Bytes written to the cache.
    Bytes(u64),
}

/// Parses `2h` or `50GB`.
pub(super) fn parse_budget(text: &str) -> Result<Budget, String> {
    let time = amounts::parse_duration(text).map(|time| Budget::Seconds(time.as_secs_f64()));
    time.or_else(|_| amounts::parse_bytes(text).map(Budget::Bytes))
        .map_err(|_| format!("`{text}` is neither a duration such as 2h nor a size such as 50GB"))
}

/// The estimate of all tasks that are not hits.
pub(super) struct Forecast {
    /// The estimate of each task; `None` for hits and for tasks without a usable record.
    pub(super) tasks: Vec<Option<Estimate>>,
    jobs: usize,
    seconds: f64,
    peak_bytes: Option<u64>,
    written_bytes: u64,
    free_bytes: Option<u64>,
    /// The number of tasks that may run and cannot be estimated.
    unknown: usize,
    /// The number of tasks that may run.
    open: usize,
    /// The number of estimates made before the inputs exist.
    guesses: usize,
}

impl Forecast {
    /// Estimates a plan from the records of the cache, which are read only if something would run.
    pub(super) fn new(plan: &Plan, statuses: &[Status], project: &Project, jobs: usize) -> Self {
        let open = statuses.iter().filter(|status| !status.state().is_hit()).count();
        let history = if open == 0 { History::default() } else { History::load(&project.cache) };
        let tasks = estimate(plan, statuses, &mut Models::new(history), &project.cache);
        let known = || tasks.iter().flatten();
        let seconds: Vec<f64> =
            tasks.iter().map(|task| task.as_ref().map_or(0.0, |estimate| estimate.seconds)).collect();
        Self {
            jobs,
            seconds: makespan(plan, &seconds, jobs),
            peak_bytes: known().filter_map(|estimate| estimate.peak_bytes).max(),
            written_bytes: known().map(|estimate| estimate.output_bytes).sum(),
            free_bytes: free_bytes(project.cache.root()),
            unknown: open - known().count(),
            open,
            guesses: known().filter(|estimate| matches!(estimate.basis, Basis::Guess { .. })).count(),
            tasks,
        }
    }

    /// The text under a plan; empty if nothing would run.
    pub(super) fn to_text(&self) -> String {
        if self.open == 0 {
            return String::new();
        }
        if self.unknown == self.open {
            return "no estimate: no task of these kinds has run with this cache\n".to_owned();
        }
        let about = if self.unknown > 0 { "at least" } else { "about" };
        let mut parts =
            vec![format!("{about} {} with {} at once", amounts::seconds(self.seconds), self.jobs)];
        parts.extend(
            self.peak_bytes.map(|peak| format!("{} of memory for the largest task", amounts::bytes(peak))),
        );
        let free =
            self.free_bytes.map_or_else(String::new, |free| format!(" ({} free)", amounts::bytes(free)));
        parts.push(format!("{} to write{free}", amounts::bytes(self.written_bytes)));
        let mut sentences = vec![parts.join(", ")];
        if self.guesses > 0 {
            let guesses =
                format!("{} of {} are guesses: their inputs do not exist yet", self.guesses, self.open);
            sentences.push(guesses);
        }
        if self.unknown > 0 {
            sentences.push(format!("{} of {} have no record to estimate from", self.unknown, self.open));
        }
        if self.free_bytes.is_some_and(|free| free < self.written_bytes) {
            sentences.push("warning: the disk has less free space than would be written".to_owned());
        }
        sentences.join("; ") + "\n"
    }

    /// The totals for JSON.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "jobs": self.jobs,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "written_bytes": self.written_bytes,
            "free_bytes": self.free_bytes,
            "guesses": self.guesses,
            "without_record": self.unknown,
        })
    }

    /// Fails if the estimate exceeds a budget.
    pub(super) fn check(&self, budgets: &[Budget]) -> Result<(), CliError> {
        for &budget in budgets {
            let (needed, allowed) = match budget {
                Budget::Seconds(limit) if self.seconds > limit => {
                    (amounts::seconds(self.seconds), amounts::seconds(limit))
                }
                Budget::Bytes(limit) if self.written_bytes > limit => {
                    (amounts::bytes(self.written_bytes), amounts::bytes(limit))
                }
                _ => continue,
            };
            return Err(CliError::Budget { needed, allowed });
        }
        Ok(())
    }

    /// A warning if some tasks cannot be estimated, so that a budget does not count them.
    pub(super) fn warning(&self) -> Option<String> {
        (self.unknown > 0).then(|| {
            format!(
                "the budget does not count {} of {} tasks, which have no record to estimate from",
                self.unknown, self.open
            )
        })
    }
}

/// The estimate of one task as JSON.
pub(super) fn task_json(estimate: Option<&Estimate>) -> Value {
    let Some(Estimate { seconds, peak_bytes, output_bytes, basis }) = estimate else { return Value::Null };
    json!({
        "seconds": seconds,
        "peak_bytes": peak_bytes,
        "output_bytes": output_bytes,
        "basis": basis.name(),
    })
}
