//! Prefetches the records and objects of many tasks at once from the remote, and copies records to the cache.

use super::Scheduler;
use crate::cache::{Digest, Origin, Presence, Published};
use crate::engine::{EngineError, Outcome};
use crate::plan::{Outputs, Record, TaskId};

impl Scheduler<'_> {
    /// Prefetches the records of all ready tasks, and the objects that the run's folder shows of them. Whatever fails
    /// here is met again when the task's turn comes.
    pub(super) fn prefetch(&mut self, task: TaskId) -> Result<(), EngineError> {
        if !self.cache.prefers_batches() || !self.prefetched.insert(task) {
            return Ok(());
        }
        let mut tasks = vec![task];
        tasks.extend(self.state.ready().filter(|task| self.prefetched.insert(*task)));
        let (mut keys, mut wholes) = (Vec::new(), Vec::new());
        for task in tasks {
            let of = &self.plan.tasks[task.0];
            let state = &self.state;
            let resolved = self.resolver.resolve(self.plan, task, &|id| state.outputs(id));
            let source = self.resolver.source_outputs(&of.stage, &of.spec);
            if let (Ok(resolution), Ok(None), false) = (resolved, source, self.state.is_forced(task)) {
                keys.push((resolution.key, Presence::Record));
                wholes.extend(self.needs_all_objects(task).then_some(resolution.key));
            }
        }
        self.cache.prefetch::<Record>(&keys).map_err(EngineError::Cache)?;
        let mut trees = Vec::new();
        for key in &wholes {
            let found = self.cache.lookup::<Record>(key).map_err(EngineError::Cache)?.found();
            trees.extend(found.into_iter().flat_map(|found| found.trees));
        }
        self.cache.fetch_missing(&trees).map(|_| ()).map_err(EngineError::Cache)
    }

    /// Returns the outputs that the record of a key names; `None` without a record. A record from the remote is first
    /// copied to the cache, with its trees.
    pub(super) fn adopted(&self, key: &Digest) -> Result<Option<(Outcome, Outputs)>, EngineError> {
        let Some((found, outputs)) = self.resolver.lookup(key)? else { return Ok(None) };
        if found.origin == Origin::Local {
            return Ok(Some((Outcome::Hit, outputs)));
        }
        let publication = self.cache.publication().map_err(EngineError::Cache)?;
        let outputs = match publication.adopt(key, &found).map_err(EngineError::Cache)? {
            Published::Ours => Some(outputs),
            // Another process was quicker; its record counts.
            Published::Theirs(_) => self.resolver.lookup(key)?.map(|(_, outputs)| outputs),
        };
        Ok(outputs.map(|outputs| (Outcome::RemoteHit, outputs)))
    }
}
