//! The records of the local store as bytes; [`super::Cache::lookup`] reads them whole.

use super::local::Store;
use super::{CacheError, Digest, StoredRecord};

/// The records that are here.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a>(pub(super) &'a Store);

impl<'a> Records<'a> {
    /// The record of a task's key; `None` if there is none or it is damaged. Nothing is moved or written.
    pub fn get(self, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        self.0.record(key)
    }

    /// The record of a single image or other item of a task, as [`Self::get`].
    pub fn of_item(self, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        self.0.item(key)
    }

    /// Every sound record of a task, in order of key, read as the iterator advances.
    pub fn iter(self) -> impl Iterator<Item = StoredRecord> + 'a {
        self.0.records()
    }
}
