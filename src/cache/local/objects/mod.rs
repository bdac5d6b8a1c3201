//! Reading objects: their paths, and whether their content still matches their names.

mod link;
pub(in crate::cache) mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::stat_index::FileStat;
use crate::cache::local::{Area, Store, digest_of_path};
use crate::cache::tree::Tree;
use crate::digest::Digest;

/// A file of a tree whose object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The path in the tree.
    pub path: String,
    /// Digest of the object, which the tree expects.
    pub digest: Digest,
    /// What was found.
    pub kind: DamageKind,
}

/// What was found instead of an object; whatever it was, the object is missing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamageKind {
    /// It is not there: evicted, never published, or lost.
    Missing,
    /// It has another length than the tree says.
    WrongSize {
        /// The length in the tree.
        expected: u64,
        /// The length of the file.
        found: u64,
    },
    /// It has another content than its name says.
    WrongContent,
}

/// The state of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache::local) enum Condition {
    /// Verified, now or earlier, under this stat.
    Sound(FileStat),
    /// Not there.
    Missing,
    /// Damaged; the inode that was examined goes with it.
    Damaged(DamageKind, u64),
}

impl Store {
    /// The path of an object, whether it is there or not. Map it read-only; it never changes in path.
    pub(in crate::cache) fn object_path(&self, digest: &Digest) -> PathBuf {
        self.path(Area::Objects, digest)
    }

    /// The object whose path this is; `None` for any other path.
    pub(in crate::cache) fn object_at(&self, path: &Path) -> Option<Digest> {
        digest_of_path(path).filter(|digest| self.object_path(digest) == path)
    }

    /// The objects of a tree that are not there with the right size. Nothing is hashed or moved.
    pub(in crate::cache) fn missing(&self, tree: &Tree) -> Result<Vec<Digest>, CacheError> {
        let mut missing = Vec::new();
        for entry in tree.entries() {
            let size = stat(&self.object_path(&entry.digest))?.map(|metadata| metadata.len());
            if size != Some(entry.size) {
                missing.push(entry.digest);
            }
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    /// Verifies every object of a tree; returns those that cannot be read, by path.
    ///
    /// An object is trusted under the stat at which it was last verified, else hashed again. A damaged
    /// one is moved to the quarantine, so that it can be made or fetched anew.
    pub(in crate::cache) fn check(&self, tree: &Tree) -> Result<Vec<Damage>, CacheError> {
        let wanted: Vec<_> = tree.entries().iter().map(|entry| (entry.digest, Some(entry.size))).collect();
        let mut damage = Vec::new();
        for (entry, condition) in tree.entries().iter().zip(self.examine(&wanted)?) {
            let kind = match condition {
                Condition::Sound(_) => continue,
                Condition::Missing => DamageKind::Missing,
                Condition::Damaged(kind, inode) => {
                    self.quarantine(&self.object_path(&entry.digest), inode);
                    kind
                }
            };
            damage.push(Damage { path: entry.path.clone(), digest: entry.digest, kind });
        }
        Ok(damage)
    }

    /// The content of an object, always hashed. A damaged one is moved to the quarantine.
    pub(in crate::cache) fn read(&self, digest: &Digest) -> Result<Vec<u8>, CacheError> {
        let path = self.object_path(digest);
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CacheError::Missing { digest: *digest });
            }
            opened => opened.reading(&path)?,
        };
        let metadata = file.metadata().reading(&path)?;
        let mut content = Vec::with_capacity(metadata.len() as usize + 1);
        file.read_to_end(&mut content).reading(&path)?;
        if Digest::of_bytes(&content) != *digest {
            self.quarantine(&path, metadata.ino());
            return Err(CacheError::Damaged { digest: *digest });
        }
        Ok(content)
    }

    /// The verified stats of the sound objects, and the error of the first that is missing or damaged; damaged
    /// ones are moved to the quarantine.
    pub(in crate::cache::local) fn sound(
        &self,
        wanted: BTreeSet<Digest>,
    ) -> Result<(BTreeMap<Digest, FileStat>, Option<CacheError>), CacheError> {
        let wanted: Vec<(Digest, Option<u64>)> = wanted.into_iter().map(|digest| (digest, None)).collect();
        let (mut sound, mut first) = (BTreeMap::new(), None);
        for ((digest, _), condition) in wanted.iter().zip(self.examine(&wanted)?) {
            match condition {
                Condition::Sound(stat) => {
                    sound.insert(*digest, stat);
                }
                Condition::Damaged(_, inode) => {
                    self.quarantine(&self.object_path(digest), inode);
                    first.get_or_insert(CacheError::Damaged { digest: *digest });
                }
                Condition::Missing => {
                    first.get_or_insert(CacheError::Missing { digest: *digest });
                }
            }
        }
        Ok((sound, first))
    }

    /// The condition of objects, given with their sizes if these are known. Nothing is moved. One lookup in the
    /// stat index; objects that it does not know are hashed in parallel and remembered.
    pub(in crate::cache::local) fn examine(
        &self,
        wanted: &[(Digest, Option<u64>)],
    ) -> Result<Vec<Condition>, CacheError> {
        let began = SystemTime::now();
        let mut conditions = Vec::with_capacity(wanted.len());
        for (digest, size) in wanted {
            conditions.push(first_look(&self.object_path(digest), *size)?);
        }
        let stats: Vec<FileStat> = conditions.iter().filter_map(Condition::stat).collect();
        let mut known = self.index.lookup(&stats).into_iter();
        let present = (0..wanted.len()).filter(|index| conditions[*index].stat().is_some());
        let unknown: Vec<usize> =
            present.filter(|index| known.next().flatten() != Some(wanted[*index].0)).collect();
        let hashed = unknown.par_iter().map(|index| self.hash_object(&wanted[*index].0));
        let hashed: Vec<Option<Digest>> = hashed.collect::<Result<_, _>>()?;
        let mut verified = Vec::new();
        for (index, found) in unknown.into_iter().zip(hashed) {
            let Some(stat) = conditions[index].stat() else { continue };
            match found {
                Some(found) if found == wanted[index].0 => verified.push((stat, found)),
                Some(_) => {
                    conditions[index] = Condition::Damaged(DamageKind::WrongContent, stat.inode);
                }
                None => conditions[index] = Condition::Missing,
            }
        }
        self.index.remember_hashed(&verified, self.trusted_from(began));
        Ok(conditions)
    }

    /// The digest of the file at the path of an object; `None` if it has just been removed.
    fn hash_object(&self, digest: &Digest) -> Result<Option<Digest>, CacheError> {
        let path = self.object_path(digest);
        match Digest::of_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some).reading(&path),
        }
    }
}

impl Condition {
    fn stat(&self) -> Option<FileStat> {
        match self {
            Self::Sound(stat) => Some(*stat),
            Self::Missing | Self::Damaged(..) => None,
        }
    }
}

/// The condition by the stat alone; `Sound` still has to be confirmed.
fn first_look(path: &Path, size: Option<u64>) -> Result<Condition, CacheError> {
    let Some(metadata) = stat(path)? else { return Ok(Condition::Missing) };
    if !metadata.is_file() {
        return Ok(Condition::Damaged(DamageKind::WrongContent, metadata.ino()));
    }
    let found = metadata.len();
    match size {
        Some(expected) if expected != found => {
            Ok(Condition::Damaged(DamageKind::WrongSize { expected, found }, metadata.ino()))
        }
        _ => Ok(Condition::Sound(FileStat::of(&metadata))),
    }
}

/// The metadata of a path, without following a link; `None` if there is nothing.
pub(in crate::cache::local) fn stat(path: &Path) -> Result<Option<fs::Metadata>, CacheError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).reading(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::cache::local::stat_index::SETTLED;
    use crate::cache::local::tests::fresh;
    use crate::cache::{StatIndex, TreeEntry};

    fn entry(path: &str, digest: Digest, size: u64) -> TreeEntry {
        TreeEntry { path: path.into(), digest, size, executable: false }
    }

    /// Writes into an object and sets its time of writing back, as `touch -r` would; waits for the file
    /// clock to tick, since two changes within one tick cannot be distinguished when mtime is forged.
    fn damage(path: &Path, content: &[u8]) {
        let before = fs::metadata(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        while FileStat::of(&fs::metadata(path).unwrap()).changed_ns == FileStat::of(&before).changed_ns {
            fs::write(path, content).unwrap();
        }
        fs::write(path, content).unwrap();
        File::options().write(true).open(path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    }

    #[test]
    fn damage_of_every_kind_is_found_named_and_moved_away() {
        let (_folder, store) = fresh();
        let digests = [b"aa", b"bb", b"cc", b"dd"].map(|content| store.publish_bytes(content).unwrap());
        let paths = ["a", "b", "c", "d"];
        let entries = paths.iter().zip(digests).map(|(path, digest)| entry(path, digest, 2)).collect();
        let tree = Tree::new(entries).unwrap();
        assert_eq!(store.check(&tree).unwrap(), []);
        fs::remove_file(store.object_path(&digests[0])).unwrap();
        damage(&store.object_path(&digests[1]), b"b");
        damage(&store.object_path(&digests[2]), b"xx");
        assert_eq!(store.missing(&tree).unwrap().len(), 2, "a stat does not see what was rewritten");
        let expected =
            [DamageKind::Missing, DamageKind::WrongSize { expected: 2, found: 1 }, DamageKind::WrongContent];
        let found = store.check(&tree).unwrap();
        for (index, kind) in expected.into_iter().enumerate() {
            assert_eq!(found[index], Damage { path: paths[index].into(), digest: digests[index], kind });
        }
        assert_eq!(found.len(), 3);
        assert_eq!(fs::read_dir(store.area(Area::Quarantine)).unwrap().count(), 2);
        assert!(store.check(&tree).unwrap().iter().all(|damage| damage.kind == DamageKind::Missing));
        store.publish_bytes(b"cc").unwrap();
        assert_eq!(store.check(&tree).unwrap().len(), 2);
    }

    #[test]
    fn reading_hashes_and_a_damaged_object_is_refused_and_gone() {
        let (_folder, store) = fresh();
        let digest = store.publish_bytes(b"content").unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"content");
        damage(&store.object_path(&digest), b"cOntent");
        assert!(matches!(store.read(&digest), Err(CacheError::Damaged { .. })));
        assert!(matches!(store.read(&digest), Err(CacheError::Missing { .. })));
    }

    #[test]
    fn an_object_is_hashed_once_and_then_known_by_its_stat() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let database = folder.path().join("stat.sqlite");
        let store = Store::open(root.clone(), StatIndex::new(database.clone())).unwrap();
        let digest = store.publish_bytes(b"content").unwrap();
        store.flush().unwrap();
        let other = Store::open(root, StatIndex::new(database)).unwrap();
        let metadata = fs::metadata(store.object_path(&digest)).unwrap();
        let known = other.index().lookup(&[FileStat::of(&metadata)]);
        assert_eq!(known, [Some(digest)], "another process need not hash what this one has published");
    }

    #[test]
    fn an_object_of_unknown_history_is_hashed_and_remembered_once_it_is_settled() {
        let (_folder, store) = fresh();
        let digest = Digest::of_bytes(b"content");
        let path = store.object_path(&digest);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "content").unwrap();
        let tree = Tree::new(vec![entry("a", digest, 7)]).unwrap();
        assert_eq!(store.check(&tree).unwrap(), []);
        let stat = FileStat::of(&fs::metadata(&path).unwrap());
        let later = SystemTime::now() + SETTLED + Duration::from_millis(1);
        assert!(stat.is_settled(later), "then the next check keeps it");
    }

    #[test]
    fn a_folder_at_the_path_of_an_object_is_damage() {
        let (_folder, store) = fresh();
        let digest = Digest::of_bytes(b"x");
        fs::create_dir_all(store.object_path(&digest)).unwrap();
        let tree = Tree::new(vec![entry("a", digest, 1)]).unwrap();
        assert_eq!(store.check(&tree).unwrap()[0].kind, DamageKind::WrongContent);
        assert_eq!(store.publish_bytes(b"x").unwrap(), digest);
        assert_eq!(store.check(&tree).unwrap(), []);
    }
}
