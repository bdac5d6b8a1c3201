//! Collection: which objects go, and their removal.
//!
//! # What goes
//! 1. Leftovers: what dead processes left in `tmp`, work folders of tasks whose record is there, and what
//!    has been in the quarantine for longer than the grace period.
//! 2. Objects that no record holds.
//! 3. With a size cap, objects of least value until the whole store fits: first those that cost the fewest
//!    seconds per byte to make again, among equals those whose last use is longest ago, then by digest.
//!
//! Records and trees stay: a task whose objects were evicted is still a hit, and is made again only if another
//! one reads it.
//!
//! # What stays
//! - What a pin or a living process holds ([`super::pins`], [`crate::cache::local::leases::holds`]).
//! - What was published or used within the grace period. A record is used when a run finds it.
//! - An object with a further hard link, as in a run's folder: removing it frees nothing.
//!
//! # Value
//! A record is made as a whole, so its seconds are spread evenly over the bytes that it holds; an object is
//! worth the sum over the records that hold it: `value = Σ seconds / bytes of the record`. What making a
//! record's own inputs again might cost on top is not counted.
//!
//! # Safety
//! One collection at a time; a second one fails and names the process at work. From the inventory to the
//! last removal only readers use the store beside it. It only removes files, each in one step, so that a kill leaves a
//! store that is merely less collected. A reader that has an object open or mapped keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cache::error::{AtPath, CacheError};
use crate::cache::local::collection::usage::{Described, Space, StoredObject, Usage, space_of};
use crate::cache::local::leases::{Lease, holder_at};
use crate::cache::local::records::StoredRecord;
use crate::cache::local::{Area, Store, disk, scratch};
use crate::digest::Digest;

/// How to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// What the whole store may take on disk; without it only what nothing refers to goes.
    pub max_bytes: Option<u64>,
    /// What was used within this time stays.
    pub grace: Duration,
    /// Whether nothing is removed.
    pub is_dry_run: bool,
    /// The time from which ages are counted.
    pub now: SystemTime,
}

/// Why an object stays although the cap is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeepReason {
    /// A pin holds it.
    Pinned,
    /// A living process uses it.
    InUse,
    /// A file elsewhere is the same one.
    Linked,
    /// It was used within the grace period.
    Recent,
}

/// What is removed of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Share {
    /// The objects.
    pub objects: Space,
    /// Seconds that making them again would take.
    pub seconds: f64,
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Collected {
    /// Bytes of the store before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// Objects that records hold, by the kind that made them.
    pub evicted: BTreeMap<String, Share>,
    /// Objects that no record holds.
    pub unreferenced: Space,
    /// Files of `tmp`, `work` and `quarantine`.
    pub leftovers: BTreeMap<&'static str, Space>,
    /// The objects that stay regardless of the cap.
    pub kept: BTreeMap<KeepReason, Space>,
}

impl Store {
    /// Collects. `describe` says what records hold, as in [`Store::usage`].
    pub(in crate::cache) fn collect(
        &self,
        collection: &Collection,
        describe: &(dyn Fn(&StoredRecord) -> Option<Described> + Sync),
    ) -> Result<Collected, CacheError> {
        if !self.root.join("v1").exists() {
            return Ok(Collected::default());
        }
        // The fields are dropped in order: first others may publish, then others may collect.
        let _turn = if collection.is_dry_run {
            None
        } else {
            let lease = self.collecting()?;
            self.remove_dead_leases();
            Some((self.pause_others()?, lease))
        };
        let usage = self.usage(describe)?;
        let leftovers = self.leftovers(collection)?;
        let candidates = self.candidates(&usage, collection);
        let mut collected = Collected { before: usage.bytes(), ..Collected::default() };
        for Leftover { area, space, .. } in &leftovers {
            let all = collected.leftovers.entry(area.name()).or_default();
            (all.files, all.bytes) = (all.files + space.files, all.bytes + space.bytes);
        }
        let freed: u64 = collected.leftovers.values().map(|space| space.bytes).sum();
        collected.after = collected.before.saturating_sub(freed);
        let going = choose(candidates, collection.max_bytes, &mut collected);
        if !collection.is_dry_run {
            for leftover in leftovers {
                leftover.remove()?;
            }
            for digest in going {
                let path = self.object_path(&digest);
                absent_is_fine(disk::remove_file(&path)).writing(&path)?;
            }
        }
        Ok(collected)
    }

    /// The right to collect. What dead processes left stays until it is counted.
    fn collecting(&self) -> Result<Lease, CacheError> {
        self.make_folders()?;
        let path = self.area(Area::Leases).join("collect");
        self.lease(path.clone())?.ok_or_else(|| {
            let holder = holder_at(&path).map(|holder| holder.process);
            let holder = holder.map_or("another process".to_owned(), |process| {
                format!("process {} on {}", process.pid, process.host)
            });
            CacheError::Collecting { holder }
        })
    }

    fn candidates<'a>(&self, usage: &'a Usage, collection: &Collection) -> Vec<Candidate<'a>> {
        let held = self.held();
        let pinned: BTreeSet<Digest> = self.pins().into_iter().flat_map(|pin| pin.keys).collect();
        let mut candidates: Vec<Candidate> = usage.objects.iter().map(Candidate::new).collect();
        for holding in &usage.holdings {
            let value = holding.seconds_per_byte();
            let root = if pinned.contains(&holding.key) {
                Some(KeepReason::Pinned)
            } else {
                held.contains(&holding.key).then_some(KeepReason::InUse)
            };
            for &object in &holding.objects {
                let candidate = &mut candidates[object as usize];
                candidate.value += value;
                candidate.used = candidate.used.max(holding.used);
                if candidate.kind.is_none_or(|(most, _)| value > most) {
                    candidate.kind = Some((value, &holding.kind));
                }
                // The strongest reason comes first.
                candidate.kept = match (candidate.kept, root) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
        }
        for candidate in &mut candidates {
            candidate.kept = candidate.kept.or_else(|| {
                let is_recent = !is_past(candidate.used, collection);
                (candidate.object.is_linked.then_some(KeepReason::Linked))
                    .or(is_recent.then_some(KeepReason::Recent))
            });
        }
        candidates
    }

    fn leftovers(&self, collection: &Collection) -> Result<Vec<Leftover>, CacheError> {
        let stale = scratch::stale(&self.area(Area::Tmp));
        let mut leftovers: Vec<Leftover> =
            stale.into_iter().map(|path| Leftover::new(Area::Tmp, path, None)).collect();
        for path in entries(&self.area(Area::Quarantine)) {
            if fs::symlink_metadata(&path).is_ok_and(|it| is_past(changed(&it), collection)) {
                leftovers.push(Leftover::new(Area::Quarantine, path, None));
            }
        }
        for path in entries(&self.area(Area::Work)) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(key) = name.parse::<Digest>() else { continue };
            if self.item(&key)?.is_none() || self.holder(&key).is_some() {
                continue;
            }
            // A task that is being made again has a record as well, and a lease.
            let lease = if collection.is_dry_run { None } else { self.lock(&key)? };
            if lease.is_some() || collection.is_dry_run {
                leftovers.push(Leftover::new(Area::Work, path, lease));
            }
        }
        Ok(leftovers)
    }
}

/// An object, with the facts that decide whether it stays.
struct Candidate<'a> {
    object: &'a StoredObject,
    value: f64,
    used: SystemTime,
    /// The kind of the record that contributes most to the value, and how much; `None` if no record names it.
    kind: Option<(f64, &'a str)>,
    kept: Option<KeepReason>,
}

impl<'a> Candidate<'a> {
    fn new(object: &'a StoredObject) -> Self {
        Self { object, value: 0.0, used: object.changed, kind: None, kept: None }
    }
}

/// Returns the objects to remove: all that no record names, then, while the store exceeds `max_bytes`, those of least
/// value (seconds to make again per byte). Objects with a reason to be kept stay. Adds the counts to `collected`.
fn choose(
    mut candidates: Vec<Candidate<'_>>,
    max_bytes: Option<u64>,
    collected: &mut Collected,
) -> Vec<Digest> {
    let mut going = Vec::new();
    candidates.sort_by(|a, b| {
        let by_value = a.value.total_cmp(&b.value).then(a.used.cmp(&b.used));
        // Objects that no record names come first: they are removed without a cap as well.
        a.kind.is_some().cmp(&b.kind.is_some()).then(by_value).then(a.object.digest.cmp(&b.object.digest))
    });
    for Candidate { object, value, kind, kept, .. } in candidates {
        if let Some(reason) = kept {
            collected.kept.entry(reason).or_default().add(object.disk);
            continue;
        }
        match kind {
            None => collected.unreferenced.add(object.disk),
            Some((_, kind)) if max_bytes.is_some_and(|most| collected.after > most) => {
                let share = collected.evicted.entry(kind.to_owned()).or_default();
                share.objects.add(object.disk);
                share.seconds += value * object.size as f64;
            }
            Some(_) => continue,
        }
        collected.after = collected.after.saturating_sub(object.disk);
        going.push(object.digest);
    }
    going
}

/// A file or folder that is no longer needed.
struct Leftover {
    area: Area,
    path: PathBuf,
    space: Space,
    /// Prevents others from resuming the work.
    _lease: Option<Lease>,
}

impl Leftover {
    fn new(area: Area, path: PathBuf, lease: Option<Lease>) -> Self {
        Self { area, space: space_of(&path), path, _lease: lease }
    }

    fn remove(&self) -> Result<(), CacheError> {
        disk::step(&self.path).writing(&self.path)?;
        absent_is_fine(scratch::remove(&self.path)).writing(&self.path)
    }
}

/// Whether something of that time is older than the grace period. A time in the future is not.
fn is_past(time: SystemTime, collection: &Collection) -> bool {
    // Without a grace period nothing is recent, even if the clock of the file system is ahead of ours.
    collection.grace.is_zero() || collection.now.duration_since(time).is_ok_and(|age| age >= collection.grace)
}

fn changed(metadata: &fs::Metadata) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(metadata.ctime().max(0) as u64)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::local::collection::usage::tests::describe;
    use crate::cache::local::tests::fresh;
    use crate::cache::{StatIndex, Tree, TreeEntry};

    /// Two hours from now: all that a test has just made is past the grace period.
    fn later(max_bytes: Option<u64>) -> Collection {
        let now = SystemTime::now() + Duration::from_hours(2);
        Collection { max_bytes, grace: Duration::from_hours(1), is_dry_run: false, now }
    }

    /// Publishes a record with objects of these contents; its key is that of its kind.
    fn record(store: &Store, kind: &str, seconds: f64, contents: &[&str]) -> Digest {
        let entry = |(index, content): (usize, &&str)| TreeEntry {
            path: index.to_string(),
            digest: store.publish_bytes(content.as_bytes()).unwrap(),
            size: content.len() as u64,
            executable: false,
        };
        let tree = Tree::new(contents.iter().enumerate().map(entry).collect()).unwrap();
        let tree = store.put_tree(&tree).unwrap();
        let key = Digest::of_bytes(kind.as_bytes());
        store.publish_record(&key, format!("{kind} e {seconds} {tree}").as_bytes()).unwrap();
        key
    }

    fn has(store: &Store, content: &str) -> bool {
        store.read(&Digest::of_bytes(content.as_bytes())).is_ok()
    }

    #[test]
    fn without_a_cap_only_what_no_record_holds_goes() {
        let (_folder, store) = fresh();
        let key = record(&store, "fit", 1.0, &["held"]);
        store.publish_bytes(b"orphan").unwrap();
        fs::create_dir_all(store.work_folder(&key)).unwrap();
        fs::write(store.work_folder(&key).join("half"), "x").unwrap();
        let resumable = store.work_folder(&Digest::of_bytes(b"not done"));
        fs::create_dir_all(&resumable).unwrap();
        let now = Collection { now: SystemTime::now(), ..later(None) };
        let first = store.collect(&now, &describe).unwrap();
        assert_eq!(first.unreferenced.files, 0, "it is recent");
        assert_eq!(first.leftovers["work"].files, 1);
        let dry = store.collect(&Collection { is_dry_run: true, ..later(None) }, &describe).unwrap();
        assert!(has(&store, "orphan"));
        let collected = store.collect(&later(None), &describe).unwrap();
        assert_eq!((dry.unreferenced.files, dry.after), (1, collected.after));
        assert!(!has(&store, "orphan") && has(&store, "held") && resumable.exists());
        assert_eq!(collected.after, store.usage(&describe).unwrap().bytes());
    }

    #[test]
    fn the_cheapest_seconds_per_byte_go_first_and_records_stay() {
        let (_folder, store) = fresh();
        let keys = [
            record(&store, "cheap", 1.0, &["1", "22", "shared"]),
            record(&store, "dear", 1000.0, &["3", "shared"]),
            record(&store, "middle", 10.0, &["4"]),
        ];
        let usage = store.usage(&describe).unwrap();
        let block = usage.objects[0].disk;
        let cap = |evictions: u64| later(Some(usage.bytes() - evictions * block));
        let collected = store.collect(&cap(3), &describe).unwrap();
        assert_eq!(collected.evicted.keys().collect::<Vec<_>>(), ["cheap", "middle"]);
        assert!(!has(&store, "1") && !has(&store, "22") && !has(&store, "4"));
        assert!(has(&store, "shared") && has(&store, "3"), "what is shared is worth both records' seconds");
        assert!((collected.evicted["middle"].seconds - 10.0).abs() < 1e-9);
        assert!((collected.evicted["cheap"].seconds - 3.0 / 9.0).abs() < 1e-9);
        assert!(keys.iter().all(|key| store.record(key).unwrap().is_some()));
        assert_eq!(collected.after, store.usage(&describe).unwrap().bytes());
        assert_eq!(store.collect(&cap(3), &describe).unwrap().evicted, BTreeMap::new(), "it fits");
    }

    #[test]
    fn what_is_pinned_in_use_linked_or_recent_stays_and_is_counted() {
        let (folder, store) = fresh();
        let other = Store::open(store.root().into(), StatIndex::in_memory()).unwrap();
        let keys = ["pinned", "used", "linked", "free"].map(|it| record(&store, it, 1.0, &[it]));
        store.pin("paper", &keys[..1]).unwrap();
        other.hold(&keys[1]);
        fs::hard_link(store.object_path(&Digest::of_bytes(b"linked")), folder.path().join("x")).unwrap();
        let recent = Collection { now: SystemTime::now(), ..later(Some(0)) };
        assert_eq!(store.collect(&recent, &describe).unwrap().kept[&KeepReason::Recent].files, 1);
        let collected = store.collect(&later(Some(0)), &describe).unwrap();
        let kept: Vec<_> = collected.kept.iter().map(|(reason, space)| (*reason, space.files)).collect();
        assert_eq!(kept, [(KeepReason::Pinned, 1), (KeepReason::InUse, 1), (KeepReason::Linked, 1)]);
        assert_eq!(["pinned", "used", "linked", "free"].map(|it| has(&store, it)), [true, true, true, false]);
        drop(other);
        store.unpin("paper").unwrap();
        store.collect(&later(Some(0)), &describe).unwrap();
        assert!(!has(&store, "pinned") && !has(&store, "used"));
    }

    #[test]
    fn a_second_collection_is_announced_who_is_at_work() {
        let (_folder, store) = fresh();
        store.publish_bytes(b"x").unwrap();
        let lease = store.collecting().unwrap();
        let refused = store.collect(&later(None), &describe).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lease);
        store.collect(&later(None), &describe).unwrap();
    }

    #[test]
    fn collection_waits_for_a_publication() {
        let (_folder, store) = fresh();
        let old = store.publish_bytes(b"old").unwrap();
        let pause = store.pause().unwrap();
        std::thread::scope(|scope| {
            let collection = scope.spawn(|| store.collect(&later(Some(0)), &describe).unwrap());
            assert_eq!(store.publish_bytes(b"old").unwrap(), old);
            assert!(has(&store, "old"), "what a publication has found stays until it is done");
            drop(pause);
            assert_eq!(collection.join().unwrap().unreferenced.files, 1);
        });
    }

    #[test]
    fn a_store_that_is_not_there_is_not_made() {
        let (folder, store) = fresh();
        assert_eq!(store.collect(&later(Some(0)), &describe).unwrap(), Collected::default());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
