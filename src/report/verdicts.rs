//! What a verification found, as `verdict.json` holds it and as a person reads it.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::engine::{Verdict, Verified};
use crate::plan::{Plan, Record};

/// The tasks of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KindVerdicts {
    /// Cached tasks of the plan, each key once.
    pub cached: usize,
    /// Made again with the same bytes.
    pub same: usize,
    /// Made again with other bytes, but numbers within the kind's tolerance.
    pub close: usize,
    /// Made again with something else.
    pub differ: usize,
    /// Failed as they were made again.
    pub failed: usize,
    /// Not made again: their inputs are gone from the cache.
    pub unchecked: usize,
}

/// One task that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskVerdict {
    /// Its name.
    pub task: String,
    /// The axes' values that tell it from others of its stage.
    pub values: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its key.
    pub key: String,
    /// `same`, `close`, `differs`, `failed` or `unchecked`.
    pub verdict: &'static str,
    /// The first file that differs, as `<output>/<path>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How it differs, why it failed or was not made again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Seconds that it ran now.
    pub seconds: f64,
    /// The host that made the record.
    pub made_on: String,
    /// The program's version that made the record.
    pub made_by: String,
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Verdicts {
    /// The manifest, from the project's root where it lies there.
    pub manifest: String,
    /// When it began (RFC 3339).
    pub started: String,
    /// The machine.
    pub host: String,
    /// The program's version.
    pub patchflow: &'static str,
    /// What the sample was drawn with.
    pub seed: u64,
    /// Tasks that were to be made again; none for all.
    pub sample: Option<usize>,
    /// A verdict of each kind.
    pub kinds: BTreeMap<&'static str, KindVerdicts>,
    /// Every task that was looked at, in the order of the draw.
    pub tasks: Vec<TaskVerdict>,
}

impl Verdicts {
    /// Adds a task.
    pub fn add(&mut self, plan: &Plan, record: &Record, key: String, verified: &Verified) {
        let task = &plan.tasks[verified.id.0];
        let kind = task.spec.kind().name();
        let of_kind = self.kinds.entry(kind).or_default();
        let (count, verdict, file, why) = match &verified.verdict {
            Verdict::Same => (&mut of_kind.same, "same", None, None),
            Verdict::Close { difference } => {
                (&mut of_kind.close, "close", None, Some(format!("differs by {difference:.1e} of the norm")))
            }
            Verdict::Differs { file, how } => {
                (&mut of_kind.differ, "differs", Some(file.clone()), Some((*how).to_owned()))
            }
            Verdict::Failed(failure) => (&mut of_kind.failed, "failed", None, Some(failure.to_string())),
            Verdict::Unchecked { why } => (&mut of_kind.unchecked, "unchecked", None, Some(why.clone())),
        };
        *count += 1;
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

    /// How many tasks have that verdict.
    pub fn count(&self, verdict: &str) -> usize {
        self.tasks.iter().filter(|task| task.verdict == verdict).count()
    }

    /// A table of kinds, then each task that is not the same, the first that differs first.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_HORIZONTAL_ONLY)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header([
                "kind",
                "cached",
                "same bytes",
                "within tolerance",
                "differ",
                "failed",
                "unchecked",
            ]);
        for (kind, of) in &self.kinds {
            let counts = [of.cached, of.same, of.close, of.differ, of.failed, of.unchecked];
            table.add_row(std::iter::once((*kind).to_owned()).chain(counts.map(|count| count.to_string())));
        }
        let mut text = format!("{table}\n");
        for verdict in ["differs", "failed", "close", "unchecked"] {
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
        let verdict = if self.file.is_some() { String::new() } else { format!(": {}:", self.verdict) };
        format!("{}{values}{verdict}{file} {why}\n", self.task)
    }
}
