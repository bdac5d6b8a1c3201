//! Holds: the records that running processes use, whose objects collection keeps; and the lock between the two.
//!
//! A process that finds or makes a record lists its key in a file of its own, `v1/leases/run~<process>`, which is
//! removed when the process ends. Collection removes no object of a record that a living process holds, so what a
//! run has found stays until it has read and shown it. A killed holder is recognised by its process id, as in
//! [`crate::cache::local::scratch`]; one on another machine counts as living until its file is old.
//!
//! Holding and collecting exclude each other: collection decides and removes under an exclusive lock on
//! `v1/leases/pause`; a process adds to its file or publishes a task under a shared one. An object that is there
//! after [`Store::hold`] therefore stays. File systems without locks do not guarantee this; a task whose input is
//! removed while it runs makes that input again.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::leases::process::Liveness;
use crate::cache::local::leases::renewal::{self, Renewed};
use crate::cache::local::leases::{holder_at, is_abandoned, is_same_file, open_lock};
use crate::cache::local::scratch::{self, fresh_name};
use crate::cache::local::{Area, Store, disk};
use crate::digest::Digest;

/// Blocks collection while it lives.
#[derive(Debug)]
#[must_use]
pub(in crate::cache) struct Pause(#[expect(dead_code, reason = "the lock ends with the file")] Option<File>);

/// The file of this process.
#[derive(Debug)]
pub(in crate::cache::local) struct Holds {
    path: PathBuf,
    file: File,
    keys: HashSet<Digest>,
    _renewed: Arc<Renewed>,
}

impl Drop for Holds {
    fn drop(&mut self) {
        if !disk::is_killed(&self.path) {
            // A file that cannot be removed counts as dead once this process has ended.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Store {
    /// Marks a record as in use and protects its objects from collection while this store is open. Costs a few
    /// microseconds; free for a key that is held already. Does nothing if the store cannot be written to: then
    /// it cannot be collected either.
    pub(in crate::cache) fn hold(&self, key: &Digest) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if holds.as_ref().is_some_and(|holds| holds.keys.contains(key)) {
            return;
        }
        let Ok(_pause) = self.pause() else { return };
        let known = match holds.take_if(|holds| !is_same_file(&holds.file, &holds.path)) {
            // Someone deleted the cache.
            Some(gone) => gone.keys.clone(),
            None => HashSet::new(),
        };
        if holds.is_none() {
            *holds = Holds::create(&self.area(Area::Leases)).ok();
        }
        let Some(holds) = holds.as_mut() else { return };
        for key in known.iter().chain([key]) {
            let line = format!("{key}\n");
            if disk::write_all(&mut holds.file, &holds.path, line.as_bytes()).is_ok() {
                holds.keys.insert(*key);
            }
        }
        // There may be no record yet.
        if !set_used(&self.path(Area::Records, key)) {
            set_used(&self.path(Area::Items, key));
        }
    }

    /// Blocks collection while the objects and the record of a task are published: it could otherwise remove an
    /// object that was there before, between the check that found it and the record that needs it.
    pub(in crate::cache) fn pause(&self) -> Result<Pause, CacheError> {
        self.prepare()?;
        let file = self.pause_file()?;
        let is_locked = self.lease_rules.has_locks && file.lock_shared().is_ok();
        Ok(Pause(is_locked.then_some(file)))
    }

    /// Waits until no publication is under way, and blocks further ones.
    pub(in crate::cache::local) fn pause_others(&self) -> Result<Pause, CacheError> {
        let file = self.pause_file()?;
        let is_locked = self.lease_rules.has_locks && file.lock().is_ok();
        Ok(Pause(is_locked.then_some(file)))
    }

    fn pause_file(&self) -> Result<File, CacheError> {
        let path = self.area(Area::Leases).join("pause");
        open_lock(&path).writing(&path)
    }

    /// Removes what processes left in `v1/leases` that are dead: lists of what they used, and their leases. Failures are
    /// ignored: what stays blocks no process.
    pub(in crate::cache::local) fn remove_dead_leases(&self) {
        for entry in fs::read_dir(self.area(Area::Leases)).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            if name.starts_with("run~") && !is_live(&name, &entry) {
                let _ = fs::remove_file(&path);
            } else if name.parse::<Digest>().is_ok() && is_abandoned(&path) {
                // Taken and given back, which removes it.
                drop(self.lease(path));
            }
        }
    }

    /// The keys that processes hold or work on, unless these are known to be dead.
    pub(in crate::cache::local) fn held(&self) -> BTreeSet<Digest> {
        let mut held = BTreeSet::new();
        for entry in fs::read_dir(self.area(Area::Leases)).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if let Ok(key) = name.parse::<Digest>() {
                held.extend(holder_at(&entry.path()).map(|_| key));
            } else if name.contains('~') && is_live(&name, &entry) {
                held.extend(keys_in(&entry.path()));
            }
        }
        held
    }
}

impl Holds {
    fn create(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join(fresh_name("run"));
        let file = disk::create_new(&path)?;
        let shown = file.try_clone()?;
        // Other machines judge by the age of the file alone.
        let touch = move |_| {
            let _ = shown.set_modified(SystemTime::now());
        };
        let renewed = renewal::register(scratch::FOREIGN_AGE / 4, Box::new(touch));
        Ok(Self { file, path, keys: HashSet::new(), _renewed: renewed })
    }
}

/// Sets the mtime of a record, its last use, to now; returns whether there is one. Anyone may do that who may write to the
/// file, and not its owner alone as with another time.
fn set_used(record: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
    let at = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    let times = Timestamps { last_access: at(UTIME_OMIT), last_modification: at(UTIME_NOW) };
    utimensat(CWD, record, &times, AtFlags::empty()).is_ok()
}

fn is_live(name: &str, entry: &fs::DirEntry) -> bool {
    match scratch::owner(name) {
        Some(Liveness::Alive) => true,
        Some(Liveness::Dead) | None => false,
        Some(Liveness::Unknown) => entry.metadata().is_ok_and(|metadata| !scratch::is_old(&metadata)),
    }
}

/// The keys in a file, one a line; a line that is being written is skipped.
pub(in crate::cache::local) fn keys_in(path: &Path) -> Vec<Digest> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::local::tests::fresh;
    use crate::cache::{ProcessIdentity, StatIndex};

    fn key(number: u8) -> Digest {
        Digest::of_bytes(&[number])
    }

    #[test]
    fn what_is_held_is_seen_by_others_and_ends_with_the_store() {
        let (_folder, store) = fresh();
        let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        assert!(other.held().is_empty());
        for number in [1, 2, 1] {
            store.hold(&key(number));
        }
        assert_eq!(other.held(), BTreeSet::from([key(1), key(2)]));
        let lease = other.lock(&key(3)).unwrap();
        assert!(store.held().contains(&key(3)), "work in flight holds as well");
        drop((lease, store));
        assert!(other.held().is_empty());
    }

    #[test]
    fn what_a_killed_process_held_is_free() {
        let (_folder, store) = fresh();
        store.hold(&key(1));
        let path = store.holds.lock().unwrap().as_ref().unwrap().path.clone();
        let start = format!("~{}~", ProcessIdentity::current().process_start);
        let dead = path.to_str().unwrap().replace(&start, "~1~");
        fs::copy(&path, dead).unwrap();
        drop(store.holds.lock().unwrap().take());
        assert!(store.held().is_empty());
    }

    #[test]
    fn what_dead_processes_left_goes_with_the_next_publication_and_the_livings_stays() {
        let (_folder, store) = fresh();
        let living = store.lock(&key(1)).unwrap().unwrap();
        store.hold(&key(1));
        let folder = store.area(Area::Leases);
        let names = || {
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
            entries.collect::<BTreeSet<_>>()
        };
        let before = names();
        let me = ProcessIdentity::current();
        let dead = ProcessIdentity { process_start: 1, ..me.clone() };
        let other_machine = ProcessIdentity { host: "other".into(), ..me.clone() };
        for (number, process) in [(2, dead), (3, other_machine)] {
            let text = serde_json::to_string(&crate::cache::Holder { process, started: 0 }).unwrap();
            fs::write(folder.join(key(number).to_string()), text).unwrap();
        }
        fs::write(folder.join(key(4).to_string()), "").unwrap();
        let aged = File::create(folder.join(key(5).to_string())).unwrap();
        aged.set_modified(SystemTime::now() - scratch::FOREIGN_AGE - Duration::from_mins(1)).unwrap();
        let start = format!("~{}~", me.process_start);
        fs::write(folder.join(fresh_name("run").replace(&start, "~1~")), "").unwrap();
        let next = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        next.publish_bytes(b"x").unwrap();
        let left: BTreeSet<_> = names().difference(&before).cloned().collect();
        assert_eq!(left, BTreeSet::from([3, 4].map(|number| key(number).to_string().into())));
        assert!(before.is_subset(&names()));
        drop(living);
    }

    #[test]
    fn what_a_process_uses_is_listed_again_after_the_cache_was_deleted() {
        let (_folder, store) = fresh();
        store.hold(&key(1));
        fs::remove_dir_all(store.root()).unwrap();
        store.hold(&key(2));
        assert_eq!(store.held(), BTreeSet::from([key(1), key(2)]));
    }

    #[test]
    fn a_use_is_the_records_time_and_not_its_content() {
        let (_folder, store) = fresh();
        store.publish_record(&key(1), b"bytes").unwrap();
        let old = SystemTime::now() - Duration::from_hours(5);
        File::open(store.path(Area::Records, &key(1))).unwrap().set_modified(old).unwrap();
        store.hold(&key(1));
        let record = store.records().next().unwrap();
        assert!(record.used > old + Duration::from_hours(4) && record.bytes == b"bytes");
    }
}
