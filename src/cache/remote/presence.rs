//! Which files the remote has: many are asked for together, by a listing if that takes fewer requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::circuit_breaker::RequestKind;
use super::{LONGEST, QUICK, REQUESTS, RemoteStore, lock};
use crate::cache::gate::Entry;
use crate::digest::Digest;

/// Files of one kind from which on a listing is considered.
const MANY: usize = 64;

/// Files that a server lists in one answer.
const PAGE: usize = 1000;

/// Folders of each kind: the first two digits of the names.
const SHARDS: usize = 256;

/// A file that a result needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// The file.
    pub(super) entry: Entry,
    /// Its size in bytes; `None` for a record, which may be another machine's.
    pub(super) size: Option<u64>,
}

impl RemoteStore {
    /// Finds out which of these files exist, and with which sizes. Those that no answer came for stay unknown.
    pub(super) async fn find(&self, parts: &[Part]) {
        let mut unknown: BTreeMap<&str, BTreeSet<Entry>> = BTreeMap::new();
        for part in parts.iter().filter(|part| self.is_sound(part).is_none()) {
            unknown.entry(part.entry.area()).or_default().insert(part.entry);
        }
        for (area, entries) in unknown {
            if !self.find_by_listing(area, &entries).await {
                let all = stream::iter(entries.into_iter().map(|entry| self.look(entry)));
                all.buffer_unordered(REQUESTS).count().await;
            }
        }
    }

    /// The size of a file that is known to exist.
    pub(super) fn size(&self, entry: Entry) -> Option<u64> {
        lock(&self.names).present.get(&entry).copied()
    }

    /// Whether a file exists with the right size and is not known to be damaged; `None` if [`Self::find`] has not asked
    /// for it, or got no answer.
    pub(super) fn is_sound(&self, Part { entry, size }: &Part) -> Option<bool> {
        let names = lock(&self.names);
        if names.invalid.contains(entry) || names.absent.contains(entry) {
            return Some(false);
        }
        names.present.get(entry).map(|found| size.is_none_or(|size| size == *found))
    }

    /// Asks for one file.
    async fn look(&self, entry: Entry) -> Option<()> {
        let name = entry.name();
        let head = async {
            match self.objects.head(&Path::from(name.as_str())).await {
                Ok(found) => Ok(Some(found.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let size = self.request(RequestKind::Read, &name, QUICK, head).await?;
        let mut names = lock(&self.names);
        match size {
            Some(size) => names.note_present(entry, size),
            None => {
                names.absent.insert(entry);
            }
        }
        Some(())
    }

    /// Asks for many files of one kind by listing all of that kind, if that takes fewer requests; `false` if it does
    /// not, or if the remote does not list. Some servers let a key read and not list, so that a failure says nothing of
    /// the remote.
    async fn find_by_listing(&self, area: &str, entries: &BTreeSet<Entry>) -> bool {
        let Some(first) = entries.first() else { return true };
        // The folders of lists of per-image records are no shards of equal size.
        let is_sharded = !matches!(first, Entry::Items { .. });
        if !self.lists || !is_sharded || entries.len() < MANY {
            return false;
        }
        let first = first.name();
        let shard = first.rsplit_once('/').map_or("", |(shard, _)| shard);
        let Some(sample) = self.list(shard).await else { return false };
        if sample.len() * SHARDS / PAGE >= entries.len() {
            return false;
        }
        let Some(files) = self.list(&format!("v1/{area}")).await else { return false };
        let sizes: BTreeMap<Digest, u64> = files.into_iter().collect();
        let mut names = lock(&self.names);
        for entry in entries {
            match sizes.get(&entry.digest()) {
                Some(size) => names.note_present(*entry, *size),
                None => {
                    names.absent.insert(*entry);
                }
            }
        }
        true
    }

    async fn list(&self, folder: &str) -> Option<Vec<(Digest, u64)>> {
        let _permit = self.permits.acquire().await.ok()?;
        if !self.breaker().allows(RequestKind::Read) {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::timeout(LONGEST, list(&*self.objects, folder)).await.ok()?.ok()
    }
}

/// The files of a folder of the remote that are named by digests, with their sizes.
pub(super) async fn list(
    objects: &dyn ObjectStore,
    folder: &str,
) -> Result<Vec<(Digest, u64)>, object_store::Error> {
    let prefix = Path::from(folder);
    let (mut files, mut found) = (Vec::new(), objects.list(Some(&prefix)));
    while let Some(one) = found.next().await {
        let one = one?;
        let location = one.location.to_string();
        let mut parts = location.rsplit('/');
        let (name, shard) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        files.extend(format!("{shard}{name}").parse::<Digest>().ok().map(|digest| (digest, one.size)));
    }
    Ok(files)
}
