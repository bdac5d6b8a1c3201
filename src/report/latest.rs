//! The link `latest` beside the folders of an experiment's runs, and folders that several processes create at once.
//!
//! Runs in containers share a project through views of their own, have equal process ids, and may look at a name that
//! another one has just made: a view that remembers that the name did not exist (NFS, some virtual file systems) then
//! refuses to create it and denies that it is there. So temporary names are random, and such answers are asked for again.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often an answer of the file system that contradicts an earlier one is asked for again.
const TRIES: u32 = 8;
/// Wait before the second try; it doubles with each (2.5 s in all: longer than the second for which NFS remembers names
/// that do not exist by default).
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// Creates a folder and its parents.
pub(super) fn create_folders(path: &Path) -> io::Result<()> {
    persistently(|| std::fs::create_dir_all(path))
}

/// Points `latest` in `folder` at `name` by an atomic rename, so that it always exists for a reader.
pub(super) fn point(folder: &Path, name: &OsStr) -> io::Result<()> {
    persistently(|| {
        let link = tempfile::Builder::new()
            .prefix(".latest-")
            .make_in(folder, |path| std::os::unix::fs::symlink(name, path))?;
        link.into_temp_path().persist(folder.join("latest")).map_err(|error| error.error)
    })
}

/// Does something that must succeed, again if its failure may be that of an outdated view.
fn persistently(mut action: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match action() {
            Err(error) if is_outdated(error.kind()) => std::thread::sleep(wait),
            result => return result,
        }
        wait *= 2;
    }
    action()
}

fn is_outdated(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{AlreadyExists, NotFound, StaleNetworkFileHandle};
    matches!(kind, AlreadyExists | NotFound | StaleNetworkFileHandle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_writers_leave_one_valid_link_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..16).map(|run| format!("run-{run}")).collect();
        for name in &names {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        point(folder.path(), OsStr::new("run-0")).unwrap();
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| (0..50).for_each(|_| point(folder.path(), OsStr::new(name)).unwrap()));
            }
            for _ in 0..500 {
                assert!(folder.path().join("latest").is_dir(), "a reader always finds a run");
            }
        });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), names.len() + 1);
        let to = std::fs::read_link(folder.path().join("latest")).unwrap();
        assert!(names.iter().any(|name| to.as_os_str() == name.as_str()), "{to:?}");
    }

    #[test]
    fn a_view_that_denies_what_it_has_just_refused_to_create_is_asked_again() {
        let mut answers =
            [Some(io::ErrorKind::AlreadyExists), Some(io::ErrorKind::NotFound), None].into_iter();
        persistently(|| answers.next().unwrap().map_or(Ok(()), |kind| Err(kind.into()))).unwrap();
        assert_eq!(answers.next(), None);
    }

    #[test]
    fn other_failures_are_returned_at_once() {
        let mut count = 0;
        let refused = persistently(|| {
            count += 1;
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!((refused.unwrap_err().kind(), count), (io::ErrorKind::PermissionDenied, 1));
    }
}
