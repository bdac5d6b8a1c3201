//! A remote as the tests see it from outside.

use std::path::PathBuf;

/// A fresh remote that lives as long as this value.
pub(super) trait Site: Sync {
    /// The address.
    fn url(&self) -> &str;

    /// Whether it lists its files.
    fn lists(&self) -> bool;

    /// Changes every file of an area (`records`, `trees`, `objects`, `packs`).
    fn change(&self, area: &str, change: &dyn Fn(&mut Vec<u8>));

    /// Removes every file of an area.
    fn remove(&self, area: &str);
}

/// A remote in a folder.
pub(super) struct FolderSite(tempfile::TempDir);

impl FolderSite {
    pub(super) fn new() -> Self {
        // In memory where the system has such a file system.
        Self(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(super) fn files(&self, area: &str) -> Vec<PathBuf> {
        let walk = walkdir::WalkDir::new(self.0.path().join("v1").join(area)).into_iter().flatten();
        walk.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
    }
}

impl Site for FolderSite {
    fn url(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn lists(&self) -> bool {
        true
    }

    fn change(&self, area: &str, change: &dyn Fn(&mut Vec<u8>)) {
        for path in self.files(area) {
            let mut content = std::fs::read(&path).unwrap();
            change(&mut content);
            std::fs::write(path, content).unwrap();
        }
    }

    fn remove(&self, area: &str) {
        self.files(area).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
