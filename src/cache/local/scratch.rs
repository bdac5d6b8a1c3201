//! Files and folders being written in `v1/tmp`, and the removal of leftovers of dead processes.
//!
//! A name in `v1/tmp` is `<label>~<host>~<boot id>~<namespace>~<pid>~<process start>~<number>`. Leftovers
//! of a process of this host, boot and container are removed as soon as that process has ended. The state of
//! other processes is unknown, so their leftovers are removed after [`FOREIGN_AGE`].

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::barrier::Durability;
use crate::cache::local::disk;
use crate::cache::local::leases::process::{Liveness, ProcessIdentity};

/// Age after which a leftover of an unknown process is removed (chosen: longer than any single task).
pub(super) const FOREIGN_AGE: Duration = Duration::from_hours(7 * 24);

/// A fresh folder that is removed with its content when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates a folder in `parent`, which exists.
    pub(super) fn create(parent: &Path, label: &str) -> Result<Self, CacheError> {
        let path = parent.join(fresh_name(label));
        fs::create_dir(&path).writing(&path)?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // On failure the next process that publishes removes it.
        if !disk::is_killed(&self.path) {
            let _ = remove(&self.path);
        }
    }
}

/// Removes scratch folders, for a thread that nothing waits for: a file system that discards freed blocks at once waits
/// for the device at each folder that goes. Each one moves into a folder of the remover's own first, because its parent
/// is locked meanwhile, and others create files there.
#[derive(Debug)]
pub struct Remover {
    folder: Scratch,
    removed: u64,
}

impl Remover {
    /// Creates the remover's folder in `parent`, which exists.
    pub(super) fn create(parent: &Path) -> Result<Self, CacheError> {
        Ok(Self { folder: Scratch::create(parent, "removed")?, removed: 0 })
    }

    /// Removes a folder with its content. What cannot be removed is left to the next process that publishes.
    #[expect(clippy::needless_pass_by_value, reason = "nobody may use the folder afterwards")]
    pub fn remove(&mut self, scratch: Scratch) {
        self.removed += 1;
        let going = self.folder.path().join(self.removed.to_string());
        if fs::rename(scratch.path(), &going).is_ok() {
            let _ = remove(&going);
        }
    }
}

/// A file in `v1/tmp` that is removed when dropped, unless it was moved away.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// Writes `content`; waits until it is on disk if it must be durable at once.
    pub(super) fn write(
        parent: &Path,
        content: &[&[u8]],
        durability: Durability,
    ) -> Result<Self, CacheError> {
        let temporary = Self::reserve(parent);
        let path = &temporary.path;
        let mut file = disk::create_new(path).writing(path)?;
        for part in content {
            disk::write_all(&mut file, path, part).writing(path)?;
        }
        if durability == Durability::Immediate {
            disk::sync_data(&file, path).writing(path)?;
        }
        Ok(temporary)
    }

    /// Reserves a unique name; creates nothing.
    pub(super) fn reserve(parent: &Path) -> Self {
        Self { path: parent.join(fresh_name("file")) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Usually it was renamed away and there is nothing to remove.
        if !disk::is_killed(&self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file name that no other process and no other call uses, starting with `label`.
pub(super) fn fresh_name(label: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let ProcessIdentity { host, boot_id, namespace, pid, process_start } = ProcessIdentity::current();
    let label: String = plain(label).chars().take(40).collect();
    let (host, namespace) = (plain(host), plain(namespace));
    format!("{label}~{host}~{boot_id}~{namespace}~{pid}~{process_start}~{number}")
}

/// Keeps letters, digits, `-` and `_`.
fn plain(text: &str) -> String {
    let keep =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '-' };
    text.chars().map(keep).collect()
}

/// The leftovers of dead processes in `folder`.
pub(super) fn stale(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let is_stale = |entry: &fs::DirEntry| match owner(&entry.file_name().to_string_lossy()) {
        Some(Liveness::Alive) => false,
        Some(Liveness::Dead) => true,
        Some(Liveness::Unknown) | None => entry.metadata().is_ok_and(|metadata| is_old(&metadata)),
    };
    entries.flatten().filter(is_stale).map(|entry| entry.path()).collect()
}

/// Removes the leftovers of dead processes in `folder`; ignores failures.
pub(super) fn remove_stale(folder: &Path) {
    for path in stale(folder) {
        let _ = remove(&path);
    }
}

/// Whether the process that made a name still lives; `None` for a name of another form.
pub(super) fn owner(name: &str) -> Option<Liveness> {
    let parts: Vec<&str> = name.split('~').collect();
    let &[_, host, boot_id, namespace, pid, start, _] = parts.as_slice() else { return None };
    let here = ProcessIdentity::current();
    if host != plain(&here.host) || namespace != plain(&here.namespace) {
        return Some(Liveness::Unknown);
    }
    let identity = ProcessIdentity {
        boot_id: boot_id.into(),
        pid: pid.parse().ok()?,
        process_start: start.parse().ok()?,
        ..here.clone()
    };
    Some(identity.liveness())
}

pub(super) fn is_old(metadata: &fs::Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age > FOREIGN_AGE)
}

/// Removes a file or a folder, also one whose folders a program made read-only.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    fs::remove_dir_all(path).or_else(|_| {
        for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
            if entry.file_type().is_dir() {
                let _ = fs::set_permissions(entry.path(), Permissions::from_mode(0o700));
            }
        }
        fs::remove_dir_all(path)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_scratch_folder_is_fresh_and_goes_with_its_content() {
        let parent = tempfile::tempdir().unwrap();
        let first = Scratch::create(parent.path(), "extract/../x").unwrap();
        let second = Scratch::create(parent.path(), "extract/../x").unwrap();
        assert_ne!(first.path(), second.path());
        assert_eq!(first.path().parent(), Some(parent.path()));
        fs::create_dir(first.path().join("closed")).unwrap();
        fs::write(first.path().join("closed/file"), "x").unwrap();
        fs::set_permissions(first.path().join("closed"), Permissions::from_mode(0o500)).unwrap();
        let gone = first.path().to_path_buf();
        drop(first);
        assert!(!gone.exists() && second.path().exists());
    }

    #[test]
    fn a_remover_removes_scratch_folders_and_then_its_own() {
        let parent = tempfile::tempdir().unwrap();
        let mut remover = Remover::create(parent.path()).unwrap();
        for _ in 0..3 {
            let scratch = Scratch::create(parent.path(), "x").unwrap();
            fs::create_dir_all(scratch.path().join("a/b")).unwrap();
            fs::write(scratch.path().join("a/b/file"), "x").unwrap();
            remover.remove(scratch);
            assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
            assert_eq!(fs::read_dir(remover.folder.path()).unwrap().count(), 0);
        }
        drop(remover);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_of_dead_processes_go_and_all_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let mine = fresh_name("alive");
        let here = ProcessIdentity::current();
        let start = format!("~{}~", here.process_start);
        let dead = mine.replace(&start, "~1~").replace("alive", "dead");
        let other_boot = mine.replace(&here.boot_id, "other").replace("alive", "boot");
        for name in [&mine, &dead, &other_boot, &"foreign".to_owned(), &format!("{other_boot}9")] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join("file"), "x").unwrap();
        }
        let old = SystemTime::now() - FOREIGN_AGE - Duration::from_mins(1);
        let aged = File::open(parent.path().join(format!("{other_boot}9"))).unwrap();
        aged.set_modified(old).unwrap();
        remove_stale(parent.path());
        let mut left: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected = [mine.as_str(), &other_boot, "foreign"].map(std::ffi::OsString::from);
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_temporary_file_goes_unless_it_was_moved() {
        let parent = tempfile::tempdir().unwrap();
        let temporary = Temporary::write(parent.path(), &[b"a", b"b"], Durability::Immediate).unwrap();
        fs::rename(temporary.path(), parent.path().join("kept")).unwrap();
        let dropped = Temporary::write(parent.path(), &[b"c"], Durability::Grouped).unwrap();
        drop((temporary, dropped));
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [parent.path().join("kept")]);
        assert_eq!(fs::read(&left[0]).unwrap(), b"ab");
    }
}
