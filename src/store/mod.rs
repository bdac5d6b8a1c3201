//! The local content-addressed store: what stages produced, found again by key and by content.
//!
//! The executor publishes and reads through it, planning only reads; it knows no stage, manifest or
//! network. It stands apart from every other folder of the crate.
//!
//! ```text
//! <root>/CACHEDIR.TAG              backup programs skip the folder
//! <root>/v1/objects/ab/cdef…       blobs, mode 0444, named by the blake3 of their content
//! <root>/v1/trees/ab/cdef…         listings, named by tree digest; they stay when objects are evicted
//! <root>/v1/records/ab/cdef…       key -> what it produced, with a checksum
//! <root>/v1/items/ab/cdef…         the same for single items of a task, such as an image's features
//! <root>/v1/leases/abcdef…         work in flight: a locked file that says who holds it
//! <root>/v1/leases/run~…           what a running process uses, one key a line
//! <root>/v1/pins/                  roots for garbage collection
//! <root>/v1/tmp/                   being written; leftovers of dead processes are removed
//! <root>/v1/work/abcdef…/          a resumable stage's own files, by key
//! <root>/v1/quarantine/            what did not hold what its name says
//! ```
//! `v1` is the version of all of it; other versions beside it are left alone.
//!
//! # What is promised
//! - Opening and reading create nothing; the folders appear with the first publication.
//! - A name in `objects`, `trees` or `records` appears only once its content is complete and on disk
//!   (written elsewhere, synced, renamed), and in that order: objects, then tree, then record. A kill or
//!   a power cut leaves leftovers in `tmp` and at worst lost names, which are misses.
//! - What is read is checked: objects against the stat under which they were last verified, else against
//!   their digest; listings and records against their digest and checksum. What is wrong is a miss.
//! - The first record of a key wins; whoever comes later is given it.
//! - Collection takes objects, never records or listings; it leaves what is pinned and what a living process
//!   holds. An object may go at any other time: whoever needs it makes it again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

mod change;
mod checkout;
mod digest;
mod disk;
mod error;
mod gc;
mod holds;
mod leases;
mod listings;
mod objects;
mod pins;
mod process;
mod publish;
mod records;
mod remote;
mod renewal;
mod scratch;
mod source;
mod stat_index;
mod tree;
mod usage;
mod verify;

#[cfg(test)]
mod crowd;
#[cfg(test)]
mod model;
#[cfg(test)]
mod promises;

pub use change::{Change, difference};
pub use digest::{Digest, HashingWriter};
pub use error::{StoreError, full_disk_help};
pub use gc::{Collected, Collection, Kept, Share};
pub use holds::Pause;
pub use leases::{Holder, Lease};
pub use objects::{Damage, DamageKind};
pub use pins::Pin;
pub use process::{Liveness, ProcessIdentity};
pub use publish::list_tree;
pub use records::{Published, StoredRecord};
pub use remote::{Fetched, PushOrder, Pushed, Remote, RemoteAddress, RemoteMode};
pub use scratch::Scratch;
pub use source::{Rehash, SourceStats, SourceTree, hash_source};
pub use stat_index::{FileStat, IndexFailure, IndexWarning, SETTLED, StatIndex};
pub use tree::{PathFlaw, Tree, TreeEntry};
pub use usage::{Described, Group, Holding, Space, StoredObject, Usage};
pub use verify::{VerifyProgress, VerifyReport};

use error::AtPath;

/// The text that marks a cache folder (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder is a cache made by patchflow; it can be deleted and is left out of backups.\n";

/// The parts of the store that are folders under `v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Objects,
    Trees,
    Records,
    Items,
    Leases,
    Pins,
    Tmp,
    Work,
    Quarantine,
}

impl Area {
    const ALL: [Self; 9] = [
        Self::Objects,
        Self::Trees,
        Self::Records,
        Self::Items,
        Self::Leases,
        Self::Pins,
        Self::Tmp,
        Self::Work,
        Self::Quarantine,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Trees => "trees",
            Self::Records => "records",
            Self::Items => "items",
            Self::Leases => "leases",
            Self::Pins => "pins",
            Self::Tmp => "tmp",
            Self::Work => "work",
            Self::Quarantine => "quarantine",
        }
    }
}

/// A store in a folder; shared by threads, and the folder by processes.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    index: StatIndex,
    prepared: Mutex<bool>,
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
    holds: Mutex<Option<holds::Holds>>,
    remote: Option<Remote>,
    rules: leases::Rules,
    sights: Mutex<HashMap<PathBuf, leases::Sight>>,
}

impl Store {
    /// Uses the folder `root`, which need not exist yet; `index` remembers verified objects.
    pub fn open(root: PathBuf, index: StatIndex) -> Result<Self, StoreError> {
        match fs::metadata(&root) {
            Ok(metadata) if !metadata.is_dir() => return Err(StoreError::NotAFolder { path: root }),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Read { path: root, source });
            }
            _ => {}
        }
        let (prepared, trees, holds) = (Mutex::new(false), Mutex::default(), Mutex::default());
        let (rules, sights) = (leases::Rules::current(), Mutex::default());
        Ok(Self { root, index, prepared, trees, holds, remote: None, rules, sights })
    }

    /// The same with a remote.
    #[must_use]
    pub fn with_remote(self, remote: Option<Remote>) -> Self {
        Self { remote, ..self }
    }

    /// The remote, where there is one.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The stat cache, which hashing sources shares.
    pub fn index(&self) -> &StatIndex {
        &self.index
    }

    /// Makes a fresh folder on the store's file system, removed when dropped. `label` is for people.
    pub fn scratch(&self, label: &str) -> Result<Scratch, StoreError> {
        self.prepare()?;
        Scratch::create(&self.area(Area::Tmp), label)
    }

    /// The folder in which a resumable stage keeps its own files for `key`; such a stage makes it.
    pub fn work_folder(&self, key: &Digest) -> PathBuf {
        self.area(Area::Work).join(key.to_string())
    }

    /// Removes that folder, once the stage's result is published; nothing happens where there is none.
    pub fn remove_work(&self, key: &Digest) -> Result<(), StoreError> {
        let path = self.work_folder(key);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).writing(&path),
            _ => Ok(()),
        }
    }

    /// The folder of the pins, which garbage collection starts from; it may not exist yet.
    pub fn pins_folder(&self) -> PathBuf {
        self.area(Area::Pins)
    }

    fn area(&self, area: Area) -> PathBuf {
        self.root.join("v1").join(area.name())
    }

    /// Where a digest's file stands: two digits for the folder, the rest for the name.
    fn place(&self, area: Area, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.area(area).join(&name[..2]).join(&name[2..])
    }

    /// The files of an area whose names are digests, in order of name, and those whose names are not.
    fn listed(&self, area: Area) -> (Vec<(Digest, PathBuf)>, Vec<PathBuf>) {
        let (mut known, mut foreign) = (Vec::new(), Vec::new());
        let walk = walkdir::WalkDir::new(self.area(area)).min_depth(1).sort_by_file_name();
        for entry in walk.into_iter().flatten().filter(|entry| !entry.file_type().is_dir()) {
            let path = entry.into_path();
            match digest_of_place(&path).filter(|digest| self.place(area, digest) == path) {
                Some(digest) => known.push((digest, path)),
                None => foreign.push(path),
            }
        }
        (known, foreign)
    }

    /// Makes the folders and removes what dead processes left, once; called by whatever writes.
    fn prepare(&self) -> Result<(), StoreError> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if !*prepared {
            self.make_folders()?;
            scratch::remove_stale(&self.area(Area::Tmp));
            *prepared = true;
        }
        Ok(())
    }

    fn make_folders(&self) -> Result<(), StoreError> {
        for area in Area::ALL {
            let folder = self.area(area);
            fs::create_dir_all(&folder).writing(&folder)?;
        }
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            let mut file = File::create(&tag).writing(&tag)?;
            file.write_all(CACHE_TAG.as_bytes()).writing(&tag)?;
        }
        Ok(())
    }

    /// Moves a damaged file out of the way and tells whether that went well. `inode` is the one that was
    /// examined: if another process has put a good file there meanwhile, that one is put back.
    fn quarantine(&self, path: &Path, inode: u64) -> bool {
        use std::os::unix::fs::MetadataExt;
        let folder = self.area(Area::Quarantine);
        let label = digest_of_place(path).map_or("foreign".into(), |digest| digest.to_string());
        let away = folder.join(scratch::fresh_name(&label));
        if fs::create_dir_all(&folder).is_err() || disk::rename(path, &away).is_err() {
            return false;
        }
        if fs::symlink_metadata(&away).is_ok_and(|metadata| metadata.ino() != inode) {
            // Fails only where a third process has already put the same content there again.
            let _ = disk::hard_link(&away, path);
        }
        true
    }
}

fn digest_of_place(path: &Path) -> Option<Digest> {
    let shard = path.parent()?.file_name()?.to_str()?;
    format!("{shard}{}", path.file_name()?.to_str()?).parse().ok()
}

/// Makes the folder that a digest's file stands in.
fn make_shard(place: &Path) -> Result<(), StoreError> {
    let Some(shard) = place.parent() else { return Ok(()) };
    match fs::create_dir(shard) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(shard).writing(shard),
        outcome => outcome.writing(shard),
    }
}

/// Moves a synced file to its place and waits until the name is on disk.
fn rename_durably(from: &Path, place: &Path) -> Result<(), StoreError> {
    make_shard(place)?;
    disk::rename(from, place).writing(place)?;
    sync_folder_of(place)
}

fn sync_folder_of(place: &Path) -> Result<(), StoreError> {
    let Some(folder) = place.parent() else { return Ok(()) };
    disk::sync_folder(folder).writing(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store in a fresh folder.
    pub(crate) fn fresh() -> (tempfile::TempDir, Store) {
        in_folder(tempfile::tempdir().unwrap())
    }

    /// The same in memory where the system has such a file system, for tests that publish very often: a
    /// sync costs milliseconds on a busy disk.
    pub(crate) fn fresh_in_memory() -> (tempfile::TempDir, Store) {
        in_folder(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> (tempfile::TempDir, Store) {
        let store = Store::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
        (folder, store)
    }

    #[test]
    fn opening_and_reading_create_nothing() {
        let (folder, store) = fresh();
        let digest = Digest::of_bytes(b"x");
        let entry = TreeEntry { path: "a".into(), digest, size: 1, executable: false };
        let tree = Tree::new(vec![entry]).unwrap();
        assert!(store.tree(&digest).unwrap().is_none());
        assert!(store.record(&digest).unwrap().is_none());
        assert_eq!(store.records().count(), 0);
        assert_eq!(store.check(&tree).unwrap().len(), 1);
        assert_eq!(store.missing(&tree).unwrap(), [digest]);
        assert!(store.read(&digest).is_err() && store.holder(&digest).is_none());
        assert!(store.checkout(&tree, &folder.path().join("out")).is_err());
        assert_eq!(store.verify(&|_| ()).unwrap(), VerifyReport::default());
        store.remove_work(&digest).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_first_publication_makes_a_tagged_cache_folder() {
        let (_folder, store) = fresh();
        store.publish_bytes(b"x").unwrap();
        let tag = fs::read_to_string(store.root().join("CACHEDIR.TAG")).unwrap();
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
        assert!(store.pins_folder().is_dir());
    }

    #[test]
    fn a_file_is_not_a_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = Store::open(file.path().into(), StatIndex::in_memory());
        assert!(matches!(opened, Err(StoreError::NotAFolder { .. })));
    }

    #[test]
    fn what_a_killed_process_was_writing_goes_with_the_next_publication() {
        let (_folder, store) = fresh();
        let tmp = store.area(Area::Tmp);
        let mine = scratch::fresh_name("mine");
        let start = format!("~{}~", ProcessIdentity::current().process_start);
        fs::create_dir_all(tmp.join(mine.replace(&start, "~1~"))).unwrap();
        fs::create_dir_all(tmp.join(&mine)).unwrap();
        store.publish_bytes(b"x").unwrap();
        let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [std::ffi::OsString::from(mine)]);
    }

    #[test]
    fn a_work_folder_stays_until_it_is_removed() {
        let (_folder, store) = fresh();
        let key = Digest::of_bytes(b"key");
        let folder = store.work_folder(&key);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("state"), "1").unwrap();
        store.remove_work(&key).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_good_file_that_arrives_during_the_quarantine_is_put_back() {
        let (_folder, store) = fresh();
        let digest = store.publish_bytes(b"good").unwrap();
        assert!(store.quarantine(&store.object_path(&digest), 0), "the examined inode was another");
        assert_eq!(store.read(&digest).unwrap(), b"good");
    }
}
