//! The records of the local store as bytes; [`super::Cache::lookup`] reads them whole.

use super::local::Store;
use super::{CacheError, Digest, StoredRecord};

/// Access to the records of the local store.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a>(pub(super) &'a Store);

impl<'a> Records<'a> {
    /// Returns the record of a task's key; `None` if there is none or it is damaged. Nothing is moved or written.
    pub fn get(self, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        self.0.record(key)
    }

    /// Returns the record of a single item of a task, such as an image, as [`Self::get`] does.
    pub fn of_item(self, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        self.0.item(key)
    }

    /// Returns every undamaged record of a task, in the order of keys. Each is read when the iterator reaches it.
    pub fn iter(self) -> impl Iterator<Item = StoredRecord> + 'a {
        self.0.records()
    }
}
