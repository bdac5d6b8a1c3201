//! What would run: the state of every task, without running any.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::graph::{Plan, TaskId};
use super::reason::Reason;
use super::resolve::{Outputs, Resolution, Resolver, wanted};
use super::{PlanError, Record};
use crate::cache::{Cache, Digest, Found, Origin, Presence, Tree};

/// The state of a task before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The cache has its record.
    Hit,
    /// The remote has its record; its files are fetched when they are read.
    RemoteHit,
    /// Another process is running it.
    InFlight,
    /// It would run.
    Miss,
    /// It depends on an output that does not exist yet.
    Unknown,
}

impl State {
    /// Returns whether there is a record, in the cache or in the remote.
    pub fn is_hit(self) -> bool {
        matches!(self, Self::Hit | Self::RemoteHit)
    }

    /// Returns the name in JSON.
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

/// The state of one task, with its reason.
#[derive(Clone, Debug)]
pub struct Status {
    /// Why the task is in its state.
    pub reason: Reason,
    /// Inputs and key; `None` while upstream outputs are unknown.
    pub resolution: Option<Resolution>,
    /// The record, if there is one.
    pub record: Option<Record>,
    /// The outputs, if they are known.
    pub outputs: Option<Outputs>,
}

impl Status {
    /// Returns the state.
    pub fn state(&self) -> State {
        self.reason.state()
    }
}

/// Finds the state of every task of a plan.
///
/// # Errors
/// [`PlanError`] if a source, a tool or the cache cannot be read.
pub fn survey(plan: &Plan, resolver: &mut Resolver<'_>, cache: &Cache) -> Result<Vec<Status>, PlanError> {
    let mut outputs: Vec<Option<Outputs>> = vec![None; plan.tasks.len()];
    let mut statuses: Vec<Option<Status>> = (0..plan.tasks.len()).map(|_| None).collect();
    let mut misses: HashMap<Digest, TaskId> = HashMap::new();
    for level in levels(plan, cache.prefers_batches()) {
        prefetch(plan, &level, resolver, cache, &outputs)?;
        for id in level {
            let unknown = plan.upstream(id).into_iter().filter(|upstream| outputs[upstream.0].is_none());
            let tasks: Vec<String> = unknown.map(|upstream| plan.tasks[upstream.0].name.clone()).collect();
            statuses[id.0] = Some(if tasks.is_empty() {
                survey_task(plan, id, resolver, cache, &mut outputs, &mut misses)?
            } else {
                Status { reason: Reason::WaitsFor { tasks }, resolution: None, record: None, outputs: None }
            });
        }
    }
    let mut statuses: Vec<Status> = statuses.into_iter().flatten().collect();
    mark_evicted(plan, cache, &outputs, &mut statuses)?;
    statuses.iter_mut().zip(outputs).for_each(|(status, outputs)| status.outputs = outputs);
    Ok(statuses)
}

/// Groups the tasks into levels that can be looked up one after the other. If the cache prefers batches, tasks that
/// do not depend on each other form one level.
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

/// Prefetches the records of a level's tasks that the local cache lacks, and those of shown tasks whose objects are
/// gone.
fn prefetch(
    plan: &Plan,
    level: &[TaskId],
    resolver: &mut Resolver<'_>,
    cache: &Cache,
    outputs: &[Option<Outputs>],
) -> Result<(), PlanError> {
    if !cache.prefers_batches() {
        return Ok(());
    }
    let mut keys = Vec::new();
    for &id in level {
        let task = &plan.tasks[id.0];
        let is_known = plan.upstream(id).iter().all(|upstream| outputs[upstream.0].is_some());
        if !is_known || resolver.source_outputs(&task.stage, &task.spec)?.is_some() {
            continue;
        }
        let key = resolver.resolve(plan, id, &|id| outputs[id.0].as_ref())?.key;
        keys.push((
            wanted(key, &task.spec),
            if task.is_shown { Presence::Objects } else { Presence::Record },
        ));
    }
    cache.prefetch::<Record>(&keys).map_err(PlanError::Cache)
}

/// Returns whether the local cache lacks objects of any output.
fn is_gone(cache: &Cache, outputs: &Outputs) -> Result<bool, PlanError> {
    for output in outputs.values() {
        if !cache.objects().missing(&output.tree).map_err(PlanError::Cache)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Prefetches the records of hits whose objects are gone, if a task that would run may read them.
fn prefetch_evicted(plan: &Plan, cache: &Cache, statuses: &[Status]) -> Result<(), PlanError> {
    let would_run = (0..statuses.len()).filter(|&task| !statuses[task].state().is_hit());
    let read: BTreeSet<usize> =
        would_run.flat_map(|task| plan.upstream(TaskId(task))).map(|TaskId(producer)| producer).collect();
    let mut keys = Vec::new();
    for producer in read {
        let Status { reason: Reason::Recorded, resolution: Some(resolution), .. } = &statuses[producer]
        else {
            continue;
        };
        keys.push((wanted(resolution.key, &plan.tasks[producer].spec), Presence::Objects));
    }
    cache.prefetch::<Record>(&keys).map_err(PlanError::Cache)
}

/// Marks hits that would run again, because a task that would run reads their objects and the objects are gone.
fn mark_evicted(
    plan: &Plan,
    cache: &Cache,
    outputs: &[Option<Outputs>],
    statuses: &mut [Status],
) -> Result<(), PlanError> {
    prefetch_evicted(plan, cache, statuses)?;
    // Many tasks read the same tree. `statuses` and `outputs` keep every tree alive, so that its address identifies it.
    let mut known: HashMap<*const Tree, bool> = HashMap::new();
    let mut gone = |tree: &Arc<Tree>| -> Result<bool, PlanError> {
        if let Some(&is_gone) = known.get(&Arc::as_ptr(tree)) {
            return Ok(is_gone);
        }
        let is_gone = !cache.objects().missing(tree).map_err(PlanError::Cache)?.is_empty();
        known.insert(Arc::as_ptr(tree), is_gone);
        Ok(is_gone)
    };
    for reader in (0..statuses.len()).rev() {
        if !matches!(statuses[reader].state(), State::Miss | State::Unknown) {
            continue;
        }
        for TaskId(producer) in plan.upstream(TaskId(reader)) {
            if statuses[producer].reason != Reason::Recorded {
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
            if is_gone && !key.is_some_and(|key| cache.can_fetch(&key)) {
                statuses[producer].reason = Reason::Evicted { reader: plan.tasks[reader].name.clone() };
            }
        }
    }
    Ok(())
}

/// Finds the state of a task whose upstream outputs are known, and adds its own outputs to `outputs`.
fn survey_task(
    plan: &Plan,
    id: TaskId,
    resolver: &mut Resolver<'_>,
    cache: &Cache,
    outputs: &mut [Option<Outputs>],
    misses: &mut HashMap<Digest, TaskId>,
) -> Result<Status, PlanError> {
    let task = &plan.tasks[id.0];
    let resolution = resolver.resolve(plan, id, &|id| outputs[id.0].as_ref())?;
    let key = resolution.key;
    let status = |reason, record| Status { reason, resolution: Some(resolution), record, outputs: None };
    if let Some(found) = resolver.source_outputs(&task.stage, &task.spec)? {
        outputs[id.0] = Some(found);
        return Ok(status(Reason::LocalSource, None));
    }
    if let Some((Found { origin, record, .. }, found)) = resolver.lookup(&wanted(key, &task.spec))? {
        let reason = match origin {
            Origin::Remote => Reason::RecordedRemotely,
            Origin::Local if task.is_shown && is_gone(cache, &found)? && !cache.can_fetch(&key) => {
                return Ok(status(Reason::ObjectsGone, Some(record)));
            }
            Origin::Local => Reason::Recorded,
        };
        outputs[id.0] = Some(found);
        return Ok(status(reason, Some(record)));
    }
    let reason = match (cache.leases().holder(&key), misses.get(&key)) {
        (Some(holder), _) => Reason::InFlight { pid: holder.process.pid, host: holder.process.host.clone() },
        (None, Some(other)) => Reason::EqualTo { task: plan.tasks[other.0].name.clone() },
        (None, None) => Reason::NoRecord,
    };
    misses.entry(key).or_insert(id);
    Ok(status(reason, None))
}
