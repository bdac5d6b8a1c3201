//! The variants of a past run in groups: those that differ only in repeats, such as seeds. Read from its summary alone.

use super::statistics::{Summary, summarise};
use super::summary::{RunSummary, VariantSummary};

/// The part of a field's path that says that it is a repeat axis.
const REPEATS: &str = "grid.repeats.";

/// The variants of a run that agree on every axis but the repeats.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VariantGroup<'a> {
    /// The axis values that its variants share: `bank=dual,augment=none`; the name of the variant if there are no repeats.
    pub(super) name: String,
    /// Its variants, each with the values of its repeats: `seed=1`. A result that several repeats share counts once.
    pub(super) repeats: Vec<(String, &'a VariantSummary)>,
}

impl VariantGroup<'_> {
    /// Returns mean and deviation of a metric over the repeats that have it.
    pub(super) fn metric(&self, name: &str) -> Option<Summary> {
        let values: Vec<f64> =
            self.repeats.iter().filter_map(|(_, variant)| variant.metrics.get(name).copied()).collect();
        summarise(&values)
    }
}

/// Groups the variants of a run, in the manifest's order.
pub(super) fn groups(run: &RunSummary) -> Vec<VariantGroup<'_>> {
    let mut groups: Vec<VariantGroup<'_>> = Vec::new();
    for variant in &run.variants {
        let (name, repeat) = group_and_repeat(run, &variant.id);
        let member = (repeat, variant);
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) if group.repeats.iter().any(|(_, known)| is_same_result(known, variant)) => {}
            Some(group) => group.repeats.push(member),
            None => groups.push(VariantGroup { name, repeats: vec![member] }),
        }
    }
    groups
}

/// Returns the name of the group that a variant of the run belongs to.
pub(super) fn group_of(run: &RunSummary, variant: &str) -> String {
    group_and_repeat(run, variant).0
}

/// Divides the name of a variant into that of its group and the values of its repeats.
fn group_and_repeat(run: &RunSummary, variant: &str) -> (String, String) {
    let is_repeat = |part: &&str| {
        let axis = part.split_once('=').map(|(axis, _)| format!("{REPEATS}{axis}"));
        axis.is_some_and(|axis| run.run.fields.contains_key(&axis))
    };
    let (repeat, of_group): (Vec<&str>, Vec<&str>) = variant.split(',').partition(is_repeat);
    let name = if of_group.is_empty() { "default".to_owned() } else { of_group.join(",") };
    (name, repeat.join(","))
}

/// Whether two repeats are one: their seed reaches no task.
fn is_same_result(one: &VariantSummary, other: &VariantSummary) -> bool {
    !one.tasks.is_empty() && one.tasks == other.tasks
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run with repeats: the name of each variant, its image AUROC, and the key of its model.
    pub(in crate::report) fn run(variants: &[(&str, f64, &str)]) -> RunSummary {
        let variant = |&(id, auroc, key): &(&str, f64, &str)| VariantSummary {
            id: id.to_owned(),
            metrics: [("image_auroc".to_owned(), auroc)].into(),
            tasks: [("model".to_owned(), key.to_owned()), ("images".to_owned(), "a".to_owned())].into(),
            ..VariantSummary::default()
        };
        let mut run =
            RunSummary { variants: variants.iter().map(variant).collect(), ..RunSummary::default() };
        run.run.fields.insert("grid.repeats.seed".to_owned(), "[1, 2, 3]".to_owned());
        run
    }

    #[test]
    fn variants_that_differ_in_a_seed_are_one_group() {
        let run = run(&[
            ("bank=a,seed=1", 0.5, "k1"),
            ("bank=a,seed=2", 0.75, "k2"),
            ("bank=b,seed=1", 0.5, "k"),
            ("bank=b,seed=2", 0.5, "k"),
        ]);
        let groups = groups(&run);
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["bank=a", "bank=b"]);
        let a = groups[0].metric("image_auroc").unwrap();
        assert_eq!((a.mean, a.n), (0.625, 2));
        assert!((a.deviation.unwrap() - 0.176_776_695_296_636_9).abs() < 1e-15);
        let b = groups[1].metric("image_auroc").unwrap();
        assert_eq!((b.mean, b.deviation, b.n), (0.5, None, 1), "a seed that reaches no task counts once");
        assert_eq!(groups[0].metric("aupro"), None);
    }

    #[test]
    fn a_grid_of_repeats_alone_is_one_group_and_one_without_repeats_is_its_variants() {
        let seeds = run(&[("seed=1", 0.5, "k1"), ("seed=2", 0.75, "k2")]);
        assert_eq!(groups(&seeds).len(), 1);
        assert_eq!(groups(&seeds)[0].name, "default");
        let mut plain = run(&[("bank=a", 0.5, "k1"), ("bank=b", 0.75, "k2")]);
        plain.run.fields.clear();
        assert_eq!(groups(&plain).iter().map(|group| group.repeats.len()).sum::<usize>(), 2);
        assert_eq!(groups(&plain)[1].name, "bank=b");
    }
}
