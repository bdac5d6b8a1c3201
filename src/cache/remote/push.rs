//! Pushing results to the remote.

use std::fs;

use futures_util::{StreamExt, stream};

use super::pack::{Group, groups};
use super::{LARGE, REQUESTS, RemoteStore, lock, name};
use crate::cache::Tree;
use crate::cache::local::{Area, Store};
use crate::digest::Digest;

/// Results that are pushed at once; their requests share [`REQUESTS`].
const RESULTS: usize = 8;

/// Packs of one tree that are uploaded at once: each is in memory as a whole.
const PACKS: usize = 4;

/// A result to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushOrder {
    /// The key.
    pub key: Digest,
    /// The trees of its outputs.
    pub trees: Vec<Digest>,
}

/// What was pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Results that the remote has now and did not have before.
    pub records: usize,
    /// Results that the remote had already.
    pub known: usize,
    /// Results with objects that are evicted or damaged here.
    pub incomplete: usize,
    /// Results that the remote did not take.
    pub failed: usize,
    /// Bytes uploaded.
    pub bytes: u64,
}

impl Pushed {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.known += other.known;
        self.incomplete += other.incomplete;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

impl RemoteStore {
    /// Pushes records with their trees and objects, unless they are there. `report` is called for each result that is
    /// through, and not for those that the user cut off.
    pub(in crate::cache) fn push(&self, store: &Store, orders: &[PushOrder], mut report: impl FnMut(Pushed)) {
        if !self.is_written() {
            report(Pushed { failed: orders.len(), ..Pushed::default() });
            return;
        }
        let push = |order| async move {
            push_one(store, self, order).await.unwrap_or(Pushed { failed: 1, ..Pushed::default() })
        };
        self.wait(async {
            let mut all = stream::iter(orders.iter().map(push)).buffer_unordered(RESULTS);
            while let Some(pushed) = all.next().await {
                report(pushed);
            }
        });
    }
}

/// Pushes one result; `None` if the remote does not take it.
async fn push_one(store: &Store, remote: &RemoteStore, order: &PushOrder) -> Option<Pushed> {
    let record = name("records", &order.key);
    if remote.has(&record).await? {
        return Some(Pushed { known: 1, ..Pushed::default() });
    }
    let Ok(bytes) = fs::read(store.path(Area::Records, &order.key)) else { return Some(Pushed::default()) };
    let mut pushed = Pushed { records: 1, ..Pushed::default() };
    for digest in &order.trees {
        let tree = match store.tree(digest) {
            Ok(Some(tree)) if store.check(&tree).is_ok_and(|damage| damage.is_empty()) => tree,
            _ => return Some(Pushed { incomplete: 1, ..Pushed::default() }),
        };
        pushed.bytes += push_objects(store, remote, &tree).await?;
        let name = name("trees", digest);
        if !remote.has(&name).await? {
            remote.put(&name, tree.to_bytes()).await?;
        }
    }
    pushed.bytes += bytes.len() as u64;
    // The first record of a key stays, except for one whose objects are not there.
    if lock(&remote.names).invalid.contains(&record) {
        remote.put(&record, bytes).await?;
    } else {
        remote.put_new(&record, bytes).await?;
    }
    Some(pushed)
}

/// Pushes the objects of a tree that are not there; returns the bytes uploaded.
async fn push_objects(store: &Store, remote: &RemoteStore, tree: &Tree) -> Option<u64> {
    let (packed, alone) = groups(tree);
    let pack = |group: Group| async move {
        let name = name("packs", &group.digest());
        if remote.has(&name).await? {
            return Some(0);
        }
        let pack = group.pack(|digest| fs::read(store.object_path(digest)).ok())?;
        let size = pack.len() as u64;
        remote.put(&name, pack).await?;
        Some(size)
    };
    let one = |(digest, size): (Digest, u64)| async move {
        let (name, path) = (name("objects", &digest), store.object_path(&digest));
        if remote.has(&name).await? {
            return Some(0);
        }
        if size > LARGE {
            remote.put_file(&name, &path, size).await?;
        } else {
            remote.put(&name, fs::read(&path).ok()?).await?;
        }
        Some(size)
    };
    let mut bytes = 0;
    let mut packs = stream::iter(packed.into_iter().map(pack)).buffered(PACKS);
    while let Some(size) = packs.next().await {
        bytes += size?;
    }
    let mut objects = stream::iter(alone.into_iter().map(one)).buffered(REQUESTS);
    while let Some(size) = objects.next().await {
        bytes += size?;
    }
    Some(bytes)
}
