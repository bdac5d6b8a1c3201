//! Putting results into the remote.

use std::fs;

use futures_util::{StreamExt, stream};

use super::pack::{Group, groups};
use super::{LARGE, REQUESTS, Remote, lock, name};
use crate::store::{Area, Digest, Store, Tree};

/// Results that go up at once; their requests share [`REQUESTS`].
const RESULTS: usize = 8;

/// Packs of one listing that go up at once: each is in memory as a whole.
const PACKS: usize = 4;

/// A result that is to go up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushOrder {
    /// Its key.
    pub key: Digest,
    /// The listings of its outputs.
    pub trees: Vec<Digest>,
}

/// What pushes did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Results that are in the remote now, and were not.
    pub records: usize,
    /// Results that were there.
    pub known: usize,
    /// Results whose objects are not all here and sound: evicted, or damaged.
    pub incomplete: usize,
    /// Results that the remote did not take.
    pub failed: usize,
    /// Bytes that went up.
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

impl Store {
    /// Puts records with the listings and objects of their outputs into the remote, unless they are there. Each is told
    /// when it is through; those that the user's wish to stop cut off are not told.
    pub fn push(&self, orders: &[PushOrder], mut told: impl FnMut(Pushed)) {
        let Some(remote) = self.remote().filter(|remote| remote.is_written()) else {
            told(Pushed { failed: orders.len(), ..Pushed::default() });
            return;
        };
        let push = |order| async move {
            push_one(self, remote, order).await.unwrap_or(Pushed { failed: 1, ..Pushed::default() })
        };
        remote.wait(async {
            let mut all = stream::iter(orders.iter().map(push)).buffer_unordered(RESULTS);
            while let Some(pushed) = all.next().await {
                told(pushed);
            }
        });
    }
}

/// Puts one result there; none where the remote does not take it.
async fn push_one(store: &Store, remote: &Remote, order: &PushOrder) -> Option<Pushed> {
    let record = name("records", &order.key);
    if remote.has(&record).await? {
        return Some(Pushed { known: 1, ..Pushed::default() });
    }
    let Ok(bytes) = fs::read(store.place(Area::Records, &order.key)) else { return Some(Pushed::default()) };
    let mut pushed = Pushed { records: 1, ..Pushed::default() };
    for digest in &order.trees {
        let tree = match store.tree(digest) {
            Ok(Some(tree)) if store.check(&tree).is_ok_and(|damage| damage.is_empty()) => tree,
            _ => return Some(Pushed { incomplete: 1, ..Pushed::default() }),
        };
        pushed.bytes += push_objects(store, remote, &tree).await?;
        let listing = name("trees", digest);
        if !remote.has(&listing).await? {
            remote.put(&listing, tree.to_bytes()).await?;
        }
    }
    pushed.bytes += bytes.len() as u64;
    // The first record of a key stays, but for one that led to nothing.
    if lock(&remote.names).doubted.contains(&record) {
        remote.put(&record, bytes).await?;
    } else {
        remote.put_new(&record, bytes).await?;
    }
    Some(pushed)
}

/// Puts what is not there; gives the bytes that went up.
async fn push_objects(store: &Store, remote: &Remote, tree: &Tree) -> Option<u64> {
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
