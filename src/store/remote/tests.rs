use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::store::{Published, StatIndex, Store, Tree};

static GO: AtomicBool = AtomicBool::new(false);

/// A machine with a cache of its own that uses the remote in `shared`.
fn machine(shared: &Path, mode: RemoteMode) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let address = RemoteAddress { url: shared.to_str().unwrap().to_owned(), mode };
    let remote = Remote::open(&address, folder.path()).unwrap();
    let store = Store::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
    (folder, store.with_remote(Some(remote)))
}

/// Publishes files as the output of a task.
fn publish(store: &Store, key: &Digest, files: &[(String, Vec<u8>)]) -> Tree {
    let folder = store.scratch("output").unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let tree = store.publish_tree(folder.path()).unwrap();
    store.put_tree(&tree).unwrap();
    assert_eq!(store.publish_record(key, b"record").unwrap(), Published::Ours);
    tree
}

fn many(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|number| (format!("{number:05}"), number.to_le_bytes().repeat(100 + number % 7))).collect()
}

fn wanted(tree: &Tree) -> BTreeSet<Digest> {
    tree.entries().iter().map(|entry| entry.digest).collect()
}

#[test]
fn what_one_machine_pushed_another_fetches_with_few_requests() {
    let shared = tempfile::tempdir().unwrap();
    let (_a, a) = machine(shared.path(), RemoteMode::ReadWrite);
    let (_b, b) = machine(shared.path(), RemoteMode::ReadOnly);
    let key = Digest::of_bytes(b"key");
    let mut files = many(2000);
    files.push(("large".to_owned(), vec![7; 1_000_000]));
    let tree = publish(&a, &key, &files);
    let pushed = a.push(&key, &[tree.digest()]).unwrap();
    assert_eq!((pushed.records, pushed.known), (1, 0));
    assert!(pushed.bytes > 2_000_000);
    assert_eq!(a.push(&key, &[tree.digest()]).unwrap(), Pushed { known: 1, ..Pushed::default() });
    assert!(b.push(&key, &[tree.digest()]).is_none(), "it only reads");

    let remote = b.remote().unwrap();
    assert_eq!(*remote.record(&key).unwrap(), b"record");
    let found = b.tree_anywhere(&tree.digest()).unwrap().unwrap();
    assert_eq!(*found, tree);
    b.adopt(&key, b"record", std::slice::from_ref(&found)).unwrap();
    assert_eq!(b.missing(&found).unwrap().len(), 2001, "nothing is fetched before it is read");
    let fetched = b.fetch(&found, &wanted(&tree), &GO).unwrap();
    assert_eq!(fetched.objects, 2001);
    assert!(b.check(&found).unwrap().is_empty());
    assert!(remote.requests() <= 4, "{} requests for 2,001 files", remote.requests());
    assert!(remote.take_warnings().is_empty());
}

#[test]
fn damaged_files_of_the_remote_count_as_absent_and_are_told_once() {
    let shared = tempfile::tempdir().unwrap();
    let (_a, a) = machine(shared.path(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(
        &a,
        &key,
        &[("large".to_owned(), vec![7; 300_000]), ("a".into(), vec![1; 9]), ("b".into(), vec![2; 9])],
    );
    a.push(&key, &[tree.digest()]).unwrap();
    let damage = |area: &str| {
        for entry in walkdir::WalkDir::new(shared.path().join("v1").join(area)).into_iter().flatten() {
            if entry.file_type().is_file() {
                let mut content = std::fs::read(entry.path()).unwrap();
                *content.last_mut().unwrap() ^= 1;
                std::fs::write(entry.path(), content).unwrap();
            }
        }
    };
    damage("objects");
    damage("packs");
    let (_b, b) = machine(shared.path(), RemoteMode::ReadOnly);
    assert_eq!(b.fetch(&tree, &wanted(&tree), &GO).unwrap().objects, 1, "the pack's first is sound");
    assert_eq!(b.missing(&tree).unwrap().len(), 2);
    assert!(b.remote().unwrap().take_warnings().iter().any(|warning| warning.contains("damaged")));
    damage("trees");
    damage("records");
    assert!(b.tree_anywhere(&tree.digest()).unwrap().is_none());
    let (_c, c) = machine(shared.path(), RemoteMode::ReadOnly);
    assert!(c.remote().unwrap().record(&key).is_none());
    assert_eq!(c.remote().unwrap().take_warnings().len(), 1);
}

#[test]
fn evicted_results_are_not_pushed_by_halves() {
    let shared = tempfile::tempdir().unwrap();
    let (_a, a) = machine(shared.path(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    std::fs::remove_file(a.object_path(&tree.entries()[0].digest)).unwrap();
    assert_eq!(a.push(&key, &[tree.digest()]).unwrap().incomplete, 1);
    assert!(a.remote().unwrap().keys().unwrap().is_empty());
}

#[test]
fn machines_that_push_at_once_leave_one_record_and_all_of_its_objects() {
    let shared = tempfile::tempdir().unwrap();
    let key = Digest::of_bytes(b"key");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (_folder, store) = machine(shared.path(), RemoteMode::ReadWrite);
                let tree = publish(&store, &key, &many(50));
                store.push(&key, &[tree.digest()]).unwrap();
            });
        }
    });
    let (_folder, store) = machine(shared.path(), RemoteMode::ReadOnly);
    assert_eq!(store.remote().unwrap().keys().unwrap(), [key]);
    let (_other, source) = machine(shared.path(), RemoteMode::ReadWrite);
    let tree = publish(&source, &Digest::of_bytes(b"other"), &many(50));
    assert_eq!(store.fetch(&tree, &wanted(&tree), &GO).unwrap().objects, 50);
}

#[test]
fn a_dead_remote_is_left_alone_after_a_few_requests_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there: the port is free again as soon as the listener is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address =
        RemoteAddress { url: format!("http://127.0.0.1:{port}/cache"), mode: RemoteMode::ReadWrite };
    let remote = Remote::open(&address, folder.path()).unwrap();
    let started = std::time::Instant::now();
    let keys: Vec<Digest> = (0..200_u8).map(|number| Digest::of_bytes(&[number])).collect();
    remote.ask(&keys, &GO);
    assert!(keys.iter().all(|key| remote.record(key).is_none()));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(remote.requests() < 60, "{}", remote.requests());
    let warnings = remote.take_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("does not answer"), "{warnings:?}");
    assert!(!remote.is_written());
}

#[test]
fn addresses_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |url: &str, mode| Remote::open(&RemoteAddress { url: url.to_owned(), mode }, folder.path());
    let error = open("ftp://host/cache", RemoteMode::ReadOnly).unwrap_err();
    assert!(error.to_string().contains("`ftp://` is not known") && error.help().is_some());
    assert!(open("nowhere", RemoteMode::ReadOnly).is_err(), "a folder that is only read must be there");
    open("made", RemoteMode::ReadWrite).unwrap();
    assert!(folder.path().join("made").is_dir());
}
