//! The local content-addressed store, behind [`super::Cache`]. It knows no network.
//!
//! ```text
//! <root>/CACHEDIR.TAG              backup programs skip the folder
//! <root>/v1/objects/ab/cdef…       blobs, read-only, named by the blake3 of their content
//! <root>/v1/trees/ab/cdef…         trees, named by digest; they stay when objects are evicted
//! <root>/v1/records/ab/cdef…       key -> what it produced, with a checksum
//! <root>/v1/items/ab/cdef…         per-image records: the same for single items of a task
//! <root>/v1/leases/abcdef…         work in flight: a locked file that says who holds it
//! <root>/v1/leases/run~…           what a running process uses, one key a line
//! <root>/v1/pins/                  roots for garbage collection
//! <root>/v1/tmp/                   being written; leftovers of dead processes are removed
//! <root>/v1/work/abcdef…/          a resumable stage's own files, by key
//! <root>/v1/quarantine/            files whose content did not match their name
//! ```
//! `v1` is the version of the layout; folders of other versions are not touched.
//!
//! # Guarantees
//! - Opening and reading create nothing; the folders appear with the first publication.
//! - A name in `objects`, `trees` or `records` appears only once its content is complete (written elsewhere,
//!   then renamed), in this order: objects, then tree, then record. A kill leaves leftovers in `tmp`. A power
//!   cut may also lose names and contents since the last barrier ([`barrier`]), which are misses.
//! - Everything read is verified: objects against the stat under which they were last verified, else
//!   against their digest; trees against their digest and records against their checksum. A mismatch is a
//!   miss.
//! - The first record of a key wins; later publishers receive it.
//! - Collection removes objects, never records or trees. It keeps what is pinned and what a living process
//!   holds. Any other object may be removed at any time: a task that needs it makes it again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::tree::Tree;
use crate::digest::Digest;
use barrier::{Durability, Unsynced};
use leases::{LeaseObservation, LeaseRules, holds::Holds};
use scratch::{Remover, Scratch, Temporary};
use stat_index::StatIndex;

mod barrier;
pub(in crate::cache) mod collection;
mod disk;
pub(in crate::cache) mod leases;
pub(in crate::cache) mod objects;
pub(in crate::cache) mod records;
pub(in crate::cache) mod scratch;
pub(in crate::cache) mod source;
pub(in crate::cache) mod stat_index;
mod trees;

#[cfg(test)]
pub(in crate::cache) mod tests;

/// The text that marks a cache folder (<https://bford.info/cachedir/>).
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This folder is a cache made by patchflow; it can be deleted and is left out of backups.\n";

/// The parts of the store that are folders under `v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cache) enum Area {
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
pub(in crate::cache) struct Store {
    root: PathBuf,
    index: StatIndex,
    prepared: Mutex<bool>,
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
    holds: Mutex<Option<Holds>>,
    lease_rules: LeaseRules,
    observations: Mutex<HashMap<PathBuf, LeaseObservation>>,
    durability: OnceLock<Durability>,
    unsynced: Unsynced,
    object_mode: OnceLock<u32>,
}

impl Store {
    /// Uses the folder `root`, which need not exist yet; `index` remembers verified objects.
    pub(in crate::cache) fn open(root: PathBuf, index: StatIndex) -> Result<Self, CacheError> {
        match fs::metadata(&root) {
            Ok(metadata) if !metadata.is_dir() => return Err(CacheError::NotAFolder { path: root }),
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CacheError::Read { path: root, source });
            }
            _ => {}
        }
        Ok(Self {
            root,
            index,
            prepared: Mutex::new(false),
            trees: Mutex::default(),
            holds: Mutex::default(),
            lease_rules: LeaseRules::default(),
            observations: Mutex::default(),
            durability: OnceLock::new(),
            unsynced: Unsynced::default(),
            object_mode: OnceLock::new(),
        })
    }

    /// Replaces the rules by which leases are kept apart.
    #[must_use]
    pub(in crate::cache) fn with_lease_rules(self, lease_rules: LeaseRules) -> Self {
        Self { lease_rules, ..self }
    }

    /// The folder of the store.
    pub(in crate::cache) fn root(&self) -> &Path {
        &self.root
    }

    /// The stat index, which hashing sources shares.
    pub(in crate::cache) fn index(&self) -> &StatIndex {
        &self.index
    }

    /// When what is published here reaches the disk.
    fn durability(&self) -> Durability {
        if let Some(known) = self.durability.get() {
            return *known;
        }
        // A folder that does not exist yet has no file system.
        Durability::of(&self.root)
            .map_or(Durability::Immediate, |found| *self.durability.get_or_init(|| found))
    }

    /// The mode of objects: read-only, for those who may read a new file by the umask, or by the folder's default access
    /// list. What the program that made a file allowed does not count: some write everything for their user alone.
    fn object_mode(&self) -> u32 {
        *self.object_mode.get_or_init(|| {
            let probe = Temporary::write(&self.area(Area::Tmp), &[], Durability::Grouped);
            let metadata = probe.and_then(|probe| fs::metadata(probe.path()).reading(probe.path()));
            metadata.map_or(0o444, |metadata| metadata.mode() & 0o444 | 0o400)
        })
    }

    /// Creates a fresh folder on the store's file system, removed when dropped. `label` is for people.
    pub(in crate::cache) fn scratch(&self, label: &str) -> Result<Scratch, CacheError> {
        self.prepare()?;
        Scratch::create(&self.area(Area::Tmp), label)
    }

    /// What removes scratch folders in the background.
    pub(in crate::cache) fn remover(&self) -> Result<Remover, CacheError> {
        self.prepare()?;
        Remover::create(&self.area(Area::Tmp))
    }

    /// The folder in which a resumable stage keeps its own files for `key`; the stage creates it.
    pub(in crate::cache) fn work_folder(&self, key: &Digest) -> PathBuf {
        self.area(Area::Work).join(key.to_string())
    }

    pub(in crate::cache) fn area(&self, area: Area) -> PathBuf {
        self.root.join("v1").join(area.name())
    }

    /// The path of a digest's file: two digits name the folder, the rest the file.
    pub(in crate::cache) fn path(&self, area: Area, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.area(area).join(&name[..2]).join(&name[2..])
    }

    /// The files of an area: those named by digests, in order of name, and all others.
    fn listed(&self, area: Area) -> (Vec<(Digest, PathBuf)>, Vec<PathBuf>) {
        let (mut known, mut foreign) = (Vec::new(), Vec::new());
        let walk = walkdir::WalkDir::new(self.area(area)).min_depth(1).sort_by_file_name();
        for entry in walk.into_iter().flatten().filter(|entry| !entry.file_type().is_dir()) {
            let path = entry.into_path();
            match digest_of_path(&path).filter(|digest| self.path(area, digest) == path) {
                Some(digest) => known.push((digest, path)),
                None => foreign.push(path),
            }
        }
        (known, foreign)
    }

    /// Creates the folders and removes leftovers of dead processes, once, and again if someone deletes the cache; called
    /// before every write.
    fn prepare(&self) -> Result<(), CacheError> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |area| self.area(area).exists();
        if !*prepared || !is_there(Area::Tmp) || !is_there(Area::Leases) {
            self.make_folders()?;
            scratch::remove_stale(&self.area(Area::Tmp));
            self.remove_dead_leases();
            *prepared = true;
        }
        Ok(())
    }

    fn make_folders(&self) -> Result<(), CacheError> {
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

    /// Moves a damaged file to the quarantine; returns whether that succeeded. `inode` is that of the file that
    /// was examined: a sound file that another process has published there meanwhile is restored.
    fn quarantine(&self, path: &Path, inode: u64) -> bool {
        let folder = self.area(Area::Quarantine);
        let label = digest_of_path(path).map_or("foreign".into(), |digest| digest.to_string());
        let away = folder.join(scratch::fresh_name(&label));
        if fs::create_dir_all(&folder).is_err() || disk::rename(path, &away).is_err() {
            return false;
        }
        if fs::symlink_metadata(&away).is_ok_and(|metadata| metadata.ino() != inode) {
            // Fails only if a third process has already published the same content again.
            let _ = disk::hard_link(&away, path);
        }
        true
    }
}

fn digest_of_path(path: &Path) -> Option<Digest> {
    let shard = path.parent()?.file_name()?.to_str()?;
    format!("{shard}{}", path.file_name()?.to_str()?).parse().ok()
}

/// Creates the folder of a digest's file.
fn make_shard(path: &Path) -> Result<(), CacheError> {
    let Some(shard) = path.parent() else { return Ok(()) };
    match disk::create_folder(shard) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(shard).writing(shard),
        outcome => outcome.writing(shard),
    }
}

/// Removes a folder with its content; succeeds if there is none.
pub(in crate::cache) fn remove_folder(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).writing(path),
        _ => Ok(()),
    }
}
