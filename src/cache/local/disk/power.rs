//! A power cut within the test's own process: what a store published since its last sync is lost in part.
//!
//! Each root that is watched has the names that are not known to be on disk, with what stood there before, and the files
//! whose contents are not. A cut takes any of them, in any order, as file systems do that write names before contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Change;
use crate::cache::local::stat_index::FileStat;

/// The folders whose files are published.
const PUBLISHED: [&str; 4] = ["v1/objects", "v1/trees", "v1/records", "v1/items"];

#[derive(Default)]
struct Unsynced {
    /// Names, with the content that stood there before; `None` for an absent file and for a folder.
    names: BTreeMap<PathBuf, Option<Vec<u8>>>,
    /// Files whose contents may be lost.
    contents: BTreeSet<PathBuf>,
    /// Files without a published name whose contents are on disk.
    synced: BTreeSet<PathBuf>,
}

/// What a cut did.
#[derive(Default)]
pub(in crate::cache::local) struct Cut {
    /// Names that went or came back, and files that have another content.
    pub(in crate::cache::local) changed: BTreeSet<PathBuf>,
    /// The files whose content changed in their place: their stats before and after.
    pub(in crate::cache::local) rewritten: Vec<(FileStat, FileStat)>,
}

static WATCHED: Mutex<BTreeMap<PathBuf, Unsynced>> = Mutex::new(BTreeMap::new());

fn watched() -> MutexGuard<'static, BTreeMap<PathBuf, Unsynced>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to record what a store below `root` publishes.
pub(in crate::cache::local) fn watch(root: &Path) {
    watched().insert(root.to_owned(), Unsynced::default());
}

/// Whether a cut could take the name or the content of a file now.
pub(in crate::cache::local) fn is_at_risk(root: &Path, path: &Path) -> bool {
    let watched = watched();
    let unsynced = &watched[root];
    unsynced.contents.contains(path) || path.ancestors().any(|above| unsynced.names.contains_key(above))
}

pub(in crate::cache::local) fn observe(change: &Change<'_>) {
    let mut watched = watched();
    let path = match *change {
        Change::ContentSynced(path) | Change::NamesSynced(path) | Change::Removed(path) => path,
        Change::Named { to, .. } => to,
    };
    let Some((root, unsynced)) = watched.iter_mut().find(|(root, _)| path.starts_with(root)) else { return };
    let is_published = |path: &Path| {
        PUBLISHED.iter().any(|area| path.starts_with(root.join(area)) && path != root.join(area))
    };
    match *change {
        Change::ContentSynced(path) => {
            unsynced.contents.remove(path);
            unsynced.synced.insert(path.to_owned());
        }
        Change::NamesSynced(folder) => unsynced.names.retain(|name, _| name.parent() != Some(folder)),
        Change::Named { from: None, to } => {
            if !to.exists() {
                unsynced.names.entry(to.to_owned()).or_insert(None);
            }
        }
        Change::Named { from: Some(from), to } if is_published(to) => {
            // After a link the file is there already: there was none before.
            let before = if is_linked(from, to) { None } else { fs::read(to).ok() };
            unsynced.names.entry(to.to_owned()).or_insert(before);
            if unsynced.synced.contains(from) {
                unsynced.contents.remove(to);
            } else {
                unsynced.contents.insert(to.to_owned());
            }
        }
        Change::Removed(path) if is_published(path) => {
            let before = fs::read(path).ok();
            unsynced.names.entry(path.to_owned()).or_insert(before);
            unsynced.contents.remove(path);
        }
        Change::Named { .. } | Change::Removed(_) => {}
    }
}

fn is_linked(from: &Path, to: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| fs::metadata(path).map(|metadata| metadata.ino()).ok();
    inode(from).is_some() && inode(from) == inode(to)
}

/// Cuts the power: `below` draws a number below its argument. What is left is on disk.
pub(in crate::cache::local) fn cut(root: &Path, below: &mut dyn FnMut(usize) -> usize) -> Cut {
    let Unsynced { names, contents, .. } = std::mem::take(watched().get_mut(root).unwrap());
    let mut cut = Cut::default();
    for (path, before) in names {
        if below(3) == 0 {
            lose_name(&path, before, &mut cut);
        }
    }
    for path in contents {
        if path.exists() && !cut.changed.contains(&path) && below(2) == 0 {
            lose_content(&path, below, &mut cut);
        }
    }
    cut
}

fn lose_name(path: &Path, before: Option<Vec<u8>>, cut: &mut Cut) {
    if path.is_dir() {
        let inside = walkdir::WalkDir::new(path).into_iter().flatten().map(walkdir::DirEntry::into_path);
        cut.changed.extend(inside);
        fs::remove_dir_all(path).unwrap();
        return;
    }
    // The folder itself may have been lost.
    if !path.parent().is_some_and(Path::exists) {
        return;
    }
    let _ = fs::remove_file(path);
    if let Some(before) = before {
        fs::write(path, before).unwrap();
    }
    cut.changed.insert(path.to_owned());
}

fn lose_content(path: &Path, below: &mut dyn FnMut(usize) -> usize, cut: &mut Cut) {
    let stat = || FileStat::of(&fs::metadata(path).unwrap());
    let (before, mut content) = (stat(), fs::read(path).unwrap());
    match below(3) {
        0 => content.clear(),
        1 => content.truncate(content.len() / 2),
        _ => content.fill(0),
    }
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
    cut.rewritten.push((before, stat()));
    cut.changed.insert(path.to_owned());
}
