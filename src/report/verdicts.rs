//! The verdicts of a verification, as `verdict.json` and as text.

use std::collections::BTreeMap;

use serde::Serialize;

use super::text_table::{Column, TextTable};
use crate::engine::{Verdict, Verified};
use crate::plan::{Plan, Record};

/// The verdicts on the tasks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindVerdicts {
    /// Cached tasks of the plan, counting each key once.
    pub cached: usize,
    /// Tasks that were made again with the same bytes.
    pub same: usize,
    /// Tasks that were made again with other bytes, but with numbers within the kind's tolerance.
    pub close: usize,
    /// Tasks that were made again with other contents.
    pub differ: usize,
    /// Tasks that were made again with other contents, as their description allows on another machine, and whose record
    /// was made on another one.
    pub other_machine: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Tasks that could not be made again, because their inputs are not in the cache.
    pub unchecked: usize,
}

/// A verdict without its details, as `verdict.json` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// The same bytes.
    Same,
    /// Other bytes, but numbers within the tolerance.
    Close,
    /// Other contents.
    Differs,
    /// Other contents, as the description of the stage allows on another machine.
    OtherMachine,
    /// The task failed.
    Failed,
    /// The task could not be made again.
    Unchecked,
}

impl VerdictKind {
    fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Close => "close",
            Self::Differs => "differs",
            Self::OtherMachine => "other machine",
            Self::Failed => "failed",
            Self::Unchecked => "unchecked",
        }
    }
}

impl KindVerdicts {
    fn count_mut(&mut self, verdict: VerdictKind) -> &mut usize {
        match verdict {
            VerdictKind::Same => &mut self.same,
            VerdictKind::Close => &mut self.close,
            VerdictKind::Differs => &mut self.differ,
            VerdictKind::OtherMachine => &mut self.other_machine,
            VerdictKind::Failed => &mut self.failed,
            VerdictKind::Unchecked => &mut self.unchecked,
        }
    }
}

/// The verdict on one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskVerdict {
    /// Its name.
    pub task: String,
    /// The axis values that distinguish it from other tasks of its stage.
    pub values: String,
    /// Name of its kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// The verdict.
    pub verdict: VerdictKind,
    /// The first file that differs, as `<output>/<path>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How it differs, or why it failed or was not made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds that it took during the verification.
    pub seconds: f64,
    /// The host that made the record.
    pub made_on: String,
    /// The program's version that made the record.
    pub made_by: String,
}

/// All verdicts of a verification: the content of `verdict.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Verdicts {
    /// The manifest's path, relative to the project's root if it is inside.
    pub manifest: String,
    /// When it began (RFC 3339).
    pub started: String,
    /// Name of the machine that verified.
    pub host: String,
    /// The program's version.
    pub patchflow: &'static str,
    /// The seed of the sample.
    pub seed: u64,
    /// The size of the sample; `None` for all tasks.
    pub sample: Option<usize>,
    /// Counts for each kind of stage.
    pub kinds: BTreeMap<&'static str, KindVerdicts>,
    /// Every verified task, in the order of verification: pseudo-random, from `seed` and the keys.
    pub tasks: Vec<TaskVerdict>,
}

impl Verdicts {
    /// Adds the verdict on a task.
    pub fn add(&mut self, plan: &Plan, record: &Record, key: String, verified: &Verified) {
        let task = &plan.tasks[verified.id.0];
        let kind = task.spec.kind().name();
        let of_kind = self.kinds.entry(kind).or_default();
        let (verdict, file, why) = match &verified.verdict {
            Verdict::Same => (VerdictKind::Same, None, None),
            Verdict::Close { difference } => {
                (VerdictKind::Close, None, Some(format!("differs by {difference:.1e} of the norm")))
            }
            Verdict::Differs { file, how } => {
                (VerdictKind::Differs, Some(file.clone()), Some((*how).to_owned()))
            }
            Verdict::OtherMachine { file, how, why } => {
                (VerdictKind::OtherMachine, Some(file.clone()), Some(format!("{how}, which it may: {why}")))
            }
            Verdict::Failed(failure) => (VerdictKind::Failed, None, Some(failure.to_string())),
            Verdict::Unchecked { why } => (VerdictKind::Unchecked, None, Some(why.clone())),
        };
        *of_kind.count_mut(verdict) += 1;
        self.tasks.push(TaskVerdict {
            task: task.name.clone(),
            values: plan.values_of(verified.id),
            kind,
            key,
            verdict,
            file,
            why,
            seconds: verified.seconds,
            made_on: record.provenance.host.clone(),
            made_by: record.provenance.patchflow.clone(),
        });
    }

    /// Returns the number of tasks with this verdict.
    pub fn count(&self, verdict: VerdictKind) -> usize {
        self.tasks.iter().filter(|task| task.verdict == verdict).count()
    }

    /// Renders a table of kinds for a screen of this many columns, and a line for each task without the verdict `same`; tasks that differ come first.
    pub fn to_text(&self, width: usize) -> String {
        let counts =
            ["cached", "same bytes", "within tolerance", "differ", "other machine", "failed", "unchecked"];
        let counts = counts.map(|title| (title, Column::Number));
        let mut table = TextTable::new([("kind", Column::Word)].into_iter().chain(counts));
        for (kind, of) in &self.kinds {
            let counts = [of.cached, of.same, of.close, of.differ, of.other_machine, of.failed, of.unchecked];
            table.add(std::iter::once((*kind).to_owned()).chain(counts.map(|count| count.to_string())));
        }
        let mut text = table.draw(width) + "\n";
        let not_same = [
            VerdictKind::Differs,
            VerdictKind::Failed,
            VerdictKind::OtherMachine,
            VerdictKind::Close,
            VerdictKind::Unchecked,
        ];
        for verdict in not_same {
            for task in self.tasks.iter().filter(|task| task.verdict == verdict) {
                text += &task.line();
            }
        }
        text
    }
}

impl TaskVerdict {
    fn line(&self) -> String {
        let values = if self.values.is_empty() { String::new() } else { format!(" ({})", self.values) };
        let file = self.file.as_ref().map(|file| format!(": `{file}`")).unwrap_or_default();
        let why = self.why.as_deref().unwrap_or_default();
        let verdict = if self.file.is_some() { String::new() } else { format!(": {}:", self.verdict.word()) };
        format!("{}{values}{verdict}{file} {why}\n", self.task)
    }
}
