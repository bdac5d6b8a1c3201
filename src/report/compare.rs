//! The differences between two runs in metrics, manifest, keys and time, computed from their summaries alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::summary::{RunSummary, VariantSummary};
use crate::engine::Outcome;

/// The value in each of two runs; `None` if that run does not have it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OldNew<T> {
    /// In the first run; `None` if it does not have the value.
    pub old: Option<T>,
    /// In the second run; `None` if it does not have the value.
    pub new: Option<T>,
}

/// One metric of one variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricChange {
    /// Name of the variant.
    pub variant: String,
    /// Name of the metric.
    pub metric: String,
    /// The metric in both runs.
    #[serde(flatten)]
    pub values: OldNew<f64>,
    /// The second minus the first, if both runs have the metric.
    pub difference: Option<f64>,
}

/// One field of the manifest that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its path, such as `stages.model.bank`.
    pub path: String,
    /// Its value in both runs, as text.
    #[serde(flatten)]
    pub values: OldNew<String>,
}

/// A task whose key differs in some variants that both runs have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyChange {
    /// The task's name.
    pub task: String,
    /// Names of the variants in which it differs.
    pub variants: Vec<String>,
    /// The number of variants in which both runs know its key.
    pub of: usize,
}

/// The seconds of one stage, over its tasks that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageTime {
    /// Seconds of these tasks together.
    pub seconds: f64,
    /// Number of tasks that ran.
    pub executed: usize,
}

/// One stage's time in both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeChange {
    /// Name of the stage.
    pub stage: String,
    /// In the first run.
    pub old: StageTime,
    /// In the second.
    pub new: StageTime,
}

/// The differences between two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether metrics, manifest and keys are the same. Times are not compared.
    pub equal: bool,
    /// Names of the variants that only the first run has.
    pub removed: Vec<String>,
    /// Names of the variants that only the second run has.
    pub added: Vec<String>,
    /// Metrics of the variants that both runs have, in order: all metrics, or those that differ.
    pub metrics: Vec<MetricChange>,
    /// The fields of the manifest that differ, by path.
    pub manifest: Vec<FieldChange>,
    /// The tasks whose keys differ, by name.
    pub keys: Vec<KeyChange>,
    /// The times of every stage that ran in either run, by name.
    pub seconds: Vec<TimeChange>,
}

/// Which metrics a comparison lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsShown {
    /// Metrics that differ.
    Differing,
    /// All metrics.
    All,
}

impl Comparison {
    /// Compares two runs.
    pub fn of(old: &RunSummary, new: &RunSummary, shown: MetricsShown) -> Self {
        let ids = |run: &RunSummary| -> BTreeSet<String> {
            run.variants.iter().map(|variant| variant.id.clone()).collect()
        };
        let (before, after) = (ids(old), ids(new));
        let both: Vec<(&VariantSummary, &VariantSummary)> = (old.variants.iter())
            .filter_map(|variant| Some((variant, new.variants.iter().find(|other| other.id == variant.id)?)))
            .collect();
        let all: Vec<MetricChange> = both.iter().flat_map(|(old, new)| metrics(old, new)).collect();
        let differing = |change: &MetricChange| change.values.old != change.values.new;
        let mut comparison = Self {
            equal: false,
            removed: before.difference(&after).cloned().collect(),
            added: after.difference(&before).cloned().collect(),
            metrics: all.iter().filter(|change| differing(change)).cloned().collect(),
            manifest: manifest(old, new),
            keys: keys(&both),
            seconds: seconds(old, new),
        };
        let Self { equal: _, removed, added, metrics, manifest, keys, seconds: _ } = &comparison;
        comparison.equal = removed.is_empty()
            && added.is_empty()
            && metrics.is_empty()
            && manifest.is_empty()
            && keys.is_empty();
        if shown == MetricsShown::All {
            comparison.metrics = all;
        }
        comparison
    }

    /// Renders the comparison as text; `old` and `new` are the runs' names.
    pub fn to_text(&self, old: &str, new: &str) -> String {
        let mut text = format!("{old} -> {new}\n");
        if self.equal {
            text += "same metrics, manifest and keys\n";
        }
        for (word, variants) in [("only in the first", &self.removed), ("only in the second", &self.added)] {
            if !variants.is_empty() {
                section(&mut text, &format!("variants {word}"), variants.iter().cloned());
            }
        }
        section(&mut text, "manifest", self.manifest.iter().map(FieldChange::line));
        section(&mut text, "keys", self.keys.iter().map(KeyChange::line));
        section(&mut text, "metrics", metric_lines(&self.metrics));
        section(&mut text, "seconds", self.seconds.iter().map(TimeChange::line));
        text
    }
}

/// Joins two maps by name.
fn pairs<T: Clone>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> BTreeMap<String, OldNew<T>> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let pair = |name: &String| OldNew { old: old.get(name).cloned(), new: new.get(name).cloned() };
    names.into_iter().map(|name| (name.clone(), pair(name))).collect()
}

/// Compares two manifests, field by field. Empty if a summary was written by a version that did not store its
/// manifest.
fn manifest(old: &RunSummary, new: &RunSummary) -> Vec<FieldChange> {
    let (old, new) = (&old.run.fields, &new.run.fields);
    if old.is_empty() || new.is_empty() {
        return Vec::new();
    }
    let differing = pairs(old, new).into_iter().filter(|(_, values)| values.old != values.new);
    differing.map(|(path, values)| FieldChange { path, values }).collect()
}

fn metrics(old: &VariantSummary, new: &VariantSummary) -> Vec<MetricChange> {
    let change = |(metric, values): (String, OldNew<f64>)| MetricChange {
        variant: old.id.clone(),
        metric,
        difference: values.old.zip(values.new).map(|(old, new)| new - old),
        values,
    };
    pairs(&old.metrics, &new.metrics).into_iter().map(change).collect()
}

fn keys(both: &[(&VariantSummary, &VariantSummary)]) -> Vec<KeyChange> {
    let mut changes: BTreeMap<&str, KeyChange> = BTreeMap::new();
    for (old, new) in both {
        for (task, key) in &old.tasks {
            let Some(other) = new.tasks.get(task) else { continue };
            let change = changes.entry(task).or_insert_with(|| KeyChange {
                task: task.clone(),
                variants: Vec::new(),
                of: 0,
            });
            change.of += 1;
            if key != other {
                change.variants.push(old.id.clone());
            }
        }
    }
    changes.into_values().filter(|change| !change.variants.is_empty()).collect()
}

fn seconds(old: &RunSummary, new: &RunSummary) -> Vec<TimeChange> {
    let (mut before, mut after) = (times(old), times(new));
    let stages: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
    let change = |stage: String| TimeChange {
        old: before.remove(&stage).unwrap_or_default(),
        new: after.remove(&stage).unwrap_or_default(),
        stage,
    };
    stages.into_iter().map(change).collect()
}

fn times(run: &RunSummary) -> BTreeMap<String, StageTime> {
    let mut times: BTreeMap<String, StageTime> = BTreeMap::new();
    for task in run.ended.iter().filter(|task| task.seconds > 0.0) {
        let time = times.entry(task.stage.clone()).or_default();
        time.seconds += task.seconds;
        time.executed += usize::from(task.outcome == Outcome::Executed);
    }
    times
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

fn metric_lines(metrics: &[MetricChange]) -> impl Iterator<Item = String> + '_ {
    let mut last = "";
    metrics.iter().map(move |change| {
        let is_new = change.variant != last;
        last = &change.variant;
        let head = if is_new { format!("{}\n    ", change.variant) } else { "  ".to_owned() };
        let shown = |value: Option<f64>| value.map_or("absent".to_owned(), |value| format!("{value:.4}"));
        let difference = change.difference.map(|difference| format!("  ({difference:+.4})"));
        let (old, new) = (shown(change.values.old), shown(change.values.new));
        format!("{head}{:<13} {old} -> {new}{}", change.metric, difference.unwrap_or_default())
    })
}

impl FieldChange {
    fn line(&self) -> String {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        format!("{}: {} -> {}", self.path, shown(&self.values.old), shown(&self.values.new))
    }
}

impl KeyChange {
    fn line(&self) -> String {
        format!("{}: differs in {} of {} variants", self.task, self.variants.len(), self.of)
    }
}

impl TimeChange {
    fn line(&self) -> String {
        let Self { stage, old, new } = self;
        format!(
            "{stage:<16} {:.2} ({} executed) -> {:.2} ({} executed)",
            old.seconds, old.executed, new.seconds, new.executed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(variants: &[(&str, f64, &str)], ratio: &str) -> RunSummary {
        let variant = |&(id, auroc, key): &(&str, f64, &str)| VariantSummary {
            id: id.to_owned(),
            metrics: [("image_auroc".to_owned(), auroc)].into(),
            tasks: [("model".to_owned(), key.to_owned()), ("images".to_owned(), "a".to_owned())].into(),
            ..VariantSummary::default()
        };
        let mut run =
            RunSummary { variants: variants.iter().map(variant).collect(), ..RunSummary::default() };
        run.run.fields.insert("stages.bank.ratio".to_owned(), ratio.to_owned());
        run
    }

    #[test]
    fn equal_runs_say_so() {
        let old = run(&[("a", 0.5, "k")], "0.1");
        let same = Comparison::of(&old, &old.clone(), MetricsShown::Differing);
        assert!(same.equal);
        assert_eq!(same.to_text("x", "y"), "x -> y\nsame metrics, manifest and keys\n");
        let all = Comparison::of(&old, &old, MetricsShown::All);
        assert!(all.equal && all.metrics.len() == 1);
    }

    #[test]
    fn each_difference_is_listed_once() {
        let old = run(&[("a", 0.5, "k"), ("b", 0.5, "k"), ("gone", 0.1, "k")], "0.1");
        let new = run(&[("a", 0.75, "l"), ("b", 0.5, "k"), ("fresh", 0.1, "k")], "0.2");
        insta::assert_snapshot!(Comparison::of(&old, &new, MetricsShown::Differing).to_text("x", "y"), @r"
        x -> y
        variants only in the first:
          gone
        variants only in the second:
          fresh
        manifest:
          stages.bank.ratio: 0.1 -> 0.2
        keys:
          model: differs in 1 of 2 variants
        metrics:
          a
            image_auroc   0.5000 -> 0.7500  (+0.2500)
        ");
    }
}
