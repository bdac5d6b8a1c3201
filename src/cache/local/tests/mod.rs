mod crowd;
mod model;
mod promises;

use super::*;
use crate::cache::{ProcessIdentity, TreeEntry, VerifyReport};

/// A store in a fresh folder.
pub(crate) fn fresh() -> (tempfile::TempDir, Store) {
    in_folder(tempfile::tempdir().unwrap())
}

/// The same in memory if the system has such a file system, for tests that publish very often: a sync
/// costs milliseconds on a busy disk.
pub(crate) fn fresh_in_memory() -> (tempfile::TempDir, Store) {
    in_folder(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
}

fn in_folder(folder: tempfile::TempDir) -> (tempfile::TempDir, Store) {
    let store = Store::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
    (folder, store)
}

#[test]
fn opening_and_reading_create_nothing() {
    let (folder, store) = fresh();
    let digest = Digest::of_bytes(b"x");
    let entry = TreeEntry { path: "a".into(), digest, size: 1, executable: false };
    let tree = Tree::new(vec![entry]).unwrap();
    assert!(store.tree(&digest).unwrap().is_none());
    assert!(store.record(&digest).unwrap().is_none());
    assert_eq!(store.records().count(), 0);
    assert_eq!(store.check(&tree).unwrap().len(), 1);
    assert_eq!(store.missing(&tree).unwrap(), [digest]);
    assert!(store.read(&digest).is_err() && store.holder(&digest).is_none());
    assert_eq!(store.verify(&|_| ()).unwrap(), VerifyReport::default());
    super::remove_folder(&store.work_folder(&digest)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_first_publication_makes_a_tagged_cache_folder() {
    let (_folder, store) = fresh();
    store.publish_bytes(b"x").unwrap();
    let tag = fs::read_to_string(store.root().join("CACHEDIR.TAG")).unwrap();
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
    assert!(store.area(Area::Pins).is_dir());
}

#[test]
fn a_file_is_not_a_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let opened = Store::open(file.path().into(), StatIndex::in_memory());
    assert!(matches!(opened, Err(CacheError::NotAFolder { .. })));
}

#[test]
fn what_a_killed_process_was_writing_goes_with_the_next_publication() {
    let (_folder, store) = fresh();
    let tmp = store.area(Area::Tmp);
    let mine = scratch::fresh_name("mine");
    let start = format!("~{}~", ProcessIdentity::current().process_start);
    fs::create_dir_all(tmp.join(mine.replace(&start, "~1~"))).unwrap();
    fs::create_dir_all(tmp.join(&mine)).unwrap();
    store.publish_bytes(b"x").unwrap();
    let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, [std::ffi::OsString::from(mine)]);
}

#[test]
fn a_work_folder_stays_until_it_is_removed() {
    let (_folder, store) = fresh();
    let key = Digest::of_bytes(b"key");
    let folder = store.work_folder(&key);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("state"), "1").unwrap();
    super::remove_folder(&store.work_folder(&key)).unwrap();
    assert!(!folder.exists());
}

#[test]
fn a_good_file_that_arrives_during_the_quarantine_is_put_back() {
    let (_folder, store) = fresh();
    let digest = store.publish_bytes(b"good").unwrap();
    assert!(store.quarantine(&store.object_path(&digest), 0), "the examined inode was another");
    assert_eq!(store.read(&digest).unwrap(), b"good");
}
