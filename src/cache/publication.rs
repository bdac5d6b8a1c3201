//! Publishing what a task made.

use std::path::{Path, PathBuf};

use super::local::Store;
use super::local::leases::holds::Pause;
use super::{CacheError, CachedRecord, Digest, Found, ItemList, Published, Tree, Wanted, check_record};

/// A publication under way. Collection waits until it is dropped, so that an object that was there already cannot go
/// between the check that found it and the record that needs it.
///
/// Publish objects first, then trees, then the record: a name appears only when what it needs is there.
#[derive(Debug)]
#[must_use]
pub struct Publication<'a> {
    local: &'a Store,
    _pause: Pause,
}

impl<'a> Publication<'a> {
    pub(super) fn begin(local: &'a Store) -> Result<Self, CacheError> {
        Ok(Self { local, _pause: local.pause()? })
    }

    /// Publishes every file of `folder` and the tree of them. The folder must not be used afterwards: its files are
    /// moved away or left behind read-only. Only regular files with UTF-8 names can be published; empty folders are
    /// dropped.
    pub fn publish_folder(&self, folder: &Path) -> Result<Tree, CacheError> {
        self.local.publish_folder(folder)
    }

    /// Publishes single files without a tree, in order; otherwise as [`Self::publish_folder`].
    pub fn publish_files(&self, paths: &[PathBuf]) -> Result<Vec<(Digest, u64)>, CacheError> {
        self.local.publish_files(paths)
    }

    /// Publishes bytes as an object.
    pub fn publish_bytes(&self, content: &[u8]) -> Result<Digest, CacheError> {
        self.local.publish_bytes(content)
    }

    /// Publishes a tree. Its objects need not be in the local store.
    pub fn publish_tree(&self, tree: &Tree) -> Result<Digest, CacheError> {
        self.local.put_tree(tree)
    }

    /// Publishes a task's record. The first record of a key wins, whatever other threads and processes do.
    pub fn publish_record(&self, key: &Digest, bytes: &[u8]) -> Result<Published, CacheError> {
        self.local.publish_record(key, bytes)
    }

    /// Replaces a task's record, or publishes it if there is none.
    pub fn replace_record(&self, key: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        self.local.replace_record(key, bytes)
    }

    /// Publishes the record of a single item of a task, replacing any other of that key.
    pub fn publish_item(&self, key: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        self.local.put_item(key, bytes)
    }

    /// Publishes the list of a task's per-image records, replacing any other. It is pushed with the task's record.
    pub fn publish_item_list(&self, task: &Digest, list: &ItemList) -> Result<(), CacheError> {
        self.local.put_item(&ItemList::key(task), &list.to_bytes())
    }

    /// Publishes a record that a lookup found in the remote, with its trees. The first record of a key wins, unless the
    /// gate refuses it.
    pub fn adopt<R: CachedRecord>(&self, wanted: &Wanted, found: &Found<R>) -> Result<Published, CacheError> {
        for tree in &found.trees {
            self.local.put_tree(tree)?;
        }
        let key = &wanted.key;
        let published = self.local.publish_record(key, &found.bytes)?;
        if let Published::Theirs(theirs) = &published
            && check_record::<R>(key, theirs, &wanted.outputs).is_err()
        {
            self.local.replace_record(key, &found.bytes)?;
            return Ok(Published::Ours);
        }
        Ok(published)
    }
}
