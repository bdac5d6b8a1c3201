//! The values of an axis that make no difference: every result is the same with each of them.
//!
//! Tasks are put into classes that have equal outputs. The outputs of a task that exist are their digests. Those that do
//! not exist yet follow from its kind, its fields, its seed and the classes of its inputs; where the sizes of the inputs say
//! that some fields decide nothing ([`Workload::deciding`]), from the others alone. A class never holds two tasks that could
//! differ if the sizes are right; tasks whose outputs will be equal may be in two classes before they have run.
//!
//! [`Workload::deciding`]: crate::stages::Workload::deciding

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::graph::{Input, Plan, PlanVariant, Task, TaskId};
use super::resolve::Outputs;
use super::sizes::Sizes;
use crate::cache::Digest;
use crate::stages::fields::Fields;
use crate::stages::{Reads, Role, Spec, hash_of_fields};

/// Values of an axis that give equal results in every combination with the other axes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EqualValues {
    /// Name of the axis.
    pub axis: String,
    /// Two or more of its values.
    pub values: Vec<String>,
}

/// The most values that are written out.
const SHOWN_VALUES: usize = 8;

impl fmt::Display for EqualValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { axis, values } = self;
        let shown = &values[..values.len().min(SHOWN_VALUES)];
        let (rest, last) = match shown {
            [rest @ .., last] if shown.len() == values.len() => (rest, format!("`{last}`")),
            _ => (shown, format!("{} more", values.len() - shown.len())),
        };
        let rest: Vec<String> = rest.iter().map(|value| format!("`{value}`")).collect();
        write!(formatter, "the values {} and {last} of the axis `{axis}` make no difference", rest.join(", "))
    }
}

/// What a task's outputs are known by: tasks with equal origins have equal outputs.
#[derive(PartialEq, Eq, Hash)]
enum Origin<'a> {
    /// They exist, with these names and digests.
    Made(Vec<(&'a str, Digest)>),
    /// They follow from the stage and its inputs.
    Follows { stage: Deciding<'a>, source: Option<&'a str>, seed: Option<u64>, inputs: Vec<Read<'a>> },
}

/// The kind of a stage, and the fields that decide its outputs.
#[derive(PartialEq)]
struct Deciding<'a> {
    hash: u64,
    kind: &'static str,
    fields: Cow<'a, Fields>,
}

/// Equality is reflexive, because checked fields never hold NaN.
impl Eq for Deciding<'_> {}

impl Hash for Deciding<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl<'a> Deciding<'a> {
    /// All key fields of a stage.
    fn all(spec: &'a Spec) -> Self {
        let fields = Cow::Borrowed(spec.key_fields());
        Self { hash: spec.hash_of_fields(), kind: spec.kind().name(), fields }
    }

    /// Some of them.
    fn some(spec: &Spec, fields: Fields) -> Self {
        let (hash, kind) = (hash_of_fields(spec.kind(), &fields), spec.kind().name());
        Self { hash, kind, fields: Cow::Owned(fields) }
    }
}

/// One input of a task: the class of the task that makes it.
#[derive(PartialEq, Eq, Hash)]
struct Read<'a> {
    role: &'a Role,
    class: usize,
    output: &'a str,
    labels: Option<(usize, &'a str)>,
    reads: &'a Reads,
}

/// Finds the values of axes that make no difference. `outputs` returns those of a task that exist.
pub fn equal_values<'p>(
    plan: &'p Plan,
    sizes: &mut Sizes<'_>,
    outputs: &dyn Fn(TaskId) -> Option<&'p Outputs>,
) -> Vec<EqualValues> {
    let classes = classes(plan, sizes, outputs);
    // A variant without targets has no results, which are equal to no others. The evaluations upstream of a target are
    // results as well: the table shows them.
    let of_variant = |(index, variant): (usize, &PlanVariant)| match variant.targets[..] {
        [] => vec![usize::MAX - index],
        ref targets => targets.iter().chain(&variant.shown).map(|task| classes[task.0]).collect(),
    };
    let results: Vec<Vec<usize>> = plan.variants.iter().enumerate().map(of_variant).collect();
    if results.iter().collect::<HashSet<_>>().len() == results.len() {
        return Vec::new();
    }
    let axes = plan.variants.first().map_or(0, |variant| variant.values.len());
    (0..axes).flat_map(|axis| of_axis(plan, axis, &results)).collect()
}

/// Returns the class of each task: the index of the first task of the class.
fn classes<'p>(
    plan: &'p Plan,
    sizes: &mut Sizes<'_>,
    outputs: &dyn Fn(TaskId) -> Option<&'p Outputs>,
) -> Vec<usize> {
    let mut known: HashMap<Origin<'p>, usize> = HashMap::new();
    let mut classes: Vec<usize> = Vec::with_capacity(plan.tasks.len());
    for (index, task) in plan.tasks.iter().enumerate() {
        let id = TaskId(index);
        let origin = if let Some(made) = outputs(id) {
            Origin::Made(made.iter().map(|(name, output)| (name.as_str(), output.tree.digest())).collect())
        } else {
            let foreseen = task.spec.about().foresees.then(|| sizes.workload(id, outputs).deciding).flatten();
            let all = || Deciding::all(&task.spec);
            follows(task, foreseen.map_or_else(all, |some| Deciding::some(&task.spec, some)), &classes)
        };
        classes.push(*known.entry(origin).or_insert(index));
    }
    classes
}

fn follows<'p>(task: &'p Task, stage: Deciding<'p>, classes: &[usize]) -> Origin<'p> {
    let read = |input: &'p Input| Read {
        role: &input.role,
        class: classes[input.from.task.0],
        output: &input.from.output,
        labels: input.labels.as_ref().map(|labels| (classes[labels.task.0], labels.output.as_str())),
        reads: &input.reads,
    };
    Origin::Follows {
        stage,
        source: task.spec.about().source.as_deref(),
        seed: task.seed,
        inputs: task.inputs.iter().map(read).collect(),
    }
}

/// Groups the values of one axis by the results of all their variants.
fn of_axis(plan: &Plan, axis: usize, results: &[Vec<usize>]) -> Vec<EqualValues> {
    let variants = plan.variants.iter().zip(results).map(|(variant, result)| {
        let others = variant.values.iter().enumerate().filter(|&(other, _)| other != axis);
        let others: Vec<&str> = others.map(|(_, (_, value))| value.as_str()).collect();
        (variant.values[axis].1.as_str(), (others, result))
    });
    // The order of the variants is the same for each value.
    let of_values = grouped(variants).into_iter().map(|(value, of_value)| (of_value, value.to_owned()));
    let axis = plan.variants.first().map_or("", |variant| &variant.values[axis].0);
    let equal = grouped(of_values).into_iter().filter(|(_, values)| values.len() > 1);
    equal.map(|(_, values)| EqualValues { axis: axis.to_owned(), values }).collect()
}

/// Groups items by key, in the order in which the keys appear.
fn grouped<K: Clone + Eq + Hash, V>(items: impl Iterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    let mut index_of: HashMap<K, usize> = HashMap::new();
    for (key, item) in items {
        let index = *index_of.entry(key.clone()).or_insert(groups.len());
        if index == groups.len() {
            groups.push((key, Vec::new()));
        }
        groups[index].1.push(item);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Cache, Rehash, StatIndex};
    use crate::manifest::{LoadOptions, load};
    use crate::plan::{Resolver, build, survey};

    const MANIFEST: &str = r#"
[experiment]
name = "equal"
[grid.axes]
AXES
[stages.surfaces]
kind = "download"
synthetic = { train_normal = 4, train_defect = 2, test_normal = 2, test_defect = 2, height = 64, width = 64 }
[stages.images]
kind = "preprocess"
input = "surfaces"
[stages.features]
kind = "extract"
images = "images"
backbone = "resnet18"
weights = "seeded"
[stages.bank]
kind = "coreset"
features = "features"
BANK
[stages.defects]
kind = "coreset"
features = "features"
select = { label = "defect" }
ratio = 1.0
[stages.model]
kind = "fit"
normal = "bank"
features = "features"
MODEL
[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "images"
"#;

    /// The equal values in a plan whose outputs do not exist, as `axis=value,value`.
    fn equal(axes: &str, bank: &str, model: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
        let path = folder.path().join("m.toml");
        let text = MANIFEST.replace("AXES", axes).replace("BANK", bank).replace("MODEL", model);
        std::fs::write(&path, text).unwrap();
        let project = folder.path().to_owned();
        let options = LoadOptions { project, sets: Vec::new(), only: None, targets: Vec::new() };
        let plan =
            build(&load(&path, &options).unwrap_or_else(|error| panic!("{}", error.render(100, false))))
                .unwrap();
        let mut resolver = Resolver::new(&cache, folder.path(), Rehash::Trust);
        let statuses = survey(&plan, &mut resolver, &cache).unwrap();
        let found =
            equal_values(&plan, &mut Sizes::new(&plan, &cache), &|task| statuses[task.0].outputs.as_ref());
        found.into_iter().map(|equal| format!("{}={}", equal.axis, equal.values.join(","))).collect()
    }

    /// 256 candidates: 4 images of 8 × 8 patches.
    const RATIO: &str = "ratio = [0.01, 0.02, 0.03, 0.5, 0.502]";

    #[test]
    fn ratios_that_give_equal_banks_are_found_before_they_run() {
        // 2, 5, 7, 128 and 128 rows.
        assert_eq!(equal(RATIO, "ratio = \"${ratio}\"\nmin_size = 0", ""), ["ratio=0.5,0.502"]);
        let with_bound = equal(RATIO, "ratio = \"${ratio}\"\nmin_size = 7", "");
        assert_eq!(with_bound, ["ratio=0.01,0.02,0.03", "ratio=0.5,0.502"]);
        assert_eq!(
            equal(RATIO, "ratio = \"${ratio}\"\nmin_size = 256", ""),
            ["ratio=0.01,0.02,0.03,0.5,0.502"]
        );
        let filtered =
            equal(RATIO, "ratio = \"${ratio}\"\nmin_size = 256\nselect = { min_overlap = 0.1 }", "");
        assert!(filtered.is_empty(), "how many patches masks cover is unknown: {filtered:?}");
    }

    #[test]
    fn a_field_that_the_chosen_kind_ignores_makes_no_difference() {
        let share = "share = [0.01, 0.1]";
        assert_eq!(equal(share, "", "top_share = \"${share}\""), ["share=0.01,0.1"]);
        assert!(equal(share, "", "top_share = \"${share}\"\naggregation = \"top_mean\"").is_empty());
        // The strategy is no choice if every row is kept.
        let strategy = "strategy = [\"k_center\", \"approximate\"]";
        assert_eq!(
            equal(strategy, "strategy = \"${strategy}\"\nratio = 1.0", ""),
            ["strategy=k_center,approximate"]
        );
        assert!(equal(strategy, "strategy = \"${strategy}\"", "").is_empty());
    }

    #[test]
    fn values_that_differ_in_one_combination_differ() {
        let axes = "bank = [\"single\", \"dual\"]\nalpha = [0.1, 0.2]";
        let model = "bank = \"${bank}\"\ndefect = \"defects\"\ndual = \"difference\"\nalpha = \"${alpha}\"";
        assert!(equal(axes, "", model).is_empty());
        assert_eq!(equal(axes, "", &model.replace("difference", "ratio")), ["alpha=0.1,0.2"]);
    }

    #[test]
    fn a_long_list_of_values_is_cut() {
        let text = |count: usize| {
            let values = (1..=count).map(|value| value.to_string()).collect();
            EqualValues { axis: "a".to_owned(), values }.to_string()
        };
        assert_eq!(text(2), "the values `1` and `2` of the axis `a` make no difference");
        assert!(text(8).starts_with("the values `1`, `2`, `3`, `4`, `5`, `6`, `7` and `8` of"));
        assert!(text(10).starts_with("the values `1`, `2`, `3`, `4`, `5`, `6`, `7`, `8` and 2 more of"));
    }

    #[test]
    fn sources_at_other_paths_are_not_taken_for_equal() {
        let folders = "place = [\"a\", \"b\"]";
        let text = MANIFEST.replace("AXES", folders).replace("BANK", "").replace("MODEL", "");
        let at = text.find("synthetic").unwrap();
        let end = text[at..].find('\n').unwrap() + at;
        let text = format!("{}path = \"${{place}}\"{}", &text[..at], &text[end..]);
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
        std::fs::write(folder.path().join("m.toml"), text).unwrap();
        let options = LoadOptions { project: folder.path().to_owned(), ..LoadOptions::default() };
        let plan = build(&load(&folder.path().join("m.toml"), &options).unwrap()).unwrap();
        assert_eq!(plan.variants.len(), 2);
        assert!(equal_values(&plan, &mut Sizes::new(&plan, &cache), &|_| None).is_empty());
    }
}
