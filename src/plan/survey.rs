//! What would run: the state of every task, without running any.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::graph::{Plan, TaskId};
use super::resolve::{Outputs, Resolution, Resolver};
use super::{PlanError, Record};
use crate::cache::{Cache, Digest, Found, Origin, Presence, Tree};

/// What is known of a task beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A record says what it gives.
    Hit,
    /// A record of the remote does; what is read of it is fetched.
    RemoteHit,
    /// Another process is making it.
    InFlight,
    /// It would run.
    Miss,
    /// It depends on an output that is not there yet.
    Unknown,
}

impl State {
    /// Whether a record answers it, here or in the remote.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Hit | Self::RemoteHit)
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::RemoteHit => "remote_hit",
            Self::InFlight => "in_flight",
            Self::Miss => "miss",
            Self::Unknown => "unknown",
        }
    }
}

/// The state of one task, with what led to it.
#[derive(Clone, Debug)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Why it is no hit, in a few words.
    pub reason: String,
    /// Its inputs and key, where its upstream is known.
    pub resolution: Option<Resolution>,
    /// Its record, where it is a hit.
    pub record: Option<Record>,
}

/// Looks at every task of a plan.
pub fn survey(plan: &Plan, resolver: &mut Resolver<'_>, store: &Cache) -> Result<Vec<Status>, PlanError> {
    let mut outputs: Vec<Option<Outputs>> = vec![None; plan.tasks.len()];
    let mut statuses: Vec<Option<Status>> = (0..plan.tasks.len()).map(|_| None).collect();
    let mut misses: HashMap<Digest, TaskId> = HashMap::new();
    for level in levels(plan, store.prefers_batches()) {
        prefetch(plan, &level, resolver, store, &outputs)?;
        for id in level {
            let waits_for = plan.upstream(id).into_iter().find(|upstream| outputs[upstream.0].is_none());
            statuses[id.0] = Some(match waits_for {
                Some(upstream) => Status {
                    state: State::Unknown,
                    reason: format!("waits for `{}`", plan.tasks[upstream.0].name),
                    resolution: None,
                    record: None,
                },
                None => look(plan, id, resolver, store, &mut outputs, &mut misses)?,
            });
        }
    }
    let mut statuses: Vec<Status> = statuses.into_iter().flatten().collect();
    mark_evicted(plan, store, &outputs, &mut statuses)?;
    Ok(statuses)
}

/// The tasks in an order in which they can be looked at. If the cache prefers batches, tasks that do not depend on
/// each other form one level.
fn levels(plan: &Plan, prefers_batches: bool) -> Vec<Vec<TaskId>> {
    if !prefers_batches {
        return vec![(0..plan.tasks.len()).map(TaskId).collect()];
    }
    let mut depths: Vec<usize> = Vec::with_capacity(plan.tasks.len());
    let mut levels: Vec<Vec<TaskId>> = Vec::new();
    for id in (0..plan.tasks.len()).map(TaskId) {
        let depth = plan.upstream(id).iter().map(|upstream| depths[upstream.0] + 1).max().unwrap_or(0);
        depths.push(depth);
        levels.resize_with(levels.len().max(depth + 1), Vec::new);
        levels[depth].push(id);
    }
    levels
}

/// Prefetches the records of the tasks of a level that are not here, and of shown tasks whose objects are gone.
fn prefetch(
    plan: &Plan,
    level: &[TaskId],
    resolver: &mut Resolver<'_>,
    store: &Cache,
    outputs: &[Option<Outputs>],
) -> Result<(), PlanError> {
    if !store.prefers_batches() {
        return Ok(());
    }
    let mut keys = Vec::new();
    for &id in level {
        let task = &plan.tasks[id.0];
        let is_known = plan.upstream(id).iter().all(|upstream| outputs[upstream.0].is_some());
        if !is_known || resolver.source_outputs(&task.stage, &task.spec)?.is_some() {
            continue;
        }
        let key = resolver.resolve(plan, id, outputs)?.key;
        keys.push((key, if task.is_shown { Presence::Objects } else { Presence::Record }));
    }
    store.prefetch::<Record>(&keys).map_err(PlanError::Store)
}

/// Whether objects of some output are not here.
fn is_gone(store: &Cache, outputs: &Outputs) -> Result<bool, PlanError> {
    for output in outputs.values() {
        if !store.objects().missing(&output.tree).map_err(PlanError::Store)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Prefetches the records of hits that a task that runs may read and whose objects are gone.
fn prefetch_evicted(plan: &Plan, store: &Cache, statuses: &[Status]) -> Result<(), PlanError> {
    let would_run = (0..statuses.len()).filter(|&task| !statuses[task].state.is_hit());
    let read: BTreeSet<usize> =
        would_run.flat_map(|task| plan.upstream(TaskId(task))).map(|TaskId(producer)| producer).collect();
    let mut keys = Vec::new();
    for producer in read {
        let Status { state: State::Hit, resolution: Some(resolution), record: Some(_), .. } =
            &statuses[producer]
        else {
            continue;
        };
        keys.push((resolution.key, Presence::Objects));
    }
    store.prefetch::<Record>(&keys).map_err(PlanError::Store)
}

/// A hit whose objects are gone runs all the same where a task that runs reads them.
fn mark_evicted(
    plan: &Plan,
    store: &Cache,
    outputs: &[Option<Outputs>],
    statuses: &mut [Status],
) -> Result<(), PlanError> {
    prefetch_evicted(plan, store, statuses)?;
    // Many tasks read the same listing; the statuses keep all of them at their addresses.
    let mut known: HashMap<*const Tree, bool> = HashMap::new();
    let mut gone = |tree: &Arc<Tree>| -> Result<bool, PlanError> {
        if let Some(&is_gone) = known.get(&Arc::as_ptr(tree)) {
            return Ok(is_gone);
        }
        let is_gone = !store.objects().missing(tree).map_err(PlanError::Store)?.is_empty();
        known.insert(Arc::as_ptr(tree), is_gone);
        Ok(is_gone)
    };
    for reader in (0..statuses.len()).rev() {
        if !matches!(statuses[reader].state, State::Miss | State::Unknown) {
            continue;
        }
        for TaskId(producer) in plan.upstream(TaskId(reader)) {
            if statuses[producer].state != State::Hit || statuses[producer].record.is_none() {
                continue;
            }
            let mut is_gone = false;
            match &statuses[reader].resolution {
                Some(resolution) => {
                    for input in resolution.inputs.iter().filter(|input| input.producer.0 == producer) {
                        is_gone |= gone(&input.tree)?;
                    }
                }
                None => {
                    for output in outputs[producer].iter().flat_map(Outputs::values) {
                        is_gone |= gone(&output.tree)?;
                    }
                }
            }
            let key = statuses[producer].resolution.as_ref().map(|resolution| resolution.key);
            if is_gone && !key.is_some_and(|key| store.can_fetch(&key)) {
                statuses[producer].state = State::Miss;
                statuses[producer].reason =
                    format!("evicted: made again for `{}`, which reads it", plan.tasks[reader].name);
            }
        }
    }
    Ok(())
}

fn look(
    plan: &Plan,
    id: TaskId,
    resolver: &mut Resolver<'_>,
    store: &Cache,
    outputs: &mut [Option<Outputs>],
    misses: &mut HashMap<Digest, TaskId>,
) -> Result<Status, PlanError> {
    let task = &plan.tasks[id.0];
    let resolution = resolver.resolve(plan, id, outputs)?;
    if let Some(found) = resolver.source_outputs(&task.stage, &task.spec)? {
        outputs[id.0] = Some(found);
        let reason = "a local source, hashed in place".to_owned();
        return Ok(Status { state: State::Hit, reason, resolution: Some(resolution), record: None });
    }
    let answer = resolver.lookup(&resolution.key)?;
    if let Some((Found { origin: Origin::Local, record, .. }, found)) = answer {
        if task.is_shown && is_gone(store, &found)? && !store.can_fetch(&resolution.key) {
            let reason = "its objects, which the run's folder shows, are gone".to_owned();
            return Ok(Status {
                state: State::Miss,
                reason,
                resolution: Some(resolution),
                record: Some(record),
            });
        }
        outputs[id.0] = Some(found);
        return Ok(Status {
            state: State::Hit,
            reason: String::new(),
            resolution: Some(resolution),
            record: Some(record),
        });
    }
    if let Some((Found { record, .. }, found)) = answer {
        outputs[id.0] = Some(found);
        let reason = "a record of the remote".to_owned();
        return Ok(Status {
            state: State::RemoteHit,
            reason,
            resolution: Some(resolution),
            record: Some(record),
        });
    }
    let (state, reason) = match store.leases().holder(&resolution.key) {
        Some(holder) => (State::InFlight, format!("process {} is making it", holder.process.pid)),
        None => match misses.get(&resolution.key) {
            Some(other) => {
                (State::Miss, format!("equal to `{}`, which runs for both", plan.tasks[other.0].name))
            }
            None => (State::Miss, "no record of this key".to_owned()),
        },
    };
    misses.entry(resolution.key).or_insert(id);
    Ok(Status { state, reason, resolution: Some(resolution), record: None })
}
