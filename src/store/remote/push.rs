//! Putting results into the remote.

use std::fs;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::pack::{Group, groups};
use super::{REQUESTS, Remote, name};
use crate::store::{Area, Digest, Store, Tree};

/// What one push did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Results that are in the remote now, and were not.
    pub records: usize,
    /// Results that were there.
    pub known: usize,
    /// Results whose objects are not all here: evicted.
    pub incomplete: usize,
    /// Bytes that went up.
    pub bytes: u64,
}

impl Pushed {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.known += other.known;
        self.incomplete += other.incomplete;
        self.bytes += other.bytes;
    }
}

impl Store {
    /// Puts a record with the listings and objects of its outputs into the remote, unless it is there. None where the
    /// remote does not take it.
    pub fn push(&self, key: &Digest, trees: &[Digest]) -> Option<Pushed> {
        let remote = self.remote().filter(|remote| remote.is_written())?;
        remote.attempt("put a result there", async {
            let record = name("records", key);
            if remote.has(&record).await? {
                return Ok(Pushed { known: 1, ..Pushed::default() });
            }
            let Ok(bytes) = fs::read(self.place(Area::Records, key)) else { return Ok(Pushed::default()) };
            let mut pushed = Pushed::default();
            for digest in trees {
                let tree = match self.tree(digest) {
                    Ok(Some(tree)) if self.missing(&tree).is_ok_and(|missing| missing.is_empty()) => tree,
                    _ => return Ok(Pushed { incomplete: 1, ..Pushed::default() }),
                };
                pushed.bytes += push_objects(self, remote, &tree).await?;
                remote.put(&name("trees", digest), tree.to_bytes(), false).await?;
            }
            pushed.bytes += bytes.len() as u64;
            remote.put(&record, bytes, true).await?;
            remote.note_present(&record);
            Ok(Pushed { records: 1, ..pushed })
        })
    }
}

/// Puts what is not there; gives the bytes that went up.
async fn push_objects(store: &Store, remote: &Remote, tree: &Tree) -> object_store::Result<u64> {
    let (packed, alone) = groups(tree);
    let pack = |group: Group| async move {
        let name = name("packs", &group.digest());
        if remote.has(&name).await? {
            return Ok(0);
        }
        let contents =
            group.0.iter().map(|(digest, _)| read(store, digest)).collect::<Result<Vec<_>, _>>()?;
        let pack = group.pack(&contents);
        let size = pack.len() as u64;
        remote.put(&name, pack, false).await?;
        remote.note_present(&name);
        Ok::<u64, object_store::Error>(size)
    };
    // A pack is read as a whole: few at once.
    let sizes: Vec<u64> = stream::iter(packed.into_iter().map(pack)).buffered(4).try_collect().await?;
    let one = |(digest, size): (Digest, u64)| async move {
        let name = name("objects", &digest);
        if remote.has(&name).await? {
            return Ok(0);
        }
        remote.put(&name, read(store, &digest)?, false).await?;
        remote.note_present(&name);
        Ok::<u64, object_store::Error>(size)
    };
    // Large ones one after the other, so that memory holds one of them.
    let (large, rest): (Vec<_>, Vec<_>) = alone.into_iter().partition(|&(_, size)| size > LARGE);
    let mut bytes = sizes.iter().sum::<u64>();
    let sizes: Vec<u64> = stream::iter(rest.into_iter().map(one)).buffered(REQUESTS).try_collect().await?;
    bytes += sizes.iter().sum::<u64>();
    for object in large {
        bytes += one(object).await?;
    }
    Ok(bytes)
}

/// Objects of so many bytes go up and come down one at a time.
pub(super) const LARGE: u64 = 64 * 1024 * 1024;

fn read(store: &Store, digest: &Digest) -> object_store::Result<Vec<u8>> {
    fs::read(store.object_path(digest))
        .map_err(|error| object_store::Error::Generic { store: "cache", source: Box::new(error) })
}
