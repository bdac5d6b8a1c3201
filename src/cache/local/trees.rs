//! Trees: `v1/trees`, named by digest. They are small and stay when objects are evicted.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, MutexGuard, PoisonError};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::scratch::Temporary;
use crate::cache::local::{Area, Store, disk, make_shard};
use crate::cache::tree::Tree;
use crate::digest::Digest;

impl Store {
    /// Writes a tree, whose objects need not be here; returns its digest.
    pub(in crate::cache) fn put_tree(&self, tree: &Tree) -> Result<Digest, CacheError> {
        let encoded = tree.to_bytes();
        let digest = Tree::digest_of_bytes(&encoded);
        let path = self.path(Area::Trees, &digest);
        if fs::read(&path).is_ok_and(|present| present == encoded) {
            self.relied_on(Area::Trees, &digest);
        } else {
            self.prepare()?;
            make_shard(&path)?;
            let temporary = Temporary::write(&self.area(Area::Tmp), &[&encoded], self.durability())?;
            disk::rename(temporary.path(), &path).writing(&path)?;
            self.named(Area::Trees, &digest)?;
        }
        self.cached_trees().entry(digest).or_insert_with(|| Arc::new(tree.clone()));
        Ok(digest)
    }

    /// The tree of this digest; `None` if it is not here or damaged (it is then moved to the quarantine). Each
    /// is read once and kept in memory.
    pub(in crate::cache) fn tree(&self, digest: &Digest) -> Result<Option<Arc<Tree>>, CacheError> {
        if let Some(tree) = self.cached_trees().get(digest) {
            return Ok(Some(tree.clone()));
        }
        let Some(tree) = self.read_tree_file(digest)? else { return Ok(None) };
        let tree = Arc::new(tree);
        self.cached_trees().insert(*digest, tree.clone());
        Ok(Some(tree))
    }

    /// Reads and verifies a tree from disk, bypassing the memory.
    pub(super) fn read_tree_file(&self, digest: &Digest) -> Result<Option<Tree>, CacheError> {
        let path = self.path(Area::Trees, digest);
        let inode = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.reading(&path)?.ino(),
        };
        let encoded = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => Vec::new(),
            encoded => encoded.reading(&path)?,
        };
        if Tree::digest_of_bytes(&encoded) == *digest
            && let Ok(tree) = Tree::from_bytes(&encoded)
        {
            return Ok(Some(tree));
        }
        self.quarantine(&path, inode);
        Ok(None)
    }

    fn cached_trees(&self) -> MutexGuard<'_, std::collections::HashMap<Digest, Arc<Tree>>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::local::tests::fresh;
    use crate::cache::{StatIndex, TreeEntry};

    fn one_file() -> Tree {
        let digest = Digest::of_bytes(b"not here");
        Tree::new(vec![TreeEntry { path: "a/b".into(), digest, size: 8, executable: true }]).unwrap()
    }

    fn reopened(store: &Store) -> Store {
        Store::open(store.root().into(), StatIndex::in_memory()).unwrap()
    }

    #[test]
    fn a_tree_comes_back_without_its_objects() {
        let (_folder, store) = fresh();
        let digest = store.put_tree(&one_file()).unwrap();
        assert_eq!(digest, one_file().digest());
        assert_eq!(*reopened(&store).tree(&digest).unwrap().unwrap(), one_file());
        assert!(Arc::ptr_eq(&store.tree(&digest).unwrap().unwrap(), &store.tree(&digest).unwrap().unwrap()));
    }

    #[test]
    fn a_damaged_tree_is_none_gone_and_can_be_put_again() {
        let (_folder, store) = fresh();
        let digest = store.put_tree(&one_file()).unwrap();
        let path = store.path(Area::Trees, &digest);
        let sound = fs::read(&path).unwrap();
        let other = Tree::default().to_bytes();
        for content in [&sound[..sound.len() - 1], b"", &other] {
            fs::write(&path, content).unwrap();
            assert!(reopened(&store).tree(&digest).unwrap().is_none());
            assert!(!path.exists());
            store.put_tree(&one_file()).unwrap();
            assert_eq!(fs::read(&path).unwrap(), sound);
        }
    }
}
