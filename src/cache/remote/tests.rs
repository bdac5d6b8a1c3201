use std::collections::BTreeSet;
use std::path::Path;

use super::server::{Manner, Server};
use super::*;
use crate::cache::{Cache, Found, Origin, Published, StatIndex, Tree};
use crate::error_chain::error_chain;

static STOP: AtomicBool = AtomicBool::new(false);

/// A machine with a cache of its own that uses the remote in `shared`.
fn machine(shared: &Path, mode: RemoteMode) -> (tempfile::TempDir, Cache) {
    machine_at(shared.to_str().unwrap(), mode)
}

fn machine_at(url: &str, mode: RemoteMode) -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let address = RemoteAddress { url: url.to_owned(), mode };
    let remote = RemoteStore::open(&address, folder.path(), &STOP).unwrap();
    let cache = Cache::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
    (folder, cache.with_remote(Some(remote)))
}

fn remote_of(cache: &Cache) -> &RemoteStore {
    cache.remote.as_ref().unwrap()
}

/// A tree that the remote has.
fn remote_tree(cache: &Cache, digest: &Digest) -> Option<Arc<Tree>> {
    remote_of(cache).prefetch_trees(&cache.local, &BTreeSet::from([*digest])).unwrap();
    remote_of(cache).tree(digest)
}

/// Fetches all objects of some trees.
fn fetch(cache: &Cache, trees: &[&Tree]) -> Fetched {
    let wanted = trees.iter().flat_map(|tree| wanted(tree)).collect();
    remote_of(cache).fetch(&cache.local, trees, &wanted).unwrap()
}

/// Publishes files as the output of a task.
fn publish(cache: &Cache, key: &Digest, files: &[(String, Vec<u8>)]) -> Tree {
    let folder = cache.scratch("output").unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let publication = cache.publication().unwrap();
    let tree = publication.publish_folder(folder.path()).unwrap();
    publication.publish_tree(&tree).unwrap();
    assert_eq!(publication.publish_record(key, b"record").unwrap(), Published::Ours);
    tree
}

/// Pushes one result.
fn push(cache: &Cache, key: &Digest, tree: &Tree) -> Pushed {
    let mut all = Pushed::default();
    cache
        .sharing()
        .unwrap()
        .push(&[PushOrder { key: *key, trees: vec![tree.digest()] }], |pushed| all.add(pushed));
    all
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
    let pushed = push(&a, &key, &tree);
    assert_eq!((pushed.records, pushed.known), (1, 0));
    assert!(pushed.bytes > 2_000_000);
    assert_eq!(push(&a, &key, &tree), Pushed { known: 1, ..Pushed::default() });
    assert_eq!(push(&b, &key, &tree).failed, 1, "it only reads");

    let remote = remote_of(&b);
    assert_eq!(*remote.record(&key).unwrap(), b"record");
    let found = remote_tree(&b, &tree.digest()).unwrap();
    assert_eq!(*found, tree);
    let bytes = Arc::new(b"record".to_vec());
    let answer = Found { origin: Origin::Remote, record: (), bytes, trees: vec![Arc::clone(&found)] };
    b.publication().unwrap().adopt(&key, &answer).unwrap();
    assert_eq!(b.objects().missing(&found).unwrap().len(), 2001, "nothing is fetched before it is read");
    let fetched = fetch(&b, &[&found]);
    assert_eq!(fetched.objects, 2001);
    assert!(b.objects().check(&found).unwrap().is_empty());
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
    push(&a, &key, &tree);
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
    assert_eq!(fetch(&b, &[&tree]).objects, 1, "the pack's first is sound");
    assert_eq!(b.objects().missing(&tree).unwrap().len(), 2);
    assert!(
        remote_of(&b).take_warnings().iter().any(|warning| matches!(warning, RemoteWarning::Damaged { .. }))
    );
    damage("trees");
    damage("records");
    assert!(remote_tree(&b, &tree.digest()).is_none());
    let (_c, c) = machine(shared.path(), RemoteMode::ReadOnly);
    assert!(remote_of(&c).record(&key).is_none());
    assert_eq!(remote_of(&c).take_warnings().len(), 1);
}

#[test]
fn evicted_results_are_not_pushed_by_halves() {
    let shared = tempfile::tempdir().unwrap();
    let (_a, a) = machine(shared.path(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    std::fs::remove_file(a.objects().path(&tree.entries()[0].digest)).unwrap();
    assert_eq!(push(&a, &key, &tree).incomplete, 1);
    assert!(remote_of(&a).keys().unwrap().is_empty());
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
                push(&store, &key, &tree);
            });
        }
    });
    let (_folder, store) = machine(shared.path(), RemoteMode::ReadOnly);
    assert_eq!(remote_of(&store).keys().unwrap(), [key]);
    let (_other, source) = machine(shared.path(), RemoteMode::ReadWrite);
    let tree = publish(&source, &Digest::of_bytes(b"other"), &many(50));
    assert_eq!(fetch(&store, &[&tree]).objects, 50);
}

#[test]
fn a_dead_remote_is_left_alone_after_a_few_requests_and_told_once() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens there: the port is free again as soon as the listener is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address =
        RemoteAddress { url: format!("http://127.0.0.1:{port}/cache"), mode: RemoteMode::ReadWrite };
    let remote = RemoteStore::open(&address, folder.path(), &STOP).unwrap();
    let started = std::time::Instant::now();
    let keys: Vec<Digest> = (0..200_u8).map(|number| Digest::of_bytes(&[number])).collect();
    remote.lookup_many(&keys);
    assert!(keys.iter().all(|key| remote.record(key).is_none()));
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(remote.requests() < 60, "{}", remote.requests());
    let warnings = remote.take_warnings();
    assert!(matches!(&warnings[..], [RemoteWarning::Unreachable { .. }]), "{warnings:?}");
    assert!(!remote.is_written());
}

#[test]
fn addresses_that_cannot_be_used_are_refused_and_folders_that_are_not_there_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let open = |url: &str, mode| {
        RemoteStore::open(&RemoteAddress { url: url.to_owned(), mode }, folder.path(), &STOP)
    };
    let error = open("ftp://host/cache", RemoteMode::ReadOnly).unwrap_err();
    assert!(error_chain(&error).contains("`ftp://` is not known"));
    for (url, mode) in [("nowhere", RemoteMode::ReadOnly), ("nowhere/within", RemoteMode::ReadWrite)] {
        let remote = open(url, mode).unwrap();
        let warnings = remote.take_warnings();
        assert!(matches!(&warnings[..], [RemoteWarning::NoFolder { .. }]), "{warnings:?}");
        assert!(!remote.is_written() && remote.record(&Digest::of_bytes(b"key")).is_none());
        assert_eq!(remote.requests(), 0);
    }
    let remote = open("made", RemoteMode::ReadWrite).unwrap();
    assert!(remote.record(&Digest::of_bytes(b"key")).is_none());
    assert!(!folder.path().join("made").exists(), "reading makes nothing");
    assert!(remote.is_written() && remote.take_warnings().is_empty());
}

#[test]
fn five_thousand_small_files_are_a_dozen_requests_over_http() {
    let server = Server::start();
    let (_a, a) = machine_at(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let files: Vec<(String, Vec<u8>)> =
        (0..5000_u32).map(|number| (format!("{number:05}"), number.to_le_bytes().repeat(2000))).collect();
    let tree = publish(&a, &key, &files);
    assert_eq!(push(&a, &key, &tree).records, 1);
    // 40 MB are 8 packs: each asked for and put, as are the tree and the record.
    assert_eq!(server.take_seen().len(), 2 * (8 + 1 + 1));
    let (_b, b) = machine_at(&server.url, RemoteMode::ReadOnly);
    assert!(remote_of(&b).record(&key).is_some());
    let found = remote_tree(&b, &tree.digest()).unwrap();
    assert_eq!(fetch(&b, &[&found]).objects, 5000);
    let seen = server.take_seen();
    assert_eq!(seen.len(), 8 + 1 + 1, "{seen:?}");
    assert!(b.objects().check(&found).unwrap().is_empty());
}

#[test]
fn results_whose_parts_are_small_share_the_requests() {
    let server = Server::start();
    let (_a, a) = machine_at(&server.url, RemoteMode::ReadWrite);
    let mut orders = Vec::new();
    let mut trees = Vec::new();
    for number in 0..40_u8 {
        let key = Digest::of_bytes(&[number]);
        let tree = publish(&a, &key, &[("one".into(), vec![number; 9]), ("two".into(), vec![number; 10])]);
        orders.push(PushOrder { key, trees: vec![tree.digest()] });
        trees.push(tree);
    }
    let mut all = Pushed::default();
    a.sharing().unwrap().push(&orders, |pushed| all.add(pushed));
    assert_eq!((all.records, all.failed), (40, 0));
    server.take_seen();
    let (_b, b) = machine_at(&server.url, RemoteMode::ReadOnly);
    let wholes: Vec<&Tree> = trees.iter().collect();
    assert_eq!(fetch(&b, &wholes).objects, 80);
    assert_eq!(server.take_seen().len(), 40);
}

#[test]
fn a_server_that_takes_nothing_is_read_and_told_of() {
    let server = Server::start();
    let (_a, a) = machine_at(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    push(&a, &key, &tree);
    server.behave(Manner::ReadOnly);
    server.take_seen();
    let (_b, b) = machine_at(&server.url, RemoteMode::ReadWrite);
    for number in 0..9_u8 {
        let other = Digest::of_bytes(&[number]);
        let tree = publish(&b, &other, &[("file".into(), vec![number])]);
        assert_eq!(push(&b, &other, &tree).failed, 1);
    }
    let puts = server.take_seen().iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!(puts, 3);
    let remote = remote_of(&b);
    assert!(remote.record(&key).is_some() && !remote.is_written());
    let warnings = remote.take_warnings();
    assert!(matches!(&warnings[..], [RemoteWarning::NotWritable { .. }]), "{warnings:?}");
}

#[test]
fn damaged_and_lost_files_are_put_there_anew_by_who_makes_them() {
    let server = Server::start();
    let (_a, a) = machine_at(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let mut files = many(20);
    files.push(("large".into(), vec![1; 300_000]));
    let tree = publish(&a, &key, &files);
    push(&a, &key, &tree);
    server.change("/packs/", |pack| *pack.last_mut().unwrap() ^= 1);
    server.remove("/objects/");
    let (_b, b) = machine_at(&server.url, RemoteMode::ReadWrite);
    let remote = remote_of(&b);
    assert!(remote.record(&key).is_some());
    assert_eq!(fetch(&b, &[&tree]).objects, 19, "all but two are sound");
    // It makes the result itself; the record there is known not to lead to all of it.
    b.mark_incomplete(&key);
    publish(&b, &key, &files);
    assert_eq!(push(&b, &key, &tree).records, 1);
    let (_c, c) = machine_at(&server.url, RemoteMode::ReadOnly);
    assert_eq!(fetch(&c, &[&tree]).objects, 21);
    assert!(remote_of(&c).take_warnings().is_empty());
}

#[test]
fn large_objects_go_through_files() {
    let shared = tempfile::tempdir().unwrap();
    let server = Server::start();
    for url in [shared.path().to_str().unwrap(), &server.url] {
        let (_a, a) = machine_at(url, RemoteMode::ReadWrite);
        let key = Digest::of_bytes(b"key");
        let large: Vec<u8> = (0..=LARGE / 4).flat_map(|number| (number as u32).to_le_bytes()).collect();
        let tree = publish(&a, &key, &[("large".into(), large)]);
        assert_eq!(push(&a, &key, &tree).records, 1);
        let (_b, b) = machine_at(url, RemoteMode::ReadOnly);
        let fetched = fetch(&b, &[&tree]);
        assert_eq!((fetched.objects, fetched.bytes), (1, LARGE + 4));
        assert!(b.objects().check(&tree).unwrap().is_empty());
    }
}

#[test]
fn failures_of_a_server_are_told_and_end_what_waits() {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let server = Server::start();
    server.behave(Manner::Broken);
    let (_a, a) = machine_at(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    assert_eq!(push(&a, &key, &tree).failed, 1);
    let warnings = remote_of(&a).take_warnings();
    let [RemoteWarning::FailedRequests { failures: 1, first, .. }] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(first.contains("500"), "{first}");

    // What waits for a server that says nothing ends when the user stops.
    server.take_seen();
    server.behave(Manner::Silent);
    let address = RemoteAddress { url: server.url.clone(), mode: RemoteMode::ReadWrite };
    let remote = RemoteStore::open(&address, Path::new("/"), &STOPPED).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| remote.record(&key));
        while server.take_seen().is_empty() {
            std::thread::yield_now();
        }
        STOPPED.store(true, Ordering::Relaxed);
        assert!(asked.join().unwrap().is_none());
    });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
