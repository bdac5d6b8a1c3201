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
use std::io::Read;

use crate::cache::Tree;
use crate::digest::Digest;

/// Objects of at least so many bytes are not packed.
const SMALL: u64 = 256 * 1024;

/// Bytes of a group, on average at most.
const GROUP: u64 = 8 * 1024 * 1024;

/// Most bytes of a group. Digests spread evenly, so that none comes near it unless somebody chose its members; those
/// are not packed, as a pack is in memory as a whole.
const MOST: u64 = 64 * 1024 * 1024;

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
        if group.0.len() > 1 && group.size() <= MOST { packed.push(group) } else { alone.extend(group.0) }
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

    /// Packs the contents of the members, which `open` gives; `None` if one cannot be read or has another length.
    pub(super) fn pack<R: Read>(&self, open: impl Fn(&Digest) -> Option<R>) -> Option<Vec<u8>> {
        let head = self.head();
        let mut pack = Vec::with_capacity(head.len() + self.size() as usize);
        pack.extend(head);
        for (digest, size) in &self.0 {
            // A byte more shows that the content is longer.
            let length = open(digest)?.take(size + 1).read_to_end(&mut pack).ok()?;
            if length as u64 != *size {
                return None;
            }
        }
        Some(pack)
    }

    /// Everything before the contents. The tree determines it, so that nothing in a pack decides how it is read.
    fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(MAGIC.len() + 8 + 40 * self.0.len());
        head.extend(MAGIC);
        head.extend((self.0.len() as u64).to_le_bytes());
        for (digest, size) in &self.0 {
            head.extend(digest.as_bytes());
            head.extend(size.to_le_bytes());
        }
        head
    }

    /// Bytes of the members together.
    pub(super) fn size(&self) -> u64 {
        self.0.iter().map(|(_, size)| size).sum()
    }

    /// Bytes of the pack.
    pub(super) fn packed_size(&self) -> u64 {
        (MAGIC.len() + 8 + 40 * self.0.len()) as u64 + self.size()
    }

    /// The contents in a pack, by digest; `None` if it is not a pack of exactly these members. The contents are not
    /// verified.
    pub(super) fn unpack<'a>(&self, pack: &'a [u8]) -> Option<Vec<(Digest, &'a [u8])>> {
        let mut rest = pack.strip_prefix(&self.head()[..])?;
        let mut contents = Vec::with_capacity(self.0.len());
        for (digest, size) in &self.0 {
            let (content, after) = rest.split_at_checked(usize::try_from(*size).ok()?)?;
            contents.push((*digest, content));
            rest = after;
        }
        rest.is_empty().then_some(contents)
    }
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
    fn a_group_that_somebody_made_huge_is_not_packed() {
        let entry = |number: u32| {
            let mut digest = [0; 32];
            digest[28..].copy_from_slice(&number.to_be_bytes());
            let (digest, size) = (Digest::from_bytes(digest), SMALL - 1);
            TreeEntry { path: format!("{number:05}"), digest, size, executable: false }
        };
        let (packed, alone) = groups(&Tree::new((0..300).map(entry).collect()).unwrap());
        assert_eq!((packed.len(), alone.len()), (0, 300), "75 MiB with one beginning of all digests");
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
        let pack = packed[0].pack(|digest| by_digest.get(digest).map(Vec::as_slice)).unwrap();
        assert!(packed[0].pack(|_| Some(&b"other"[..])).is_none(), "another length");
        assert!(packed[0].pack(|_| None::<&[u8]>).is_none(), "a member is gone");
        let found = packed[0].unpack(&pack).unwrap();
        assert!(found.iter().all(|(digest, content)| by_digest[digest] == *content) && found.len() == 3);
        assert_eq!(packed[0].packed_size(), pack.len() as u64);
        for cut in 0..pack.len() {
            assert!(packed[0].unpack(&pack[..cut]).is_none(), "cut at {cut}");
        }
        for position in 0..packed[0].head().len() {
            let mut flipped = pack.clone();
            flipped[position] ^= 0x40;
            assert!(packed[0].unpack(&flipped).is_none(), "flipped at {position}");
        }
    }
}
