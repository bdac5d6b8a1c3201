//! The store against a model of it, and against processes that are killed.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{fresh, fresh_in_memory};
use crate::cache::local::{Area, Store};
use crate::cache::{CacheError, Published, StatIndex, Tree, TreeEntry};
use crate::digest::Digest;

/// A sequence of numbers, the same in every run (splitmix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// What should be in the store.
#[derive(Default)]
struct Model {
    /// Content -> whether its object is sound; absent if there is none.
    objects: BTreeMap<usize, bool>,
    /// Key -> its record; `None` if it is damaged.
    records: BTreeMap<usize, Option<Vec<u8>>>,
}

const CONTENTS: usize = 12;
const KEYS: usize = 5;

fn content(number: usize) -> Vec<u8> {
    format!("content {number:02}").into_bytes()
}

fn digest(number: usize) -> Digest {
    Digest::of_bytes(&content(number))
}

fn some_tree(numbers: &mut Numbers) -> (Vec<usize>, Tree) {
    let members: Vec<usize> = (0..=numbers.below(3)).map(|_| numbers.below(CONTENTS)).collect();
    let entry = |(index, number): (usize, &usize)| TreeEntry {
        path: format!("d{}/f{index}", index % 2),
        digest: digest(*number),
        size: content(*number).len() as u64,
        executable: false,
    };
    let tree = Tree::new(members.iter().enumerate().map(entry).collect()).unwrap();
    (members, tree)
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

fn step_objects(store: &Store, model: &mut Model, numbers: &mut Numbers, folder: &Path) {
    let number = numbers.below(CONTENTS);
    match numbers.below(6) {
        0 => {
            assert_eq!(store.publish_bytes(&content(number)).unwrap(), digest(number));
            model.objects.insert(number, true);
        }
        1 => publish_some(store, model, numbers),
        2 => read_one(store, model, number),
        3 => check_some(store, model, numbers),
        4 => link_one(store, model, number, folder),
        _ => harm_one(store, model, number, numbers, folder),
    }
}

fn publish_some(store: &Store, model: &mut Model, numbers: &mut Numbers) {
    let (members, tree) = some_tree(numbers);
    let scratch = store.scratch("model").unwrap();
    for (entry, number) in tree.entries().iter().zip(path_order(&members)) {
        let path = scratch.path().join(&entry.path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content(number)).unwrap();
        model.objects.insert(number, true);
    }
    assert_eq!(store.publish_folder(scratch.path()).unwrap(), tree);
    assert_eq!(*store.tree(&tree.digest()).unwrap().unwrap(), tree);
}

fn read_one(store: &Store, model: &mut Model, number: usize) {
    let known = model.objects.get(&number).copied();
    match store.read(&digest(number)) {
        Ok(read) => assert_eq!((known, read), (Some(true), content(number))),
        Err(CacheError::Missing { .. }) => assert_eq!(known, None),
        Err(CacheError::Damaged { .. }) => assert_eq!(known, Some(false)),
        Err(error) => panic!("{error}"),
    }
    if known == Some(false) {
        model.objects.remove(&number);
    }
}

fn check_some(store: &Store, model: &mut Model, numbers: &mut Numbers) {
    let (members, tree) = some_tree(numbers);
    let damaged: Vec<String> = store.check(&tree).unwrap().into_iter().map(|it| it.path).collect();
    let is_wrong = |number: &usize| model.objects.get(number) != Some(&true);
    let pairs = tree.entries().iter().zip(path_order(&members));
    let expected: Vec<String> = pairs.filter(|it| is_wrong(&it.1)).map(|it| it.0.path.clone()).collect();
    assert_eq!(damaged, expected);
    model.objects.retain(|number, sound| *sound || !members.contains(number));
}

fn link_one(store: &Store, model: &mut Model, number: usize, folder: &Path) {
    let path = folder.join("link");
    let is_linked = store.link(&digest(number), &path).is_ok();
    assert_eq!(is_linked, model.objects.get(&number) == Some(&true));
    if is_linked {
        assert_eq!(fs::read(&path).unwrap(), content(number));
    } else {
        model.objects.remove(&number);
    }
}

/// Evicts an object, or damages it.
fn harm_one(store: &Store, model: &mut Model, number: usize, numbers: &mut Numbers, folder: &Path) {
    let Some(sound) = model.objects.get(&number).copied() else { return };
    let path = store.object_path(&digest(number));
    // A link shares the inode, and its damage would too.
    let _ = fs::remove_file(folder.join("link"));
    if sound && numbers.below(2) == 0 {
        overwrite(&path, [&b"CONTENT 00"[..], b"cut"][numbers.below(2)]);
        model.objects.insert(number, false);
    } else {
        fs::remove_file(&path).unwrap();
        model.objects.remove(&number);
    }
}

/// The members in the order of their paths: `d0/f0`, `d0/f2`, `d1/f1`.
fn path_order(members: &[usize]) -> Vec<usize> {
    let even = members.iter().step_by(2);
    even.chain(members.iter().skip(1).step_by(2)).copied().collect()
}

fn step_records(store: &Store, model: &mut Model, numbers: &mut Numbers) {
    let number = numbers.below(KEYS);
    let key = digest(number);
    let bytes = format!("record {}", numbers.below(1000)).into_bytes();
    match numbers.below(4) {
        0 => {
            let outcome = store.publish_record(&key, &bytes).unwrap();
            let expected = match model.records.get(&number).cloned().flatten() {
                Some(first) => Published::Theirs(first),
                None => Published::Ours,
            };
            assert_eq!(outcome, expected);
            if outcome == Published::Ours {
                model.records.insert(number, Some(bytes));
            }
        }
        1 => {
            let found: Vec<_> = store.records().map(|record| record.bytes).collect();
            assert_eq!(found.len(), model.records.values().flatten().count());
            assert_eq!(store.record(&key).unwrap(), model.records.get(&number).cloned().flatten());
        }
        2 if numbers.below(3) == 0 => {
            store.replace_record(&key, &bytes).unwrap();
            model.records.insert(number, Some(bytes));
        }
        _ => {
            if let Some(record) = model.records.get_mut(&number) {
                fs::write(store.path(Area::Records, &key), b"patchflow record 1 ").unwrap();
                *record = None;
            }
        }
    }
}

#[test]
fn thousands_of_random_steps_agree_with_the_model() {
    let (folder, mut store) = fresh_in_memory();
    let (mut model, mut numbers) = (Model::default(), Numbers(7));
    for step in 0..3000 {
        if numbers.below(3) == 0 {
            step_records(&store, &mut model, &mut numbers);
        } else {
            step_objects(&store, &mut model, &mut numbers, folder.path());
        }
        if step % 100 == 99 {
            // Another process, which knows nothing of what this one has verified.
            store = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        }
    }
    let report = store.verify(&|_| ()).unwrap();
    let (sound, records) = (model.objects.values(), model.records.values());
    assert_eq!(report.objects as usize, sound.clone().filter(|sound| **sound).count());
    assert_eq!(report.records as usize, records.clone().flatten().count());
    let damaged = sound.filter(|sound| !**sound).count() + records.filter(|it| it.is_none()).count();
    assert_eq!(report.damaged.len(), damaged);
    assert_eq!(fs::read_dir(store.area(Area::Tmp)).unwrap().count(), 0);
}

/// Not a test of its own: the body of the process that the next test starts and kills.
#[test]
fn child_that_publishes_until_it_is_killed() {
    let Ok(root) = std::env::var("PATCHFLOW_TEST_PUBLISH_ROOT") else { return };
    let store = Store::open(root.into(), StatIndex::in_memory()).unwrap();
    for round in 0.. {
        let scratch = store.scratch("child").unwrap();
        for file in 0..20 {
            fs::write(scratch.path().join(format!("f{file}")), format!("{round} {file}").repeat(500))
                .unwrap();
        }
        let tree = store.publish_folder(scratch.path()).unwrap();
        let key = Digest::of_bytes(format!("{} {round}", std::process::id()).as_bytes());
        store.publish_record(&key, tree.digest().to_string().as_bytes()).unwrap();
        writeln!(std::io::stderr(), "published {round}").unwrap();
    }
}

#[test]
fn a_kill_at_any_point_leaves_no_wrong_record_and_its_leftovers_go() {
    let (_folder, store) = fresh();
    for rounds in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cache::local::tests::promises::child_that_publishes_until_it_is_killed",
                "--nocapture",
            ])
            .env("PATCHFLOW_TEST_PUBLISH_ROOT", store.root())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        lines.take_while(Result::is_ok).filter(is_published).take(rounds).for_each(drop);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let store = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
    let records: Vec<_> = store.records().collect();
    assert!(records.len() >= 10);
    for record in records {
        let tree: Digest = String::from_utf8(record.bytes).unwrap().parse().unwrap();
        let tree = store.tree(&tree).unwrap().expect("the tree goes before the record");
        assert_eq!(store.check(&tree).unwrap(), [], "objects go before the tree");
    }
    assert!(store.verify(&|_| ()).unwrap().damaged.is_empty());
    store.publish_bytes(b"next").unwrap();
    assert_eq!(fs::read_dir(store.area(Area::Tmp)).unwrap().count(), 0);
}

fn is_published(line: &std::io::Result<String>) -> bool {
    line.as_ref().is_ok_and(|line| line.contains("published"))
}
