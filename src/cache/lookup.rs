//! Looking records up, here and in the remote.

use std::sync::Arc;

use super::{Cache, CacheError, Digest, Tree};

/// A task's record, as the layer that writes records defines it. The cache itself needs only the trees that a record
/// names.
pub trait CachedRecord: Sized {
    /// Decodes a record; `None` for a format that this version does not know.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// Returns the digests of the trees of the task's outputs, in a fixed order.
    fn trees(&self) -> Vec<Digest>;
}

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In the local store.
    Local,
    /// In the remote. Nothing of it is in the local store until [`super::Publication::adopt`] copies it.
    Remote,
}

/// A record whose trees are known.
#[derive(Debug, Clone)]
pub struct Found<R> {
    /// Where it was found.
    pub origin: Origin,
    /// The decoded record.
    pub record: R,
    /// The encoded record.
    pub bytes: Arc<Vec<u8>>,
    /// The trees that it names, in the order of [`CachedRecord::trees`]. Their objects may be missing.
    pub trees: Vec<Arc<Tree>>,
}

/// The answer to a lookup.
#[derive(Debug, Clone)]
pub enum Lookup<R> {
    /// A record and all of its trees.
    Found(Found<R>),
    /// A record with a tree that is missing or damaged, here and in the remote.
    Incomplete,
    /// No record that can be read.
    Absent,
}

impl<R> Lookup<R> {
    /// Returns the record, if all of its trees were found.
    pub fn found(self) -> Option<Found<R>> {
        match self {
            Self::Found(found) => Some(found),
            Self::Incomplete | Self::Absent => None,
        }
    }
}

/// What the local store must have of a key, so that [`Cache::prefetch`] does not ask the remote for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The record and its trees.
    Record,
    /// The objects of the trees as well.
    Objects,
}

impl Cache {
    /// The record of a key: the local one, else the remote's. Nothing is written. The remote is asked once for each
    /// key; its answer is remembered.
    pub fn lookup<R: CachedRecord>(&self, key: &Digest) -> Result<Lookup<R>, CacheError> {
        let here = self.lookup_local(key)?;
        if let Lookup::Found(_) = here {
            return Ok(here);
        }
        match self.lookup_remote(key)? {
            Lookup::Absent => Ok(here),
            there => Ok(there),
        }
    }

    /// The records of many keys, in order. The remote is asked for all of them together.
    pub fn lookup_many<R: CachedRecord>(&self, keys: &[Digest]) -> Result<Vec<Lookup<R>>, CacheError> {
        let wanted: Vec<(Digest, Presence)> = keys.iter().map(|key| (*key, Presence::Record)).collect();
        self.prefetch::<R>(&wanted)?;
        keys.iter().map(|key| self.lookup(key)).collect()
    }

    /// Asks the remote, in few requests, for the records and trees of the keys that are not present here. The next
    /// [`Self::lookup`] and [`Self::can_fetch`] of each costs no request. Nothing is written.
    pub fn prefetch<R: CachedRecord>(&self, keys: &[(Digest, Presence)]) -> Result<(), CacheError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let mut absent = Vec::new();
        for (key, presence) in keys {
            if !self.is_present::<R>(key, *presence)? {
                absent.push(*key);
            }
        }
        remote.lookup_many(&absent);
        let records = absent.iter().filter_map(|key| R::from_bytes(&remote.record(key)?));
        remote.prefetch_trees(&self.local, &records.flat_map(|record| record.trees()).collect())
    }

    /// Whether a caller should collect keys and call [`Self::prefetch`]. Without a remote it would gain nothing.
    pub fn prefers_batches(&self) -> bool {
        self.remote.is_some()
    }

    /// Forgets that the remote had no record of a key, if that is some time ago: another machine may have pushed one.
    pub fn recheck(&self, key: &Digest) {
        if let Some(remote) = &self.remote {
            remote.recheck(key);
        }
    }

    /// Whether objects of a key that are missing here can be fetched, judging by the remote's record.
    pub fn can_fetch(&self, key: &Digest) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.record(key).is_some())
    }

    /// Marks the remote's record of a key as one whose objects are not there, so that the result is pushed again once
    /// it was made here.
    pub fn mark_incomplete(&self, key: &Digest) {
        if let Some(remote) = &self.remote {
            remote.mark_invalid_record(key);
        }
    }

    fn lookup_local<R: CachedRecord>(&self, key: &Digest) -> Result<Lookup<R>, CacheError> {
        let Some(bytes) = self.local.record(key)? else { return Ok(Lookup::Absent) };
        let Some(record) = R::from_bytes(&bytes) else { return Ok(Lookup::Absent) };
        let mut trees = Vec::new();
        for digest in record.trees() {
            let Some(tree) = self.local.tree(&digest)? else { return Ok(Lookup::Incomplete) };
            trees.push(tree);
        }
        Ok(Lookup::Found(Found { origin: Origin::Local, record, bytes: Arc::new(bytes), trees }))
    }

    fn lookup_remote<R: CachedRecord>(&self, key: &Digest) -> Result<Lookup<R>, CacheError> {
        let Some(remote) = &self.remote else { return Ok(Lookup::Absent) };
        let Some(bytes) = remote.record(key) else { return Ok(Lookup::Absent) };
        let Some(record) = R::from_bytes(&bytes) else { return Ok(Lookup::Absent) };
        let digests = record.trees();
        remote.prefetch_trees(&self.local, &digests.iter().copied().collect())?;
        let mut trees = Vec::new();
        for digest in &digests {
            let tree = match self.local.tree(digest)? {
                Some(tree) => Some(tree),
                None => remote.tree(digest),
            };
            let Some(tree) = tree else { return Ok(Lookup::Incomplete) };
            trees.push(tree);
        }
        Ok(Lookup::Found(Found { origin: Origin::Remote, record, bytes, trees }))
    }

    fn is_present<R: CachedRecord>(&self, key: &Digest, presence: Presence) -> Result<bool, CacheError> {
        let Some(found) = self.lookup_local::<R>(key)?.found() else { return Ok(false) };
        if presence == Presence::Objects {
            for tree in &found.trees {
                if !self.local.missing(tree)?.is_empty() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
