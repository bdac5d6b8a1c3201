//! The differences between two runs in metrics, manifest, keys and time, computed from their summaries alone.

mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::groups::{VariantGroup, groups};
use super::statistics::summarise;
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

/// One metric of one group of variants, over the repeats that both runs have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricChange {
    /// The axis values that the variants of the group share.
    pub group: String,
    /// Name of the metric.
    pub metric: String,
    /// Mean over the repeats in both runs.
    #[serde(flatten)]
    pub values: OldNew<f64>,
    /// Sample standard deviation over the repeats in both runs; `None` for one repeat.
    pub deviations: OldNew<f64>,
    /// Number of repeats.
    pub repeats: usize,
    /// The second mean minus the first, if both runs have the metric.
    pub difference: Option<f64>,
    /// Whether the metric differs in a repeat. Means may be equal nevertheless.
    pub differs: bool,
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
    /// Metrics of the variants that both runs have, by group in the order of the first run's manifest, and by name: all
    /// metrics, or those that differ.
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
        let all: Vec<MetricChange> = groups(old).iter().flat_map(|group| metrics(group, &both)).collect();
        let differing = |change: &MetricChange| change.differs;
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

/// Compares the metrics of a group of the first run, over the variants that both runs have.
fn metrics(group: &VariantGroup<'_>, both: &[(&VariantSummary, &VariantSummary)]) -> Vec<MetricChange> {
    let pair = |id: &str| both.iter().find(|(old, _)| old.id == id);
    let repeats: Vec<_> = group.repeats.iter().filter_map(|(_, variant)| pair(&variant.id)).collect();
    let names: BTreeSet<&String> =
        repeats.iter().flat_map(|(old, new)| old.metrics.keys().chain(new.metrics.keys())).collect();
    let change = |name: &String| {
        let values = repeats.iter().map(|(old, new)| (old.metrics.get(name), new.metrics.get(name)));
        let (of_old, of_new): (Vec<Option<&f64>>, Vec<Option<&f64>>) = values.unzip();
        let [old, new] = [&of_old, &of_new]
            .map(|values| summarise(&values.iter().copied().flatten().copied().collect::<Vec<_>>()));
        let means = OldNew { old: old.map(|old| old.mean), new: new.map(|new| new.mean) };
        MetricChange {
            group: group.name.clone(),
            metric: name.clone(),
            difference: means.old.zip(means.new).map(|(old, new)| new - old),
            values: means,
            deviations: OldNew {
                old: old.and_then(|old| old.deviation),
                new: new.and_then(|new| new.deviation),
            },
            repeats: repeats.len(),
            differs: of_old != of_new,
        }
    };
    names.into_iter().map(change).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::groups;

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
        assert!(same.to_text("x", "y").ends_with("\nsame metrics, manifest and keys\n"));
        let all = Comparison::of(&old, &old, MetricsShown::All);
        assert!(all.equal && all.metrics.len() == 1);
    }

    #[test]
    fn each_difference_is_listed_once() {
        let old = run(&[("a", 0.5, "k"), ("b", 0.5, "k"), ("gone", 0.1, "k")], "0.1");
        let new = run(&[("a", 0.75, "l"), ("b", 0.5, "k"), ("fresh", 0.1, "k")], "0.2");
        insta::assert_snapshot!(Comparison::of(&old, &new, MetricsShown::Differing).to_text("x", "y"), @r"
        x -> y  (from the first run to the second)
        variants only in the first:
          gone
        variants only in the second:
          fresh
        manifest:
          stages.bank.ratio: 0.1 -> 0.2
        keys:
          model: differs in 1 of 2 variants
        metrics (second minus first):
          a
            image_auroc   0.5000 -> 0.7500  (+0.2500)
        ");
    }

    #[test]
    fn repeats_are_compared_as_one_group_over_those_that_both_runs_have() {
        let old = groups::tests::run(&[("bank=a,seed=1", 0.5, "k1"), ("bank=a,seed=2", 0.75, "k2")]);
        let new = groups::tests::run(&[
            ("bank=a,seed=1", 0.75, "l1"),
            ("bank=a,seed=2", 0.75, "k2"),
            ("bank=a,seed=3", 0.0, "l3"),
        ]);
        insta::assert_snapshot!(Comparison::of(&old, &new, MetricsShown::Differing).to_text("x", "y"), @"
        x -> y  (from the first run to the second)
        variants only in the second:
          bank=a,seed=3
        keys:
          model: differs in 1 of 2 variants
        metrics, mean ± deviation over the repeats of both runs (second minus first):
          bank=a
            image_auroc   0.6250 ± 0.1768 -> 0.7500 ± 0.0000  (+0.1250)
        ");
    }

    /// Two repeats that change places have the same mean.
    #[test]
    fn equal_means_of_other_repeats_are_no_equal_runs() {
        let old = groups::tests::run(&[("seed=1", 0.5, "k"), ("seed=2", 0.75, "l")]);
        let new = groups::tests::run(&[("seed=1", 0.75, "k"), ("seed=2", 0.5, "l")]);
        let compared = Comparison::of(&old, &new, MetricsShown::Differing);
        assert!(!compared.equal && compared.metrics.len() == 1, "{compared:?}");
    }
}
