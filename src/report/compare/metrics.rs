//! The metrics of two runs, by groups of variants that differ only in repeats.

use std::collections::BTreeSet;

use serde::Serialize;

use super::OldNew;
use crate::report::groups::{VariantGroup, groups};
use crate::report::statistics::summarise;
use crate::report::summary::{RunSummary, VariantSummary};

/// One metric of one group of variants, over the repeats that both runs have. If they have none in common, as where only
/// one of them has repeats, over all repeats of each: see [`UnpairedGroup`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MetricChange {
    /// The axis values that the variants of the group share.
    pub group: String,
    /// Name of the metric.
    pub metric: String,
    /// Mean over the repeats.
    #[serde(flatten)]
    pub values: OldNew<f64>,
    /// Sample standard deviation over the repeats; `None` for one repeat.
    pub deviations: OldNew<f64>,
    /// Number of repeats that both runs have.
    pub repeats: usize,
    /// The second mean minus the first, if both runs have the metric.
    pub difference: Option<f64>,
    /// Whether the metric differs in a repeat. Means may be equal nevertheless.
    pub differs: bool,
}

/// A group of variants that both runs have, but without a repeat in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnpairedGroup {
    /// The axis values that the variants of the group share.
    pub group: String,
    /// Number of repeats in the first run; 1 if it has no repeats.
    pub old: usize,
    /// Number of repeats in the second run; 1 if it has no repeats.
    pub new: usize,
}

/// A group that both runs have, and its variants that are compared.
pub(super) struct GroupPair<'a> {
    name: String,
    old: Vec<&'a VariantSummary>,
    new: Vec<&'a VariantSummary>,
    /// Whether `old` and `new` are the repeats that both runs have, in the same order.
    is_paired: bool,
}

/// Pairs the groups of two runs by name, in the order of the first run's manifest.
pub(super) fn group_pairs<'a>(old: &'a RunSummary, new: &'a RunSummary) -> Vec<GroupPair<'a>> {
    let of_new = groups(new);
    let pair = |group: VariantGroup<'a>| {
        let same = |(_, variant): &(String, &'a VariantSummary)| {
            let other = new.variants.iter().find(|other| other.id == variant.id)?;
            Some((*variant, other))
        };
        let (old, new): (Vec<_>, Vec<_>) = group.repeats.iter().filter_map(same).unzip();
        if !old.is_empty() {
            return Some(GroupPair { name: group.name, old, new, is_paired: true });
        }
        let other = of_new.iter().find(|other| other.name == group.name)?;
        let all = |group: &VariantGroup<'a>| group.repeats.iter().map(|&(_, variant)| variant).collect();
        Some(GroupPair { old: all(&group), new: all(other), name: group.name, is_paired: false })
    };
    groups(old).into_iter().filter_map(pair).collect()
}

impl GroupPair<'_> {
    /// The numbers of repeats, if the runs have none in common.
    pub(super) fn unpaired(&self) -> Option<UnpairedGroup> {
        let Self { name, old, new, is_paired } = self;
        (!is_paired).then(|| UnpairedGroup { group: name.clone(), old: old.len(), new: new.len() })
    }

    /// Compares every metric that one of the runs has.
    pub(super) fn metrics(&self) -> Vec<MetricChange> {
        let variants = self.old.iter().chain(&self.new);
        let names: BTreeSet<&String> = variants.flat_map(|variant| variant.metrics.keys()).collect();
        names.into_iter().map(|name| self.metric(name)).collect()
    }

    fn metric(&self, name: &str) -> MetricChange {
        let [of_old, of_new] = [&self.old, &self.new].map(|variants| -> Vec<Option<f64>> {
            variants.iter().map(|variant| variant.metrics.get(name).copied()).collect()
        });
        let [old, new] =
            [&of_old, &of_new].map(|values| summarise(&values.iter().copied().flatten().collect::<Vec<_>>()));
        let means = OldNew { old: old.map(|old| old.mean), new: new.map(|new| new.mean) };
        MetricChange {
            group: self.name.clone(),
            metric: name.to_owned(),
            difference: means.old.zip(means.new).map(|(old, new)| new - old),
            values: means,
            deviations: OldNew {
                old: old.and_then(|old| old.deviation),
                new: new.and_then(|new| new.deviation),
            },
            repeats: if self.is_paired { self.old.len() } else { 0 },
            differs: of_old != of_new,
        }
    }
}
