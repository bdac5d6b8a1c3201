//! Lists of per-image records at the gate.
//!
//! A list is taken whole or not at all: its name is the digest of its bytes, so that what is wrong in it is no accident.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{DecodedRecord, Flaw};
use crate::cache::item_list::ItemList;
use crate::cache::tree::Tree;
use crate::digest::Digest;
use crate::text;

/// A per-image record, as the layer that writes them reads it.
pub trait CachedItem: Sized {
    /// Reads a record.
    fn decode(bytes: &[u8]) -> DecodedRecord<Self>;

    /// The kind of the stage that made it.
    fn kind(&self) -> &str;

    /// Digests and sizes of its files.
    fn files(&self) -> &[(Digest, u64)];

    /// What the stage says of it.
    fn note(&self) -> &str;
}

/// The per-image records that a task asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedItems {
    /// Their family; see [`ItemList::family`].
    pub family: Digest,
    /// The kind of their stage.
    pub kind: &'static str,
    /// Their keys.
    pub keys: BTreeSet<Digest>,
}

/// A list that passed, and the records in it that this version can read.
pub(in crate::cache) struct CheckedList<I> {
    pub(in crate::cache) list: ItemList,
    pub(in crate::cache) items: BTreeMap<Digest, I>,
}

/// Reads the list of that name, if it passes. [`check_files`] remains, once its trees are there.
pub(in crate::cache) fn read<I: CachedItem>(
    name: &Digest,
    wanted: &WantedItems,
    bytes: &[u8],
) -> Result<CheckedList<I>, Flaw> {
    if ItemList::name(bytes) != *name {
        return Err(Flaw::OtherContent);
    }
    let list = ItemList::from_bytes(bytes).ok_or(Flaw::Malformed)?;
    if list.family != wanted.family {
        return Err(Flaw::OtherFamily);
    }
    if list.trees.is_empty() {
        return Err(Flaw::NoOutputs);
    }
    let mut items = BTreeMap::new();
    for (key, record) in &list.items {
        if let Some(item) = check_item(record, wanted.kind)? {
            items.insert(*key, item);
        }
    }
    Ok(CheckedList { list, items })
}

/// Reads a per-image record of that kind, if it passes; `None` if another version wrote it.
fn check_item<I: CachedItem>(record: &[u8], kind: &str) -> Result<Option<I>, Flaw> {
    if record.len() > ItemList::MOST_RECORD_BYTES {
        return Err(Flaw::Malformed);
    }
    let item = match I::decode(record) {
        DecodedRecord::Record(item) => item,
        DecodedRecord::OtherVersion => return Ok(None),
        DecodedRecord::Malformed => return Err(Flaw::Malformed),
    };
    if item.kind() != kind {
        return Err(Flaw::OtherKind);
    }
    if item.files().is_empty() {
        return Err(Flaw::NoOutputs);
    }
    if item.note().contains(text::steers) {
        return Err(Flaw::Text);
    }
    Ok(Some(item))
}

/// Whether every file of every record is one of the list's trees, with its size there.
pub(in crate::cache) fn check_files<I: CachedItem>(
    items: &BTreeMap<Digest, I>,
    trees: &[Arc<Tree>],
) -> Result<(), Flaw> {
    let entries = trees.iter().flat_map(|tree| tree.entries());
    let sizes: BTreeMap<Digest, u64> = entries.map(|entry| (entry.digest, entry.size)).collect();
    for (digest, size) in items.values().flat_map(I::files) {
        match sizes.get(digest) {
            None => return Err(Flaw::OtherFiles),
            Some(known) if known != size => return Err(Flaw::TwoSizes),
            Some(_) => {}
        }
    }
    Ok(())
}
