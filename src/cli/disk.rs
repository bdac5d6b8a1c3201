//! Free space.

use std::path::Path;

/// The bytes that the user may still write to the file system of `folder`, which need not exist yet.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let existing = folder.ancestors().find(|folder| folder.is_dir())?;
    let space = rustix::fs::statvfs(existing).ok()?;
    Some(space.f_bavail * space.f_frsize)
}
