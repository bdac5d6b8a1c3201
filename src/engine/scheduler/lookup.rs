//! Finds the keys and the records of tasks, and takes their leases.

use super::Scheduler;
use crate::cache::Digest;
use crate::engine::state::SchedulerEvent;
use crate::engine::{EngineError, Event, Failure, Outcome};
use crate::plan::{Outputs, Record, TaskId};

impl Scheduler<'_> {
    /// Finds a ready task's key.
    pub(super) fn resolve(&mut self, task: TaskId) -> SchedulerEvent {
        self.try_resolve(task).unwrap_or_else(|failure| SchedulerEvent::Failed {
            task,
            failure,
            seconds: 0.0,
        })
    }

    fn try_resolve(&mut self, task: TaskId) -> Result<SchedulerEvent, Failure> {
        let of = &self.plan.tasks[task.0];
        let state = &self.state;
        let resolution = self.resolver.resolve(self.plan, task, &|id| state.outputs(id));
        let resolution = Box::new(resolution.map_err(Failure::Plan)?);
        let source = self.resolver.source_outputs(&of.stage, &of.spec).map_err(Failure::Plan)?;
        match self.refused_key(task, &resolution.key) {
            Some(failure) => Err(failure),
            None => Ok(SchedulerEvent::Resolved { task, resolution, source }),
        }
    }

    /// Looks up a task's record.
    pub(super) fn look_up(&mut self, task: TaskId) -> Result<SchedulerEvent, EngineError> {
        if !self.state.is_forced(task)
            && let Some(event) = self.recorded(task)?
        {
            return Ok(event);
        }
        let resolution = self.state.resolution(task).expect("a task is looked up when its key is known");
        Ok(SchedulerEvent::NotRecorded { task, demand: self.costs.demand(task, resolution) })
    }

    /// Tries to take a queued task's lease.
    pub(super) fn take_lease(&mut self, task: TaskId) -> Result<SchedulerEvent, EngineError> {
        let key = self.state.key(task).expect("a queued task has a key");
        let Some(lease) = self.cache.leases().take(&key).map_err(EngineError::Cache)? else {
            return Ok(SchedulerEvent::LeaseHeld { task });
        };
        if self.state.is_restoring(task) {
            if self.is_intact(task)? {
                // Another task or process has restored its objects meanwhile.
                return Ok(SchedulerEvent::Restored { task });
            }
        } else if !self.state.is_forced(task) {
            // Another process or machine may have executed it between the look-up and the lease.
            self.cache.recheck(&key);
            if let Some(event) = self.recorded(task)? {
                return Ok(event);
            }
        }
        Ok(SchedulerEvent::Leased { task, lease })
    }

    /// Finds the key of a finished task again, so that it can restore its objects.
    pub(super) fn restore(&mut self, task: TaskId) -> Result<SchedulerEvent, EngineError> {
        let state = &self.state;
        let resolution = self.resolver.resolve(self.plan, task, &|id| state.outputs(id))?;
        // The objects could not be fetched before.
        self.cache.mark_incomplete(&resolution.key);
        let demand = self.costs.demand(task, &resolution);
        Ok(SchedulerEvent::Restorable { task, resolution: Box::new(resolution), demand })
    }

    /// Reports which process holds a task's lease.
    pub(super) fn report_holder(&self, task: TaskId) {
        let holder = self.state.key(task).and_then(|key| self.cache.leases().holder(&key));
        let holder = holder.map_or_else(
            || "another process".to_owned(),
            |holder| format!("process {} on {}", holder.process.pid, holder.process.host),
        );
        let name = self.plan.tasks[task.0].name.clone();
        (self.options.listener)(Event::TaskWaiting { task, name, holder });
    }

    /// Looks up a task's record. Returns the event of a task that has one, `None` for others. The event is a failure
    /// if the outputs are not as the lock file pins them.
    fn recorded(&self, task: TaskId) -> Result<Option<SchedulerEvent>, EngineError> {
        let Some(key) = self.state.key(task) else { return Ok(None) };
        let Some((outcome, outputs)) = self.record(task, &key)? else { return Ok(None) };
        Ok(Some(self.answered(task, outcome, outputs)))
    }

    /// Returns the event of a task whose record has these outputs.
    pub(super) fn answered(&self, task: TaskId, outcome: Outcome, outputs: Outputs) -> SchedulerEvent {
        if let Some(failure) = self.refused_outputs(task, &outputs) {
            return SchedulerEvent::Failed { task, failure, seconds: 0.0 };
        }
        self.repeat_warnings(task);
        SchedulerEvent::Recorded { task, outcome, outputs }
    }

    /// Emits the warnings that a task's record keeps.
    pub(super) fn repeat_warnings(&self, task: TaskId) {
        let Some(key) = self.state.key(task) else { return };
        // A record that cannot be read any more has no warnings to repeat.
        let bytes = self.cache.records().get(&key).ok().flatten();
        let notices =
            bytes.and_then(|bytes| Record::from_bytes(&bytes)).map(|record| record.provenance.notices);
        for notice in notices.into_iter().flatten().filter(|notice| notice.is_warning) {
            let name = self.plan.tasks[task.0].name.clone();
            (self.options.listener)(Event::TaskWarning { task, name, message: notice.text });
        }
    }

    /// Finds the record of a key and returns the outputs that it names; `None` without a record. Objects that the
    /// run's folder shows must be in the cache, too. The record is held before it is read, so that its objects stay
    /// until the run has read and shown them.
    fn record(&self, task: TaskId, key: &Digest) -> Result<Option<(Outcome, Outputs)>, EngineError> {
        let Some((outcome, outputs)) = self.adopted(task, key)? else { return Ok(None) };
        self.cache.leases().hold(key);
        if self.needs_all_objects(task) {
            for output in outputs.values() {
                let whole = std::slice::from_ref(&output.tree);
                if !self.cache.materialise(&output.tree, whole).map_err(EngineError::Cache)?.is_empty() {
                    self.cache.mark_incomplete(key);
                    return Ok(None);
                }
            }
        }
        Ok(Some((outcome, outputs)))
    }

    /// Returns whether a task's record counts only if all its objects are in the cache.
    pub(super) fn needs_all_objects(&self, task: TaskId) -> bool {
        self.plan.tasks[task.0].is_shown || self.options.restores
    }

    /// Lets tasks run again whose objects went after they had ended, and are shown by the run's folder: someone deletes the
    /// cache, or collects without working locks. Returns whether there are any. Looks once.
    pub(super) fn remake_shown(&mut self) -> Result<bool, EngineError> {
        self.has_shown = true;
        let mut is_any = false;
        for task in (0..self.plan.tasks.len()).map(TaskId) {
            if self.state.is_stopping() || !self.needs_all_objects(task) {
                continue;
            }
            if let Some(file) = self.missing_file(task)? {
                self.state.handle(SchedulerEvent::OutputsLost { task, file });
                is_any = true;
            }
        }
        Ok(is_any)
    }

    /// The first file of a finished task's outputs whose object is not in the cache.
    fn missing_file(&self, task: TaskId) -> Result<Option<String>, EngineError> {
        let outputs = self.state.outputs(task).into_iter().flat_map(Outputs::values);
        for output in outputs.filter(|output| output.source.is_none()) {
            let missing = self.cache.objects().missing(&output.tree).map_err(EngineError::Cache)?;
            let mut entries = output.tree.entries().iter();
            if let Some(entry) = entries.find(|entry| missing.contains(&entry.digest)) {
                return Ok(Some(entry.path.clone()));
            }
        }
        Ok(None)
    }

    /// Returns whether all objects of a finished task's outputs are in the cache.
    fn is_intact(&self, task: TaskId) -> Result<bool, EngineError> {
        for output in self.state.outputs(task).into_iter().flat_map(Outputs::values) {
            if !self.cache.objects().check(&output.tree).map_err(EngineError::Cache)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
