//! `run --locked`: a key that the lock does not name is not run, and what a task gives must be as pinned. Most
//! is known before the run ([`crate::plan::check_pins`]); here is what only the run itself can know.

use std::collections::BTreeMap;

use super::Scheduler;
use crate::cache::{Digest, difference};
use crate::engine::failure::Failure;
use crate::plan::{Outputs, differing_output};

impl Scheduler<'_> {
    /// Refuses a task whose key is not the locked one.
    pub(super) fn refused_key(&self, index: usize, key: &Digest) -> Option<Failure> {
        let pin = &self.options.pins?[index];
        (pin.key != *key).then(|| Failure::LockedKey { task: self.plan.tasks[index].name.clone() })
    }

    /// Refuses outputs that are not as pinned.
    pub(super) fn refused_outputs(&self, index: usize, outputs: &Outputs) -> Option<Failure> {
        let pin = &self.options.pins?[index];
        let digests: BTreeMap<String, Digest> =
            outputs.iter().map(|(name, output)| (name.clone(), output.tree.digest())).collect();
        let output = differing_output(&digests, pin)?.to_owned();
        let listing = |digest: &Digest| self.store.tree(digest).ok().flatten();
        let old = pin.outputs.get(&output).and_then(listing);
        let new = outputs.get(&output);
        let file = old.zip(new).and_then(|(old, new)| {
            difference(&old, &new.tree).first().map(|change| change.path().to_owned())
        });
        Some(Failure::LockedOutput { task: self.plan.tasks[index].name.clone(), output, file })
    }
}
