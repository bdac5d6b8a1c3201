//! The calls by which the store changes the disk, collected so that tests can end a process before any of
//! them, as a kill would: see [`crash`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Creates a file; fails if it exists.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    step(path)?;
    File::create_new(path)
}

/// Writes all of `bytes`; a process that is killed here leaves half of them.
pub(super) fn write_all(file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    step(path).inspect_err(|_| tear(file, bytes))?;
    file.write_all(bytes)
}

/// Waits until a file's content is on disk.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    step(path)?;
    file.sync_data()?;
    observe(&Change::ContentSynced(path));
    Ok(())
}

/// Waits until the names in a folder are on disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    step(folder)?;
    File::open(folder)?.sync_all()?;
    observe(&Change::NamesSynced(folder));
    Ok(())
}

/// Creates a folder in one that exists.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    observe(&Change::Named { from: None, to: path });
    fs::create_dir(path)
}

/// Copies a file.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    step(to)?;
    fs::copy(from, to).map(|_| ())
}

/// Renames a file, over any other of that name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step(to)?;
    observe(&Change::Named { from: Some(from), to });
    observe(&Change::Removed(from));
    fs::rename(from, to)
}

/// Gives a file a second name; fails if that name is taken.
pub(super) fn hard_link(from: &Path, to: &Path) -> io::Result<()> {
    step(to)?;
    fs::hard_link(from, to)?;
    observe(&Change::Named { from: Some(from), to });
    Ok(())
}

/// Removes a file.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    step(path)?;
    observe(&Change::Removed(path));
    fs::remove_file(path)
}

/// A change that a power cut can take, or the end of that. Only tests look at it.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look at it"))]
pub(super) enum Change<'a> {
    /// The content of a file is on disk.
    ContentSynced(&'a Path),
    /// The names in a folder are on disk.
    NamesSynced(&'a Path),
    /// A folder is about to appear, or the file `from` has the name `to` or is about to get it.
    Named { from: Option<&'a Path>, to: &'a Path },
    /// A name is about to go.
    Removed(&'a Path),
}

#[cfg(not(test))]
#[inline]
fn observe(_change: &Change<'_>) {}

#[cfg(test)]
use power::observe;

/// A step before which a test can kill the process.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
#[inline]
pub(super) fn step(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use crash::step;

/// Performs the part of a killed write that reached the file.
#[cfg(not(test))]
#[inline]
fn tear(_file: &mut File, _bytes: &[u8]) {}

#[cfg(test)]
fn tear(file: &mut File, bytes: &[u8]) {
    let _ = file.write_all(&bytes[..bytes.len() / 2]);
}

/// Whether the process that `path` belongs to was killed: then nothing cleans up after it.
#[cfg(not(test))]
#[inline]
pub(super) fn is_killed(_path: &Path) -> bool {
    false
}

#[cfg(test)]
pub(super) use crash::is_killed;

#[cfg(test)]
pub(super) mod power;

#[cfg(test)]
pub(super) mod crash {
    //! A kill at a chosen step, within the test's own process: from that step on every change below a
    //! store's root fails, and nothing is cleaned up. What was written before stays, as it does in the
    //! page cache after `kill -9`. A power cut can lose more: see [`super::power`].

    use std::collections::BTreeMap;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// The remaining steps of each root; a root is killed at zero.
    static LEFT: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

    fn left() -> MutexGuard<'static, BTreeMap<PathBuf, u64>> {
        LEFT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills everything below `root` before step number `steps`, counted from 0.
    pub(in crate::cache::local) fn kill_after(root: &Path, steps: u64) {
        left().insert(root.to_owned(), steps);
    }

    /// Ends the simulation; returns whether the kill happened.
    pub(in crate::cache::local) fn revive(root: &Path) -> bool {
        left().remove(root) == Some(0)
    }

    pub(in crate::cache::local) fn step(path: &Path) -> io::Result<()> {
        for (_, left) in left().iter_mut().filter(|(root, _)| path.starts_with(root)) {
            if *left == 0 {
                return Err(io::Error::other("killed"));
            }
            *left -= 1;
        }
        Ok(())
    }

    pub(in crate::cache::local) fn is_killed(path: &Path) -> bool {
        left().iter().any(|(root, left)| *left == 0 && path.starts_with(root))
    }
}
