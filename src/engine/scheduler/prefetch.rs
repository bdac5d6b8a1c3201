//! Prefetches the records and objects of many tasks at once from the remote, and copies records to the cache.

use super::Scheduler;
use crate::cache::{Digest, Origin, Presence, Published};
use crate::engine::{EngineError, Outcome};
use crate::plan::{Outputs, Record, TaskId, wanted};

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
                let wanted = wanted(resolution.key, &of.spec);
                wholes.extend(self.needs_all_objects(task).then(|| wanted.clone()));
                keys.push((wanted, Presence::Record));
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

    /// The outputs of a record. A record of another machine is published here, with its trees.
    pub(super) fn adopted(
        &self,
        task: TaskId,
        key: &Digest,
    ) -> Result<Option<(Outcome, Outputs)>, EngineError> {
        let wanted = wanted(*key, &self.plan.tasks[task.0].spec);
        let Some((found, outputs)) = self.resolver.lookup(&wanted)? else { return Ok(None) };
        if found.origin == Origin::Local {
            return Ok(Some((Outcome::Hit, outputs)));
        }
        let publication = self.cache.publication().map_err(EngineError::Cache)?;
        let outputs = match publication.adopt(&wanted, &found).map_err(EngineError::Cache)? {
            Published::Ours => Some(outputs),
            // Another process was quicker; its record counts.
            Published::Theirs(_) => self.resolver.lookup(&wanted)?.map(|(_, outputs)| outputs),
        };
        Ok(outputs.map(|outputs| (Outcome::RemoteHit, outputs)))
    }
}
