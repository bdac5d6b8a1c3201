//! Why two variants do not share a task: what differs between their tasks, followed upstream.

use std::fmt;

use super::explain::{differences, spec_differences};
use super::graph::{Plan, TaskId};
use super::reason::Difference;
use super::survey::Status;
use crate::cache::Cache;

/// The tasks of one stage in two variants.
#[derive(Clone, Debug, PartialEq)]
pub enum Pair {
    /// Both variants use the same task.
    Shared {
        /// Its name.
        task: String,
    },
    /// Each variant has its own task.
    Apart {
        /// The tasks' name.
        task: String,
        /// What differs between the two tasks themselves, including the files of inputs if these are known.
        differences: Vec<Difference>,
        /// Names of the tasks that the two read and that are not shared either.
        upstream: Vec<String>,
        /// Whether both have the same key, so that only one of them runs.
        is_merged: bool,
    },
    /// Only one of the variants has the task.
    OnlyIn {
        /// The task's name.
        task: String,
        /// The variant's name.
        variant: String,
    },
}

/// Compares the tasks of `stage` in two variants, then the tasks that these read and do not share.
pub fn between(
    plan: &Plan,
    statuses: &[Status],
    cache: &Cache,
    stage: &str,
    variants: [usize; 2],
) -> Vec<Pair> {
    let of = |variant: usize| {
        let has = move |id: &TaskId| {
            plan.tasks[id.0].stage == stage && plan.tasks[id.0].variants.contains(&variant)
        };
        (0..plan.tasks.len()).map(TaskId).filter(has).collect::<Vec<_>>()
    };
    let mut pairs = paired(plan, &of(variants[0]), &of(variants[1]));
    let mut found: Vec<Pair> = Vec::new();
    let mut next = 0;
    while next < pairs.len() {
        let pair = match pairs[next] {
            (Some(one), Some(other)) if one == other => Pair::Shared { task: plan.tasks[one.0].name.clone() },
            (Some(one), Some(other)) => {
                let further: Vec<_> = paired(plan, &plan.upstream(one), &plan.upstream(other))
                    .into_iter()
                    .filter(|(one, other)| one != other)
                    .collect();
                let upstream = further.iter().filter_map(|&(one, other)| one.or(other));
                let upstream = upstream.map(|id| plan.tasks[id.0].name.clone()).collect();
                for pair in further {
                    if !pairs.contains(&pair) {
                        pairs.push(pair);
                    }
                }
                apart(plan, statuses, cache, [one, other], upstream)
            }
            (one, other) => {
                let variant = if one.is_some() { variants[0] } else { variants[1] };
                let task = one.or(other).map_or_else(String::new, |id| plan.tasks[id.0].name.clone());
                Pair::OnlyIn { task, variant: plan.variants[variant].id.clone() }
            }
        };
        found.push(pair);
        next += 1;
    }
    found
}

/// Pairs tasks of the same name. A task without a counterpart is alone in its pair.
fn paired(plan: &Plan, ones: &[TaskId], others: &[TaskId]) -> Vec<(Option<TaskId>, Option<TaskId>)> {
    let name = |id: &TaskId| &plan.tasks[id.0].name;
    let counterpart =
        |id: &TaskId, among: &[TaskId]| among.iter().find(|other| name(other) == name(id)).copied();
    let mut pairs: Vec<_> = ones.iter().map(|one| (Some(*one), counterpart(one, others))).collect();
    let unpaired = others.iter().filter(|other| counterpart(other, ones).is_none());
    pairs.extend(unpaired.map(|other| (None, Some(*other))));
    pairs
}

fn apart(plan: &Plan, statuses: &[Status], cache: &Cache, pair: [TaskId; 2], upstream: Vec<String>) -> Pair {
    let [one, other] = pair;
    let known = (&statuses[one.0].resolution, &statuses[other.0].resolution);
    let (differences, is_merged) = match known {
        (Some(old), Some(new)) => (differences(&old.preimage, new, cache), old.key == new.key),
        _ => (spec_differences(&plan.tasks[one.0], &plan.tasks[other.0]), false),
    };
    Pair::Apart { task: plan.tasks[one.0].name.clone(), differences, upstream, is_merged }
}

impl fmt::Display for Pair {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared { task } => write!(formatter, "{task}: shared by both"),
            Self::OnlyIn { task, variant } => write!(formatter, "{task}: only in {variant}"),
            Self::Apart { task, is_merged: true, .. } => {
                write!(formatter, "{task}: two tasks of one key, of which one runs")
            }
            Self::Apart { task, differences, upstream, is_merged: false } => {
                write!(formatter, "{task}: not shared")?;
                for difference in differences {
                    write!(formatter, "\n    {difference}")?;
                }
                if !upstream.is_empty() {
                    write!(formatter, "\n    reads what is not shared: {}", upstream.join(", "))?;
                }
                Ok(())
            }
        }
    }
}
