//! Creating files from objects, for a run's folder.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::Store;
use crate::cache::local::objects::stat;
use crate::cache::local::stat_index::FileStat;
use crate::digest::Digest;

impl Store {
    /// Creates a file from one object, as [`Store::link_all`].
    #[cfg(test)]
    pub(in crate::cache) fn link(&self, digest: &Digest, destination: &Path) -> Result<(), CacheError> {
        self.link_all(&[(*digest, destination.to_owned())])
    }

    /// Creates files from objects: shared blocks, else hard links, else copies; read-only. Existing files are
    /// replaced. Sound objects are linked even if others are missing or damaged.
    pub(in crate::cache) fn link_all(&self, links: &[(Digest, PathBuf)]) -> Result<(), CacheError> {
        let (known, lost) = self.sound(links.iter().map(|(digest, _)| *digest).collect())?;
        // One refusal is enough: the others would be refused too.
        let shares = AtomicBool::new(true);
        for (digest, destination) in links.iter().filter(|(digest, _)| known.contains_key(digest)) {
            self.link_one(digest, destination, &shares)?;
        }
        self.remember_links(&known);
        lost.map_or(Ok(()), Err)
    }

    fn link_one(&self, digest: &Digest, destination: &Path, shares: &AtomicBool) -> Result<(), CacheError> {
        let object = self.object_path(digest);
        match fs::remove_file(destination) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).writing(destination),
            _ => {}
        }
        if shares.load(Ordering::Relaxed) && reflink_copy::reflink(&object, destination).is_ok() {
            return make_read_only(destination, &object);
        }
        shares.store(false, Ordering::Relaxed);
        if fs::hard_link(&object, destination).is_ok() {
            return Ok(());
        }
        fs::copy(&object, destination).writing(destination)?;
        make_read_only(destination, &object)
    }

    /// A hard link changes an object's ctime and nothing else: the object stays verified.
    fn remember_links(&self, known: &BTreeMap<Digest, FileStat>) {
        let now = |(digest, known): (&Digest, &FileStat)| {
            let now = FileStat::of(&stat(&self.object_path(digest)).ok()??);
            let is_same = FileStat { changed_ns: known.changed_ns, ..now } == *known;
            (is_same && now != *known).then_some((now, *digest))
        };
        let changed: Vec<(FileStat, Digest)> = known.iter().filter_map(now).collect();
        self.index.remember_linked(&changed);
    }
}

/// Lets those read a file who may read its object, as with a hard link.
fn make_read_only(path: &Path, object: &Path) -> Result<(), CacheError> {
    let mode = fs::metadata(object).reading(object)?.mode() & 0o444;
    fs::set_permissions(path, Permissions::from_mode(mode)).writing(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::local::tests::fresh;

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
        assert!(matches!(store.link(&Digest::of_bytes(b"?"), &path), Err(CacheError::Missing { .. })));
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
        assert!(matches!(store.link(&digest, &folder.path().join("x")), Err(CacheError::Damaged { .. })));
        assert_eq!(store.publish_bytes(b"data").unwrap(), digest);
        store.link(&digest, &folder.path().join("x")).unwrap();
    }
}
