//! The estimate of a run in time and bytes, and its check against a budget; shared by `plan` and `run`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::amounts;
use super::disk::free_bytes;
use super::error::CliError;
use super::session::{self, Project};
use super::terminal;
use crate::plan::{
    Basis, Cost, Estimate, History, Load, Models, Plan, Reason, Status, Unknown, estimate, makespan,
};

/// A limit of time or of bytes written, set by the user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Budget {
    /// Seconds of the whole run.
    Seconds(f64),
    /// Bytes written to the cache.
    Bytes(u64),
}

/// Arguments that refuse a run which would take too much.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct BudgetArguments {
    /// Run nothing and end with code 4 if the run would take more, or if that cannot be said: `2h`, `50GB`; may be
    /// repeated.
    #[arg(long, value_name = "LIMIT", value_parser = parse_budget)]
    pub(super) budget: Vec<Budget>,
    /// Compare only what can be estimated with the budget.
    #[arg(long, requires = "budget")]
    pub(super) budget_guess: bool,
}

/// Parses `2h` or `50GB`.
fn parse_budget(text: &str) -> Result<Budget, String> {
    let time = amounts::parse_duration(text).map(|time| Budget::Seconds(time.as_secs_f64()));
    time.or_else(|_| amounts::parse_bytes(text).map(Budget::Bytes))
        .map_err(|_| format!("`{text}` is neither a duration such as 2h nor a size such as 50GB"))
}

/// A number with the range that it may lie in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    least: f64,
    likely: f64,
    most: f64,
}

/// The estimate of all tasks that would run.
pub(super) struct Forecast {
    /// The cost of each task.
    pub(super) tasks: Vec<Cost>,
    jobs: usize,
    /// Seconds of the tasks that can be estimated, together.
    seconds: Range,
    written_bytes: Range,
    peak_bytes: Option<u64>,
    free_bytes: Option<u64>,
    /// The number of tasks that cannot be estimated, by the reason.
    unknown: BTreeMap<Unknown, usize>,
    /// The number of tasks that would run.
    open: usize,
    /// The number of estimates that are guesses.
    guesses: usize,
}

/// Returns the factors from an estimate to the least and the most that it may be.
fn factors(bound: f64) -> [f64; 3] {
    [1.0 / bound, 1.0, bound]
}

impl Forecast {
    /// Estimates a plan from the records of the cache, which are read only if something would run.
    pub(super) fn new(plan: &Plan, statuses: &[Status], project: &Project, jobs: usize) -> Self {
        let would_run =
            |status: &&Status| !status.state().is_hit() && !matches!(status.reason, Reason::EqualTo { .. });
        let open = statuses.iter().filter(would_run).count();
        let history = if open == 0 { History::default() } else { History::load(&project.cache) };
        let tasks = estimate(plan, statuses, &mut Models::new(history), &project.cache);
        let known = || tasks.iter().filter_map(Cost::known);
        let cores = session::threads(None, &project.config);
        let seconds = |which: usize| {
            let load = |estimate: &Estimate| estimate.load(factors(estimate.bound)[which], jobs, cores);
            let loads: Vec<Load> =
                tasks.iter().map(|cost| cost.known().map_or_else(Load::default, load)).collect();
            makespan(plan, &loads, jobs, cores)
        };
        let bytes = |which: usize| -> f64 {
            known().map(|estimate| estimate.output_bytes as f64 * factors(estimate.bytes_bound)[which]).sum()
        };
        let range = |of: &dyn Fn(usize) -> f64| Range { least: of(0), likely: of(1), most: of(2) };
        let mut unknown = BTreeMap::new();
        for cost in &tasks {
            if let Cost::Unknown(why) = cost {
                *unknown.entry(*why).or_default() += 1;
            }
        }
        Self {
            jobs,
            seconds: range(&seconds),
            written_bytes: range(&bytes),
            peak_bytes: known().filter_map(|estimate| estimate.peak_bytes).max(),
            free_bytes: free_bytes(project.cache.root()),
            unknown,
            open,
            guesses: known().filter(|estimate| matches!(estimate.basis, Basis::Guess { .. })).count(),
            tasks,
        }
    }

    /// The number of tasks that cannot be estimated.
    fn unknown(&self) -> usize {
        self.unknown.values().sum()
    }

    /// `31 of 40 tasks cannot be estimated: nothing like them has run on this machine`.
    fn unknown_text(&self) -> String {
        let mut causes = Vec::new();
        for (&why, &count) in &self.unknown {
            let (of_them, they) = match self.unknown.len() {
                1 => ("them".to_owned(), "they".to_owned()),
                _ => (format!("{count} of them"), count.to_string()),
            };
            causes.push(match why {
                Unknown::NoRecord => format!("nothing like {of_them} has run on this machine"),
                Unknown::OtherSize => {
                    format!(
                        "nothing like {of_them} of a tenth to ten times their size has run on this machine"
                    )
                }
                Unknown::UnknownInputs => format!("{they} read data of unknown size"),
                Unknown::Network => format!("{they} depend on the network"),
            });
        }
        format!("{} of {} tasks cannot be estimated: {}", self.unknown(), self.open, causes.join(", "))
    }

    /// The text under a plan; empty if nothing would run.
    pub(super) fn to_text(&self) -> String {
        if self.open == 0 {
            return String::new();
        }
        let unknown = self.unknown();
        if unknown == self.open {
            return format!("cannot tell how long it takes: {}\n", self.unknown_text());
        }
        let free =
            self.free_bytes.map_or_else(String::new, |free| format!(" ({} free)", amounts::bytes(free)));
        let about = if unknown > 0 { "at least " } else { "about " };
        let written = if unknown > 0 { self.written_bytes.least } else { self.written_bytes.likely };
        let mut parts = vec![format!("{about}{} with {} at once", self.seconds_text(), self.jobs)];
        parts.extend(
            self.peak_bytes.map(|peak| format!("{} of memory for the largest task", amounts::bytes(peak))),
        );
        parts.push(format!("{} to write{free}", amounts::bytes(written as u64)));
        let mut sentences = vec![parts.join(", ")];
        if unknown > 0 {
            sentences.push(self.unknown_text());
        }
        if self.guesses > 0 {
            let guesses =
                format!("{} of {} are guesses (`~`): their inputs do not exist yet", self.guesses, self.open);
            sentences.push(guesses);
        }
        if self.free_bytes.is_some_and(|free| (free as f64) < written) {
            sentences.push("warning: the disk has less free space than would be written".to_owned());
        }
        sentences.join("; ") + "\n"
    }

    /// The least if tasks are missing from it; else `12 s (6.00-24 s)`.
    fn seconds_text(&self) -> String {
        let Range { least, likely, most } = self.seconds;
        if !self.unknown.is_empty() {
            return amounts::seconds(least);
        }
        if least < likely {
            return format!("{} ({})", amounts::seconds(likely), amounts::seconds_range(least, most));
        }
        amounts::seconds(likely)
    }

    /// The totals for JSON.
    pub(super) fn to_json(&self) -> Value {
        let is_whole = self.unknown.is_empty();
        let whole = |number: f64| is_whole.then_some(number);
        let causes: BTreeMap<&str, usize> =
            self.unknown.iter().map(|(why, count)| (why.name(), *count)).collect();
        json!({
            "jobs": self.jobs,
            "seconds": whole(self.seconds.likely),
            "seconds_at_least": self.seconds.least,
            "seconds_at_most": whole(self.seconds.most),
            "peak_bytes": self.peak_bytes,
            "written_bytes": whole(self.written_bytes.likely).map(|bytes| bytes as u64),
            "written_bytes_at_least": self.written_bytes.least as u64,
            "free_bytes": self.free_bytes,
            "guesses": self.guesses,
            "unestimated": self.unknown(),
            "no_estimate": causes,
        })
    }

    /// Fails if the estimate exceeds a budget or, unless the user accepts a part of it, if it is not complete.
    pub(super) fn check(&self, arguments: &BudgetArguments) -> Result<(), CliError> {
        let most = |range: Range| if range.most > range.likely { "up to " } else { "" };
        for &budget in &arguments.budget {
            let (range, needed, allowed, is_over) = match budget {
                Budget::Seconds(limit) => {
                    let needed = self.seconds.most;
                    (self.seconds, amounts::seconds(needed), amounts::seconds(limit), needed > limit)
                }
                Budget::Bytes(limit) => {
                    let needed = self.written_bytes.most as u64;
                    (self.written_bytes, amounts::bytes(needed), amounts::bytes(limit), needed > limit)
                }
            };
            if is_over {
                return Err(CliError::Budget { needed: format!("{}{needed}", most(range)), allowed });
            }
        }
        if arguments.budget.is_empty() || self.unknown.is_empty() {
            return Ok(());
        }
        if !arguments.budget_guess {
            return Err(CliError::UnknownCost { why: self.unknown_text() });
        }
        terminal::message(&format!("warning: the budget does not count all tasks: {}", self.unknown_text()));
        Ok(())
    }
}

/// The cost of one task as JSON.
pub(super) fn task_json(cost: &Cost) -> Value {
    let Some(estimate) = cost.known() else { return Value::Null };
    let Estimate { seconds, bound: _, bytes_bound: _, cpu_seconds: _, peak_bytes, output_bytes, basis } =
        estimate;
    json!({
        "seconds": seconds,
        "seconds_at_least": estimate.seconds_at_least(),
        "seconds_at_most": estimate.seconds_at_most(),
        "peak_bytes": peak_bytes,
        "output_bytes": output_bytes,
        "basis": basis.name(),
    })
}

/// The cost of one task for the table: `12 s`; `~12 s (6.00-24 s)` for a guess; `unknown`.
pub(super) fn task_text(cost: &Cost) -> String {
    match cost {
        Cost::Nothing => String::new(),
        Cost::Unknown(_) => "unknown".to_owned(),
        Cost::Known(estimate) => {
            let seconds = amounts::seconds(estimate.seconds);
            let (least, most) = (estimate.seconds_at_least(), estimate.seconds_at_most());
            match estimate.basis {
                Basis::Guess { .. } => format!("~{seconds} ({})", amounts::seconds_range(least, most)),
                Basis::Itself | Basis::Scaled { .. } => seconds,
            }
        }
    }
}
