//! Leases: `v1/leases`, the process that works on a key.
//!
//! A lease is the file `v1/leases/<key>`, whose content (JSON) names the holder, with a kernel lock on it. On one
//! machine, and on shared file systems that support locks, the lock decides: the kernel releases it when its process
//! dies, however it dies.
//!
//! Locks can be missing (NFS without them, some FUSE systems) or be local to each machine. So every holder also renews
//! its lease: a thread rewrites the content every third of the lease time. A process that finds the unlocked lease of
//! another machine, or any lease on a file system without locks, observes it: a lease that does not change for the
//! lease time is orphaned and is taken over. Only the observer's clock counts, so that clocks may differ; a process of
//! the same machine that has ended is known at once. A lost race (two take over at once, or a suspended holder wakes
//! up) costs a duplicate computation, whose loser adopts the record that was published first.

pub(in crate::cache) mod holds;
pub(in crate::cache) mod process;
mod renewal;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::leases::process::{Liveness, ProcessIdentity};
use crate::cache::local::scratch::{fresh_name, is_old};
use crate::cache::local::{Area, Store, disk};
use crate::digest::Digest;
use renewal::Renewed;

/// Time without a renewal after which a lease of another machine is orphaned.
const LEASE_TIME: Duration = Duration::from_mins(1);

/// The rules by which leases are kept apart.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRules {
    /// Time without a renewal after which a lease of another machine is orphaned.
    pub(in crate::cache::local) time: Duration,
    /// Whether kernel locks are tried.
    pub(in crate::cache::local) has_locks: bool,
}

impl LeaseRules {
    /// Rules for a file system without locks, with this lease time.
    pub fn without_locks(time: Duration) -> Self {
        Self { time, has_locks: false }
    }
}

impl Default for LeaseRules {
    fn default() -> Self {
        Self { time: LEASE_TIME, has_locks: true }
    }
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessIdentity,
    /// When it took the lease, seconds since 1970.
    pub started: u64,
}

/// The exclusive right to work on a key; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: Arc<File>,
    _renewed: Arc<Renewed>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The name is removed before the lock is released: a process that opened the file before and gets its
        // lock now sees that the name leads elsewhere, and opens again. After a takeover the name is not ours.
        if !disk::is_killed(&self.path) && is_same_file(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A lease as it was last seen to change.
#[derive(Debug)]
pub(in crate::cache::local) struct LeaseObservation {
    content: Vec<u8>,
    since: Instant,
}

impl Store {
    /// Takes the lease of a key; `None` at once if another process or thread holds it.
    pub(in crate::cache) fn lock(&self, key: &Digest) -> Result<Option<Lease>, CacheError> {
        self.prepare()?;
        self.lease(self.lease_path(key))
    }

    /// The process that works on a key, for a message while waiting. `None` if there is none, if it is known to
    /// be dead, and for the moment in which a lease is being signed.
    pub(in crate::cache) fn holder(&self, key: &Digest) -> Option<Holder> {
        holder_at(&self.lease_path(key))
    }

    /// Takes the lease of a file in `v1/leases`.
    pub(in crate::cache::local) fn lease(&self, path: PathBuf) -> Result<Option<Lease>, CacheError> {
        loop {
            if !self.lease_rules.has_locks {
                return self.lease_without_locks(&path);
            }
            let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match options {
                // Another user's, who gave the group no right to write: it can be replaced, and not signed again.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.exists() => {
                    return self.lease_without_locks(&path);
                }
                opened => opened.writing(&path)?,
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                    return self.lease_without_locks(&path);
                }
                Err(TryLockError::Error(error)) => return Err(error).writing(&path),
            }
            if !is_same_file(&file, &path) {
                continue;
            }
            // The lock may not reach other machines: a lease of one of them counts as long as it is renewed.
            let content = fs::read(&path).unwrap_or_default();
            let is_foreign = parse(&content).is_some_and(|holder| holder.process.is_of_another_boot());
            if is_foreign && !self.is_orphaned(&path, content) {
                return Ok(None);
            }
            self.forget(&path);
            return Lease::sign(file, path, self.lease_rules.time).map(Some);
        }
    }

    /// Takes a lease by creating its file, if there is none or only an orphan.
    fn lease_without_locks(&self, path: &Path) -> Result<Option<Lease>, CacheError> {
        if let Some(lease) = self.create_lease(path)? {
            return Ok(Some(lease));
        }
        let Some(orphan) = self.orphan(path)? else { return Ok(None) };
        // Of several processes that see the orphan, one takes it over under a lease of its own and looks again: it
        // never removes a successor's lease.
        let takeover = path.with_extension("taken");
        let Some(_takeover) = self.create_lease(&takeover)? else {
            // The process that took over died in these few steps. Two that see this at once may both continue: then
            // both work on the key, and the first record wins.
            if self.orphan(&takeover)?.is_some() {
                let _ = fs::remove_file(&takeover);
            }
            return Ok(None);
        };
        if fs::read(path).is_ok_and(|content| content == orphan) {
            disk::remove_file(path).writing(path)?;
        }
        self.create_lease(path)
    }

    /// Creates the signed file of a lease; `None` if the name is taken.
    fn create_lease(&self, path: &Path) -> Result<Option<Lease>, CacheError> {
        let fresh = self.area(Area::Tmp).join(fresh_name("lease"));
        let file = disk::create_new(&fresh).writing(&fresh)?;
        let lease = Lease::sign(file, path.to_owned(), self.lease_rules.time)?;
        let created = crate::cache::local::records::create_from(&fresh, path);
        let _ = fs::remove_file(&fresh);
        match created {
            Ok(()) => {
                self.forget(path);
                Ok(Some(lease))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error).writing(path),
        }
    }

    /// The content of a lease whose holder is dead or has not renewed it for the lease time.
    fn orphan(&self, path: &Path) -> Result<Option<Vec<u8>>, CacheError> {
        let content = match fs::read(path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).reading(path),
        };
        let is_orphan = match parse(&content).map(|holder| holder.process.liveness()) {
            Some(Liveness::Alive) => false,
            Some(Liveness::Dead) => true,
            Some(Liveness::Unknown) | None => self.is_orphaned(path, content.clone()),
        };
        Ok(is_orphan.then_some(content))
    }

    /// Whether a lease has not changed during the lease time while this store observed it.
    fn is_orphaned(&self, path: &Path, content: Vec<u8>) -> bool {
        let mut observations = self.observations.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match observations.get(path) {
            Some(seen) if seen.content == content => now - seen.since > self.lease_rules.time,
            _ => {
                observations.insert(path.to_owned(), LeaseObservation { content, since: now });
                false
            }
        }
    }

    fn forget(&self, path: &Path) {
        self.observations.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    fn lease_path(&self, key: &Digest) -> PathBuf {
        self.area(Area::Leases).join(key.to_string())
    }
}

/// The holder of a lease file; see [`Store::holder`]. A holder of another machine that has not renewed for ten lease
/// times by the clock of the file system counts as dead here: this decides no lease.
pub(in crate::cache::local) fn holder_at(path: &Path) -> Option<Holder> {
    let holder = parse(&fs::read(path).ok()?)?;
    match holder.process.liveness() {
        Liveness::Alive => Some(holder),
        Liveness::Dead => None,
        Liveness::Unknown => {
            let age = fs::metadata(path).ok()?.modified().ok()?.elapsed().unwrap_or_default();
            (age < 10 * LEASE_TIME).then_some(holder)
        }
    }
}

/// Whether the holder of a lease is known to be dead.
pub(in crate::cache::local) fn is_abandoned(path: &Path) -> bool {
    let Ok(content) = fs::read(path) else { return false };
    match parse(&content) {
        Some(holder) => holder.process.liveness() == Liveness::Dead,
        // Empty, as after a power cut, unless it is being signed.
        None => fs::metadata(path).is_ok_and(|metadata| is_old(&metadata)),
    }
}

/// Opens a file that processes lock, and creates it if there is none. Another user's file may be read-only.
pub(in crate::cache::local) fn open_lock(path: &Path) -> io::Result<File> {
    match OpenOptions::new().create(true).truncate(false).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
        opened => opened,
    }
}

fn parse(content: &[u8]) -> Option<Holder> {
    serde_json::from_slice(content).ok()
}

impl Lease {
    fn sign(mut file: File, path: PathBuf, time: Duration) -> Result<Self, CacheError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let holder = Holder { process: ProcessIdentity::current().clone(), started: since.as_secs() };
        let text = serde_json::to_string(&holder).map_err(io::Error::from).writing(&path)?;
        let content = renewal_of(&text, 0);
        file.write_all(content.as_bytes()).writing(&path)?;
        // Remove the rest of a dead holder's longer text. ext4 writes a file that was ever cut to nothing to the disk
        // when it is closed, and the close waits for it: so it is never cut to nothing.
        let length = content.len() as u64;
        if file.metadata().writing(&path)?.len() > length {
            file.set_len(length).writing(&path)?;
        }
        let file = Arc::new(file);
        let renew = {
            let file = Arc::clone(&file);
            move |count| {
                // The renewal of a file that was taken over has no effect. If the file cannot be written, others take
                // the lease over: then the first record wins.
                let _ = file.write_all_at(renewal_of(&text, count).as_bytes(), 0);
            }
        };
        let renewed = renewal::register(time / 3, Box::new(renew));
        Ok(Self { path, file, _renewed: renewed })
    }
}

/// A holder's text with the number of its renewal; its length does not depend on the number.
fn renewal_of(text: &str, count: u64) -> String {
    format!("{},\"renewed\":\"{count:012}\"}}", text.strip_suffix('}').unwrap_or(text))
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
    use crate::cache::StatIndex;
    use crate::cache::local::tests::fresh;

    fn key() -> Digest {
        Digest::of_bytes(b"key")
    }

    #[test]
    fn one_holds_a_key_and_others_see_who() {
        let (_folder, store) = fresh();
        let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        assert!(store.holder(&key()).is_none());
        let lease = store.lock(&key()).unwrap().unwrap();
        assert!(store.lock(&key()).unwrap().is_none() && other.lock(&key()).unwrap().is_none());
        let holder = other.holder(&key()).unwrap();
        assert_eq!(holder.process, *ProcessIdentity::current());
        assert!(UNIX_EPOCH + Duration::from_secs(holder.started) <= SystemTime::now());
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
            .args(["--exact", "cache::local::leases::tests::child_that_takes_a_lease", "--nocapture"])
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

    /// Writes the lease of a process of another machine.
    fn write_foreign(store: &Store, count: u64) {
        store.prepare().unwrap();
        let process = ProcessIdentity { boot_id: "another".to_owned(), ..ProcessIdentity::current().clone() };
        let text = serde_json::to_string(&Holder { process, started: 0 }).unwrap();
        fs::write(store.lease_path(&key()), renewal_of(&text, count)).unwrap();
    }

    /// Long enough that no test takes this time: it passes by [`advance`] alone.
    const LONG: Duration = LEASE_TIME;

    /// Short enough to wait for renewals.
    const SHORT: Duration = Duration::from_millis(300);

    /// Lets time pass for the observations of a store.
    fn advance(store: &Store, time: Duration) {
        let mut observations = store.observations.lock().unwrap();
        for observation in observations.values_mut() {
            observation.since = observation.since.checked_sub(time).unwrap();
        }
    }

    /// Waits until the content of a lease changes, which its renewal does; returns the new content.
    fn wait_for_renewal(lease: &Lease) -> Vec<u8> {
        let content = || {
            let mut content = vec![0; lease.file.metadata().unwrap().len() as usize];
            lease.file.read_exact_at(&mut content, 0).unwrap();
            content
        };
        let (old, started) = (content(), Instant::now());
        while content() == old {
            assert!(started.elapsed() < Duration::from_mins(1), "it is not renewed");
            std::thread::yield_now();
        }
        content()
    }

    /// Two stores in one folder, with and without locks.
    fn pairs(time: Duration) -> [(tempfile::TempDir, Store, Store); 2] {
        [true, false].map(|has_locks| {
            let (folder, mut store) = fresh();
            let mut other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
            let rules = LeaseRules { time, has_locks };
            (store.lease_rules, other.lease_rules) = (rules, rules);
            (folder, store, other)
        })
    }

    #[test]
    fn a_lease_of_another_machine_holds_while_it_is_renewed_and_is_taken_over_then() {
        for (_folder, store, other) in pairs(LONG) {
            for count in 0..6 {
                write_foreign(&store, count);
                assert!(store.lock(&key()).unwrap().is_none(), "renewed {count} times");
                assert_eq!(store.holder(&key()).unwrap().process.boot_id, "another");
                advance(&store, LONG / 3);
            }
            advance(&store, LONG / 2);
            assert!(store.lock(&key()).unwrap().is_none(), "not before the time is over");
            assert!(other.lock(&key()).unwrap().is_none(), "who comes new looks at it for the whole time");
            advance(&store, LONG / 4);
            let lease = store.lock(&key()).unwrap().expect("it is orphaned");
            assert_eq!(store.holder(&key()).unwrap().process, *ProcessIdentity::current());
            assert!(other.lock(&key()).unwrap().is_none());
            drop(lease);
            assert!(other.lock(&key()).unwrap().is_some());
        }
    }

    #[test]
    fn a_held_lease_shows_signs_of_life_and_its_own_thread_gives_them() {
        for (_folder, store, _) in pairs(SHORT) {
            let lease = store.lock(&key()).unwrap().unwrap();
            let first = fs::read(store.lease_path(&key())).unwrap();
            let second = wait_for_renewal(&lease);
            assert!(first != second && first.len() == second.len());
            assert_eq!(parse(&second).unwrap().process, *ProcessIdentity::current());
            drop(lease);
            assert!(!store.lease_path(&key()).exists());
        }
    }

    #[test]
    fn without_locks_a_suspended_holder_that_wakes_takes_nothing_from_its_successor() {
        let [_, (_folder, store, other)] = pairs(SHORT);
        let suspended = store.lock(&key()).unwrap().unwrap();
        // Another machine has taken it over meanwhile.
        fs::remove_file(store.lease_path(&key())).unwrap();
        let successor = other.lock(&key()).unwrap().unwrap();
        wait_for_renewal(&suspended);
        drop(suspended);
        assert!(store.lock(&key()).unwrap().is_none(), "the successor's lease still stands");
        drop(successor);
        assert!(store.lock(&key()).unwrap().is_some());
    }

    #[test]
    fn without_locks_a_dead_process_of_this_machine_is_known_at_once_and_one_takes_over() {
        let [_, (_folder, store, _)] = pairs(LONG);
        for _ in 0..50 {
            store.prepare().unwrap();
            let process = ProcessIdentity { process_start: 1, ..ProcessIdentity::current().clone() };
            let dead = serde_json::to_string(&Holder { process, started: 0 }).unwrap();
            fs::write(store.lease_path(&key()), renewal_of(&dead, 7)).unwrap();
            let barrier = std::sync::Barrier::new(4);
            let leases: Vec<Option<Lease>> = std::thread::scope(|scope| {
                let take = || {
                    let mut other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
                    other.lease_rules = store.lease_rules;
                    barrier.wait();
                    other.lock(&key()).unwrap()
                };
                let takers: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).collect()
            });
            assert_eq!(leases.iter().flatten().count(), 1);
        }
        assert_eq!(fs::read_dir(store.area(Area::Tmp)).unwrap().count(), 0);
    }
}
