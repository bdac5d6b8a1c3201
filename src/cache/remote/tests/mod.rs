//! Tests of the remote: those that hold for every kind of remote ([`conformance`]), and those of one kind.

mod conformance;
mod crafted;
mod faults;
mod items;
mod server;
mod site;

use std::collections::BTreeSet;
use std::path::Path;

use self::server::{Behaviour, Server};
use self::site::{FolderSite, Site};
use super::*;
use crate::cache::test_record::TestRecord;
use crate::cache::{Cache, Published, StatIndex, Tree, Wanted};
use crate::error_chain::error_chain;

static STOP: AtomicBool = AtomicBool::new(false);

/// A machine with a cache of its own that uses the remote at `url`.
fn machine(url: &str, mode: RemoteMode) -> (tempfile::TempDir, Cache) {
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
    let record = TestRecord::of(*key, &tree).to_bytes();
    assert_eq!(publication.publish_record(key, &record).unwrap(), Published::Ours);
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

/// Runs a test against a fresh remote of each kind.
fn on_every_site(test: fn(&dyn Site)) {
    test(&FolderSite::new());
    test(&Server::start());
}

#[test]
fn what_one_machine_pushed_another_fetches_with_few_requests() {
    on_every_site(conformance::what_one_machine_pushed_another_fetches_with_few_requests);
}

#[test]
fn damaged_files_count_as_absent_and_are_warned_of_once() {
    on_every_site(conformance::damaged_files_count_as_absent_and_are_warned_of_once);
}

#[test]
fn evicted_results_are_not_pushed_in_part() {
    on_every_site(conformance::evicted_results_are_not_pushed_in_part);
}

#[test]
fn machines_that_push_at_once_leave_one_record_and_all_of_its_objects() {
    on_every_site(conformance::machines_that_push_at_once_leave_one_record_and_all_of_its_objects);
}

#[test]
fn damaged_and_lost_files_are_replaced_when_they_are_made_again() {
    on_every_site(conformance::damaged_and_lost_files_are_replaced_when_they_are_made_again);
}

#[test]
fn large_objects_go_through_files() {
    on_every_site(conformance::large_objects_go_through_files);
}

#[test]
fn a_dead_remote_is_given_up_after_a_few_requests_with_one_warning() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing listens there: the port is free again as soon as the listener is gone.
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
fn unusable_addresses_are_refused_and_absent_folders_are_not_used() {
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
    let (_a, a) = machine(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let files: Vec<(String, Vec<u8>)> =
        (0..5000_u32).map(|number| (format!("{number:05}"), number.to_le_bytes().repeat(2000))).collect();
    let tree = publish(&a, &key, &files);
    assert_eq!(push(&a, &key, &tree).records, 1);
    // 40 MB are 8 packs: each asked for and put, as are the tree and the record.
    assert_eq!(server.take_requests().len(), 2 * (8 + 1 + 1));
    let (_b, b) = machine(&server.url, RemoteMode::ReadOnly);
    assert!(remote_of(&b).record(&key).is_some());
    let found = remote_tree(&b, &tree.digest()).unwrap();
    assert_eq!(fetch(&b, &[&found]).objects, 5000);
    let seen = server.take_requests();
    assert_eq!(seen.len(), 8 + 1 + 1, "{seen:?}");
    assert!(b.objects().check(&found).unwrap().is_empty());
}

#[test]
fn results_whose_parts_are_small_share_the_requests() {
    let server = Server::start();
    let (_a, a) = machine(&server.url, RemoteMode::ReadWrite);
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
    server.take_requests();
    let (_b, b) = machine(&server.url, RemoteMode::ReadOnly);
    let wholes: Vec<&Tree> = trees.iter().collect();
    assert_eq!(fetch(&b, &wholes).objects, 80);
    assert_eq!(server.take_requests().len(), 40);
}

#[test]
fn a_server_that_takes_nothing_is_still_read() {
    let server = Server::start();
    let (_a, a) = machine(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    push(&a, &key, &tree);
    server.set_behaviour(Behaviour::ReadOnly);
    server.take_requests();
    let (_b, b) = machine(&server.url, RemoteMode::ReadWrite);
    for number in 0..9_u8 {
        let other = Digest::of_bytes(&[number]);
        let tree = publish(&b, &other, &[("file".into(), vec![number])]);
        assert_eq!(push(&b, &other, &tree).failed, 1);
    }
    let puts = server.take_requests().iter().filter(|line| line.starts_with("PUT")).count();
    assert_eq!(puts, 1);
    let remote = remote_of(&b);
    assert!(remote.record(&key).is_some() && !remote.is_written());
    let warnings = remote.take_warnings();
    assert!(matches!(&warnings[..], [RemoteWarning::NotWritable { .. }]), "{warnings:?}");
}

#[test]
fn failures_of_a_server_are_warned_of_and_a_stop_ends_what_waits() {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let server = Server::start();
    server.set_behaviour(Behaviour::Broken);
    let (_a, a) = machine(&server.url, RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    assert_eq!(push(&a, &key, &tree).failed, 1);
    let warnings = remote_of(&a).take_warnings();
    let [RemoteWarning::FailedRequests { failures: 1, first, .. }] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(first.contains("500"), "{first}");

    // What waits for a server that says nothing ends when the user stops.
    server.take_requests();
    server.set_behaviour(Behaviour::Silent);
    let address = RemoteAddress { url: server.url.clone(), mode: RemoteMode::ReadWrite };
    let remote = RemoteStore::open(&address, Path::new("/"), &STOPPED).unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| remote.record(&key));
        while server.take_requests().is_empty() {
            std::thread::yield_now();
        }
        STOPPED.store(true, Ordering::Relaxed);
        assert!(asked.join().unwrap().is_none());
    });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
