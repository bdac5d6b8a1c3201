//! The per-image records of a task that `verify` runs again: no item is reused, and new ones are kept in a scratch
//! folder instead of the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::cache::{Digest, TreeEntry};
use crate::stages::fields::Fields;
use crate::stages::{Item, ItemFile, Items, Make, StageError};

/// Keeps items in a scratch folder.
pub(super) struct ScratchItems {
    folder: PathBuf,
    number: AtomicU64,
    added: Mutex<BTreeMap<String, (TreeEntry, PathBuf)>>,
}

impl ScratchItems {
    /// Keeps items in `folder`, which must exist and must not be the folder that the stage writes into.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), number: AtomicU64::new(0), added: Mutex::default() }
    }

    /// Returns the entries that were added, by `<output name>/<path>`, each with the path of its file.
    pub(super) fn into_outputs(self) -> BTreeMap<String, (TreeEntry, PathBuf)> {
        self.added.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, path: &Path) -> Result<ItemFile, StageError> {
        let to = self.folder.join(self.number.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::rename(path, &to).map_err(|source| StageError::io("move", path, source))?;
        let digest = Digest::of_file(&to).map_err(|source| StageError::io("read", &to, source))?;
        let size_bytes = std::fs::metadata(&to).map_err(|source| StageError::io("read", &to, source))?.len();
        Ok(ItemFile { path: to, digest, size_bytes })
    }
}

impl Items for ScratchItems {
    fn recall(&self, _fields: &Fields) -> Option<Item> {
        None
    }

    fn keep(&self, _fields: &Fields, files: &[PathBuf], note: &str) -> Result<Item, StageError> {
        let files = files.iter().map(|path| self.take(path)).collect::<Result<_, _>>()?;
        Ok(Item { files, note: note.to_owned() })
    }

    fn once(&self, fields: &Fields, make: &mut Make<'_>) -> Result<Item, StageError> {
        let (files, note) =
            make(&self.folder.join(format!("once-{}", self.number.fetch_add(1, Ordering::Relaxed))))?;
        self.keep(fields, &files, &note)
    }

    fn add_output(&self, file: &ItemFile, name: &str) {
        let entry = TreeEntry {
            path: name.to_owned(),
            digest: file.digest,
            size: file.size_bytes,
            executable: false,
        };
        let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.insert(name.to_owned(), (entry, file.path.clone()));
    }
}
