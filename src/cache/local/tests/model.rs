//! The store against a model of what must be retrievable: random publications, kills before any write, power cuts,
//! barriers, collections, damage, reopening.
//!
//! A task is a number. Its files, its record and what it is worth follow from it, and tasks share files. The
//! model knows the state of every object and record. Where a kill or a collection leaves a choice, the disk is
//! looked at past the store, and must show one of the states that are allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::fresh_in_memory;
use super::promises::Numbers;
use crate::cache::local::disk::{crash, power};
use crate::cache::local::stat_index::Boot;
use crate::cache::local::{Area, Store};
use crate::cache::{
    CacheError, Collected, Collection, Described, ProcessIdentity, Published, StatIndex, StoredRecord, Tree,
    TreeEntry,
};
use crate::digest::Digest;

pub(super) const TASKS: usize = 10;
pub(super) const CONTENTS: usize = 16;
const STEPS: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    Damaged,
    Absent,
}
use State::{Absent, Damaged, Sound};

pub(super) fn content(number: usize) -> Vec<u8> {
    // Sizes differ, so that values do; the last one takes several blocks.
    format!("content {number:02} ").repeat(1 + 60 * number).into_bytes()
}

pub(super) fn object(number: usize) -> Digest {
    Digest::of_bytes(&content(number))
}

pub(super) fn key(task: usize) -> Digest {
    Digest::of_bytes(format!("task {task}").as_bytes())
}

/// The contents of a task's two outputs; neighbours share some.
pub(super) fn outputs(task: usize) -> [Vec<usize>; 2] {
    let member = |step: usize| (3 * task + step * step) % CONTENTS;
    [(0..3).map(member).collect(), (2..4 + task % 2).map(member).collect()]
}

fn members(task: usize) -> BTreeSet<usize> {
    outputs(task).into_iter().flatten().collect()
}

pub(super) fn tree(numbers: &[usize]) -> Tree {
    let entry = |(index, number): (usize, &usize)| TreeEntry {
        path: format!("f{index}"),
        digest: object(*number),
        size: content(*number).len() as u64,
        executable: false,
    };
    Tree::new(numbers.iter().enumerate().map(entry).collect()).unwrap()
}

fn seconds(task: usize) -> f64 {
    ((task * 7) % 5 + 1) as f64
}

pub(super) fn record(task: usize) -> Vec<u8> {
    let [first, second] = outputs(task).map(|numbers| tree(&numbers).digest());
    format!("{} {first} {second}", seconds(task)).into_bytes()
}

pub(super) fn describe(record: &StoredRecord) -> Option<Described> {
    let text = String::from_utf8(record.bytes.clone()).unwrap();
    let mut parts = text.split(' ');
    let seconds = parts.next()?.parse().ok()?;
    let trees = parts.map(|digest| digest.parse().unwrap()).collect();
    Some(Described { kind: "task".into(), seconds, trees, ..Described::default() })
}

/// Publishes a task as the executor does.
pub(super) fn publish(store: &Store, task: usize) -> Result<Published, CacheError> {
    store.hold(&key(task));
    let _pause = store.pause()?;
    for numbers in outputs(task) {
        let scratch = store.scratch("model")?;
        for (index, number) in numbers.iter().enumerate() {
            fs::write(scratch.path().join(format!("f{index}")), content(*number)).unwrap();
        }
        assert_eq!(store.publish_folder(scratch.path())?, tree(&numbers));
    }
    store.publish_record(&key(task), &record(task))
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

struct Model {
    root: std::path::PathBuf,
    store: Option<Store>,
    numbers: Numbers,
    objects: Vec<State>,
    records: Vec<State>,
    held: BTreeSet<usize>,
    pinned: BTreeSet<usize>,
    /// Tasks that the open store has published.
    written: BTreeSet<usize>,
    boot: usize,
    /// The boot in which the store was opened last.
    opened_in: Option<usize>,
    counts: BTreeMap<&'static str, usize>,
}

impl Model {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn step(&mut self) {
        let task = self.numbers.below(TASKS);
        let name = match self.numbers.below(24) {
            0..=4 => self.publish(task),
            5..=7 => self.publish_and_be_killed(task),
            8..=10 => self.check(task),
            11 => self.read(),
            12 | 13 => self.collect(false),
            14 => self.collect(true),
            15 | 16 => self.damage_object(),
            17 => self.damage_record(task),
            18 => self.root_or_not(task),
            19 | 20 => self.power_cut(),
            21 | 22 => self.flush(),
            _ if self.numbers.below(4) == 0 => self.verify(),
            _ => self.reopen(),
        };
        *self.counts.entry(name).or_default() += 1;
    }

    fn publish(&mut self, task: usize) -> &'static str {
        let outcome = publish(self.store(), task).unwrap();
        let is_theirs = self.records[task] == Sound;
        let theirs = Published::Theirs(record(task));
        assert_eq!(outcome, if is_theirs { theirs } else { Published::Ours });
        self.published(task);
        "published"
    }

    fn published(&mut self, task: usize) {
        for number in members(task) {
            self.objects[number] = Sound;
        }
        self.records[task] = Sound;
        self.held.insert(task);
        self.written.insert(task);
    }

    fn publish_and_be_killed(&mut self, task: usize) -> &'static str {
        crash::kill_after(&self.root, self.numbers.below(70) as u64);
        let outcome = publish(self.store(), task);
        self.store = None;
        if !crash::revive(&self.root) {
            outcome.unwrap();
            self.published(task);
            self.open();
            return "published before the kill";
        }
        self.bury();
        self.open();
        let before = self.records[task];
        self.records[task] = self.observed_record(task);
        for number in members(task) {
            let (was, is) = (self.objects[number], self.observed_object(number));
            let allowed = match was {
                Sound => is == Sound,
                Absent => is != Damaged,
                Damaged => true,
            };
            assert!(allowed, "object {number} was {was:?} and is {is:?} after a kill");
            self.objects[number] = is;
        }
        match (before, self.records[task]) {
            (Sound, now) => {
                assert_eq!(now, Sound, "a sound record stands, whatever happens to who comes later");
            }
            (_, Sound) => {
                let all = members(task).into_iter().all(|number| self.objects[number] == Sound);
                assert!(all, "a record appears after all its objects");
                let trees = outputs(task).map(|numbers| self.store().tree(&tree(&numbers).digest()).unwrap());
                assert!(trees.iter().all(Option::is_some), "and after its trees");
            }
            (Absent, Damaged) => panic!("a kill leaves no half a record"),
            _ => {}
        }
        "killed while publishing"
    }

    /// The files that hold a task's result.
    fn files(&self, task: usize) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            members(task).iter().map(|number| self.store().object_path(&object(*number))).collect();
        files.extend(outputs(task).map(|numbers| self.store().path(Area::Trees, &tree(&numbers).digest())));
        files.push(self.store().path(Area::Records, &key(task)));
        files
    }

    fn flush(&mut self) -> &'static str {
        self.store().flush().unwrap();
        for task in &self.written {
            let mut at_risk = self.files(*task);
            at_risk.retain(|file| file.exists() && power::is_at_risk(&self.root, file));
            assert!(at_risk.is_empty(), "after a barrier a power cut could take {at_risk:?}");
        }
        "flushed"
    }

    /// Takes any part of what is not known to be on disk; the stat cache keeps what it knew, and file systems show the
    /// times and sizes that it knew.
    fn power_cut(&mut self) -> &'static str {
        crash::kill_after(&self.root, 0);
        self.store = None;
        crash::revive(&self.root);
        self.bury();
        let numbers = &mut self.numbers;
        let cut = power::cut(&self.root, &mut |limit| numbers.below(limit));
        let index = self.index();
        cut.rewritten.iter().for_each(|(before, after)| index.forge(*before, *after));
        self.boot += 1;
        self.open();
        for number in 0..CONTENTS {
            let is = self.observed_object(number);
            let is_touched = cut.changed.contains(&self.store().object_path(&object(number)));
            assert!(is_touched || is == self.objects[number], "object {number} was not at risk");
            self.objects[number] = is;
        }
        for task in 0..TASKS {
            let is = self.observed_record(task);
            let is_touched = cut.changed.contains(&self.store().path(Area::Records, &key(task)));
            assert!(is_touched || is == self.records[task], "record {task} was not at risk");
            self.records[task] = is;
            // A record without its trees is a miss; the task runs again, and its result is adopted.
            let trees = outputs(task).map(|numbers| self.store().tree(&tree(&numbers).digest()).unwrap());
            if is == Sound && trees.iter().any(Option::is_none) {
                self.publish(task);
            }
        }
        "cut the power"
    }

    /// What the disk shows, read past the store.
    fn observed_object(&self, number: usize) -> State {
        match fs::read(self.store().object_path(&object(number))) {
            Ok(found) if found == content(number) => Sound,
            Ok(_) => Damaged,
            Err(_) => Absent,
        }
    }

    fn observed_record(&self, task: usize) -> State {
        match self.store().record(&key(task)).unwrap() {
            Some(found) => {
                assert_eq!(found, record(task));
                Sound
            }
            None if self.store().path(Area::Records, &key(task)).exists() => Damaged,
            None => Absent,
        }
    }

    fn check(&mut self, task: usize) -> &'static str {
        for numbers in outputs(task) {
            let tree = tree(&numbers);
            let found: BTreeSet<Digest> =
                self.store().check(&tree).unwrap().into_iter().map(|damage| damage.digest).collect();
            let wrong = numbers.iter().filter(|number| self.objects[**number] != Sound);
            assert_eq!(found, wrong.map(|number| object(*number)).collect());
            for number in numbers {
                if self.objects[number] == Damaged {
                    self.objects[number] = Absent;
                }
            }
        }
        assert_eq!(self.observed_record(task), self.records[task]);
        "checked"
    }

    fn read(&mut self) -> &'static str {
        let number = self.numbers.below(CONTENTS);
        match (self.store().read(&object(number)), self.objects[number]) {
            (Ok(read), Sound) => assert_eq!(read, content(number)),
            (Err(CacheError::Damaged { .. }), Damaged) => self.objects[number] = Absent,
            (Err(CacheError::Missing { .. }), Absent) => {}
            (read, state) => panic!("{state:?}, but {read:?}"),
        }
        "read"
    }

    /// Seconds per byte of an object by the records that name it; `None` if there is none.
    fn value(&self, number: usize) -> Option<f64> {
        let holding =
            (0..TASKS).filter(|task| self.records[*task] == Sound && members(*task).contains(&number));
        let size = |task: usize| members(task).iter().map(|it| content(*it).len()).sum::<usize>();
        let values: Vec<f64> = holding.map(|task| seconds(task) / size(task) as f64).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    fn is_rooted(&self, number: usize) -> bool {
        self.held
            .union(&self.pinned)
            .any(|task| self.records[*task] == Sound && members(*task).contains(&number))
    }

    fn collect(&mut self, is_killed: bool) -> &'static str {
        let max_bytes = match self.numbers.below(4) {
            0 => None,
            1 => Some(0),
            _ => Some(self.numbers.below(300_000) as u64),
        };
        let is_recent = !is_killed && self.numbers.below(6) == 0;
        let now = SystemTime::now() + Duration::from_hours(if is_recent { 0 } else { 2 });
        let dry = Collection { max_bytes, grace: Duration::from_hours(1), is_dry_run: true, now };
        let is_announced = !is_killed && self.numbers.below(2) == 0;
        let announced = is_announced.then(|| self.store().collect(&dry, &describe).unwrap());
        let collection = Collection { is_dry_run: false, ..dry };
        if is_killed {
            crash::kill_after(&self.root, self.numbers.below(12) as u64);
        }
        let collected = self.store().collect(&collection, &describe);
        if is_killed {
            self.store = None;
            let came = crash::revive(&self.root);
            assert!(came || collected.is_ok());
            self.bury();
            self.collected(max_bytes, None);
            self.open();
            return "killed while collecting";
        }
        let collected = collected.unwrap();
        assert!(announced.is_none_or(|announced| announced == collected), "a dry run announces what goes");
        if is_recent {
            assert!(collected.evicted.is_empty() && collected.unreferenced.files == 0);
        }
        assert_eq!(collected.after, self.store().usage(&describe).unwrap().bytes());
        self.collected(max_bytes, (!is_recent).then_some(&collected));
        "collected"
    }

    /// What a collection may have done; all of it if it came to its end.
    fn collected(&mut self, max_bytes: Option<u64>, end: Option<&Collected>) {
        if self.store.is_none() {
            self.open();
        }
        let before = self.objects.clone();
        for (number, was) in before.iter().copied().enumerate() {
            let is = self.observed_object(number);
            assert!(is == was || is == Absent, "object {number}: {was:?} -> {is:?}");
            let stays = self.is_rooted(number) || max_bytes.is_none() && self.value(number).is_some();
            assert!(!stays || is == was, "object {number} had to stay");
            self.objects[number] = is;
        }
        (0..TASKS).for_each(|task| assert_eq!(self.observed_record(task), self.records[task]));
        let Some(collected) = end else { return };
        let (mut dearest_gone, mut cheapest_left) = (0.0_f64, f64::INFINITY);
        for number in (0..CONTENTS).filter(|number| !self.is_rooted(*number)) {
            let Some(value) = self.value(number) else {
                assert_eq!(self.objects[number], Absent, "nothing refers to object {number}");
                continue;
            };
            if self.objects[number] != Absent {
                cheapest_left = cheapest_left.min(value);
            } else if before[number] != Absent {
                dearest_gone = dearest_gone.max(value);
            }
        }
        assert!(dearest_gone <= cheapest_left * (1.0 + 1e-12), "the cheapest go first");
        let fits = max_bytes.is_none_or(|most| collected.after <= most);
        assert!(fits || cheapest_left.is_infinite(), "the cap is reached, or everything left is held");
    }

    fn damage_object(&mut self) -> &'static str {
        let number = self.numbers.below(CONTENTS);
        let path = self.store().object_path(&object(number));
        if self.objects[number] == Absent {
            return "nothing to damage";
        }
        let mut bytes = content(number);
        match self.numbers.below(4) {
            0 => {
                fs::remove_file(&path).unwrap();
                self.objects[number] = Absent;
                return "lost an object";
            }
            1 => bytes.truncate(self.numbers.below(bytes.len())),
            2 => bytes.push(0),
            _ => {
                let index = self.numbers.below(bytes.len());
                bytes[index] ^= 1 << self.numbers.below(8);
            }
        }
        overwrite(&path, &bytes);
        self.objects[number] = Damaged;
        "damaged an object"
    }

    fn damage_record(&mut self, task: usize) -> &'static str {
        if self.records[task] == Absent {
            return "nothing to damage";
        }
        let path = self.store().path(Area::Records, &key(task));
        let mut bytes = fs::read(&path).unwrap();
        if bytes.is_empty() || self.numbers.below(2) == 0 {
            bytes.truncate(self.numbers.below(bytes.len().max(1)));
        } else {
            // Set, and not flipped: a second flip could mend the first.
            let at = self.numbers.below(bytes.len());
            bytes[at] = b'~';
        }
        fs::write(path, bytes).unwrap();
        self.records[task] = Damaged;
        "damaged a record"
    }

    fn root_or_not(&mut self, task: usize) -> &'static str {
        match self.numbers.below(4) {
            0 => {
                self.store().hold(&key(task));
                self.held.insert(task);
            }
            1 => {
                let more = (task + 3) % TASKS;
                self.store().pin(&format!("pin{task}"), &[key(task), key(more)]).unwrap();
                self.pinned.extend([task, more]);
            }
            _ => {
                for pin in self.store().pins() {
                    assert!(self.store().unpin(&pin.name).unwrap());
                }
                self.pinned.clear();
            }
        }
        "changed roots"
    }

    fn verify(&mut self) -> &'static str {
        let report = self.store().verify(&|_| ()).unwrap();
        let count = |states: &[State], state: State| states.iter().filter(|it| **it == state).count();
        assert_eq!(report.objects as usize, count(&self.objects, Sound));
        assert_eq!(report.records as usize, count(&self.records, Sound));
        let damaged = count(&self.objects, Damaged) + count(&self.records, Damaged);
        assert_eq!(report.damaged.len(), damaged);
        for state in self.objects.iter_mut().chain(&mut self.records) {
            if *state == Damaged {
                *state = Absent;
            }
        }
        "verified"
    }

    fn reopen(&mut self) -> &'static str {
        self.store = None;
        self.open();
        "reopened"
    }

    /// Another process, which holds nothing. Some have the stat cache of those before, others know nothing of what they
    /// have verified.
    fn open(&mut self) {
        let is_after_cut = self.opened_in != Some(self.boot);
        self.opened_in = Some(self.boot);
        let index =
            if is_after_cut || self.numbers.below(2) == 0 { self.index() } else { StatIndex::in_memory() };
        self.store = Some(Store::open(self.root.clone(), index).unwrap());
        self.held.clear();
        self.written.clear();
    }

    /// The stat cache on disk, in the present boot.
    fn index(&self) -> StatIndex {
        let boot = Boot::named(&format!("boot {}", self.boot), SystemTime::UNIX_EPOCH);
        StatIndex::in_boot(self.root.with_file_name("stat.sqlite"), boot)
    }

    /// Gives what a kill left the names of a process that is dead.
    fn bury(&self) {
        let start = format!("~{}~", ProcessIdentity::current().process_start);
        for area in ["tmp", "leases"] {
            for entry in fs::read_dir(self.root.join("v1").join(area)).into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap();
                fs::rename(entry.path(), entry.path().with_file_name(name.replace(&start, "~1~"))).unwrap();
            }
        }
    }
}

#[test]
fn the_store_is_its_model_through_kills_power_cuts_collections_and_damage() {
    let (folder, store) = fresh_in_memory();
    let root = store.root().to_owned();
    drop(store);
    power::watch(&root);
    let mut model = Model {
        root,
        store: None,
        numbers: Numbers(20_261_124),
        objects: vec![Absent; CONTENTS],
        records: vec![Absent; TASKS],
        held: BTreeSet::new(),
        pinned: BTreeSet::new(),
        written: BTreeSet::new(),
        boot: 0,
        opened_in: None,
        counts: BTreeMap::new(),
    };
    model.open();
    // One thread: waking others for a handful of small files took three quarters of the time.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(|| (0..STEPS).for_each(|_| model.step()));
    model.reopen();
    model.publish(0);
    assert_eq!(
        fs::read_dir(model.root.join("v1/tmp")).unwrap().count(),
        0,
        "leftovers of the killed are gone"
    );
    let counts = &model.counts;
    let often = [
        "published",
        "killed while publishing",
        "killed while collecting",
        "collected",
        "checked",
        "cut the power",
        "flushed",
    ];
    for name in often {
        assert!(counts.get(name).is_some_and(|count| *count > STEPS / 40), "{counts:?}");
    }
    drop(folder);
}
