//! The per-image records of a running task as one list, which other machines find in the remote.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::items::ItemRecord;
use crate::cache::{Digest, ItemList, Tree};

/// Collects the records of a task.
#[derive(Default)]
pub(super) struct TaskList {
    /// Set once the stage has announced its items; without it there is no list.
    family: OnceLock<Digest>,
    records: Mutex<BTreeMap<Digest, ItemRecord>>,
}

impl TaskList {
    /// Sets the family of the task's items.
    pub(super) fn announce(&self, family: Digest) {
        // A stage announces its items once.
        let _ = self.family.set(family);
    }

    /// Adds the record of an item that was made or reused.
    pub(super) fn add(&self, key: Digest, record: ItemRecord) {
        if self.family.get().is_some() {
            self.records.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record);
        }
    }

    /// The list of the records whose files are all in the outputs: others could not be fetched with them. `None` if there
    /// are none, or more than a list can have.
    pub(super) fn of_outputs(&self, outputs: &BTreeMap<String, Tree>) -> Option<ItemList> {
        let entries = outputs.values().flat_map(Tree::entries);
        let sizes: BTreeMap<Digest, u64> = entries.map(|entry| (entry.digest, entry.size)).collect();
        let is_there = |(digest, size): &(Digest, u64)| sizes.get(digest) == Some(size);
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = records.iter().filter(|(_, record)| record.files.iter().all(is_there));
        let mut items: BTreeMap<_, _> = whole.map(|(key, record)| (*key, record.to_bytes())).collect();
        items.retain(|_, record| record.len() <= ItemList::MOST_RECORD_BYTES);
        let mut trees: Vec<Digest> = outputs.values().map(Tree::digest).collect();
        trees.sort_unstable();
        trees.dedup();
        let list = ItemList { family: *self.family.get()?, trees, items };
        (!list.items.is_empty() && list.size_bytes() <= ItemList::MOST_BYTES).then_some(list)
    }
}
