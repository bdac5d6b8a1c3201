//! Handing objects out as files: whole trees for programs, single files for a run's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::Store;
use super::digest::Digest;
use super::error::{AtPath, StoreError};
use super::objects::stat;
use super::stat_index::FileStat;
use super::tree::{Tree, TreeEntry};

impl Store {
    /// Makes the files of a tree in `destination`, a new or empty folder: shared blocks where the file
    /// system can, else copies; never hard links, as what runs there may write. Files are read-only.
    /// Nothing is made unless every object is sound.
    pub fn checkout(&self, tree: &Tree, destination: &Path) -> Result<(), StoreError> {
        let damage = self.check(tree)?;
        if !damage.is_empty() {
            return Err(StoreError::Incomplete { damage });
        }
        make_empty(destination)?;
        let folders: BTreeSet<&str> =
            tree.entries().iter().filter_map(|entry| Some(entry.path.rsplit_once('/')?.0)).collect();
        for folder in folders {
            let path = destination.join(folder);
            fs::create_dir_all(&path).writing(&path)?;
        }
        // One refusal is enough: the others would be refused too.
        let shares = AtomicBool::new(true);
        tree.entries().par_iter().try_for_each(|entry| self.copy_out(entry, destination, &shares))
    }

    /// Makes a file of each object, as [`Store::link_all`].
    #[cfg(test)]
    pub fn link(&self, digest: &Digest, destination: &Path) -> Result<(), StoreError> {
        self.link_all(&[(*digest, destination.to_owned())])
    }

    /// Makes files from objects: shared blocks, else hard links, else copies; mode 0444. Whatever file stood
    /// in a file's place is replaced. What is sound is linked, whatever is missing or damaged beside it.
    pub fn link_all(&self, links: &[(Digest, PathBuf)]) -> Result<(), StoreError> {
        let (known, lost) = self.sound(links.iter().map(|(digest, _)| *digest).collect())?;
        // One refusal is enough: the others would be refused too.
        let shares = AtomicBool::new(true);
        for (digest, destination) in links.iter().filter(|(digest, _)| known.contains_key(digest)) {
            self.link_one(digest, destination, &shares)?;
        }
        self.remember_links(&known);
        lost.map_or(Ok(()), Err)
    }

    fn link_one(&self, digest: &Digest, destination: &Path, shares: &AtomicBool) -> Result<(), StoreError> {
        let object = self.object_path(digest);
        match fs::remove_file(destination) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).writing(destination),
            _ => {}
        }
        if shares.load(Ordering::Relaxed) && reflink_copy::reflink(&object, destination).is_ok() {
            return make_read_only(destination, 0o444);
        }
        shares.store(false, Ordering::Relaxed);
        if fs::hard_link(&object, destination).is_ok() {
            return Ok(());
        }
        fs::copy(&object, destination).writing(destination)?;
        make_read_only(destination, 0o444)
    }

    fn copy_out(&self, entry: &TreeEntry, folder: &Path, shares: &AtomicBool) -> Result<(), StoreError> {
        let (object, path) = (self.object_path(&entry.digest), folder.join(&entry.path));
        let shared = shares.load(Ordering::Relaxed) && reflink_copy::reflink(&object, &path).is_ok();
        if !shared {
            shares.store(false, Ordering::Relaxed);
            fs::copy(&object, &path).writing(&path)?;
        }
        make_read_only(&path, if entry.executable { 0o555 } else { 0o444 })
    }

    /// A hard link changes an object's ctime and nothing else: the object stays verified.
    fn remember_links(&self, known: &BTreeMap<Digest, FileStat>) {
        let now = |(digest, known): (&Digest, &FileStat)| {
            let now = FileStat::of(&stat(&self.object_path(digest)).ok()??);
            let is_same = FileStat { changed_ns: known.changed_ns, ..now } == *known;
            (is_same && now != *known).then_some((now, *digest))
        };
        let changed: Vec<(FileStat, Digest)> = known.iter().filter_map(now).collect();
        if !changed.is_empty() {
            self.index.remember(&changed);
        }
    }
}

fn make_read_only(path: &Path, mode: u32) -> Result<(), StoreError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).writing(path)
}

/// Only an empty folder holds no link that could lead the files elsewhere.
fn make_empty(folder: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(folder).writing(folder)?;
    if fs::read_dir(folder).reading(folder)?.next().is_some() {
        return Err(StoreError::NotEmpty { path: folder.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::store::tests::fresh;

    fn published(store: &Store) -> Tree {
        let scratch = store.scratch("test").unwrap();
        fs::create_dir_all(scratch.path().join("deep/er")).unwrap();
        fs::write(scratch.path().join("deep/er/data"), "data").unwrap();
        fs::write(scratch.path().join("same"), "data").unwrap();
        fs::write(scratch.path().join("tool"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(scratch.path().join("tool"), Permissions::from_mode(0o700)).unwrap();
        store.publish_tree(scratch.path()).unwrap()
    }

    #[test]
    fn a_checkout_is_the_published_folder_apart_from_the_store() {
        let (folder, store) = fresh();
        let tree = published(&store);
        let out = folder.path().join("out");
        store.checkout(&tree, &out).unwrap();
        assert_eq!(fs::read(out.join("deep/er/data")).unwrap(), b"data");
        assert_eq!(fs::metadata(out.join("tool")).unwrap().mode() & 0o777, 0o555);
        let same = fs::metadata(out.join("same")).unwrap();
        assert_eq!((same.mode() & 0o777, same.nlink()), (0o444, 1));
        fs::set_permissions(out.join("same"), Permissions::from_mode(0o644)).unwrap();
        fs::write(out.join("same"), "xxxx").unwrap();
        assert_eq!(store.check(&tree).unwrap(), [], "what is written there does not reach the store");
        assert!(matches!(store.checkout(&tree, &out), Err(StoreError::NotEmpty { .. })));
    }

    #[test]
    fn an_incomplete_tree_makes_no_file() {
        let (folder, store) = fresh();
        let tree = published(&store);
        fs::remove_file(store.object_path(&tree.get("tool").unwrap().digest)).unwrap();
        let out = folder.path().join("out");
        let error = store.checkout(&tree, &out).unwrap_err();
        assert!(error.to_string().contains("`tool`") && !out.exists());
    }

    #[test]
    fn a_link_is_read_only_replaces_and_leaves_the_object_verified() {
        let (folder, store) = fresh();
        let digest = store.publish_bytes(b"data").unwrap();
        let path = folder.path().join("result");
        fs::write(&path, "old").unwrap();
        for _ in 0..2 {
            store.link(&digest, &path).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((fs::read(&path).unwrap(), metadata.mode() & 0o777), (b"data".to_vec(), 0o444));
            let object = FileStat::of(&fs::metadata(store.object_path(&digest)).unwrap());
            assert_eq!(store.index().lookup(&[object]), [Some(digest)]);
        }
        assert!(matches!(store.link(&Digest::of_bytes(b"?"), &path), Err(StoreError::Missing { .. })));
        assert!(path.exists(), "a failed link takes nothing away");
    }

    #[test]
    fn writing_through_a_link_is_found_out() {
        let (folder, store) = fresh();
        let digest = store.publish_bytes(b"data").unwrap();
        let path = folder.path().join("result");
        fs::hard_link(store.object_path(&digest), &path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, "DATA").unwrap();
        assert!(matches!(store.link(&digest, &folder.path().join("x")), Err(StoreError::Damaged { .. })));
        assert_eq!(store.publish_bytes(b"data").unwrap(), digest);
        store.link(&digest, &folder.path().join("x")).unwrap();
    }
}
