//! `run --locked`: a task whose key the lock file does not pin is not run, and outputs must be as pinned. Most is checked
//! before the run ([`crate::plan::check_locked`]); here is what only the run itself can check.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::cache::{Digest, difference};
use crate::engine::failure::Failure;
use crate::plan::{Outputs, TaskId, differing_output};

impl Scheduler<'_> {
    /// Returns a failure if the task's key is not the pinned one.
    pub(super) fn refused_key(&self, task: TaskId, key: &Digest) -> Option<Failure> {
        let pin = &self.options.pins?[task.0];
        (pin.key != *key).then(|| Failure::LockedKey { task: self.plan.tasks[task.0].name.clone() })
    }

    /// Returns a failure if the task's outputs are not the pinned ones.
    pub(super) fn refused_outputs(&self, task: TaskId, outputs: &Outputs) -> Option<Failure> {
        let pin = &self.options.pins?[task.0];
        let digests: BTreeMap<String, Digest> =
            outputs.iter().map(|(name, output)| (name.clone(), output.tree.digest())).collect();
        let output = differing_output(&digests, pin)?.to_owned();
        let listing = |digest: &Digest| self.cache.tree(digest).ok().flatten();
        let old = pin.outputs.get(&output).and_then(listing);
        let new = outputs.get(&output);
        let file = old.zip(new).and_then(|(old, new)| {
            difference(&old, &new.tree).first().map(|change| change.path().to_owned())
        });
        Some(Failure::LockedOutput { task: self.plan.tasks[task.0].name.clone(), output, file })
    }
}
