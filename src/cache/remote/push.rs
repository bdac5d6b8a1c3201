//! Pushing results to the remote.
//!
//! A result is there if its record is, and its trees, and all of their packs and objects with the right sizes. Whatever
//! of it is missing, of another size, or known to be damaged goes up, in the order of the module above; so does a
//! record that leads to files which are gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::pack::{Group, groups};
use super::presence::Part;
use super::{Answer, LARGE, QUICK, Question, REQUESTS, RemoteStore, lock};
use crate::cache::Tree;
use crate::cache::gate::{self, Entry, Flaw};
use crate::cache::item_list::ItemList;
use crate::cache::local::{Area, Store, records};
use crate::digest::Digest;

/// Results whose files are asked for together.
const TOGETHER: usize = 256;

/// Results that are pushed at once; their requests share [`REQUESTS`].
const RESULTS: usize = 8;

/// Packs of one tree that are uploaded at once: each is in memory as a whole.
const PACKS: usize = 4;

/// A result to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushOrder {
    /// The key.
    pub key: Digest,
    /// The trees of its outputs.
    pub trees: Vec<Digest>,
}

/// What was pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Results that the remote has now and did not have before.
    pub records: usize,
    /// Results that the remote had already, whole.
    pub known: usize,
    /// Results that the remote had in part; what was missing or damaged is there now.
    pub completed: usize,
    /// Results with objects that are evicted or damaged here.
    pub incomplete: usize,
    /// Results that other machines would refuse, such as for the names of their files.
    pub unfit: usize,
    /// Results that the remote did not take.
    pub failed: usize,
    /// Bytes uploaded.
    pub bytes: u64,
}

impl Pushed {
    /// Adds another.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.known += other.known;
        self.completed += other.completed;
        self.incomplete += other.incomplete;
        self.unfit += other.unfit;
        self.failed += other.failed;
        self.bytes += other.bytes;
    }
}

/// A result as it is here.
pub(super) struct LocalResult {
    pub(super) key: Digest,
    /// The file of the record.
    record: Vec<u8>,
    pub(super) outputs: Vec<LocalOutput>,
    /// The list of its per-image records, if it has one.
    pub(super) items: Option<Part>,
}

/// An output of a result, and the files of the remote that hold it.
pub(super) struct LocalOutput {
    tree: Arc<Tree>,
    pub(super) digest: Digest,
    pub(super) packs: Vec<Group>,
    pub(super) objects: Vec<(Digest, u64)>,
}

/// Why a result cannot be pushed.
pub(super) enum Unpushable {
    /// A part of it is not here.
    Incomplete,
    /// The gate of other machines would refuse it.
    Unfit,
}

impl RemoteStore {
    /// Pushes records with their trees and objects, or those of them that are not there. `report` is called for each
    /// result that is through, and not for those that the user cut off.
    pub(in crate::cache) fn push(&self, store: &Store, orders: &[PushOrder], mut report: impl FnMut(Pushed)) {
        if !self.is_written() {
            report(Pushed { failed: orders.len(), ..Pushed::default() });
            return;
        }
        for orders in orders.chunks(TOGETHER) {
            let results: Vec<_> = orders.iter().map(|order| LocalResult::read(store, order)).collect();
            self.wait(async {
                self.find_all(&results).await;
                let push = |result| async move {
                    match result {
                        Ok(result) => push_one(store, self, &result).await,
                        Err(Unpushable::Incomplete) => Some(Pushed { incomplete: 1, ..Pushed::default() }),
                        Err(Unpushable::Unfit) => Some(Pushed { unfit: 1, ..Pushed::default() }),
                    }
                };
                let mut all = stream::iter(results.into_iter().map(push)).buffer_unordered(RESULTS);
                while let Some(pushed) = all.next().await {
                    report(pushed.unwrap_or(Pushed { failed: 1, ..Pushed::default() }));
                }
            });
        }
    }

    /// Finds out which files of some results exist: the records first, as a remote that does not answer for them is not
    /// asked further.
    async fn find_all(&self, results: &[Result<LocalResult, Unpushable>]) {
        let results: Vec<&LocalResult> = results.iter().flatten().collect();
        let records: Vec<Part> = results.iter().map(|result| result.record_part()).collect();
        self.find(&records).await;
        let known = results.iter().zip(&records).filter(|(_, record)| self.is_sound(record).is_some());
        self.find(&known.flat_map(|(result, _)| result.parts()).collect::<Vec<_>>()).await;
    }

    /// Whether the remote has a sound record of the key; `None` if there is no answer. One of another size than the
    /// local one may be another machine's: it is looked at.
    async fn has_record(&self, key: &Digest, size: u64) -> Option<bool> {
        let entry = Entry::Record(*key);
        if !self.is_sound(&Part { entry, size: None })? {
            return Some(false);
        }
        let is_read = lock(&self.answers).get(key).is_some_and(|answer| answer.record.is_some());
        if is_read || self.size(entry) == Some(size) {
            return Some(true);
        }
        let flaw = match self.get(&Question::record(key), QUICK).await {
            Answer::File(file) if records::content(key, file.clone()).is_some() => return Some(true),
            Answer::File(_) => Flaw::OtherContent,
            Answer::Refused(flaw) => flaw,
            Answer::Absent => return Some(false),
            Answer::None => return None,
        };
        self.refuse(entry, flaw);
        Some(false)
    }
}

impl LocalResult {
    /// Reads record and trees; objects are checked once they are needed.
    pub(super) fn read(store: &Store, order: &PushOrder) -> Result<Self, Unpushable> {
        let record = fs::read(store.path(Area::Records, &order.key)).map_err(|_| Unpushable::Incomplete)?;
        if records::content(&order.key, record.clone()).is_none() {
            return Err(Unpushable::Incomplete);
        }
        let output = |digest: &Digest| {
            let tree = store.tree(digest).ok().flatten().ok_or(Unpushable::Incomplete)?;
            gate::tree::check(&tree).map_err(|_| Unpushable::Unfit)?;
            let (packs, objects) = groups(&tree);
            Ok(LocalOutput { tree, digest: *digest, packs, objects })
        };
        let outputs = order.trees.iter().map(output).collect::<Result<_, _>>()?;
        Ok(Self { key: order.key, record, outputs, items: item_list(store, order) })
    }

    /// The file of its record.
    fn record_part(&self) -> Part {
        Part { entry: Entry::Record(self.key), size: None }
    }

    /// Every other file of the remote that holds a part of the result.
    fn parts(&self) -> Vec<Part> {
        let mut parts: Vec<Part> = self.outputs.iter().map(LocalOutput::tree).collect();
        parts.extend(self.outputs.iter().flat_map(|output| output.packs.iter().map(pack)));
        parts.extend(self.outputs.iter().flat_map(|output| output.objects.iter().map(object)));
        parts.extend(self.items);
        parts
    }
}

impl LocalOutput {
    fn tree(&self) -> Part {
        Part { entry: Entry::Tree(self.digest), size: Some(self.tree.encoded_size()) }
    }
}

/// The list of a result's per-image records, unless it is that of other outputs.
fn item_list(store: &Store, order: &PushOrder) -> Option<Part> {
    let bytes = store.item(&ItemList::key(&order.key)).ok()??;
    let ItemList { family, trees, .. } = ItemList::from_bytes(&bytes)?;
    let entry = Entry::Items { family, list: ItemList::name(&bytes) };
    let is_of_result = trees.iter().all(|tree| order.trees.contains(tree));
    is_of_result.then_some(Part { entry, size: Some(bytes.len() as u64) })
}

fn pack(group: &Group) -> Part {
    Part { entry: Entry::Pack(group.digest()), size: Some(group.packed_size()) }
}

fn object((digest, size): &(Digest, u64)) -> Part {
    Part { entry: Entry::Object(*digest), size: Some(*size) }
}

/// Pushes what the remote lacks of one result; `None` if the remote does not take it.
async fn push_one(store: &Store, remote: &RemoteStore, result: &LocalResult) -> Option<Pushed> {
    let has_record = remote.has_record(&result.key, result.record.len() as u64).await?;
    let mut bytes = 0;
    let mut pushed = BTreeSet::new();
    for output in &result.outputs {
        let (packs, objects) = lacking(remote, output)?;
        let lacks_objects = !packs.is_empty() || !objects.is_empty();
        if lacks_objects && !store.check(&output.tree).is_ok_and(|damage| damage.is_empty()) {
            return Some(Pushed { incomplete: 1, ..Pushed::default() });
        }
        bytes += push_objects(store, remote, packs, objects).await?;
        let has_tree = remote.is_sound(&output.tree())?;
        if !has_tree {
            let encoded = output.tree.to_bytes();
            bytes += encoded.len() as u64;
            remote.put(Entry::Tree(output.digest), encoded).await?;
        }
        if lacks_objects || !has_tree {
            pushed.insert(output.digest);
        }
    }
    let bytes_of_items = push_items(store, remote, result).await;
    bytes += bytes_of_items;
    if has_record {
        let count = Pushed { bytes, ..Pushed::default() };
        let is_known = pushed.is_empty() && bytes_of_items == 0;
        return Some(if is_known { Pushed { known: 1, ..count } } else { Pushed { completed: 1, ..count } });
    }
    bytes += result.record.len() as u64;
    let record = Entry::Record(result.key);
    // The first record of a key stays, except for one that is damaged or whose objects are not there.
    if lock(&remote.names).invalid.contains(&record) {
        remote.put(record, result.record.clone()).await?;
    } else {
        remote.put_new(record, result.record.clone()).await?;
    }
    Some(Pushed { records: 1, bytes, ..Pushed::default() })
}

/// Pushes the list of a result's per-image records if the remote lacks it; returns its bytes. A result is whole without:
/// if the list is not taken, other machines make more images than they must.
async fn push_items(store: &Store, remote: &RemoteStore, result: &LocalResult) -> u64 {
    let Some(part) = result.items.filter(|part| remote.is_sound(part) == Some(false)) else { return 0 };
    let Ok(Some(bytes)) = store.item(&ItemList::key(&result.key)) else { return 0 };
    let size = bytes.len() as u64;
    if ItemList::name(&bytes) != part.entry.digest() {
        return 0;
    }
    remote.put(part.entry, bytes).await.map_or(0, |()| size)
}

/// Packs, and objects with their sizes in bytes.
type Contents = (Vec<Group>, Vec<(Digest, u64)>);

/// The packs and objects of an output that the remote lacks.
fn lacking(remote: &RemoteStore, output: &LocalOutput) -> Option<Contents> {
    let (mut packs, mut objects) = (Vec::new(), Vec::new());
    for group in &output.packs {
        if !remote.is_sound(&pack(group))? {
            packs.push(group.clone());
        }
    }
    for one in &output.objects {
        if !remote.is_sound(&object(one))? {
            objects.push(*one);
        }
    }
    Some((packs, objects))
}

/// Uploads packs and objects; returns their bytes.
async fn push_objects(
    store: &Store,
    remote: &RemoteStore,
    packs: Vec<Group>,
    objects: Vec<(Digest, u64)>,
) -> Option<u64> {
    let pack = |group: Group| async move {
        let pack = group.pack(|digest| File::open(store.object_path(digest)).ok())?;
        let size = pack.len() as u64;
        remote.put(Entry::Pack(group.digest()), pack).await?;
        Some(size)
    };
    let one = |(digest, size): (Digest, u64)| async move {
        let (entry, path) = (Entry::Object(digest), store.object_path(&digest));
        if size > LARGE {
            remote.put_file(entry, &path, size).await?;
        } else {
            remote.put(entry, fs::read(&path).ok()?).await?;
        }
        Some(size)
    };
    let mut bytes = 0;
    let mut packs = stream::iter(packs.into_iter().map(pack)).buffered(PACKS);
    while let Some(size) = packs.next().await {
        bytes += size?;
    }
    let mut objects = stream::iter(objects.into_iter().map(one)).buffered(REQUESTS);
    while let Some(size) = objects.next().await {
        bytes += size?;
    }
    Some(bytes)
}
