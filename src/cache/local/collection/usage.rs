//! What takes the space: every object, and which records hold it.
//!
//! The store does not interpret records. Their writer describes what each names ([`Described`]); with the trees
//! and the objects that are there, this gives the records of every object. Nothing is hashed, moved or written.
//! Cost: one `stat` for each object, one read for each record and each tree.
//!
//! Sizes on disk are allocated blocks, as `du` counts them: a record of 300 bytes takes a block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use crate::cache::error::CacheError;
use crate::cache::local::objects::stat;
use crate::cache::local::records::{RECORDED, StoredRecord};
use crate::cache::local::{Area, Store};
use crate::cache::tree::Tree;
use crate::digest::Digest;

/// The description of a record by its writer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Described {
    /// What made it: the kind of stage.
    pub kind: String,
    /// The name of the stage; empty for a per-image record.
    pub stage: String,
    /// The experiments that it belongs to.
    pub experiments: Vec<String>,
    /// Seconds that making its outputs again would take.
    pub seconds: f64,
    /// The trees that it names.
    pub trees: Vec<Digest>,
    /// Objects that it names outside a tree, with their sizes.
    pub files: Vec<(Digest, u64)>,
}

/// Files, and what they take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// How many.
    pub files: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// An object that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredObject {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that it takes on disk.
    pub disk: u64,
    /// When it was published, or given a further name by a run's folder.
    pub changed: SystemTime,
    /// Whether a file elsewhere is the same one (a hard link): removing the object frees nothing.
    pub is_linked: bool,
}

/// A record, with the objects that it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// Its key.
    pub key: Digest,
    /// What made it.
    pub kind: String,
    /// Whether it is a per-image record.
    pub is_item: bool,
    /// The experiments that it belongs to.
    pub experiments: Vec<String>,
    /// Seconds that making its outputs again would take.
    pub seconds: f64,
    /// When it was published or last used.
    pub used: SystemTime,
    /// Bytes of all its distinct objects, there or not.
    pub size: u64,
    /// Indices of its distinct objects in [`Usage::objects`], ascending.
    pub objects: Vec<u32>,
    /// How many of its objects are not there.
    pub missing: u64,
}

impl Holding {
    /// Seconds of work in each byte of its outputs: a record is made as a whole.
    pub fn seconds_per_byte(&self) -> f64 {
        self.seconds / self.size.max(1) as f64
    }
}

/// What several records hold together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    /// How many records of tasks.
    pub records: u64,
    /// How many per-image records.
    pub items: u64,
    /// Their objects that are there, each once.
    pub objects: Space,
    /// The part of `objects` that no other group holds.
    pub own: Space,
    /// Objects that are not there, by record.
    pub missing: u64,
    /// Seconds that making all of it took.
    pub seconds: f64,
}

/// What takes the space.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// Every object, in order of digest.
    pub objects: Vec<StoredObject>,
    /// Every record that its writer can describe, in order of key.
    pub holdings: Vec<Holding>,
    /// Everything in the folder of that name: objects, trees, records, tmp, work, quarantine.
    pub areas: BTreeMap<&'static str, Space>,
}

impl Usage {
    /// Bytes of the whole store.
    pub fn bytes(&self) -> u64 {
        self.areas.values().map(|space| space.bytes).sum()
    }

    /// Which objects no record holds.
    pub fn unreferenced(&self) -> impl Iterator<Item = &StoredObject> {
        let mut is_held = vec![false; self.objects.len()];
        for &object in self.holdings.iter().flat_map(|holding| &holding.objects) {
            is_held[object as usize] = true;
        }
        self.objects.iter().zip(is_held).filter(|(_, is_held)| !is_held).map(|(object, _)| object)
    }

    /// Puts the records into groups by name; one may be in several. In order of name.
    pub fn groups<'a>(&'a self, names: impl Fn(&'a Holding) -> &'a [String]) -> BTreeMap<&'a str, Group> {
        let mut members: BTreeMap<&str, Vec<&Holding>> = BTreeMap::new();
        for holding in &self.holdings {
            for name in names(holding) {
                members.entry(name).or_default().push(holding);
            }
        }
        // For each object the last group that holds it, counted from 1, and how many do.
        let mut seen = vec![(0_usize, 0_usize); self.objects.len()];
        let mut groups: Vec<Group> = Vec::with_capacity(members.len());
        for (index, holdings) in members.values().enumerate() {
            let items = holdings.iter().filter(|holding| holding.is_item).count() as u64;
            let mut group = Group { records: holdings.len() as u64 - items, items, ..Group::default() };
            for holding in holdings {
                group.seconds += holding.seconds;
                group.missing += holding.missing;
                for &object in &holding.objects {
                    let (last, count) = &mut seen[object as usize];
                    if *last != index + 1 {
                        (*last, *count) = (index + 1, *count + 1);
                        group.objects.add(self.objects[object as usize].disk);
                    }
                }
            }
            groups.push(group);
        }
        for (object, (last, count)) in self.objects.iter().zip(seen) {
            if count == 1 {
                groups[last - 1].own.add(object.disk);
            }
        }
        members.into_keys().zip(groups).collect()
    }
}

impl Space {
    /// Adds a file.
    pub fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

impl Store {
    /// Takes the inventory. `describe` returns `None` for a record of unknown form: its objects count as
    /// unreferenced. Files that are removed meanwhile are skipped.
    pub(in crate::cache) fn usage(
        &self,
        describe: &(dyn Fn(&StoredRecord) -> Option<Described> + Sync),
    ) -> Result<Usage, CacheError> {
        let (known, foreign) = self.listed(Area::Objects);
        let objects: Vec<Option<StoredObject>> = (known.par_iter())
            .map(|(digest, path)| Ok(stat(path)?.map(|metadata| stored(*digest, &metadata))))
            .collect::<Result<_, CacheError>>()?;
        let objects: Vec<StoredObject> = objects.into_iter().flatten().collect();
        let records: Vec<_> = RECORDED.into_iter().flat_map(|area| self.listed(area).0).collect();
        let holding = |(key, path): &(Digest, std::path::PathBuf)| {
            let record = Self::record_at(*key, path)?;
            Some(self.holding(&record, describe(&record)?, &objects))
        };
        let holdings = records.par_iter().filter_map(holding).collect();
        // Leases and pins are left out: they are few lines, and a collection makes one itself.
        let others = [Area::Trees, Area::Records, Area::Items, Area::Tmp, Area::Work, Area::Quarantine];
        let mut areas: BTreeMap<&str, Space> =
            others.into_iter().map(|area| (area.name(), space_of(&self.area(area)))).collect();
        let mut of_objects = Space::default();
        for object in &objects {
            of_objects.add(object.disk);
        }
        for path in foreign {
            of_objects.add(stat(&path)?.map_or(0, |metadata| on_disk(&metadata)));
        }
        areas.insert(Area::Objects.name(), of_objects);
        Ok(Usage { objects, holdings, areas })
    }

    /// The records that hold any of these objects, there or not, by object.
    pub(in crate::cache) fn holders(
        &self,
        objects: &BTreeSet<Digest>,
        describe: &dyn Fn(&StoredRecord) -> Option<Described>,
    ) -> BTreeMap<Digest, Vec<Described>> {
        let mut holders: BTreeMap<Digest, Vec<Described>> = BTreeMap::new();
        if objects.is_empty() {
            return holders;
        }
        for described in self.all_records().filter_map(|record| describe(&record)) {
            let trees = described.trees.iter().filter_map(|tree| self.peek_tree(tree));
            let mut held: BTreeSet<Digest> = trees
                .flat_map(|tree| tree.entries().iter().map(|it| it.digest).collect::<Vec<_>>())
                .collect();
            held.extend(described.files.iter().map(|(digest, _)| digest));
            for digest in held.intersection(objects) {
                holders.entry(*digest).or_default().push(described.clone());
            }
        }
        holders
    }

    fn holding(&self, record: &StoredRecord, described: Described, objects: &[StoredObject]) -> Holding {
        let Described { kind, stage, experiments, seconds, trees, files } = described;
        let mut wanted = files;
        for tree in trees.iter().filter_map(|tree| self.peek_tree(tree)) {
            wanted.extend(tree.entries().iter().map(|entry| (entry.digest, entry.size)));
        }
        wanted.sort_unstable();
        wanted.dedup();
        let index = |digest: &Digest| objects.binary_search_by(|object| object.digest.cmp(digest)).ok();
        let found: Vec<u32> =
            wanted.iter().filter_map(|(digest, _)| index(digest)).map(|index| index as u32).collect();
        Holding {
            key: record.key,
            kind,
            is_item: stage.is_empty(),
            experiments,
            seconds: if seconds.is_finite() { seconds.max(0.0) } else { 0.0 },
            used: record.used,
            size: wanted.iter().map(|(_, size)| size).sum(),
            missing: (wanted.len() - found.len()) as u64,
            objects: found,
        }
    }

    /// A tree, if it is sound; a damaged one is not moved.
    fn peek_tree(&self, digest: &Digest) -> Option<Tree> {
        let tree = fs::read(self.path(Area::Trees, digest)).ok()?;
        (Tree::digest_of_bytes(&tree) == *digest).then(|| Tree::from_bytes(&tree).ok())?
    }
}

fn stored(digest: Digest, metadata: &fs::Metadata) -> StoredObject {
    let since = Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec() as u32);
    StoredObject {
        digest,
        size: metadata.len(),
        disk: on_disk(metadata),
        changed: UNIX_EPOCH + since,
        is_linked: metadata.nlink() > 1,
    }
}

/// Bytes that a file takes on disk.
pub(in crate::cache::local) fn on_disk(metadata: &fs::Metadata) -> u64 {
    metadata.blocks() * 512
}

/// The files under a path, which may be a file itself or not be there.
pub(in crate::cache::local) fn space_of(path: &Path) -> Space {
    let mut space = Space::default();
    for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
        if !entry.file_type().is_dir() {
            space.add(entry.metadata().map_or(0, |metadata| on_disk(&metadata)));
        }
    }
    space
}

#[cfg(test)]
pub(in crate::cache::local) mod tests {
    use super::*;
    use crate::cache::TreeEntry;
    use crate::cache::local::tests::fresh;

    fn entry(path: &str, digest: Digest, size: u64) -> TreeEntry {
        TreeEntry { path: path.into(), digest, size, executable: false }
    }

    /// A record's bytes are `kind experiments seconds tree`.
    pub(in crate::cache::local) fn describe(record: &StoredRecord) -> Option<Described> {
        let text = str::from_utf8(&record.bytes).ok()?;
        let parts: Vec<&str> = text.split(' ').collect();
        let &[kind, experiments, seconds, tree] = parts.as_slice() else { return None };
        Some(Described {
            kind: kind.to_owned(),
            stage: "stage".to_owned(),
            experiments: experiments.split(',').map(str::to_owned).collect(),
            seconds: seconds.parse().ok()?,
            trees: vec![tree.parse().ok()?],
            files: Vec::new(),
        })
    }

    #[test]
    fn shared_objects_count_once_in_each_group_and_are_nobodys_own() {
        let (_folder, store) = fresh();
        let [a, b, c] = ["aaaa", "bb", "c"].map(|it| store.publish_bytes(it.as_bytes()).unwrap());
        let gone = Digest::of_bytes(b"gone");
        let first = Tree::new(vec![entry("a", a, 4), entry("a2", a, 4), entry("b", b, 2)]).unwrap();
        let second = Tree::new(vec![entry("b", b, 2), entry("gone", gone, 9)]).unwrap();
        let trees = [&first, &second].map(|tree| store.put_tree(tree).unwrap());
        let text = [format!("extract one 6 {}", trees[0]), format!("fit one,two 2 {}", trees[1])];
        for (number, text) in text.iter().enumerate() {
            store.publish_record(&Digest::of_bytes(&[number as u8]), text.as_bytes()).unwrap();
        }
        store.publish_record(&Digest::of_bytes(b"other"), b"nobody can read it").unwrap();

        let usage = store.usage(&describe).unwrap();
        assert_eq!(usage.unreferenced().map(|object| object.digest).collect::<Vec<_>>(), [c]);
        let block = usage.objects[0].disk;
        assert!(block > 0 && usage.objects.iter().all(|object| object.disk == block));
        let space = |files: u64| Space { files, bytes: files * block };
        let kinds = usage.groups(|holding| std::slice::from_ref(&holding.kind));
        let extract =
            Group { records: 1, items: 0, objects: space(2), own: space(1), missing: 0, seconds: 6.0 };
        let fit = Group { records: 1, items: 0, objects: space(1), own: space(0), missing: 1, seconds: 2.0 };
        assert_eq!(kinds, BTreeMap::from([("extract", extract), ("fit", fit)]));
        let experiments = usage.groups(|holding| &holding.experiments);
        let one = Group { records: 2, items: 0, objects: space(2), own: space(1), missing: 1, seconds: 8.0 };
        assert_eq!(experiments, BTreeMap::from([("one", one), ("two", fit)]));
        let of_first = usage.holdings.iter().find(|holding| holding.kind == "extract").unwrap();
        assert!((of_first.seconds_per_byte() - 1.0).abs() < 1e-12, "6 seconds for 6 distinct bytes");
        assert_eq!((usage.areas["objects"], usage.areas["records"].files), (space(3), 3));
    }

    #[test]
    fn taking_stock_writes_nothing_and_needs_no_store() {
        let (folder, store) = fresh();
        let usage = store.usage(&describe).unwrap();
        assert_eq!((usage.bytes(), usage.objects.len(), usage.holdings.len()), (0, 0, 0));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
