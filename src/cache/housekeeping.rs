//! Housekeeping of the local store, for `patchflow cache`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::local::Store;
use super::{
    CacheError, Collected, Collection, Described, Digest, Pin, StoredRecord, Usage, VerifyProgress,
    VerifyReport,
};

/// Access to pins, space, collection and verification of the local store.
#[derive(Debug, Clone, Copy)]
pub struct Housekeeping<'a>(pub(super) &'a Store);

impl Housekeeping<'_> {
    /// Pins the outputs of records under a name and replaces what was pinned under it. A key need not have a record
    /// yet. The name is that of a file: letters, digits, `-`, `_`, `.`, not starting with `.`.
    pub fn pin(self, name: &str, keys: &[Digest]) -> Result<(), CacheError> {
        self.0.pin(name, keys)
    }

    /// Removes a pin; returns whether there was one.
    pub fn unpin(self, name: &str) -> Result<bool, CacheError> {
        self.0.unpin(name)
    }

    /// Returns every pin, in order of name.
    pub fn pins(self) -> Vec<Pin> {
        self.0.pins()
    }

    /// Measures what takes space. `describe` reads a record; it returns `None` for an unknown format, and the
    /// record's objects then count as unreferenced.
    pub fn usage(
        self,
        describe: &(dyn Fn(&StoredRecord) -> Option<Described> + Sync),
    ) -> Result<Usage, CacheError> {
        self.0.usage(describe)
    }

    /// Returns the records that name these objects, by object. The objects need not exist.
    pub fn holders(
        self,
        objects: &BTreeSet<Digest>,
        describe: &dyn Fn(&StoredRecord) -> Option<Described>,
    ) -> BTreeMap<Digest, Vec<Described>> {
        self.0.holders(objects, describe)
    }

    /// Collects: removes leftovers of ended processes, objects that no record names, and then the objects that are
    /// cheapest to make again. `describe` as in [`Self::usage`].
    pub fn collect(
        self,
        collection: &Collection,
        describe: &(dyn Fn(&StoredRecord) -> Option<Described> + Sync),
    ) -> Result<Collected, CacheError> {
        self.0.collect(collection, describe)
    }

    /// Hashes every object, tree and record and moves damaged ones to the quarantine. `progress` is called from
    /// several threads.
    pub fn verify(self, progress: &(dyn Fn(VerifyProgress) + Sync)) -> Result<VerifyReport, CacheError> {
        self.0.verify(progress)
    }

    /// Returns the digest of the object at this path; `None` for any other path.
    pub fn object_at(self, path: &Path) -> Option<Digest> {
        self.0.object_at(path)
    }
}
