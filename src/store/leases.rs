//! Leases: `v1/leases`, who is working on a key.
//!
//! A lease is a file lock on `v1/leases/<key>`, which the kernel gives back when its process dies, however
//! it dies. The file's content (JSON) is for people and for waiting messages; it decides nothing while the
//! lock can be had. Where the file system has no locks, the content is all there is: a lease is then
//! refused while its holder is known to live, and a lost race costs a duplicate computation, whose loser
//! adopts the record that was published first.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{AtPath, StoreError};
use super::process::{Liveness, ProcessIdentity};
use super::{Area, Store, disk};

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessIdentity,
    /// When it took the lease, seconds since 1970.
    pub started: u64,
}

impl Holder {
    /// When it took the lease.
    pub fn started_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.started)
    }
}

/// The exclusive right to work on a key; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The name goes before the lock: who opened the file before and gets its lock now sees that the
        // name leads elsewhere, and opens again. After a take-over the name is no longer ours to remove.
        if !disk::is_killed(&self.path) && is_same_file(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Store {
    /// Takes the lease of a key, or gives `None` at once where another process or thread holds it.
    pub fn lock(&self, key: &Digest) -> Result<Option<Lease>, StoreError> {
        self.prepare()?;
        Self::lease(self.lease_path(key))
    }

    /// Who works on a key, for a message while waiting. `None` where nobody does, where the holder is
    /// known to be dead, and for the moment in which a lease is being signed.
    pub fn holder(&self, key: &Digest) -> Option<Holder> {
        holder_at(&self.lease_path(key))
    }

    /// Takes the lease of a file in `v1/leases`.
    pub(super) fn lease(path: PathBuf) -> Result<Option<Lease>, StoreError> {
        loop {
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = options.writing(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    let held = holder_at(&path).is_some_and(|it| it.process.liveness() == Liveness::Alive);
                    return if held { Ok(None) } else { Lease::sign(file, path).map(Some) };
                }
                Err(TryLockError::Error(error)) => return Err(error).writing(&path),
            }
            if is_same_file(&file, &path) {
                return Lease::sign(file, path).map(Some);
            }
        }
    }

    fn lease_path(&self, key: &Digest) -> PathBuf {
        self.area(Area::Leases).join(key.to_string())
    }
}

/// Who holds the lease of a file; see [`Store::holder`].
pub(super) fn holder_at(path: &Path) -> Option<Holder> {
    let holder: Holder = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (holder.process.liveness() != Liveness::Dead).then_some(holder)
}

impl Lease {
    fn sign(mut file: File, path: PathBuf) -> Result<Self, StoreError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let holder = Holder { process: ProcessIdentity::current().clone(), started: since.as_secs() };
        let text = serde_json::to_vec(&holder).map_err(io::Error::from).writing(&path)?;
        // A longer text of a dead holder must not show behind ours.
        file.set_len(0).and_then(|()| file.write_all(&text)).writing(&path)?;
        Ok(Self { path, file })
    }
}

/// Whether a name still leads to an open file.
fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let no_locks = rustix::io::Errno::NOLCK.raw_os_error();
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(no_locks)
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::store::StatIndex;
    use crate::store::tests::fresh;

    fn key() -> Digest {
        Digest::of_bytes(b"key")
    }

    #[test]
    fn one_holds_a_key_and_others_are_told_who() {
        let (_folder, store) = fresh();
        let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        assert!(store.holder(&key()).is_none());
        let lease = store.lock(&key()).unwrap().unwrap();
        assert!(store.lock(&key()).unwrap().is_none() && other.lock(&key()).unwrap().is_none());
        let holder = other.holder(&key()).unwrap();
        assert_eq!(holder.process, *ProcessIdentity::current());
        assert!(holder.started_at() <= SystemTime::now());
        assert!(other.lock(&Digest::of_bytes(b"another")).unwrap().is_some());
        drop(lease);
        assert!(other.holder(&key()).is_none());
        assert_eq!(fs::read_dir(store.area(Area::Leases)).unwrap().count(), 0);
        assert!(other.lock(&key()).unwrap().is_some());
    }

    #[test]
    fn at_no_time_do_two_threads_hold_one_key() {
        let (_folder, store) = fresh();
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
                    while taken.load(Ordering::SeqCst) < 200 {
                        let Some(lease) = other.lock(&key()).unwrap() else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                        drop(lease);
                    }
                });
            }
        });
    }

    #[test]
    fn a_lease_of_a_dead_process_is_free_and_nobody_holds_it() {
        let (_folder, store) = fresh();
        store.prepare().unwrap();
        let process = ProcessIdentity { process_start: 1, ..ProcessIdentity::current().clone() };
        let dead = Holder { process, started: 0 };
        let long = format!("{}{}", serde_json::to_string(&dead).unwrap(), " ".repeat(1000));
        fs::write(store.lease_path(&key()), long).unwrap();
        assert!(store.holder(&key()).is_none());
        let lease = store.lock(&key()).unwrap();
        assert!(lease.is_some());
        assert_eq!(store.holder(&key()).unwrap().process, *ProcessIdentity::current());
    }

    #[test]
    fn a_name_taken_away_from_under_a_lease_is_not_removed_by_it() {
        let (_folder, store) = fresh();
        let lease = store.lock(&key()).unwrap().unwrap();
        fs::remove_file(store.lease_path(&key())).unwrap();
        let second = store.lock(&key()).unwrap().unwrap();
        drop(lease);
        assert!(store.lock(&key()).unwrap().is_none(), "the second lease still stands");
        drop(second);
    }

    /// Not a test of its own: the body of the process that the next test starts and kills.
    #[test]
    fn child_that_takes_a_lease() {
        let Ok(root) = std::env::var("PATCHFLOW_TEST_LEASE_ROOT") else { return };
        let store = Store::open(root.into(), StatIndex::in_memory()).unwrap();
        let _lease = store.lock(&key()).unwrap().unwrap();
        writeln!(io::stderr(), "holding").unwrap();
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
    }

    #[test]
    fn a_lease_is_seen_by_other_processes_and_ends_with_a_kill() {
        let (_folder, store) = fresh();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::leases::tests::child_that_takes_a_lease", "--nocapture"])
            .env("PATCHFLOW_TEST_LEASE_ROOT", store.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = io::BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("holding")));
        assert!(store.lock(&key()).unwrap().is_none());
        assert_eq!(store.holder(&key()).unwrap().process.pid, child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(store.holder(&key()).is_none());
        assert!(store.lock(&key()).unwrap().is_some());
    }
}
