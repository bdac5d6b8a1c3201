//! The objects of the local store, for readers.

use std::path::PathBuf;

use super::local::Store;
use super::{CacheError, Damage, Digest, Tree};

/// Access to the objects of the local store.
#[derive(Debug, Clone, Copy)]
pub struct Objects<'a>(pub(super) &'a Store);

impl Objects<'_> {
    /// Returns the path of an object, whether it exists or not. Open it read-only: the content at this path never
    /// changes.
    pub fn path(self, digest: &Digest) -> PathBuf {
        self.0.object_path(digest)
    }

    /// Reads an object and verifies its digest. A damaged object is moved to the quarantine.
    pub fn read(self, digest: &Digest) -> Result<Vec<u8>, CacheError> {
        self.0.read(digest)
    }

    /// Returns the objects of a tree that do not exist with the right size. Nothing is hashed or moved.
    pub fn missing(self, tree: &Tree) -> Result<Vec<Digest>, CacheError> {
        self.0.missing(tree)
    }

    /// Verifies every object of a tree and returns those that cannot be read, by path. An object is trusted under the
    /// stat at which it was last verified, else hashed again; a damaged one is moved to the quarantine.
    pub fn check(self, tree: &Tree) -> Result<Vec<Damage>, CacheError> {
        self.0.check(tree)
    }

    /// Creates files from objects: shared blocks, else hard links, else copies; mode 0444. Existing files are
    /// replaced. Sound objects are linked even if others are missing or damaged; the first of those is the error.
    pub fn link_all(self, links: &[(Digest, PathBuf)]) -> Result<(), CacheError> {
        self.0.link_all(links)
    }
}
