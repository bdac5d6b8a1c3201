//! Looking records up, here and in the remote. What is found has passed the gate (`super::gate`).

use std::sync::Arc;

use super::{Cache, CacheError, CachedRecord, Digest, ExpectedOutputs, Flaw, Tree, check_record};

/// A record that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub key: Digest,
    /// The outputs that the record must have.
    pub outputs: ExpectedOutputs,
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
    /// Its trees, in the order of [`CachedRecord::outputs`]. Their objects may be missing.
    pub trees: Vec<Arc<Tree>>,
}

/// The answer to a lookup.
#[derive(Debug, Clone)]
pub enum Lookup<R> {
    /// A record and all of its trees.
    Found(Found<R>),
    /// A record with a tree that is missing or damaged, here and in the remote.
    Incomplete,
    /// No record that can be used.
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

impl Wanted {
    /// The record of a key with exactly these outputs.
    pub fn named(key: Digest, outputs: impl IntoIterator<Item = String>) -> Self {
        Self { key, outputs: ExpectedOutputs::Named(outputs.into_iter().collect()) }
    }

    /// The record of a key whose stage is not known.
    pub fn any(key: Digest) -> Self {
        Self { key, outputs: ExpectedOutputs::Any }
    }
}

impl Cache {
    /// The record of a key: the local one, else the remote's. Nothing is written. The remote is asked once for each
    /// key; its answer is remembered. A record that the gate refuses counts as absent.
    pub fn lookup<R: CachedRecord>(&self, wanted: &Wanted) -> Result<Lookup<R>, CacheError> {
        let here = self.lookup_local(wanted)?;
        if let Lookup::Found(_) = here {
            return Ok(here);
        }
        match self.lookup_remote(wanted)? {
            Lookup::Absent => Ok(here),
            there => Ok(there),
        }
    }

    /// The records of many keys, in order. The remote is asked for all of them together.
    pub fn lookup_many<R: CachedRecord>(&self, wanted: &[Wanted]) -> Result<Vec<Lookup<R>>, CacheError> {
        let asked: Vec<(Wanted, Presence)> =
            wanted.iter().map(|wanted| (wanted.clone(), Presence::Record)).collect();
        self.prefetch::<R>(&asked)?;
        wanted.iter().map(|wanted| self.lookup(wanted)).collect()
    }

    /// Asks the remote, in few requests, for the records and trees of the keys that are not present here. The next
    /// [`Self::lookup`] and [`Self::can_fetch`] of each costs no request. Nothing is written.
    pub fn prefetch<R: CachedRecord>(&self, wanted: &[(Wanted, Presence)]) -> Result<(), CacheError> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let mut absent = Vec::new();
        for (wanted, presence) in wanted {
            if !self.is_present::<R>(wanted, *presence)? {
                absent.push(wanted);
            }
        }
        remote.lookup_many(&absent.iter().map(|wanted| wanted.key).collect::<Vec<_>>());
        let records = absent.iter().filter_map(|wanted| self.remote_record::<R>(wanted));
        let trees = records.flat_map(|(record, _)| trees_of(&record)).collect();
        remote.prefetch_trees(&self.local, &trees)
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

    /// The local record, if it passes the gate as one from outside would: it may have been taken from a remote by a
    /// version that checked less.
    fn lookup_local<R: CachedRecord>(&self, wanted: &Wanted) -> Result<Lookup<R>, CacheError> {
        let Some(bytes) = self.local.record(&wanted.key)? else { return Ok(Lookup::Absent) };
        let Ok(Some(record)) = check_record::<R>(&wanted.key, &bytes, &wanted.outputs) else {
            return Ok(Lookup::Absent);
        };
        let mut trees = Vec::new();
        for digest in trees_of(&record) {
            let Some(tree) = self.local.tree(&digest)? else { return Ok(Lookup::Incomplete) };
            trees.push(tree);
        }
        if empty_output(&record, &trees).is_some() {
            return Ok(Lookup::Absent);
        }
        Ok(Lookup::Found(Found { origin: Origin::Local, record, bytes: Arc::new(bytes), trees }))
    }

    fn lookup_remote<R: CachedRecord>(&self, wanted: &Wanted) -> Result<Lookup<R>, CacheError> {
        let Some(remote) = &self.remote else { return Ok(Lookup::Absent) };
        let Some((record, bytes)) = self.remote_record::<R>(wanted) else { return Ok(Lookup::Absent) };
        let digests = trees_of(&record);
        remote.prefetch_trees(&self.local, &digests.iter().copied().collect())?;
        let mut trees = Vec::new();
        for digest in &digests {
            let tree = match self.local.tree(digest)? {
                Some(tree) => Some(tree),
                None => remote.tree(digest),
            };
            let Some(tree) = tree else {
                if remote.lacks_tree(digest) {
                    remote.mark_invalid_record(&wanted.key);
                }
                return Ok(Lookup::Incomplete);
            };
            trees.push(tree);
        }
        if let Some(name) = empty_output(&record, &trees) {
            remote.refuse_record(&wanted.key, Flaw::EmptyOutput { name });
            return Ok(Lookup::Absent);
        }
        Ok(Lookup::Found(Found { origin: Origin::Remote, record, bytes, trees }))
    }

    /// The remote's record, if it passes the gate.
    fn remote_record<R: CachedRecord>(&self, wanted: &Wanted) -> Option<(R, Arc<Vec<u8>>)> {
        let remote = self.remote.as_ref()?;
        let bytes = remote.record(&wanted.key)?;
        match check_record(&wanted.key, &bytes, &wanted.outputs) {
            Ok(record) => Some((record?, bytes)),
            Err(flaw) => {
                remote.refuse_record(&wanted.key, flaw);
                None
            }
        }
    }

    fn is_present<R: CachedRecord>(&self, wanted: &Wanted, presence: Presence) -> Result<bool, CacheError> {
        let Some(found) = self.lookup_local::<R>(wanted)?.found() else { return Ok(false) };
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

fn trees_of<R: CachedRecord>(record: &R) -> Vec<Digest> {
    record.outputs().into_iter().map(|(_, digest)| digest).collect()
}

/// The first output without files. No stage ends well without having written some.
fn empty_output<R: CachedRecord>(record: &R, trees: &[Arc<Tree>]) -> Option<String> {
    let outputs = record.outputs();
    let mut pairs = outputs.iter().zip(trees);
    pairs.find(|(_, tree)| tree.is_empty()).map(|((name, _), _)| (*name).to_owned())
}
