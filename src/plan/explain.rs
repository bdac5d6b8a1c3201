//! Why a task would run: what differs from the nearest earlier record of its kind.

use std::fmt;

use super::graph::{Plan, Task, TaskId};
use super::history::{Earlier, History, distance, walk_fields};
use super::key::Preimage;
use super::reason::{Difference, Reason};
use super::resolve::Resolution;
use super::survey::{State, Status};
use crate::cache::{Cache, Change, Digest, Tree, difference};

/// Why one task would or would not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// Name of the task.
    pub task: String,
    /// The axis values that distinguish it from other tasks of its stage, such as `bank=dual,seed=0`.
    pub values: String,
    /// Why the task is in its state.
    pub reason: Reason,
}

/// Explains the tasks of `stage` and, if they wait, the chain upstream to the first known causes.
pub fn explain(plan: &Plan, statuses: &[Status], cache: &Cache, stage: &str) -> Vec<Explanation> {
    let mut wanted: Vec<TaskId> =
        (0..plan.tasks.len()).map(TaskId).filter(|id| plan.tasks[id.0].stage == stage).collect();
    let mut next = 0;
    while next < wanted.len() {
        let id = wanted[next];
        if statuses[id.0].state() == State::Unknown {
            for upstream in plan.upstream(id) {
                if !statuses[upstream.0].state().is_hit() && !wanted.contains(&upstream) {
                    wanted.push(upstream);
                }
            }
        }
        next += 1;
    }
    let history = History::load(cache);
    wanted
        .into_iter()
        .map(|id| Explanation {
            task: plan.tasks[id.0].name.clone(),
            values: plan.values_of(id),
            reason: reason(plan, id, statuses, &history, cache),
        })
        .collect()
}

/// Returns the reason of the survey, with the difference from the nearest earlier record if there is no record of the
/// key.
fn reason(plan: &Plan, id: TaskId, statuses: &[Status], history: &History, cache: &Cache) -> Reason {
    let status = &statuses[id.0];
    match (&status.reason, &status.resolution) {
        (Reason::WaitsFor { .. }, _) => {
            let upstream = plan.upstream(id).into_iter();
            let waited = upstream.filter(|upstream| !statuses[upstream.0].state().is_hit());
            Reason::WaitsFor { tasks: waited.map(|upstream| plan.tasks[upstream.0].name.clone()).collect() }
        }
        (Reason::NoRecord, Some(resolution)) => {
            difference_from_nearest(&plan.tasks[id.0], resolution, history, cache)
        }
        (known, _) => known.clone(),
    }
}

fn difference_from_nearest(task: &Task, resolution: &Resolution, history: &History, cache: &Cache) -> Reason {
    let of_kind = history.of_kind(&resolution.preimage.kind).iter();
    let candidates = of_kind.filter(|earlier| earlier.key != resolution.key);
    let nearest = nearest(candidates.collect(), resolution, &task.stage, cache);
    let Some(Earlier { record, .. }) = nearest else { return Reason::NeverRan };
    Reason::Differs {
        stage: record.provenance.stage.clone(),
        finished: record.provenance.finished.clone(),
        differences: differences(&record.preimage, resolution, cache),
    }
}

/// Largest number of records whose files are compared.
const COMPARED: usize = 16;

/// Finds the nearest earlier record: one of the same stage name, then with the fewest differences, then with the
/// fewest differing files, then the newest.
fn nearest<'a>(
    mut candidates: Vec<&'a Earlier>,
    resolution: &Resolution,
    stage: &str,
    cache: &Cache,
) -> Option<&'a Earlier> {
    let now = &resolution.preimage;
    let rough = |earlier: &Earlier| {
        let record = &earlier.record;
        (record.provenance.stage != stage, distance(&record.preimage, now))
    };
    let least = candidates.iter().map(|earlier| rough(earlier)).min()?;
    candidates.retain(|earlier| rough(earlier) == least);
    candidates.sort_by(|a, b| b.record.provenance.finished.cmp(&a.record.provenance.finished));
    candidates.truncate(COMPARED);
    // The first of equals is the newest.
    candidates.into_iter().min_by_key(|earlier| {
        let found = differences(&earlier.record.preimage, resolution, cache);
        let files = |difference: &Difference| match difference {
            Difference::Files { changes: Some(changes), .. } => changes.len(),
            Difference::Files { changes: None, .. } => usize::MAX / 2,
            _ => 0,
        };
        found.iter().map(files).fold(0_usize, usize::saturating_add)
    })
}

/// Compares an earlier preimage with that of a resolved task, part by part: version, seed, each field and each input.
pub(super) fn differences(old: &Preimage, resolution: &Resolution, cache: &Cache) -> Vec<Difference> {
    let new = &resolution.preimage;
    let tree = |role: &str| {
        resolution.inputs.iter().find(|input| input.role.to_string() == role).map(|input| &*input.tree)
    };
    let mut found = Vec::new();
    if old.version != new.version {
        found.push(Difference::Version { old: old.version, new: new.version });
    }
    walk_fields("", &old.spec, &new.spec, &mut |path, old, new| {
        found.push(Difference::Field { path, old: old.cloned(), new: new.cloned() });
    });
    if old.seed != new.seed {
        found.push(Difference::Seed { old: old.seed, new: new.seed });
    }
    for input in &new.inputs {
        match old.inputs.iter().find(|earlier| earlier.role == input.role) {
            None => found.push(Difference::Input { role: input.role.clone(), is_new: true }),
            Some(earlier) if earlier.digest != input.digest => found.push(Difference::Files {
                role: input.role.clone(),
                changes: changes(&earlier.digest, tree(&input.role), cache),
            }),
            Some(_) => {}
        }
    }
    for earlier in &old.inputs {
        if !new.inputs.iter().any(|input| input.role == earlier.role) {
            found.push(Difference::Input { role: earlier.role.clone(), is_new: false });
        }
    }
    found
}

/// Returns the fields and seeds that differ between two tasks. Their inputs are ignored.
pub(super) fn spec_differences(old: &Task, new: &Task) -> Vec<Difference> {
    let mut found = Vec::new();
    walk_fields("", old.spec.key_fields(), new.spec.key_fields(), &mut |path, old, new| {
        found.push(Difference::Field { path, old: old.cloned(), new: new.cloned() });
    });
    if old.seed != new.seed {
        found.push(Difference::Seed { old: old.seed, new: new.seed });
    }
    found
}

fn changes(old: &Digest, new: Option<&Tree>, cache: &Cache) -> Option<Vec<Change>> {
    let old = cache.tree(old).ok().flatten()?;
    Some(difference(&old, new?))
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values.as_str() {
            "" => write!(formatter, "{}: ", self.task)?,
            values => write!(formatter, "{} ({values}): ", self.task)?,
        }
        formatter.write_str(&self.reason.sentence())
    }
}
