//! What other machines share with a run: records and objects are prefetched for many tasks at once, and adopted.

use std::sync::Arc;

use super::Scheduler;
use crate::cache::{Digest, Origin, Presence, Published, Tree};
use crate::engine::{EngineError, Outcome};
use crate::plan::{Outputs, Record, TaskId};

impl Scheduler<'_> {
    /// Prefetches the records of all tasks that are ready, and the objects that the run's folder shows of them.
    /// Whatever fails here is met again when the task's turn comes.
    pub(super) fn ask_ahead(&mut self, index: usize) -> Result<(), EngineError> {
        if !self.store.prefers_batches() || !self.asked.insert(index) {
            return Ok(());
        }
        let mut tasks = vec![index];
        tasks.extend(self.queue.ready().filter(|task| self.asked.insert(*task)));
        let (mut keys, mut wholes) = (Vec::new(), Vec::new());
        for task in tasks {
            let of = &self.plan.tasks[task];
            let resolved = self.resolver.resolve(self.plan, TaskId(task), &self.outputs);
            let source = self.resolver.source_outputs(&of.stage, &of.spec);
            if let (Ok(resolution), Ok(None), false) = (resolved, source, self.is_forced(task)) {
                keys.push((resolution.key, Presence::Record));
                wholes.extend(self.is_whole(task).then_some(resolution.key));
            }
        }
        self.store.prefetch::<Record>(&keys).map_err(EngineError::Store)?;
        let mut trees = Vec::new();
        for key in &wholes {
            let found = self.store.lookup::<Record>(key).map_err(EngineError::Store)?.found();
            trees.extend(found.into_iter().flat_map(|found| found.trees));
        }
        self.store.fetch_missing(&trees).map(|_| ()).map_err(EngineError::Store)
    }

    /// Whether a record counts only where all its objects are here.
    fn is_whole(&self, index: usize) -> bool {
        self.plan.tasks[index].is_shown || self.options.restores
    }

    /// The outputs that a record gives. What the run's folder shows must be there, too. Held before it is
    /// looked at, so that what is seen now stays until the run has read and shown it.
    pub(super) fn recorded(
        &self,
        index: usize,
        key: &Digest,
    ) -> Result<Option<(Outcome, Outputs)>, EngineError> {
        let Some((outcome, outputs)) = self.adopted(key)? else { return Ok(None) };
        self.store.leases().hold(key);
        if self.is_whole(index) {
            for output in outputs.values() {
                let whole = std::slice::from_ref(&output.tree);
                if !self.store.materialise(&output.tree, whole).map_err(EngineError::Store)?.is_empty() {
                    self.store.mark_incomplete(key);
                    return Ok(None);
                }
            }
        }
        Ok(Some((outcome, outputs)))
    }

    /// The outputs of a record; one of another machine is published here, with its trees.
    fn adopted(&self, key: &Digest) -> Result<Option<(Outcome, Outputs)>, EngineError> {
        let Some((found, outputs)) = self.resolver.lookup(key)? else { return Ok(None) };
        if found.origin == Origin::Local {
            return Ok(Some((Outcome::Hit, outputs)));
        }
        let publication = self.store.publication().map_err(EngineError::Store)?;
        let outputs = match publication.adopt(key, &found).map_err(EngineError::Store)? {
            Published::Ours => Some(outputs),
            // Another process was quicker; its record is the one that counts here.
            Published::Theirs(_) => self.resolver.lookup(key)?.map(|(_, outputs)| outputs),
        };
        Ok(outputs.map(|outputs| (Outcome::RemoteHit, outputs)))
    }

    /// The whole outputs of all that a task reads, from which parts can be fetched.
    pub(super) fn upstream(&self, index: usize) -> Vec<Arc<Tree>> {
        let upstream = self.plan.upstream(TaskId(index));
        let outputs = upstream.iter().flat_map(|id| self.outputs[id.0].iter().flat_map(Outputs::values));
        outputs.filter(|output| output.source.is_none()).map(|output| output.tree.clone()).collect()
    }
}
