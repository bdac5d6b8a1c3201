//! The remote in a run: what it has is asked for ahead and taken, and what the run made is put there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::Scheduler;
use crate::engine::{EngineError, Event, Options, Outcome};
use crate::plan::{Outputs, TaskId};
use crate::store::{Digest, Published, PushOrder, Pushed, Store, Tree};

/// Results that are put there together.
const TOGETHER: usize = 32;

/// Puts results into the remote while the run goes on, and what is left when it has ended.
pub(super) fn push(store: &Store, options: &Options<'_>, queue: &Receiver<PushOrder>) {
    let mut all = Pushed::default();
    while let Ok(first) = queue.recv() {
        let orders: Vec<PushOrder> =
            std::iter::once(first).chain(queue.try_iter().take(TOGETHER - 1)).collect();
        store.push(&orders, |pushed| {
            all.add(pushed);
            (options.listener)(Event::Pushed { records: all.records, bytes: all.bytes });
        });
        if options.cancelled.load(Ordering::Relaxed) {
            return;
        }
    }
}

impl Scheduler<'_> {
    /// Asks the remote for the records of all tasks that are ready, and fetches what the run's folder shows of them:
    /// once for many rather than for one after the other. Whatever fails here is met again when its turn comes.
    pub(super) fn ask_ahead(&mut self, index: usize) -> Result<(), EngineError> {
        if self.store.remote().is_none() || !self.asked.insert(index) {
            return Ok(());
        }
        let mut tasks = vec![index];
        tasks.extend(self.queue.ready().filter(|task| self.asked.insert(*task)));
        let mut keys = Vec::new();
        for task in tasks {
            let of = &self.plan.tasks[task];
            let resolved = self.resolver.resolve(self.plan, TaskId(task), &self.outputs);
            let source = self.resolver.source_outputs(&of.stage, &of.spec);
            if let (Ok(resolution), Ok(None), false) = (resolved, source, self.is_forced(task)) {
                keys.push((resolution.key, self.is_whole(task)));
            }
        }
        let mut new = Vec::new();
        for (key, _) in &keys {
            if self.resolver.recorded(key)?.is_none() {
                new.push(*key);
            }
        }
        self.resolver.ask_remote(&new)?;
        let mut trees = Vec::new();
        for (key, _) in keys.iter().filter(|(_, is_whole)| *is_whole) {
            let outputs = match self.resolver.recorded(key)? {
                Some((_, outputs)) => Some(outputs),
                None => self.resolver.remotely(key)?.map(|(_, _, outputs)| outputs),
            };
            trees.extend(outputs.into_iter().flat_map(Outputs::into_values).map(|output| output.tree));
        }
        self.fetch(&trees)
    }

    fn fetch(&self, trees: &[Arc<Tree>]) -> Result<(), EngineError> {
        let (mut wholes, mut wanted): (Vec<&Tree>, BTreeSet<Digest>) = (Vec::new(), BTreeSet::new());
        for tree in trees {
            let missing = self.store.missing(tree).map_err(EngineError::Store)?;
            if !missing.is_empty() {
                wholes.push(tree);
                wanted.extend(missing);
            }
        }
        self.store.fetch(&wholes, &wanted).map(|_| ()).map_err(EngineError::Store)
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
        let (outcome, outputs) = match self.resolver.recorded(key)? {
            Some((_, outputs)) => (Outcome::Hit, outputs),
            None => match self.adopted(key)? {
                Some(outputs) => (Outcome::RemoteHit, outputs),
                None => return Ok(None),
            },
        };
        self.store.hold(key);
        if self.is_whole(index) {
            for output in outputs.values() {
                if !self.store.check_or_fetch(&output.tree, &output.tree).map_err(EngineError::Store)? {
                    self.doubt(key);
                    return Ok(None);
                }
            }
        }
        Ok(Some((outcome, outputs)))
    }

    /// The outputs of a record that the remote has: it and its listings are kept from now on.
    fn adopted(&self, key: &Digest) -> Result<Option<Outputs>, EngineError> {
        let Some((bytes, _, outputs)) = self.resolver.remotely(key)? else { return Ok(None) };
        let trees: Vec<_> = outputs.values().map(|output| output.tree.clone()).collect();
        let _pause = self.store.pause().map_err(EngineError::Store)?;
        match self.store.adopt(key, &bytes, &trees).map_err(EngineError::Store)? {
            Published::Ours => Ok(Some(outputs)),
            // Another process was quicker; its record is the one that counts here.
            Published::Theirs(_) => Ok(self.resolver.recorded(key)?.map(|(_, outputs)| outputs)),
        }
    }

    /// Notes that the remote does not have what its record names, so that it is put there when it was made.
    pub(super) fn doubt(&self, key: &Digest) {
        if let Some(remote) = self.store.remote() {
            remote.doubt_record(key);
        }
    }

    /// The whole outputs of all that a task reads, where they can be fetched.
    pub(super) fn upstream(&self, index: usize) -> Vec<Arc<Tree>> {
        if self.store.remote().is_none() {
            return Vec::new();
        }
        let upstream = self.plan.upstream(TaskId(index));
        let outputs = upstream.iter().flat_map(|id| self.outputs[id.0].iter().flat_map(Outputs::values));
        outputs.filter(|output| output.source.is_none()).map(|output| output.tree.clone()).collect()
    }
}
