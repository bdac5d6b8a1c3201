//! The cache: what tasks produced, found again by key and by content, here or in a remote that a team shares.
//!
//! [`Cache`] puts a local store (`local`) and an optional remote (`remote`) behind one face. Its users look
//! records up, make objects present and publish, and do not know whether there is a remote. The cache knows no
//! stage, manifest or plan: of a record it knows what [`CachedRecord`] says. It depends on no other layer. What comes
//! from the remote passes one gate (`gate`) before anything uses it.
//!
//! | question | method |
//! |---|---|
//! | what answers this key? | [`Cache::lookup`], after [`Cache::prefetch`] of many keys at once |
//! | are these files here, or can they be fetched? | [`Cache::materialise`], [`Cache::fetch_missing`] |
//! | which images of a task has another machine? | [`Cache::fetch_items`] |
//! | keep what a task made | [`Cache::publication`]; [`Cache::pusher`] copies it to the remote in the background |
//! | is what was kept on disk? | [`Cache::flush`] |
//! | who works on a key? | [`Cache::leases`] |
//! | what takes space, what may go, is it sound? | [`Cache::housekeeping`] |
//!
//! A remote that fails never fails a run: what it does not answer counts as absent, and
//! [`Cache::take_remote_warnings`] says so.

mod change;
mod error;
mod gate;
mod housekeeping;
mod item_list;
mod items;
mod leases;
mod local;
mod lookup;
mod materialise;
mod objects;
mod publication;
mod records;
mod remote;
mod sharing;
#[cfg(test)]
mod test_record;
mod tree;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use change::{Change, difference};
pub use error::CacheError;
pub use gate::{
    CachedItem, CachedRecord, DecodedRecord, Entry, ExpectedOutputs, Flaw, Refused, WantedItems, check_record,
};
pub use housekeeping::Housekeeping;
pub use item_list::ItemList;
pub use leases::Leases;
pub use local::collection::gc::{Collected, Collection, KeepReason, Share};
pub use local::collection::pins::Pin;
pub use local::collection::usage::{Described, Group, Holding, Space, StoredObject, Usage};
pub use local::collection::verify::{VerifyProgress, VerifyReport};
pub use local::leases::process::{Liveness, ProcessIdentity};
pub use local::leases::{Holder, Lease, LeaseRules};
pub use local::objects::publish::read_tree;
pub use local::objects::{Damage, DamageKind};
pub use local::records::{Published, StoredRecord};
pub use local::scratch::{Remover, Scratch};
pub use local::source::{Rehash, SourceStats, SourceTree, hash_source};
pub use local::stat_index::{FileStat, IndexFailure, IndexWarning, StatIndex};
pub use lookup::{Found, Lookup, Origin, Presence, Wanted};
pub use objects::Objects;
pub use publication::Publication;
pub use records::Records;
pub use remote::{
    Fetched, PushOrder, Pushed, REMOTE_ADDRESSES, REMOTE_SCHEMES, RemoteAddress, RemoteCause, RemoteError,
    RemoteMode, RemoteStore, RemoteWarning, RequestKind,
};
pub use sharing::{Pusher, Sharing};
pub use tree::{PathFlaw, Tree, TreeEntry};

pub use crate::digest::Digest;

use local::Store;

/// A local store and an optional remote; shared by threads, and the local folder by processes.
#[derive(Debug)]
pub struct Cache {
    local: Store,
    remote: Option<RemoteStore>,
}

/// A resumable stage's own folder for one key, which survives a stop. The stage creates it.
#[derive(Debug)]
pub struct Workdir {
    path: PathBuf,
}

impl Cache {
    /// Opens the cache in the folder `root`, which need not exist yet. `index` remembers verified files.
    pub fn open(root: PathBuf, index: StatIndex) -> Result<Self, CacheError> {
        Ok(Self { local: Store::open(root, index)?, remote: None })
    }

    /// Replaces the remote; `None` for none.
    #[must_use]
    pub fn with_remote(self, remote: Option<RemoteStore>) -> Self {
        Self { remote, ..self }
    }

    /// Replaces the rules that keep two processes from holding one lease: lease time, and whether kernel locks are
    /// used.
    #[must_use]
    pub fn with_lease_rules(self, rules: LeaseRules) -> Self {
        Self { local: self.local.with_lease_rules(rules), ..self }
    }

    /// Returns the folder of the local store.
    pub fn root(&self) -> &Path {
        self.local.root()
    }

    /// Returns the stat index. Hashing of sources uses the same one.
    pub fn index(&self) -> &StatIndex {
        self.local.index()
    }

    /// Returns the tree with this digest if the local store has it, undamaged. Each tree is read once and kept in
    /// memory.
    pub fn tree(&self, digest: &Digest) -> Result<Option<Arc<Tree>>, CacheError> {
        self.local.tree(digest)
    }

    /// Creates a fresh folder on the file system of the local store, removed when dropped. `label` becomes part of
    /// its name.
    pub fn scratch(&self, label: &str) -> Result<Scratch, CacheError> {
        self.local.scratch(label)
    }

    /// What removes scratch folders in the background.
    pub fn remover(&self) -> Result<Remover, CacheError> {
        self.local.remover()
    }

    /// Returns the folder in which a resumable stage keeps its own files for `key`.
    pub fn workdir(&self, key: &Digest) -> Workdir {
        Workdir { path: self.local.work_folder(key) }
    }

    /// Begins a publication, during which nothing is collected.
    pub fn publication(&self) -> Result<Publication<'_>, CacheError> {
        Publication::begin(&self.local)
    }

    /// Waits until everything that was published through this cache is on disk, many files together. Until then a power
    /// cut can take it, which costs work that is done again; a kill of the process cannot.
    pub fn flush(&self) -> Result<(), CacheError> {
        self.local.flush()
    }

    /// As [`Self::flush`]; an error waits for [`Self::take_flush_error`]. For results that are used all the same.
    pub fn flush_or_note(&self) {
        self.local.flush_or_note();
    }

    /// Why what was published may not be on disk, once.
    pub fn take_flush_error(&self) -> Option<CacheError> {
        self.local.take_flush_error()
    }

    /// Returns the objects of the local store.
    pub fn objects(&self) -> Objects<'_> {
        Objects(&self.local)
    }

    /// Returns the records of the local store.
    pub fn records(&self) -> Records<'_> {
        Records(&self.local)
    }

    /// Returns access to leases (which process works on a key) and holds (which records running processes use).
    pub fn leases(&self) -> Leases<'_> {
        Leases(&self.local)
    }

    /// Returns access to pins, space, collection and verification of the local store.
    pub fn housekeeping(&self) -> Housekeeping<'_> {
        Housekeeping(&self.local)
    }

    /// Returns the remote, for the commands that copy to it and from it; `None` if there is none.
    pub fn sharing(&self) -> Option<Sharing<'_>> {
        self.remote.as_ref().map(|remote| Sharing { local: &self.local, remote })
    }
}

impl Workdir {
    /// Returns the path; it may not exist.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder with its content, once the result is published.
    pub fn remove(&self) -> Result<(), CacheError> {
        local::remove_folder(&self.path)
    }
}
