//! Records: `v1/records`, from the key of a task to what it produced, and `v1/items`, the same for single items
//! of a task. Items have a place of their own since there are many more: whoever asks what tasks did does not read
//! them.
//!
//! A file is the line `patchflow record 1 <checksum>` and the record's bytes, which the store does not
//! read. The checksum is the blake3 of key and bytes: a record that is cut off, altered or stands under
//! another key's name is a miss.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use crate::cache::error::{AtPath, StoreError};
use crate::cache::local::disk;
use crate::cache::local::scratch::Temporary;
use crate::cache::local::{Area, Store, make_shard, rename_durably, sync_folder_of};
use crate::digest::Digest;

const HEADER: &[u8] = b"patchflow record 1 ";
const DOMAIN: &str = "patchflow 2026-11-01 store record v1";

/// The areas that hold records.
pub(super) const RECORDED: [Area; 2] = [Area::Records, Area::Items];

/// Whose record stands after a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The one that was given.
    Ours,
    /// One that was there first, with its bytes: adopt it, so that whatever follows does not fork.
    Theirs(Vec<u8>),
}

/// A record as found in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The key of the task.
    pub key: Digest,
    /// What was published for it.
    pub bytes: Vec<u8>,
    /// When it was published or last used ([`Store::hold`]).
    pub used: SystemTime,
}

impl Store {
    /// The record of a key; `None` where there is none or it is damaged. Nothing is moved or written.
    pub(in crate::cache) fn record(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.record_in(Area::Records, key)
    }

    /// The record of an item's key, as [`Self::record`]. Versions before 2026-11-28 kept items among the records
    /// of tasks, where they are found, too.
    pub(in crate::cache) fn item(&self, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        match self.record_in(Area::Items, key)? {
            Some(bytes) => Ok(Some(bytes)),
            None => self.record(key),
        }
    }

    /// Puts an item's record in the place of whatever is there, after its objects.
    pub(in crate::cache) fn put_item(&self, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.record_in(Area::Items, key)?.is_some_and(|old| old == bytes) {
            return Ok(());
        }
        self.replace_in(Area::Items, key, bytes)
    }

    pub(super) fn record_in(&self, area: Area, key: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let place = self.path(area, key);
        match fs::read(&place) {
            Ok(file) => Ok(content(key, file)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).reading(&place),
        }
    }

    /// Publishes a record, after its objects and its tree. The first one wins, whatever happens at once
    /// in other threads and processes; a damaged one counts as none.
    pub(in crate::cache) fn publish_record(
        &self,
        key: &Digest,
        bytes: &[u8],
    ) -> Result<Published, StoreError> {
        self.prepare()?;
        let place = self.path(Area::Records, key);
        make_shard(&place)?;
        let temporary = self.write_record(key, bytes)?;
        loop {
            match create_from(temporary.path(), &place) {
                Ok(()) => {
                    sync_folder_of(&place)?;
                    return Ok(Published::Ours);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).writing(&place),
            }
            if let Some(theirs) = self.record(key)? {
                return Ok(Published::Theirs(theirs));
            }
            self.discard_damaged(Area::Records, key)?;
        }
    }

    /// Puts a record in the place of whatever is there.
    pub(in crate::cache) fn replace_record(&self, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.replace_in(Area::Records, key, bytes)
    }

    fn replace_in(&self, area: Area, key: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.prepare()?;
        let place = self.path(area, key);
        make_shard(&place)?;
        let temporary = self.write_record(key, bytes)?;
        let _turn = self.repair_turn();
        rename_durably(temporary.path(), &place)
    }

    /// Every sound record of a task, in order of key, read as the iterator advances.
    pub(in crate::cache) fn records(&self) -> impl Iterator<Item = StoredRecord> + '_ {
        self.records_in(Area::Records)
    }

    /// Every sound record, of tasks and of items.
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

    fn write_record(&self, key: &Digest, bytes: &[u8]) -> Result<Temporary, StoreError> {
        let checksum = checksum(key, bytes).to_string();
        Temporary::write_synced(&self.area(Area::Tmp), &[HEADER, checksum.as_bytes(), b"\n", bytes])
    }

    /// Moves a damaged record away. Only who holds the turn may take a record's name away or put another
    /// in its place, and looks again first: so nobody removes a good one that has just been published.
    pub(super) fn discard_damaged(&self, area: Area, key: &Digest) -> Result<bool, StoreError> {
        let _turn = self.repair_turn();
        let place = self.path(area, key);
        // The file is named before it is read: where the name was free, a good record may come between.
        let inode = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => metadata.reading(&place)?.ino(),
        };
        if self.record_in(area, key)?.is_some() {
            return Ok(false);
        }
        if self.quarantine(&place, inode) {
            return Ok(true);
        }
        disk::remove_file(&place).writing(&place).map(|()| true)
    }

    /// A file lock that is held while the value lives; where locks cannot be had, none.
    fn repair_turn(&self) -> Option<fs::File> {
        if !self.lease_rules.has_locks {
            return None;
        }
        let path = self.area(Area::Leases).join("repair");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
        file.lock().ok()?;
        Some(file)
    }
}

/// Gives `temporary` a second name at `place`, and fails where that name is taken.
pub(super) fn create_from(temporary: &Path, place: &Path) -> io::Result<()> {
    match disk::hard_link(temporary, place) {
        Err(error)
            if error.kind() != io::ErrorKind::AlreadyExists && error.kind() != io::ErrorKind::NotFound =>
        {
            rename_to_absent(temporary, place)
        }
        outcome => outcome,
    }
}

/// For file systems without hard links.
fn rename_to_absent(temporary: &Path, place: &Path) -> io::Result<()> {
    disk::step(place)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, temporary, CWD, place, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            outcome => return outcome.map_err(io::Error::from),
        }
    }
    // Two may pass here at once: then both have computed the same task and the later record stands.
    if place.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(temporary, place)
}

fn checksum(key: &Digest, bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
    hasher.update(key.as_bytes()).update(bytes);
    Digest::from_bytes(hasher.finalize().into())
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
        let place = store.path(Area::Records, &key(1));
        let sound = fs::read(&place).unwrap();
        for cut in 0..sound.len() {
            fs::write(&place, &sound[..cut]).unwrap();
            assert_eq!(store.record(&key(1)).unwrap(), None, "cut at {cut}");
        }
        for position in 0..sound.len() {
            let mut altered = sound.clone();
            altered[position] ^= 1;
            fs::write(&place, &altered).unwrap();
            assert_eq!(store.record(&key(1)).unwrap(), None, "altered at {position}");
        }
        assert!(place.exists());
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
    fn items_have_a_place_of_their_own_and_older_ones_are_found() {
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
        let [first, second, place] = ["1", "2", "place"].map(|name| folder.path().join(name));
        fs::write(&first, "1").unwrap();
        fs::write(&second, "2").unwrap();
        rename_to_absent(&first, &place).unwrap();
        let refused = rename_to_absent(&second, &place).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&place).unwrap(), b"1");
    }
}
