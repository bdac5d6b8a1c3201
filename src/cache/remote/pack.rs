//! Packs: the small objects of a tree, several in one file, so that thousands of files are a few requests.
//!
//! A tree's objects of less than [`SMALL`] bytes are grouped by the first bits of their digests, into as many
//! groups (a power of two) as hold [`GROUP`] bytes each or less on average. A group's pack is named by the digests of
//! its members: the tree determines the names, and a changed file changes one pack. A single small
//! object stays by itself.
//!
//! ```text
//! "patchflow pack 1\n"   count: u64 LE   count × (digest: 32 bytes, length: u64 LE)   the contents, in order
//! ```

use std::collections::BTreeMap;

use crate::cache::Tree;
use crate::digest::Digest;

/// Objects of at least so many bytes are not packed.
const SMALL: u64 = 256 * 1024;

/// Bytes of a group, on average at most.
const GROUP: u64 = 8 * 1024 * 1024;

const MAGIC: &[u8] = b"patchflow pack 1\n";
const DOMAIN: &str = "patchflow 2026-11-28 remote pack v1";

/// The objects of one pack: digests and lengths, in order of digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group(pub(super) Vec<(Digest, u64)>);

/// Splits the objects of a tree into groups, one for each pack, and those that are not packed.
pub(super) fn groups(tree: &Tree) -> (Vec<Group>, Vec<(Digest, u64)>) {
    let all: BTreeMap<Digest, u64> = tree.entries().iter().map(|entry| (entry.digest, entry.size)).collect();
    let (small, mut alone): (Vec<(Digest, u64)>, Vec<_>) =
        all.into_iter().partition(|&(_, size)| size < SMALL);
    let total: u64 = small.iter().map(|(_, size)| size).sum();
    let bits = total.div_ceil(GROUP).max(1).next_power_of_two().trailing_zeros().min(32);
    let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
    for (digest, size) in small {
        let first = u32::from_be_bytes(digest.as_bytes()[..4].try_into().unwrap_or_default());
        let number = if bits == 0 { 0 } else { first >> (32 - bits) };
        groups.entry(number).or_insert_with(|| Group(Vec::new())).0.push((digest, size));
    }
    let mut packed = Vec::new();
    for group in groups.into_values() {
        if group.0.len() > 1 { packed.push(group) } else { alone.extend(group.0) }
    }
    (packed, alone)
}

impl Group {
    /// The name of the pack.
    pub(super) fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        for (digest, _) in &self.0 {
            hasher.update(digest.as_bytes());
        }
        Digest::from_bytes(hasher.finalize().into())
    }

    /// Packs the contents of the members, read by `read`; `None` if one cannot be read or has another length.
    pub(super) fn pack(&self, read: impl Fn(&Digest) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut pack = Vec::with_capacity(MAGIC.len() + 8 + 40 * self.0.len() + self.size() as usize);
        pack.extend(MAGIC);
        pack.extend((self.0.len() as u64).to_le_bytes());
        for (digest, size) in &self.0 {
            pack.extend(digest.as_bytes());
            pack.extend(size.to_le_bytes());
        }
        for (digest, size) in &self.0 {
            pack.extend(read(digest).filter(|content| content.len() as u64 == *size)?);
        }
        Some(pack)
    }

    /// Bytes of the members together.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|(_, size)| size).sum()
    }

    /// The contents in a pack, by digest; `None` if it is truncated or of another form. The contents are not
    /// verified.
    pub(super) fn unpack(pack: &[u8]) -> Option<BTreeMap<Digest, &[u8]>> {
        let rest = pack.strip_prefix(MAGIC)?;
        let (count, mut rest) = take_number(rest)?;
        let mut members = Vec::new();
        for _ in 0..count {
            let (digest, after) = rest.split_at_checked(32)?;
            let (length, after) = take_number(after)?;
            members.push((Digest::from_bytes(digest.try_into().ok()?), usize::try_from(length).ok()?));
            rest = after;
        }
        let mut contents = BTreeMap::new();
        for (digest, length) in members {
            let (content, after) = rest.split_at_checked(length)?;
            contents.insert(digest, content);
            rest = after;
        }
        rest.is_empty().then_some(contents)
    }
}

fn take_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_at_checked(8)?;
    Some((u64::from_le_bytes(number.try_into().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::TreeEntry;

    fn tree(contents: &[Vec<u8>]) -> Tree {
        let entry = |(index, content): (usize, &Vec<u8>)| TreeEntry {
            path: format!("{index:05}"),
            digest: Digest::of_bytes(content),
            size: content.len() as u64,
            executable: false,
        };
        Tree::new(contents.iter().enumerate().map(entry).collect()).unwrap()
    }

    #[test]
    fn small_objects_are_packed_in_few_groups_and_one_change_makes_one_pack_new() {
        let contents: Vec<Vec<u8>> = (0..5000_u32).map(|number| number.to_le_bytes().repeat(2500)).collect();
        let (packed, alone) = groups(&tree(&contents));
        assert!(alone.is_empty() && packed.len() == 8, "{} groups of 50 MB", packed.len());
        assert_eq!(packed.iter().map(|group| group.0.len()).sum::<usize>(), 5000);
        let mut changed = contents.clone();
        changed[17][0] ^= 1;
        let (after, _) = groups(&tree(&changed));
        let names = |groups: &[Group]| -> Vec<Digest> { groups.iter().map(Group::digest).collect() };
        let (old, new) = (names(&packed), names(&after));
        let fresh = new.iter().filter(|name| !old.contains(name)).count();
        assert!((1..=2).contains(&fresh), "its old group and its new one: {fresh}");
    }

    #[test]
    fn large_and_single_objects_lie_alone() {
        let (packed, alone) = groups(&tree(&[vec![1; 300_000], vec![2; 10], vec![2; 10]]));
        assert!(packed.is_empty());
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn a_pack_gives_back_what_went_in_and_a_damaged_one_nothing() {
        let contents = vec![b"one".to_vec(), Vec::new(), b"three".to_vec()];
        let (packed, _) = groups(&tree(&contents));
        let by_digest: BTreeMap<Digest, Vec<u8>> =
            contents.iter().map(|content| (Digest::of_bytes(content), content.clone())).collect();
        let pack = packed[0].pack(|digest| by_digest.get(digest).cloned()).unwrap();
        assert!(packed[0].pack(|_| Some(b"other".to_vec())).is_none());
        let found = Group::unpack(&pack).unwrap();
        assert!(found.iter().all(|(digest, content)| by_digest[digest] == *content) && found.len() == 3);
        for cut in 0..pack.len() {
            assert!(Group::unpack(&pack[..cut]).is_none(), "cut at {cut}");
        }
    }
}
