//! `run.json` and `summary.json`: the request of a run and its results. `run` writes them, `runs` and `compare` read
//! them. A field that an older version did not write is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::artifacts::scores::Metrics;
use crate::cache::ProcessIdentity;
use crate::engine::{Outcome, OutcomeCounts, Run};
use crate::plan::{EqualValues, Notice, Plan, TaskId};
use crate::stages::fields::{Fields, Value};

/// The request of a run: the content of `run.json`, and the member `run` of `summary.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRequest {
    /// The manifest's path, relative to the project's root if it is inside.
    pub manifest: String,
    /// The values of `--set`, as given.
    pub sets: Vec<String>,
    /// The value of `--only`.
    pub only: Option<String>,
    /// The values of `--target`, as given.
    pub targets: Vec<String>,
    /// When the run began (RFC 3339).
    pub started: String,
    /// The process, to distinguish a running run from a killed one.
    pub process: Option<ProcessIdentity>,
    /// The program's version.
    pub patchflow: String,
    /// The manifest's fields after includes and `--set`, by path, as text: `stages.model.bank` → `${bank}`.
    pub fields: BTreeMap<String, String>,
}

impl RunRequest {
    /// Lists the fields of a manifest's document, by path.
    pub fn leaves(document: &Fields) -> BTreeMap<String, String> {
        let mut leaves = BTreeMap::new();
        gather("", document, &mut leaves);
        leaves
    }
}

fn gather(prefix: &str, fields: &Fields, leaves: &mut BTreeMap<String, String>) {
    for (name, value) in fields {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(fields) => gather(&path, fields, leaves),
            value => {
                leaves.insert(path, value.to_string());
            }
        }
    }
}

/// The content of `summary.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSummary {
    /// The experiment's name.
    pub experiment: String,
    /// The experiment's question.
    pub question: Option<String>,
    /// The program's version.
    pub patchflow: String,
    /// The request.
    pub run: RunRequest,
    /// Whether the user stopped the run.
    pub interrupted: bool,
    /// The number of planned tasks, and of tasks with each outcome.
    pub tasks: TaskCounts,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// How each task ended, in the plan's order.
    pub ended: Vec<TaskSummary>,
    /// The variants, in the manifest's order.
    pub variants: Vec<VariantSummary>,
    /// Axis values that make no difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub equal_values: Vec<EqualValues>,
}

/// How many tasks were planned, and ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskCounts {
    /// Distinct tasks of the plan.
    pub planned: usize,
    /// Number of tasks with each outcome.
    #[serde(flatten)]
    pub outcomes: OutcomeCounts,
}

/// How one task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Its name.
    pub task: String,
    /// Name of its stage.
    pub stage: String,
    /// Name of its kind.
    pub kind: String,
    /// The axis values that distinguish it from other tasks of its stage.
    pub values: String,
    /// Its key, if it became known.
    pub key: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds that it ran.
    pub seconds: f64,
    /// What its stage has noted and warned of, in this run or in the one that made its result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Notice>,
}

/// The results of one variant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariantSummary {
    /// Its name.
    pub id: String,
    /// Value of each axis, by the name of the axis.
    pub axes: BTreeMap<String, String>,
    /// Its metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// The keys of its tasks, by the task's name.
    pub tasks: BTreeMap<String, String>,
}

impl RunSummary {
    /// Summarises a run. `metrics` returns the metrics of a task of the plan, `notices` what its stage has noted.
    pub fn new(
        request: RunRequest,
        plan: &Plan,
        run: &Run,
        metrics: &dyn Fn(usize) -> Option<Metrics>,
        notices: &dyn Fn(usize) -> Vec<Notice>,
    ) -> Self {
        Self {
            experiment: plan.experiment.clone(),
            question: plan.question.clone(),
            patchflow: request.patchflow.clone(),
            run: request,
            interrupted: run.is_interrupted,
            tasks: TaskCounts { planned: plan.tasks.len(), outcomes: run.counts() },
            seconds: run.duration.as_secs_f64(),
            ended: ended(plan, run, notices),
            variants: variants(plan, run, metrics),
            equal_values: Vec::new(),
        }
    }
}

fn ended(plan: &Plan, run: &Run, notices: &dyn Fn(usize) -> Vec<Notice>) -> Vec<TaskSummary> {
    let ends = plan.tasks.iter().zip(&run.tasks).enumerate();
    ends.map(|(index, (task, end))| TaskSummary {
        task: task.name.clone(),
        stage: task.stage.clone(),
        kind: task.spec.kind().name().to_owned(),
        values: plan.values_of(TaskId(index)),
        key: end.key.map(|key| key.to_string()),
        outcome: end.outcome,
        seconds: end.seconds,
        notices: notices(index),
    })
    .collect()
}

fn variants(plan: &Plan, run: &Run, metrics: &dyn Fn(usize) -> Option<Metrics>) -> Vec<VariantSummary> {
    let mut keys: Vec<BTreeMap<String, String>> = vec![BTreeMap::new(); plan.variants.len()];
    for (task, end) in plan.tasks.iter().zip(&run.tasks) {
        let Some(key) = end.key else { continue };
        for &variant in &task.variants {
            keys[variant].insert(task.name.clone(), key.to_string());
        }
    }
    let variants = plan.variants.iter().zip(keys).map(|(variant, tasks)| {
        let found = variant.shown.iter().find_map(|id| metrics(id.0));
        let named = found.map(|metrics| {
            metrics.named().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
        });
        VariantSummary {
            id: variant.id.clone(),
            axes: variant.values.iter().cloned().collect(),
            metrics: named.unwrap_or_default(),
            tasks,
        }
    });
    variants.collect()
}
