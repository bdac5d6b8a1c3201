//! Why a task would run: what differs from the nearest earlier record of its kind.

use std::fmt;

use super::graph::{Plan, Task, TaskId};
use super::history::{Earlier, History, distance, walk_fields};
use super::key::Preimage;
use super::resolve::Resolution;
use super::survey::{State, Status};
use crate::cache::{Cache, Change, Digest, Tree, difference};
use crate::stages::fields::Value;

/// One leaf that differs between a task and an earlier one.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// The kind's `VERSION`.
    Version {
        /// Then.
        old: u32,
        /// Now.
        new: u32,
    },
    /// The seed.
    Seed {
        /// Then.
        old: Option<u64>,
        /// Now.
        new: Option<u64>,
    },
    /// A field of the spec.
    Field {
        /// Its path.
        path: String,
        /// Then; none where it was not there.
        old: Option<Value>,
        /// Now; none where it is no more.
        new: Option<Value>,
    },
    /// Files of an input.
    Files {
        /// The input's role.
        role: String,
        /// What changed, by name; none where the earlier listing is gone.
        changes: Option<Vec<Change>>,
    },
    /// An input that is new or gone.
    Input {
        /// Its role.
        role: String,
        /// Whether it is new.
        is_new: bool,
    },
}

/// Why one task is no hit.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// It is a hit: nothing would run.
    Hit,
    /// Another process is making it.
    InFlight(String),
    /// Its record is there, but not the objects that somebody needs.
    Gone(String),
    /// Another task of the plan has the same key and runs for both.
    Merged(String),
    /// No record of this kind was ever made.
    NeverRan,
    /// The nearest earlier record differs in these.
    Differs {
        /// The stage that made it, and when.
        earlier: String,
        /// What differs.
        differences: Vec<Difference>,
    },
    /// It waits for tasks whose outputs are not known.
    Waits(Vec<String>),
}

/// The reason of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The task's name.
    pub task: String,
    /// The axes' values that tell it from others of its stage.
    pub values: String,
    /// Why.
    pub reason: Reason,
}

/// Explains the tasks of `stage` and, where they wait, the chain upwards to the first known causes.
pub fn explain(plan: &Plan, statuses: &[Status], store: &Cache, stage: &str) -> Vec<Explanation> {
    let mut wanted: Vec<TaskId> =
        (0..plan.tasks.len()).map(TaskId).filter(|id| plan.tasks[id.0].stage == stage).collect();
    let mut place = 0;
    while place < wanted.len() {
        let id = wanted[place];
        if statuses[id.0].state == State::Unknown {
            for upstream in plan.upstream(id) {
                if !statuses[upstream.0].state.is_hit() && !wanted.contains(&upstream) {
                    wanted.push(upstream);
                }
            }
        }
        place += 1;
    }
    let history = History::load(store);
    wanted
        .into_iter()
        .map(|id| Explanation {
            task: plan.tasks[id.0].name.clone(),
            values: plan.values_of(id),
            reason: reason(plan, id, statuses, &history, store),
        })
        .collect()
}

fn reason(plan: &Plan, id: TaskId, statuses: &[Status], history: &History, store: &Cache) -> Reason {
    let status = &statuses[id.0];
    match (status.state, &status.resolution) {
        (State::Hit | State::RemoteHit, _) => Reason::Hit,
        (State::InFlight, _) => Reason::InFlight(status.reason.clone()),
        (State::Unknown, _) | (State::Miss, None) => Reason::Waits(
            plan.upstream(id)
                .into_iter()
                .filter(|upstream| !statuses[upstream.0].state.is_hit())
                .map(|upstream| plan.tasks[upstream.0].name.clone())
                .collect(),
        ),
        (State::Miss, Some(_)) if status.record.is_some() => Reason::Gone(status.reason.clone()),
        (State::Miss, Some(resolution)) => {
            if let Some(leader) = leader(id, statuses, resolution) {
                return Reason::Merged(plan.tasks[leader.0].name.clone());
            }
            let now = &resolution.preimage;
            let task = &plan.tasks[id.0];
            let of_kind = history.of_kind(&now.kind).iter();
            let candidates = of_kind.filter(|earlier| earlier.key != resolution.key);
            let nearest = nearest(candidates.collect(), resolution, &task.stage, store);
            let Some(nearest) = nearest else { return Reason::NeverRan };
            let made = &nearest.record.provenance;
            Reason::Differs {
                earlier: format!("`{}` of {}", made.stage, made.finished),
                differences: differences(&nearest.record.preimage, resolution, store),
            }
        }
    }
}

/// An earlier task of the plan with the same key.
fn leader(id: TaskId, statuses: &[Status], resolution: &Resolution) -> Option<TaskId> {
    let has_key =
        |status: &Status| status.resolution.as_ref().is_some_and(|other| other.key == resolution.key);
    statuses[..id.0].iter().position(has_key).map(TaskId)
}

/// Records whose files are compared one by one.
const COMPARED: usize = 16;

/// The nearest record: of the same stage name first, then with the fewest leaves that differ, then with the
/// fewest files that differ, then the newest.
fn nearest<'a>(
    mut candidates: Vec<&'a Earlier>,
    resolution: &Resolution,
    stage: &str,
    store: &Cache,
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
        let found = differences(&earlier.record.preimage, resolution, store);
        let files = |difference: &Difference| match difference {
            Difference::Files { changes: Some(changes), .. } => changes.len(),
            Difference::Files { changes: None, .. } => usize::MAX / 2,
            _ => 0,
        };
        found.iter().map(files).fold(0_usize, usize::saturating_add)
    })
}

/// The leaves that differ between an earlier preimage and a task that can be started.
pub(super) fn differences(old: &Preimage, resolution: &Resolution, store: &Cache) -> Vec<Difference> {
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
                changes: changes(&earlier.digest, tree(&input.role), store),
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

/// The fields and seeds that differ between two tasks, whatever they read.
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

fn changes(old: &Digest, new: Option<&Tree>, store: &Cache) -> Option<Vec<Change>> {
    let old = store.tree(old).ok().flatten()?;
    Some(difference(&old, new?))
}

/// Files named one by one before the rest is counted.
const NAMED_FILES: usize = 10;

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("absent".to_owned(), ToString::to_string);
        match self {
            Self::Version { old, new } => write!(formatter, "VERSION of the kind: {old} -> {new}"),
            Self::Seed { old, new } => {
                let seed = |seed: &Option<u64>| seed.map_or("none".to_owned(), |seed| seed.to_string());
                write!(formatter, "seed: {} -> {}", seed(old), seed(new))
            }
            Self::Field { path, old, new } => write!(formatter, "{path}: {} -> {}", shown(old), shown(new)),
            Self::Input { role, is_new } => {
                write!(formatter, "input `{role}`: {}", if *is_new { "new" } else { "gone" })
            }
            Self::Files { role, changes: None } => {
                write!(formatter, "input `{role}`: other content (its earlier listing is gone)")
            }
            Self::Files { role, changes: Some(changes) } => {
                let files = if changes.len() == 1 { "file differs" } else { "files differ" };
                write!(formatter, "input `{role}`: {} {files}", changes.len())?;
                for change in changes.iter().take(NAMED_FILES) {
                    let (word, path) = match change {
                        Change::Added { path } => ("added", path),
                        Change::Changed { path } => ("changed", path),
                        Change::Removed { path } => ("removed", path),
                    };
                    write!(formatter, "\n      {word} {path}")?;
                }
                if changes.len() > NAMED_FILES {
                    write!(formatter, "\n      and {} more", changes.len() - NAMED_FILES)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.values.as_str() {
            "" => write!(formatter, "{}: ", self.task)?,
            values => write!(formatter, "{} ({values}): ", self.task)?,
        }
        write!(formatter, "{}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit => formatter.write_str("would not run: its result is in the cache"),
            Self::InFlight(who) => formatter.write_str(who),
            Self::Gone(why) => write!(formatter, "would run: {why}"),
            Self::Merged(leader) => {
                write!(formatter, "does not run: equal to `{leader}`, which runs for both")
            }
            Self::NeverRan => formatter.write_str("would run: no task of this kind has a record here"),
            Self::Waits(upstream) => write!(formatter, "waits for {}", upstream.join(", ")),
            Self::Differs { earlier, differences } => {
                write!(formatter, "would run: differs from {earlier} in")?;
                for difference in differences {
                    write!(formatter, "\n    {difference}")?;
                }
                Ok(())
            }
        }
    }
}
