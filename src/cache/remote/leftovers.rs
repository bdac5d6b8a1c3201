//! What killed uploads leave in a remote that is a folder: `<name>#1`, `<name>#2`, …, beside the file that was to be.
//! The client hides them from listings and never removes them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{RemoteStore, lock};
use crate::cache::gate::Entry;

/// Age from which a leftover is removed: far above the time of an upload, and of any difference between clocks.
const OLD: Duration = Duration::from_hours(24);

impl RemoteStore {
    /// Removes old leftovers beside a file that was just uploaded; looks into each folder once.
    pub(super) fn sweep(&self, entry: Entry) {
        let Some(path) = self.folder.as_ref().map(|folder| folder.join(entry.name())) else { return };
        let Some(folder) = path.parent() else { return };
        if lock(&self.swept).insert(folder.to_owned()) {
            remove_leftovers(folder, SystemTime::now());
        }
    }
}

/// Removes the leftovers of a folder that are old at `now`. What cannot be removed only takes space.
fn remove_leftovers(folder: &Path, now: SystemTime) {
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let written = file.metadata().and_then(|metadata| metadata.modified());
        let age = written.ok().and_then(|written| now.duration_since(written).ok());
        if file.file_name().to_str().is_some_and(is_leftover) && age.is_some_and(|age| age >= OLD) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Whether a file is an unfinished upload of one of ours.
fn is_leftover(name: &str) -> bool {
    let Some((digits, number)) = name.split_once('#') else { return false };
    // A digest in a folder of its first two digits, or whole in the folder of a family.
    let is_ours = matches!(digits.len(), 62 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_ours && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_leftovers_of_ours_go() {
        let folder = tempfile::tempdir().unwrap();
        let digits = "ab".repeat(31);
        let names = [
            digits.clone(),
            format!("{digits}#1"),
            format!("{digits}#22"),
            format!("{digits}#"),
            "x#1".into(),
        ];
        let count = || fs::read_dir(folder.path()).unwrap().count();
        for name in &names {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let now = SystemTime::now();
        remove_leftovers(folder.path(), now + OLD - Duration::from_mins(1));
        assert_eq!(count(), 5, "an upload may still be writing");
        remove_leftovers(folder.path(), now + OLD + Duration::from_mins(1));
        assert_eq!(count(), 3);
        for name in [&names[0], &names[3], &names[4]] {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }
}
