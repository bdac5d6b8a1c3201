//! Per-image records: an image that `preprocess` or `extract` has processed with equal fields is reused, in any run
//! and any experiment.
//!
//! An item's record is stored under `item_key(kind, VERSION, fields)`. Its objects are published as soon as the item is
//! done, so that a run that is killed keeps every finished image.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::item_list::TaskList;
use super::log::Log;
use crate::cache::{
    Cache, CacheError, CachedItem, DecodedRecord, Digest, ItemList, Lease, Tree, TreeEntry, WantedItems,
};
use crate::error_chain::error_chain;
use crate::plan::{item_family, item_key};
use crate::stages::fields::Fields;
use crate::stages::{Item, ItemFile, Items, Make, StageError};

/// The record of an item.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct ItemRecord {
    item: u32,
    /// The kind of the stage; empty in records of versions that did not write it.
    #[serde(default)]
    kind: String,
    pub(super) files: Vec<(Digest, u64)>,
    note: String,
}

/// The part of a record that every version of its form has.
#[derive(Deserialize)]
struct ItemVersion {
    item: u32,
}

impl ItemRecord {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.item == SCHEMA)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an item record holds only strings and integers")
    }
}

impl CachedItem for ItemRecord {
    fn decode(bytes: &[u8]) -> DecodedRecord<Self> {
        match serde_json::from_slice::<ItemVersion>(bytes) {
            Err(_) => DecodedRecord::Malformed,
            Ok(ItemVersion { item }) if item != SCHEMA => DecodedRecord::OtherVersion,
            Ok(_) => Self::from_bytes(bytes).map_or(DecodedRecord::Malformed, DecodedRecord::Record),
        }
    }

    fn kind(&self) -> &str {
        &self.kind
    }

    fn files(&self) -> &[(Digest, u64)] {
        &self.files
    }

    fn note(&self) -> &str {
        &self.note
    }
}

/// Returns the kind and the files that a per-image record names; `None` for other records.
pub(super) fn files_of(bytes: &[u8]) -> Option<(String, Vec<(Digest, u64)>)> {
    ItemRecord::from_bytes(bytes).map(|record| (record.kind, record.files))
}

/// Time between two attempts to take an item's lease.
const PERIOD: Duration = Duration::from_millis(100);

/// The version of the record's format.
const SCHEMA: u32 = 1;

/// The items of one running task.
pub(super) struct TaskItems<'a> {
    cache: &'a Cache,
    kind: &'static str,
    version: u32,
    /// Whether stored items are reused; `false` if the user forces the stage.
    is_recalling: bool,
    cancelled: &'a AtomicBool,
    log: &'a Log,
    added: Mutex<BTreeMap<String, TreeEntry>>,
    made: AtomicUsize,
    recalled: AtomicUsize,
    list: TaskList,
}

impl<'a> TaskItems<'a> {
    pub(super) fn new(
        cache: &'a Cache,
        (kind, version): (&'static str, u32),
        is_recalling: bool,
        cancelled: &'a AtomicBool,
        log: &'a Log,
    ) -> Self {
        Self {
            cache,
            kind,
            version,
            is_recalling,
            cancelled,
            log,
            added: Mutex::default(),
            made: AtomicUsize::new(0),
            recalled: AtomicUsize::new(0),
            list: TaskList::default(),
        }
    }

    /// Returns the tree entries that were added, by output name; they join the files of the scratch folder.
    pub(super) fn take_outputs(&self) -> BTreeMap<String, Vec<TreeEntry>> {
        let mut added = self.added.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut outputs: BTreeMap<String, Vec<TreeEntry>> = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut *added) {
            let (output, path) = name.split_once('/').unwrap_or(("", &name));
            outputs.entry(output.to_owned()).or_default().push(TreeEntry { path: path.to_owned(), ..entry });
        }
        outputs
    }

    /// Returns the list of the items that were made or reused, of a task with these outputs.
    pub(super) fn list(&self, outputs: &BTreeMap<String, Tree>) -> Option<ItemList> {
        self.list.of_outputs(outputs)
    }

    /// Takes items that are not here from other machines. What fails is no failure of the task: it makes them.
    fn fetch(&self, wanted: &WantedItems) {
        match self.cache.fetch_items::<ItemRecord>(wanted) {
            Ok(0) => {}
            Ok(count) => {
                self.log.line(&format!("took {count} of {} items from the remote", wanted.keys.len()));
            }
            Err(error) => self.log.line(&format!("took no items from the remote: {}", error_chain(&error))),
        }
    }

    /// Returns the share of items that were computed and not reused; 1 if the stage has no items.
    pub(super) fn fresh_share(&self) -> f64 {
        let (made, recalled) = (self.made.load(Ordering::Relaxed), self.recalled.load(Ordering::Relaxed));
        if recalled == 0 { 1.0 } else { made as f64 / (made + recalled) as f64 }
    }

    fn item(&self, files: &[(Digest, u64)], note: String) -> Item {
        let file = |&(digest, size_bytes): &(Digest, u64)| ItemFile {
            path: self.cache.objects().path(&digest),
            digest,
            size_bytes,
        };
        Item { files: files.iter().map(file).collect(), note }
    }

    fn key(&self, fields: &Fields) -> Result<Digest, StageError> {
        item_key(self.kind, self.version, fields)
            .map_err(|field| StageError::data(format!("`{field}` is not a finite number"), "correct it"))
    }

    /// Waits for the lease of an item.
    fn lease(&self, key: &Digest) -> Result<Lease, StageError> {
        let mut is_reported = false;
        loop {
            let lease = self
                .cache
                .leases()
                .take(key)
                .map_err(|error| StageError::kernel("the cache failed", error))?;
            if let Some(lease) = lease {
                return Ok(lease);
            }
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(StageError::Cancelled);
            }
            if let Some(holder) = self.cache.leases().holder(key).filter(|_| !is_reported) {
                is_reported = true;
                self.log.note(&format!("waits for an item that process {} is making", holder.process.pid));
            }
            std::thread::sleep(PERIOD);
        }
    }

    fn intact(&self, files: &[(Digest, u64)]) -> Result<bool, CacheError> {
        let entry = |(index, &(digest, size)): (usize, &(Digest, u64))| TreeEntry {
            path: index.to_string(),
            digest,
            size,
            executable: false,
        };
        let tree = Tree::new(files.iter().enumerate().map(entry).collect())?;
        Ok(self.cache.objects().check(&tree)?.is_empty())
    }
}

impl Items for TaskItems<'_> {
    fn announce(&self, shared: &Fields, items: &[Fields]) {
        // A number that is not finite is an error where the item is kept.
        let Ok(family) = item_family(self.kind, self.version, shared) else { return };
        self.list.announce(family);
        if self.is_recalling && self.cache.prefers_batches() {
            let keys = items.iter().filter_map(|fields| item_key(self.kind, self.version, fields).ok());
            self.fetch(&WantedItems { family, kind: self.kind, keys: keys.collect() });
        }
    }

    fn recall(&self, fields: &Fields) -> Option<Item> {
        if !self.is_recalling {
            return None;
        }
        let key = item_key(self.kind, self.version, fields).ok()?;
        let bytes = self.cache.records().of_item(&key).ok()??;
        // Held before it is checked: what is intact now still is when the task's output names it.
        self.cache.leases().hold(&key);
        let record = ItemRecord::from_bytes(&bytes)?;
        // An item that cannot be read for any reason is made again.
        if !self.intact(&record.files).unwrap_or(false) {
            return None;
        }
        self.recalled.fetch_add(1, Ordering::Relaxed);
        let item = self.item(&record.files, record.note.clone());
        self.list.add(key, ItemRecord { kind: self.kind.to_owned(), ..record });
        Some(item)
    }

    fn keep(&self, fields: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError> {
        let failed =
            |error: CacheError| StageError::kernel("cannot keep a finished item in the cache", error);
        let key = self.key(fields)?;
        self.cache.leases().hold(&key);
        let publication = self.cache.publication().map_err(failed)?;
        let published = publication.publish_files(files).map_err(failed)?;
        // A file whose object existed already is still in its folder.
        for file in files {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StageError::io("remove", file, error));
                }
                _ => {}
            }
        }
        let kind = self.kind.to_owned();
        let record = ItemRecord { item: SCHEMA, kind, files: published, note: note.to_owned() };
        publication.publish_item(&key, &record.to_bytes()).map_err(failed)?;
        self.made.fetch_add(1, Ordering::Relaxed);
        let item = self.item(&record.files, record.note.clone());
        self.list.add(key, record);
        Ok(item)
    }

    fn once(&self, fields: &Fields, make: &mut Make<'_>) -> Result<Item, StageError> {
        if let Some(item) = self.recall(fields) {
            return Ok(item);
        }
        let key = self.key(fields)?;
        let _lease = self.lease(&key)?;
        // The previous holder of the lease may have made it.
        if let Some(item) = self.recall(fields) {
            return Ok(item);
        }
        let work = self.cache.workdir(&key);
        let (files, note) = make(work.path())?;
        let item = self.keep(fields, &files, &note)?;
        // A folder that cannot be removed only takes space; gc collects it.
        let _ = work.remove();
        Ok(item)
    }

    fn add_output(&self, file: &ItemFile, name: &str) {
        let entry = TreeEntry {
            path: name.to_owned(),
            digest: file.digest,
            size: file.size_bytes,
            executable: false,
        };
        let mut added = self.added.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        added.insert(name.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::cache::StatIndex;
    use crate::stages::fields::fields;

    #[test]
    fn an_item_is_made_once_for_all_callers_and_resumes_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let (root, cancelled, made) =
            (folder.path().join("cache"), AtomicBool::new(false), AtomicUsize::new(0));
        let item = fields([("item", "training".into())]);
        let call = |fails: bool| {
            let cache = Cache::open(root.clone(), StatIndex::in_memory()).unwrap();
            let log = Log::create(&folder.path().join("log")).unwrap();
            let items = TaskItems::new(&cache, ("augment", 1), true, &cancelled, &log);
            let make = &mut |work: &Path| {
                std::fs::create_dir_all(work).unwrap();
                let checkpoint = work.join("checkpoint");
                if fails {
                    std::fs::write(&checkpoint, "half").unwrap();
                    return Err(StageError::data("broken off", "again"));
                }
                assert_eq!(std::fs::read(&checkpoint).unwrap(), b"half");
                made.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(200));
                std::fs::write(work.join("network"), "whole").unwrap();
                Ok((vec![work.join("network")], "note".to_owned()))
            };
            items.once(&item, make)
        };
        assert!(call(true).is_err());
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4).map(|_| scope.spawn(|| call(false).unwrap())).collect();
            for item in callers.into_iter().map(|caller| caller.join().unwrap()) {
                assert_eq!(std::fs::read(&item.files[0].path).unwrap(), b"whole");
                assert_eq!(item.note, "note");
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        let work = std::fs::read_dir(root.join("v1/work")).unwrap().count();
        assert_eq!(work, 0, "its work folder is removed once it is stored");
    }
}
