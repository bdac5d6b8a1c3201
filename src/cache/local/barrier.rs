//! Durability in groups: what was published is visible at once and synced later, many files together.
//!
//! # The rule
//! On a file system of this machine (ext4, XFS, Btrfs and the like) nothing on the way of a task waits for the disk. A
//! process that is killed loses nothing by that: the kernel has its writes. A power cut, or a crash of the kernel, takes
//! any subset of what was written since the last *barrier* ([`Store::flush`]): names, and contents, which may be cut,
//! empty or zeros. None of it is believed afterwards:
//!
//! | what | how its damage is noticed |
//! |---|---|
//! | a record, a per-image record, a tree | by its checksum or digest, at every reading; it is a miss |
//! | an object | by its digest: the stat cache trusts what is not known to be on disk in no later boot, so it is hashed |
//! | a name | it is absent: a record without its tree is a miss, and an object that is absent is made again when it is read |
//! | a pin | it is synced at once: it cannot be made again |
//!
//! So a power cut costs work that is done again, and never a wrong byte.
//!
//! On any other file system (NFS, SMB, FUSE, Lustre, Ceph) each file is synced before it gets its name, as the close of a
//! file does there anyway: other machines see it, whose boots say nothing about the server's, and a full quota may be
//! reported only by the sync.
//!
//! # What syncing costs
//! 600 files of 100,000 bytes on ext4 (virtio disk, 2 cores, 2026-11-24), milliseconds:
//!
//! | `fdatasync` from | 1 thread | 2 | 4 | 8 | 16 | `syncfs` |
//! |---|---|---|---|---|---|---|
//! | quiet disk | 137-194 | 102-122 | 74-84 | 64-67 | 53-56 | 38-77 |
//! | a neighbour writes 3 GB | 170-243 | 120-170 | 95-121 | 72-88 | 62-75 | 200-401 |
//!
//! Threads that wait together share the journal's commits. `syncfs` is quickest on a quiet disk, but it
//! waits for everyone's unwritten data, gigabytes where a data set is being unpacked next door. So each
//! file is synced by itself from [`SYNC_THREADS`] threads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::stat_index::FileStat;
use crate::cache::local::{Area, Store, disk};
use crate::digest::Digest;

/// Threads that wait for the disk; they share the journal's commits (see the numbers above).
const SYNC_THREADS: usize = 8;

/// Time after which another machine has written a file to its disk (Linux does so after 35 s).
const WRITTEN_BACK: Duration = Duration::from_mins(2);

/// When what is published reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cache::local) enum Durability {
    /// With the next barrier.
    Grouped,
    /// Before it gets its name.
    Immediate,
}

impl Durability {
    /// What the file system of a folder calls for; `None` if there is no such folder.
    #[cfg(target_os = "linux")]
    pub(in crate::cache::local) fn of(folder: &Path) -> Option<Self> {
        // Numbers of linux/magic.h and of ZFS: ext2 to ext4, XFS, Btrfs, F2FS, bcachefs, ZFS, tmpfs, overlayfs.
        const OF_THIS_MACHINE: [u32; 8] = [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0xf2f5_2010,
            0xca45_1a4e,
            0x2fc1_2fc1,
            0x0102_1994,
            0x794c_7630,
        ];
        let kind = rustix::fs::statfs(folder).ok()?.f_type as u32;
        Some(if OF_THIS_MACHINE.contains(&kind) { Self::Grouped } else { Self::Immediate })
    }

    #[cfg(not(target_os = "linux"))]
    pub(in crate::cache::local) fn of(_: &Path) -> Option<Self> {
        Some(Self::Immediate)
    }
}

/// What was published since the last barrier.
#[derive(Debug, Default)]
pub(in crate::cache::local) struct Unsynced {
    files: Mutex<BTreeSet<(Area, Digest)>>,
    /// Held by the thread that syncs.
    turn: Mutex<()>,
    failure: Mutex<Option<CacheError>>,
}

impl Unsynced {
    fn files(&self) -> MutexGuard<'_, BTreeSet<(Area, Digest)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Called when a file has got its name: makes the name durable, now or with the next barrier.
    pub(in crate::cache::local) fn named(&self, area: Area, digest: &Digest) -> Result<(), CacheError> {
        match self.durability() {
            // The name of an object that is lost is one that was evicted.
            Durability::Immediate if area == Area::Objects => Ok(()),
            Durability::Immediate => {
                let path = self.path(area, digest);
                sync_folder_of(&path)?;
                // The folder itself may be new.
                path.parent().map_or(Ok(()), sync_folder_of)
            }
            Durability::Grouped => {
                self.relied_on(area, digest);
                Ok(())
            }
        }
    }

    /// Called when a publication needs a file that is there already: another process may have written it, and not synced
    /// it yet.
    pub(in crate::cache::local) fn relied_on(&self, area: Area, digest: &Digest) {
        if self.durability() == Durability::Grouped {
            self.unsynced.files().insert((area, *digest));
        }
    }

    /// The barrier: waits until all that was published through this store is on disk. Costs nothing if there is nothing
    /// new. What is removed meanwhile is left out.
    ///
    /// # Errors
    /// [`CacheError::Write`] if the disk refuses; what is not known to be on disk is then hashed before it is used again.
    pub(in crate::cache) fn flush(&self) -> Result<(), CacheError> {
        let _turn = self.unsynced.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let files: Vec<(Area, Digest)> = std::mem::take(&mut *self.unsynced.files()).into_iter().collect();
        let synced = on_waiting_threads(&files, |(area, digest)| sync_file(&self.path(*area, digest)));
        let mut objects = Vec::new();
        let (mut refused, mut first) = (Vec::new(), Ok(()));
        for ((area, digest), outcome) in files.iter().zip(synced) {
            match outcome {
                Ok(stat) => {
                    objects.extend(stat.filter(|_| *area == Area::Objects).map(|stat| (stat, *digest)));
                }
                Err((stat, error)) => {
                    refused.extend(stat.map(|stat| (stat, *digest)));
                    first = first.and(Err(error));
                }
            }
        }
        // The kernel drops what it could not write: the file may read differently from now on.
        self.index.mistrust(&refused);
        first?;
        self.sync_folders(&files)?;
        self.index.confirm(&objects);
        if !files.is_empty() {
            self.index.checkpoint();
        }
        Ok(())
    }

    /// As [`Self::flush`]; an error waits for [`Self::take_flush_error`].
    pub(in crate::cache) fn flush_or_note(&self) {
        if let Err(error) = self.flush() {
            self.unsynced.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// The first error of [`Self::flush_or_note`], once.
    pub(in crate::cache) fn take_flush_error(&self) -> Option<CacheError> {
        self.unsynced.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The time before which a file that is hashed must have been changed last to be trusted later. `began` is the start
    /// of the hashing. Where other machines write, what they have written lately may be lost with the server.
    pub(in crate::cache::local) fn trusted_from(&self, began: SystemTime) -> SystemTime {
        match self.durability() {
            Durability::Grouped => began,
            Durability::Immediate => began.checked_sub(WRITTEN_BACK).unwrap_or(SystemTime::UNIX_EPOCH),
        }
    }

    /// Syncs the folders of files, and those above them up to the root.
    fn sync_folders(&self, files: &[(Area, Digest)]) -> Result<(), CacheError> {
        let mut folders = BTreeSet::new();
        for (area, digest) in files {
            let path = self.path(*area, digest);
            let above = path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.root));
            folders.extend(above.map(Path::to_owned));
        }
        let folders: Vec<PathBuf> = folders.into_iter().collect();
        let synced = on_waiting_threads(&folders, |folder| match disk::sync_folder(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.writing(folder),
        });
        synced.into_iter().collect()
    }
}

/// Waits until the content of a file is on disk; its stat, or `None` if it is absent. An error comes with the stat of the
/// file that could not be written.
fn sync_file(path: &Path) -> Result<Option<FileStat>, (Option<FileStat>, CacheError)> {
    let failed = |stat| move |source| (stat, CacheError::Write { path: path.to_owned(), source });
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed(None))?,
    };
    let stat = FileStat::of(&file.metadata().map_err(failed(None))?);
    disk::sync_data(&file, path).map_err(failed(Some(stat)))?;
    Ok(Some(stat))
}

/// Renames a synced file and waits until its new name is on disk.
pub(in crate::cache::local) fn rename_durably(from: &Path, to: &Path) -> Result<(), CacheError> {
    disk::rename(from, to).writing(to)?;
    sync_folder_of(to)
}

fn sync_folder_of(path: &Path) -> Result<(), CacheError> {
    let Some(folder) = path.parent() else { return Ok(()) };
    disk::sync_folder(folder).writing(folder)
}

/// Maps items on a few threads of their own: these wait for the disk, and rayon's are few. The results are in the order
/// of the items.
pub(in crate::cache::local) fn on_waiting_threads<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    let chunk_length = items.len().div_ceil(SYNC_THREADS);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(chunk_length)
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Vec<_>>()))
            .collect();
        let results = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::local::disk::{crash, power};
    use crate::cache::local::tests::fresh;

    #[test]
    fn a_barrier_makes_everything_durable_that_was_published_before_it() {
        let (_folder, store) = fresh();
        power::watch(store.root());
        let object = store.publish_bytes(b"content").unwrap();
        let tree = store.put_tree(&crate::cache::Tree::default()).unwrap();
        store.publish_record(&object, b"record").unwrap();
        store.put_item(&object, b"item").unwrap();
        let of = |area, digest: &Digest| store.path(area, digest);
        let published =
            [(Area::Objects, object), (Area::Trees, tree), (Area::Records, object), (Area::Items, object)];
        let paths = published.map(|(area, digest)| of(area, &digest));
        assert!(
            paths.iter().all(|path| power::is_at_risk(store.root(), path)),
            "nothing waited for the disk"
        );
        store.flush().unwrap();
        assert!(paths.iter().all(|path| !power::is_at_risk(store.root(), path)));
        std::fs::remove_file(&paths[0]).unwrap();
        store.publish_bytes(b"content").unwrap();
        std::fs::remove_dir_all(store.root()).unwrap();
        store.flush().expect("what was deleted need not be synced");
    }

    #[test]
    fn where_other_machines_write_contents_are_on_disk_before_they_have_names() {
        let folder = tempfile::tempdir().unwrap();
        let boot = |name: &str| {
            let boot = crate::cache::local::stat_index::Boot::named(name, SystemTime::UNIX_EPOCH);
            crate::cache::StatIndex::in_boot(folder.path().join("stat.sqlite"), boot)
        };
        let store = Store::open(folder.path().join("cache"), boot("first")).unwrap();
        store.durability.set(Durability::Immediate).unwrap();
        power::watch(store.root());
        let object = store.publish_bytes(b"content").unwrap();
        let tree = store.put_tree(&crate::cache::Tree::default()).unwrap();
        store.publish_record(&object, b"record").unwrap();
        store.put_item(&object, b"item").unwrap();
        let cut = power::cut(store.root(), &mut |_| 0);
        assert!(cut.rewritten.is_empty());
        let names = [(Area::Trees, tree), (Area::Records, object), (Area::Items, object)];
        assert!(names.iter().all(|(area, digest)| store.path(*area, digest).exists()));
        assert!(!store.object_path(&object).exists(), "it counts as evicted");
        let again = store.publish_bytes(b"content").unwrap();
        let stat = FileStat::of(&std::fs::metadata(store.object_path(&again)).unwrap());
        assert_eq!(boot("second").lookup(&[stat]), [Some(again)], "it is on disk");
    }

    #[test]
    fn what_cannot_be_synced_is_said_and_hashed_before_it_is_used_again() {
        let (_folder, store) = fresh();
        let object = store.publish_bytes(b"content").unwrap();
        let stat = FileStat::of(&std::fs::metadata(store.object_path(&object)).unwrap());
        assert_eq!(store.index().lookup(&[stat]), [Some(object)]);
        crash::kill_after(store.root(), 0);
        assert!(matches!(store.flush(), Err(CacheError::Write { .. })));
        crash::revive(store.root());
        assert_eq!(store.index().lookup(&[stat]), [None]);
        store.publish_bytes(b"other").unwrap();
        crash::kill_after(store.root(), 0);
        store.flush_or_note();
        crash::revive(store.root());
        assert!(store.take_flush_error().is_some() && store.take_flush_error().is_none());
    }

    #[test]
    fn waiting_threads_keep_the_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(
            on_waiting_threads(&items, |item| item * 2),
            items.iter().map(|item| item * 2).collect::<Vec<_>>()
        );
    }
}
