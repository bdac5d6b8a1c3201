//! The per-image records of a task in one file. Machines share it, so that one whose data set differs in a few images
//! finds the records of all others.
//!
//! ```text
//! "patchflow items 1\n"   family: 32 bytes
//! count: u64 LE           count × (tree: 32 bytes)
//! count: u64 LE           count × (key: 32 bytes, length: u64 LE, the record)
//! ```
//! The trees are the outputs of the task: their packs hold the objects that the records name. Trees and keys ascend, so
//! that a list has one encoding. Here it lies among the per-image records, under [`ItemList::key`]; in a remote it is
//! named by the digest of its bytes.

use std::collections::BTreeMap;

use crate::digest::Digest;

const MAGIC: &[u8] = b"patchflow items 1\n";
/// Domain of the names of lists in a remote.
const NAME_DOMAIN: &str = "patchflow 2026-11-29 remote item list v1";
/// Domain of the keys under which the local store keeps lists.
const KEY_DOMAIN: &str = "patchflow 2026-11-29 store item list v1";

/// The per-image records of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemList {
    /// The digest of all that their keys are made of, but for the image itself.
    pub family: Digest,
    /// The trees of the task's outputs, ascending.
    pub trees: Vec<Digest>,
    /// The records by key.
    pub items: BTreeMap<Digest, Vec<u8>>,
}

impl ItemList {
    /// Most bytes of a list: some 150,000 images. Larger ones are not shared.
    pub const MOST_BYTES: u64 = 64 * 1024 * 1024;

    /// Most bytes of a record in a list: it names some files, as of crops, and has a short note. Larger ones are not shared.
    pub const MOST_RECORD_BYTES: usize = 256 * 1024;

    /// The key of a task's list in the local store.
    pub(in crate::cache) fn key(task: &Digest) -> Digest {
        hashed(KEY_DOMAIN, task.as_bytes())
    }

    /// The name in a remote of the list with these bytes.
    pub(in crate::cache) fn name(bytes: &[u8]) -> Digest {
        hashed(NAME_DOMAIN, bytes)
    }

    /// Bytes of the encoding.
    pub fn size_bytes(&self) -> u64 {
        let records: usize = self.items.values().map(|record| 40 + record.len()).sum();
        (MAGIC.len() + 48 + 32 * self.trees.len() + records) as u64
    }

    /// The encoding, as described at the top of this file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [MAGIC, self.family.as_bytes()].concat();
        bytes.extend((self.trees.len() as u64).to_le_bytes());
        self.trees.iter().for_each(|tree| bytes.extend(tree.as_bytes()));
        bytes.extend((self.items.len() as u64).to_le_bytes());
        for (key, record) in &self.items {
            bytes.extend(key.as_bytes());
            bytes.extend((record.len() as u64).to_le_bytes());
            bytes.extend(record);
        }
        bytes
    }

    /// Decodes a list; `None` for anything that [`Self::to_bytes`] would not have written. No length in it is believed
    /// before the bytes are there.
    pub(in crate::cache) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let family = digest(&mut rest)?;
        let mut trees = Vec::new();
        for _ in 0..integer(&mut rest)? {
            trees.push(digest(&mut rest)?);
        }
        let mut items: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        for _ in 0..integer(&mut rest)? {
            let key = digest(&mut rest)?;
            let length = usize::try_from(integer(&mut rest)?).ok()?;
            let record = take(&mut rest, length)?;
            if items.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return None;
            }
            items.insert(key, record.to_vec());
        }
        let is_whole = rest.is_empty() && trees.is_sorted_by(|one, other| one < other);
        is_whole.then_some(Self { family, trees, items })
    }
}

fn hashed(domain: &str, bytes: &[u8]) -> Digest {
    Digest::from_bytes(blake3::Hasher::new_derive_key(domain).update(bytes).finalize().into())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn digest(rest: &mut &[u8]) -> Option<Digest> {
    take(rest, 32)?.try_into().ok().map(Digest::from_bytes)
}

fn integer(rest: &mut &[u8]) -> Option<u64> {
    take(rest, 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> ItemList {
        let digest = |text: &str| Digest::of_bytes(text.as_bytes());
        let mut trees = vec![digest("images"), digest("crops")];
        trees.sort_unstable();
        let items = [("a", "record a"), ("b", ""), ("c", "record c")];
        let items = items.map(|(key, record)| (digest(key), record.as_bytes().to_vec()));
        ItemList { family: digest("family"), trees, items: items.into() }
    }

    #[test]
    fn a_list_has_one_encoding_and_nothing_else_is_read() {
        let bytes = list().to_bytes();
        assert_eq!(ItemList::from_bytes(&bytes), Some(list()));
        assert_eq!(bytes.len() as u64, list().size_bytes());
        for length in 0..bytes.len() {
            assert_eq!(ItemList::from_bytes(&bytes[..length]), None, "cut at {length}");
        }
        assert_eq!(ItemList::from_bytes(&[&bytes[..], b"x"].concat()), None);
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x81;
            assert_ne!(ItemList::name(&flipped), ItemList::name(&bytes), "{position}");
            if let Some(read) = ItemList::from_bytes(&flipped) {
                assert_eq!(read.to_bytes(), flipped, "{position}");
            }
        }
        let unsorted = ItemList { trees: list().trees.into_iter().rev().collect(), ..list() };
        assert_eq!(ItemList::from_bytes(&unsorted.to_bytes()), None);
    }

    #[test]
    fn huge_counts_and_lengths_cost_no_memory() {
        let bytes = list().to_bytes();
        let trees = MAGIC.len() + 32;
        for at in [trees, trees + 8 + 2 * 32, trees + 8 + 2 * 32 + 8 + 32] {
            for huge in [u64::MAX, 1 << 40] {
                let mut crafted = bytes.clone();
                crafted[at..at + 8].copy_from_slice(&huge.to_le_bytes());
                assert_eq!(ItemList::from_bytes(&crafted), None, "{huge} at {at}");
            }
        }
    }

    #[test]
    fn names_and_keys_are_pinned() {
        let key = Digest::of_bytes(b"task");
        assert_ne!(ItemList::key(&key), ItemList::name(key.as_bytes()));
        assert_eq!(ItemList::key(&key).to_string(), PINNED_KEY);
        assert_eq!(ItemList::name(&list().to_bytes()).to_string(), PINNED_NAME);
    }

    // From Python's blake3 1.0.11 and the description at the top of this file, 2026-11-29.
    const PINNED_KEY: &str = "c9700afc6159b723f8b54704f2aa90a2ccfcf002ac217ebac01204ce4c0f0fa0";
    const PINNED_NAME: &str = "7908c618d7ea6098a95a6e90dda2f3683fa0bb8ec3408e3ed9be7a8d8edf10cb";
}
