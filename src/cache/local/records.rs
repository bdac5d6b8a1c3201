//! Records: `v1/records`, from the key of a task to what it produced, and `v1/items`, the per-image records: the
//! same for single items of a task. These are far more, and have a folder of their own so that a scan of the tasks
//! does not read them.
//!
//! A file is the line `patchflow record 1 <checksum>` and the record's bytes, which the store does not
//! interpret. The checksum is the blake3 of key and bytes: a record that is truncated, altered or stored
//! under another key is a miss.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::barrier::Durability;
use crate::cache::local::disk;
use crate::cache::local::leases::open_lock;
use crate::cache::local::scratch::Temporary;
use crate::cache::local::{Area, Store, make_shard};
use crate::digest::Digest;

const HEADER: &[u8] = b"patchflow record 1 ";
const DOMAIN: &str = "patchflow 2026-11-01 store record v1";

/// The areas that hold records.
pub(super) const RECORDED: [Area; 2] = [Area::Records, Area::Items];

/// The outcome of publishing a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The given record was published.
    Ours,
    /// Another record was published first; these are its bytes. Adopt it, so that later tasks use the same outputs.
    Theirs(Vec<u8>),
}

/// A record read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The key of the task.
    pub key: Digest,
    /// What was published for it.
    pub bytes: Vec<u8>,
    /// When it was published or last used (`Leases::hold`).
    pub used: SystemTime,
}

impl Store {
    /// The record of a key; `None` if there is none or it is damaged. Nothing is moved or written.
    pub(in crate::cache) fn record(&self, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        self.record_in(Area::Records, key)
    }

    /// The per-image record of a key, as [`Self::record`]. Versions before 2026-11-28 stored them among the records
    /// of tasks; those are found as well.
    pub(in crate::cache) fn item(&self, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        match self.record_in(Area::Items, key)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.record(key),
        }
    }

    /// Publishes a per-image record over any other of that key, after its objects.
    pub(in crate::cache) fn put_item(&self, key: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        if self.record_in(Area::Items, key)?.is_some_and(|old| old == bytes) {
            return Ok(());
        }
        self.replace_in(Area::Items, key, bytes)
    }

    pub(super) fn record_in(&self, area: Area, key: &Digest) -> Result<Option<Vec<u8>>, CacheError> {
        let path = self.path(area, key);
        match fs::read(&path) {
            Ok(file) => Ok(content(key, file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).reading(&path),
        }
    }

    /// Publishes a record, after its objects and trees. The first one wins, also among threads and processes
    /// that publish at once; a damaged one does not count.
    pub(in crate::cache) fn publish_record(
        &self,
        key: &Digest,
        bytes: &[u8],
    ) -> Result<Published, CacheError> {
        self.prepare()?;
        let path = self.path(Area::Records, key);
        make_shard(&path)?;
        let temporary = self.write_record(key, bytes, self.durability())?;
        loop {
            match create_from(temporary.path(), &path) {
                Ok(()) => {
                    self.named(Area::Records, key)?;
                    return Ok(Published::Ours);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).writing(&path),
            }
            if let Some(theirs) = self.record(key)? {
                self.relied_on(Area::Records, key);
                return Ok(Published::Theirs(theirs));
            }
            self.discard_damaged(Area::Records, key)?;
        }
    }

    /// Publishes a record over any other of that key.
    pub(in crate::cache) fn replace_record(&self, key: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        self.replace_in(Area::Records, key, bytes)
    }

    fn replace_in(&self, area: Area, key: &Digest, bytes: &[u8]) -> Result<(), CacheError> {
        self.prepare()?;
        let path = self.path(area, key);
        make_shard(&path)?;
        // A power cut may take the new record, but not the old one with it.
        let is_replacing = area == Area::Records && path.exists();
        let durability = if is_replacing { Durability::Immediate } else { self.durability() };
        let temporary = self.write_record(key, bytes, durability)?;
        let _lock = self.repair_lock();
        disk::rename(temporary.path(), &path).writing(&path)?;
        self.named(area, key)
    }

    /// Every sound record of a task, in order of key, read as the iterator advances.
    pub(in crate::cache) fn records(&self) -> impl Iterator<Item = StoredRecord> + '_ {
        self.records_in(Area::Records)
    }

    /// Every sound record of a task and per-image record.
    pub(super) fn all_records(&self) -> impl Iterator<Item = StoredRecord> + '_ {
        RECORDED.into_iter().flat_map(|area| self.records_in(area))
    }

    fn records_in(&self, area: Area) -> impl Iterator<Item = StoredRecord> + '_ {
        self.listed(area).0.into_iter().filter_map(|(key, path)| Self::record_at(key, &path))
    }

    /// The sound record in a file.
    pub(super) fn record_at(key: Digest, path: &Path) -> Option<StoredRecord> {
        let used = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
        let bytes = content(&key, fs::read(path).ok()?)?;
        Some(StoredRecord { key, bytes, used })
    }

    fn write_record(
        &self,
        key: &Digest,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Temporary, CacheError> {
        let checksum = checksum(key, bytes).to_string();
        let parts: [&[u8]; 4] = [HEADER, checksum.as_bytes(), b"\n", bytes];
        Temporary::write(&self.area(Area::Tmp), &parts, durability)
    }

    /// Moves a damaged record to the quarantine. Records are removed and replaced only under the repair lock and
    /// after another look, so that a sound record that has just been published is never removed.
    pub(super) fn discard_damaged(&self, area: Area, key: &Digest) -> Result<bool, CacheError> {
        let _lock = self.repair_lock();
        let path = self.path(area, key);
        // The inode is read before the content: if the name is free, a sound record may appear in between.
        let inode = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => metadata.reading(&path)?.ino(),
        };
        if self.record_in(area, key)?.is_some() {
            return Ok(false);
        }
        if self.quarantine(&path, inode) {
            return Ok(true);
        }
        disk::remove_file(&path).writing(&path).map(|()| true)
    }

    /// Takes the repair lock, held while the value lives; `None` on file systems without locks.
    fn repair_lock(&self) -> Option<fs::File> {
        if !self.lease_rules.has_locks {
            return None;
        }
        let path = self.area(Area::Leases).join("repair");
        let file = open_lock(&path).ok()?;
        file.lock().ok()?;
        Some(file)
    }
}

/// Gives `temporary` the second name `path`; fails if that name is taken.
pub(super) fn create_from(temporary: &Path, path: &Path) -> io::Result<()> {
    match disk::hard_link(temporary, path) {
        Err(error)
            if error.kind() != io::ErrorKind::AlreadyExists && error.kind() != io::ErrorKind::NotFound =>
        {
            rename_to_absent(temporary, path)
        }
        outcome => outcome,
    }
}

/// For file systems without hard links.
fn rename_to_absent(temporary: &Path, path: &Path) -> io::Result<()> {
    disk::step(path)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            outcome => return outcome.map_err(io::Error::from),
        }
    }
    // Two processes may pass here at once: both have computed the same task, and the later record stays.
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(temporary, path)
}

fn checksum(key: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
    hasher.update(key.as_bytes()).update(bytes);
    Digest::from_bytes(hasher.finalize().into())
}

/// The file of a record.
#[cfg(test)]
pub(in crate::cache) fn file(key: &Digest, bytes: &[u8]) -> Vec<u8> {
    [HEADER, checksum(key, bytes).to_string().as_bytes(), b"\n", bytes].concat()
}

/// The record in a file, if it is sound.
pub(in crate::cache) fn content(key: &Digest, mut file: Vec<u8>) -> Option<Vec<u8>> {
    let start = HEADER.len() + 65;
    let header = file.get(..start)?;
    let stated = str::from_utf8(header.strip_prefix(HEADER)?.strip_suffix(b"\n")?).ok()?;
    let stated: Digest = stated.parse().ok()?;
    let bytes = file.split_off(start);
    (stated == checksum(key, &bytes)).then_some(bytes)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::cache::StatIndex;
    use crate::cache::local::tests::{fresh, fresh_in_memory};

    fn key(number: u8) -> Digest {
        Digest::of_bytes(&[number])
    }

    #[test]
    fn the_first_publisher_wins_and_later_ones_get_its_record() {
        let (_folder, store) = fresh();
        assert_eq!(store.publish_record(&key(1), b"first").unwrap(), Published::Ours);
        let second = store.publish_record(&key(1), b"second").unwrap();
        assert_eq!(second, Published::Theirs(b"first".to_vec()));
        assert_eq!(store.record(&key(1)).unwrap().unwrap(), b"first");
        store.replace_record(&key(1), b"third").unwrap();
        assert_eq!(store.record(&key(1)).unwrap().unwrap(), b"third");
        assert_eq!(fs::read_dir(store.area(Area::Tmp)).unwrap().count(), 0);
    }

    #[test]
    fn the_checksum_is_pinned() {
        // From Python's blake3 1.0.11, 2026-11-24.
        let pinned = "7cc08512d1d24d43cdcafad68c84332d49b932ef8021640e47905b5f072fea0f";
        assert_eq!(checksum(&key(1), b"bytes").to_string(), pinned);
    }

    #[test]
    fn of_many_publishers_at_once_exactly_one_is_first_even_over_a_damaged_record() {
        let (_folder, store) = fresh_in_memory();
        for round in 0..50 {
            let key = key(round);
            if round % 2 == 1 {
                store.replace_record(&key, b"old").unwrap();
                fs::write(store.path(Area::Records, &key), b"patchflow record 1 damaged").unwrap();
            }
            let barrier = Barrier::new(4);
            let publish = |worker: u8| {
                let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
                barrier.wait();
                other.publish_record(&key, &[worker]).unwrap()
            };
            let outcomes: Vec<Published> = std::thread::scope(|scope| {
                let publish = &publish;
                let threads: Vec<_> = (0..4).map(|worker| scope.spawn(move || publish(worker))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let standing = store.record(&key).unwrap().unwrap();
            let ours: Vec<_> = (0..4u8).filter(|w| outcomes[*w as usize] == Published::Ours).collect();
            assert_eq!(ours, standing, "one winner, whose record stands");
            let adopted = outcomes.iter().filter(|outcome| **outcome == Published::Theirs(standing.clone()));
            assert_eq!(adopted.count(), 3);
        }
    }

    #[test]
    fn a_damaged_cut_or_misplaced_record_is_a_miss_and_is_not_touched_by_reading() {
        let (_folder, store) = fresh();
        store.publish_record(&key(1), b"bytes").unwrap();
        let path = store.path(Area::Records, &key(1));
        let sound = fs::read(&path).unwrap();
        for cut in 0..sound.len() {
            fs::write(&path, &sound[..cut]).unwrap();
            assert_eq!(store.record(&key(1)).unwrap(), None, "cut at {cut}");
        }
        for position in 0..sound.len() {
            let mut altered = sound.clone();
            altered[position] ^= 1;
            fs::write(&path, &altered).unwrap();
            assert_eq!(store.record(&key(1)).unwrap(), None, "altered at {position}");
        }
        assert!(path.exists());
        assert_eq!(store.records().count(), 0);
        store.publish_record(&key(2), b"x").unwrap();
        fs::write(store.path(Area::Records, &key(2)), &sound).unwrap();
        assert_eq!(store.record(&key(2)).unwrap(), None, "another key's record");
        assert_eq!(store.publish_record(&key(1), b"again").unwrap(), Published::Ours);
    }

    #[test]
    fn records_are_listed_in_order_of_key_with_their_times() {
        let (_folder, store) = fresh();
        let before = SystemTime::now() - std::time::Duration::from_secs(1);
        for number in 0..5 {
            store.publish_record(&key(number), &[number]).unwrap();
        }
        fs::write(store.area(Area::Records).join("stranger"), "x").unwrap();
        let found: Vec<_> = store.records().collect();
        assert!(found.is_sorted_by_key(|record| record.key) && found.len() == 5);
        for record in found {
            assert_eq!(record.key, Digest::of_bytes(&record.bytes));
            assert!(record.used >= before && record.used <= SystemTime::now());
        }
    }

    #[test]
    fn items_have_their_own_area_and_older_ones_are_found() {
        let (_folder, store) = fresh();
        store.publish_record(&key(1), b"a task").unwrap();
        store.put_item(&key(2), b"an item").unwrap();
        store.publish_record(&key(3), b"an item of an older version").unwrap();
        assert_eq!(store.item(&key(2)).unwrap().unwrap(), b"an item");
        assert_eq!(store.item(&key(3)).unwrap().unwrap(), b"an item of an older version");
        assert_eq!(store.record(&key(2)).unwrap(), None);
        assert_eq!((store.records().count(), store.all_records().count()), (2, 3));
        store.put_item(&key(2), b"other bytes").unwrap();
        assert_eq!(store.item(&key(2)).unwrap().unwrap(), b"other bytes");
        fs::write(store.path(Area::Items, &key(2)), b"patchflow record 1 damaged").unwrap();
        assert_eq!(store.item(&key(2)).unwrap(), None);
        let report = store.verify(&|_| {}).unwrap();
        assert_eq!((report.records, report.damaged.len()), (2, 1));
        store.put_item(&key(2), b"again").unwrap();
        assert_eq!(store.verify(&|_| {}).unwrap().records, 3);
    }

    #[test]
    fn without_hard_links_the_first_still_wins() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, path] = ["1", "2", "path"].map(|name| folder.path().join(name));
        fs::write(&first, "1").unwrap();
        fs::write(&second, "2").unwrap();
        rename_to_absent(&first, &path).unwrap();
        let refused = rename_to_absent(&second, &path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"1");
    }
}
