//! The differences between two runs in metrics, manifest, keys and time, computed from their summaries alone.

mod metrics;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::metrics::{GroupPair, MetricChange, UnpairedGroup, group_pairs};

use super::groups::group_of;
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
    /// Names of the variants that only the first run has, without those of unpaired groups.
    pub removed: Vec<String>,
    /// Names of the variants that only the second run has, without those of unpaired groups.
    pub added: Vec<String>,
    /// The groups without a repeat in common, in the order of the first run's manifest.
    pub unpaired: Vec<UnpairedGroup>,
    /// Metrics of the groups that both runs have, in the order of the first run's manifest, and by name: all metrics, or
    /// those that differ.
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
        let both: Vec<(&VariantSummary, &VariantSummary)> = (old.variants.iter())
            .filter_map(|variant| Some((variant, new.variants.iter().find(|other| other.id == variant.id)?)))
            .collect();
        let groups = group_pairs(old, new);
        let unpaired: Vec<UnpairedGroup> = groups.iter().filter_map(GroupPair::unpaired).collect();
        let all: Vec<MetricChange> = groups.iter().flat_map(GroupPair::metrics).collect();
        let mut comparison = Self {
            equal: false,
            removed: only_in_first(old, new, &unpaired),
            added: only_in_first(new, old, &unpaired),
            unpaired,
            metrics: all.iter().filter(|change| change.differs).cloned().collect(),
            manifest: manifest(old, new),
            keys: keys(&both),
            seconds: seconds(old, new),
        };
        let Self { equal: _, removed, added, unpaired, metrics, manifest, keys, seconds: _ } = &comparison;
        comparison.equal = removed.is_empty()
            && added.is_empty()
            && unpaired.is_empty()
            && metrics.is_empty()
            && manifest.is_empty()
            && keys.is_empty();
        if shown == MetricsShown::All {
            comparison.metrics = all;
        }
        comparison
    }
}

/// The sorted names of the variants of `run` that `other` lacks, without those of unpaired groups.
fn only_in_first(run: &RunSummary, other: &RunSummary, unpaired: &[UnpairedGroup]) -> Vec<String> {
    let known: BTreeSet<&str> = other.variants.iter().map(|variant| variant.id.as_str()).collect();
    let is_unpaired = |id: &str| unpaired.iter().any(|group| group.group == group_of(run, id));
    let ids: BTreeSet<&str> = run.variants.iter().map(|variant| variant.id.as_str()).collect();
    ids.difference(&known).filter(|id| !is_unpaired(id)).map(|&id| id.to_owned()).collect()
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

    #[test]
    fn a_run_without_repeats_is_compared_with_the_mean_of_one_that_has_them() {
        let mut old =
            groups::tests::run(&[("bank=a", 0.5, "k"), ("bank=b", 0.25, "k"), ("bank=c", 0.1, "k")]);
        old.run.fields.clear();
        let new = groups::tests::run(&[
            ("bank=a,seed=1", 0.75, "l1"),
            ("bank=a,seed=2", 0.75, "l2"),
            ("bank=a,seed=3", 0.0, "l3"),
            ("bank=b,seed=1", 0.25, "k"),
            ("bank=b,seed=2", 0.25, "k"),
        ]);
        let compared = Comparison::of(&old, &new, MetricsShown::Differing);
        insta::assert_snapshot!(compared.to_text("x", "y"), @"
        x -> y  (from the first run to the second)
        variants only in the first:
          bank=c
        repeats, none of them in both runs:
          bank=a: 1 -> 3
          bank=b: 1 -> 1
        metrics, mean ± deviation over the repeats of each run (second minus first):
          bank=a
            image_auroc   0.5000 -> 0.5000 ± 0.4330  (+0.0000)
        ");
        let back = Comparison::of(&new, &old, MetricsShown::Differing);
        let repeats: Vec<_> = back.unpaired.iter().map(|group| (group.old, group.new)).collect();
        assert_eq!((repeats, &back.added[..]), (vec![(3, 1), (1, 1)], &["bank=c".to_owned()][..]));
        let difference = |compared: &Comparison| compared.metrics[0].difference.unwrap();
        assert!(difference(&compared) == 0.0 && difference(&back) == 0.0, "the mean of three is that of one");
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
