//! What every remote must do. Each function is run against a folder and against an HTTP server; a further kind of
//! remote joins by a [`Site`] of its own.

use super::site::Site;
use super::*;
use crate::cache::Origin;

pub(super) fn what_one_machine_pushed_another_fetches_with_few_requests(site: &dyn Site) {
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
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
    assert_eq!(*remote.record(&key).unwrap(), TestRecord::of(key, &tree).to_bytes());
    let found = remote_tree(&b, &tree.digest()).unwrap();
    assert_eq!(*found, tree);
    let answer = b.lookup::<TestRecord>(&Wanted::any(key)).unwrap().found().unwrap();
    assert_eq!((answer.origin, &answer.trees), (Origin::Remote, &vec![Arc::clone(&found)]));
    b.publication().unwrap().adopt(&Wanted::any(key), &answer).unwrap();
    assert_eq!(b.objects().missing(&found).unwrap().len(), 2001, "nothing is fetched before it is read");
    let fetched = fetch(&b, &[&found]);
    assert_eq!(fetched.objects, 2001);
    assert!(b.objects().check(&found).unwrap().is_empty());
    assert!(remote.requests() <= 4, "{} requests for 2,001 files", remote.requests());
    assert!(remote.take_warnings().is_empty());
}

pub(super) fn damaged_files_count_as_absent_and_are_warned_of_once(site: &dyn Site) {
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(
        &a,
        &key,
        &[("large".to_owned(), vec![7; 300_000]), ("a".into(), vec![1; 9]), ("b".into(), vec![2; 9])],
    );
    push(&a, &key, &tree);
    damage(site, "objects");
    damage(site, "packs");
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    assert_eq!(fetch(&b, &[&tree]).objects, 1, "the pack's first is sound");
    assert_eq!(b.objects().missing(&tree).unwrap().len(), 2);
    assert!(
        remote_of(&b).take_warnings().iter().any(|warning| matches!(warning, RemoteWarning::Refused { .. }))
    );
    damage(site, "trees");
    damage(site, "records");
    assert!(remote_tree(&b, &tree.digest()).is_none());
    let (_c, c) = machine(site.url(), RemoteMode::ReadOnly);
    assert!(remote_of(&c).record(&key).is_none());
    assert_eq!(remote_of(&c).take_warnings().len(), 1);
}

pub(super) fn evicted_results_are_not_pushed_in_part(site: &dyn Site) {
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let tree = publish(&a, &key, &many(3));
    std::fs::remove_file(a.objects().path(&tree.entries()[0].digest)).unwrap();
    assert_eq!(push(&a, &key, &tree).incomplete, 1);
    assert!(remote_of(&a).keys().is_none_or(|keys| keys.is_empty()));
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    assert!(remote_of(&b).record(&key).is_none());
}

pub(super) fn machines_that_push_at_once_leave_one_record_and_all_of_its_objects(site: &dyn Site) {
    let key = Digest::of_bytes(b"key");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (_folder, store) = machine(site.url(), RemoteMode::ReadWrite);
                let tree = publish(&store, &key, &many(50));
                push(&store, &key, &tree);
            });
        }
    });
    let (_folder, store) = machine(site.url(), RemoteMode::ReadOnly);
    assert_eq!(remote_of(&store).keys(), site.lists().then(|| vec![key]));
    assert!(remote_of(&store).record(&key).is_some());
    let (_other, source) = machine(site.url(), RemoteMode::ReadWrite);
    let tree = publish(&source, &Digest::of_bytes(b"other"), &many(50));
    assert_eq!(fetch(&store, &[&tree]).objects, 50);
}

pub(super) fn damaged_and_lost_files_are_replaced_when_they_are_made_again(site: &dyn Site) {
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let mut files = many(20);
    files.push(("large".into(), vec![1; 300_000]));
    let tree = publish(&a, &key, &files);
    push(&a, &key, &tree);
    damage(site, "packs");
    site.remove("objects");
    let (_b, b) = machine(site.url(), RemoteMode::ReadWrite);
    let remote = remote_of(&b);
    assert!(remote.record(&key).is_some());
    assert_eq!(fetch(&b, &[&tree]).objects, 19, "all but two are sound");
    // It makes the result itself; the record there is known not to lead to all of it.
    b.mark_incomplete(&key);
    publish(&b, &key, &files);
    assert_eq!(push(&b, &key, &tree).records, 1);
    let (_c, c) = machine(site.url(), RemoteMode::ReadOnly);
    assert_eq!(fetch(&c, &[&tree]).objects, 21);
    assert!(remote_of(&c).take_warnings().is_empty());
}

pub(super) fn large_objects_go_through_files(site: &dyn Site) {
    let (_a, a) = machine(site.url(), RemoteMode::ReadWrite);
    let key = Digest::of_bytes(b"key");
    let large: Vec<u8> = (0..=LARGE / 4).flat_map(|number| (number as u32).to_le_bytes()).collect();
    let tree = publish(&a, &key, &[("large".into(), large)]);
    assert_eq!(push(&a, &key, &tree).records, 1);
    let (_b, b) = machine(site.url(), RemoteMode::ReadOnly);
    let fetched = fetch(&b, &[&tree]);
    assert_eq!((fetched.objects, fetched.bytes), (1, LARGE + 4));
    assert!(b.objects().check(&tree).unwrap().is_empty());
}

/// Flips a bit of the last byte of every file of an area.
fn damage(site: &dyn Site, area: &str) {
    site.change(area, &|file| *file.last_mut().unwrap() ^= 1);
}
