//! The files of an artifact: a sorted list of (path, digest, size, executable).
//!
//! A tree's digest is the blake3 (`derive_key`) of its encoding, and the encoding is injective: a magic
//! text, the number of entries, then for each entry the length of the path, the path, the digest, the
//! size and the mode. Integers are 8 bytes, little-endian; the mode is one byte, 0 or 1. Names, order
//! of arrival, owners and times of files have no part in it. Empty folders are not kept.

use crate::cache::error::CacheError;
use crate::digest::Digest;

/// First bytes of an encoded tree; the number is the version of the format.
const MAGIC: &[u8] = b"patchflow tree 1\n";

/// Domain of a tree's digest: text that is hashed first. A change changes every key.
const DOMAIN: &str = "patchflow 2026-11-01 store tree listing v1";

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeEntry {
    /// Path: `/`-separated, relative, without `.`, `..` or empty parts.
    pub path: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFlaw {
    /// The path is empty.
    #[error("it is empty")]
    Empty,
    /// It starts at the root.
    #[error("it is absolute")]
    Absolute,
    /// A part is `.` or `..`, which could lead out of the folder.
    #[error("it has a `.` or `..` part")]
    Dots,
    /// There are two separators in a row, or one at the end.
    #[error("it has an empty part")]
    EmptyPart,
    /// There is a NUL, or a backslash, which is a separator on other systems.
    #[error("it has a NUL or a backslash")]
    Forbidden,
}

/// A checked list of files: sorted by path (bytes), each path once, no path both file and folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    entries: Vec<TreeEntry>,
}

impl Tree {
    /// Sorts and checks the entries.
    pub fn new(mut entries: Vec<TreeEntry>) -> Result<Self, CacheError> {
        entries.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        check_entries(&entries)?;
        Ok(Self { entries })
    }

    /// Returns the entries in order of path.
    pub fn entries(&self) -> &[TreeEntry] {
        &self.entries
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the sum of the files' lengths in bytes. A content that appears twice counts twice.
    pub fn total_size(&self) -> u64 {
        self.entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.size))
    }

    /// Returns the entry of the file at `path`.
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        let found = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path));
        found.ok().map(|index| &self.entries[index])
    }

    /// The files under the folder `prefix`, without the prefix and its `/`; empty if there
    /// are none. `""` returns the whole tree.
    #[must_use]
    pub fn subtree(&self, prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        if prefix.is_empty() {
            return self.clone();
        }
        let inside = |entry: &TreeEntry| {
            let path = entry.path.strip_prefix(prefix)?.strip_prefix('/')?;
            Some(TreeEntry { path: path.into(), ..entry.clone() })
        };
        Self { entries: self.entries.iter().filter_map(inside).collect() }
    }

    /// Returns a tree of the files for which `keep` is true.
    #[must_use]
    pub fn filter(&self, mut keep: impl FnMut(&TreeEntry) -> bool) -> Self {
        Self { entries: self.entries.iter().filter(|entry| keep(entry)).cloned().collect() }
    }

    /// Returns the digest. It is equal for two trees if and only if all entries are equal.
    pub fn digest(&self) -> Digest {
        Self::digest_of_bytes(&self.to_bytes())
    }

    /// Returns the digest of the tree that has this encoding.
    pub(super) fn digest_of_bytes(encoded: &[u8]) -> Digest {
        Digest::from_bytes(blake3::Hasher::new_derive_key(DOMAIN).update(encoded).finalize().into())
    }

    /// Bytes of the encoding.
    pub(super) fn encoded_size(&self) -> u64 {
        let paths: usize = self.entries.iter().map(|entry| entry.path.len()).sum();
        (MAGIC.len() + 8 + paths + 49 * self.entries.len()) as u64
    }

    /// The encoding, as described at the top of this file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.encoded_size() as usize);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.entries.len() as u64).to_le_bytes());
        for TreeEntry { path, digest, size, executable } in &self.entries {
            bytes.extend_from_slice(&(path.len() as u64).to_le_bytes());
            bytes.extend_from_slice(path.as_bytes());
            bytes.extend_from_slice(digest.as_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.push(u8::from(*executable));
        }
        bytes
    }

    /// Decodes a tree; anything that [`Tree::to_bytes`] would not have written is an error.
    pub fn from_bytes(encoded: &[u8]) -> Result<Self, CacheError> {
        let mut reader = Reader { encoded, offset: 0 };
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(CacheError::BadTree { offset: 0 });
        }
        let count = reader.integer()?;
        // Do not allocate for more entries than the bytes can hold.
        let mut entries = Vec::with_capacity(count.min(encoded.len() as u64 / 49) as usize);
        for _ in 0..count {
            entries.push(reader.entry()?);
        }
        if reader.offset != encoded.len() || !entries.is_sorted_by(|left, right| left.path < right.path) {
            return Err(CacheError::BadTree { offset: reader.offset });
        }
        check_entries(&entries)?;
        Ok(Self { entries })
    }
}

struct Reader<'a> {
    encoded: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CacheError> {
        let end = self.offset.checked_add(length).filter(|end| *end <= self.encoded.len());
        let end = end.ok_or(CacheError::BadTree { offset: self.offset })?;
        let taken = &self.encoded[self.offset..end];
        self.offset = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CacheError> {
        let offset = self.offset;
        self.take(N)?.try_into().map_err(|_| CacheError::BadTree { offset })
    }

    fn integer(&mut self) -> Result<u64, CacheError> {
        self.array().map(u64::from_le_bytes)
    }

    fn entry(&mut self) -> Result<TreeEntry, CacheError> {
        let offset = self.offset;
        let length = self.integer()?;
        let length = usize::try_from(length).map_err(|_| CacheError::BadTree { offset })?;
        let path = str::from_utf8(self.take(length)?).map_err(|_| CacheError::BadTree { offset })?;
        let path = path.to_owned();
        let digest = Digest::from_bytes(self.array()?);
        let size = self.integer()?;
        let executable = match self.array()? {
            [0] => false,
            [1] => true,
            [_] => return Err(CacheError::BadTree { offset }),
        };
        Ok(TreeEntry { path, digest, size, executable })
    }
}

/// Checks each path, and that no path is twice or a folder of another.
fn check_entries(entries: &[TreeEntry]) -> Result<(), CacheError> {
    let mut checked_folder = "";
    for (index, entry) in entries.iter().enumerate() {
        check_path(&entry.path).map_err(|flaw| CacheError::BadPath { path: entry.path.clone(), flaw })?;
        if index > 0 && entries[index - 1].path == entry.path {
            return Err(CacheError::DuplicatePath { path: entry.path.clone() });
        }
        let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if folder == checked_folder {
            continue;
        }
        checked_folder = folder;
        let mut folder = folder;
        loop {
            if entries.binary_search_by(|other| other.path.as_str().cmp(folder)).is_ok() {
                return Err(CacheError::FileAndFolder { path: folder.into() });
            }
            let Some((parent, _)) = folder.rsplit_once('/') else { break };
            folder = parent;
        }
    }
    Ok(())
}

fn check_path(path: &str) -> Result<(), PathFlaw> {
    if path.is_empty() {
        return Err(PathFlaw::Empty);
    }
    if path.starts_with('/') {
        return Err(PathFlaw::Absolute);
    }
    if path.bytes().any(|byte| byte == 0 || byte == b'\\') {
        return Err(PathFlaw::Forbidden);
    }
    path.split('/').try_for_each(|part| match part {
        "" => Err(PathFlaw::EmptyPart),
        "." | ".." => Err(PathFlaw::Dots),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, content: &str) -> TreeEntry {
        let digest = Digest::of_bytes(content.as_bytes());
        TreeEntry { path: path.into(), digest, size: content.len() as u64, executable: false }
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        Tree::new(files.iter().map(|(path, content)| entry(path, content)).collect()).unwrap()
    }

    #[test]
    fn paths_that_could_escape_are_refused() {
        let refused =
            ["", "/etc/x", "..", "a/..", "../a", "a/../b", ".", "./a", "a//b", "a/", "a\\b", "a\0b"];
        for path in refused {
            assert!(Tree::new(vec![entry(path, "x")]).is_err(), "{path:?}");
            let forged = Tree { entries: vec![entry(path, "x")] };
            assert!(Tree::from_bytes(&forged.to_bytes()).is_err(), "{path:?} in a encoded");
        }
        for path in ["a", "..a", "a..", "...", ".hidden", "a b/ü.png", "a:b"] {
            assert!(Tree::new(vec![entry(path, "x")]).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn a_path_stands_once_and_is_a_file_or_a_folder() {
        assert!(Tree::new(vec![entry("a", "1"), entry("a", "1")]).is_err());
        assert!(Tree::new(vec![entry("a", "1"), entry("a-b", "1"), entry("a/b", "1")]).is_err());
        assert!(Tree::new(vec![entry("a/b", "1"), entry("a/b-c/x", "1"), entry("a/b/c/d", "1")]).is_err());
        assert!(Tree::new(vec![entry("a-b", "1"), entry("a/b", "1"), entry("ab", "1")]).is_ok());
    }

    #[test]
    fn order_of_arrival_does_not_count_and_every_field_does() {
        let base = tree(&[("a", "1"), ("b/c", "2")]);
        assert_eq!(base.digest(), tree(&[("b/c", "2"), ("a", "1")]).digest());
        let mut digests = vec![base.digest(), tree(&[]).digest()];
        digests.push(tree(&[("a", "1")]).digest());
        digests.push(tree(&[("a", "1"), ("b/d", "2")]).digest());
        digests.push(tree(&[("a", "1"), ("b/c", "3")]).digest());
        digests.push(tree(&[("a", "2"), ("b/c", "1")]).digest());
        let mut other = base.clone();
        other.entries[0].executable = true;
        digests.push(other.digest());
        other.entries[0].size = 7;
        digests.push(other.digest());
        digests.push(Digest::of_bytes(&base.to_bytes()));
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn the_digest_is_pinned() {
        // Written down again in Python (struct and the package blake3 1.0.11) from the description at the
        // top of this file, 2026-11-24. A change here changes every key and every name in trees/.
        assert_eq!(
            tree(&[]).digest().to_string(),
            "b92542e9c91b0cfbaaca0409330cc9b052201b900fdb96af0a1cfc4b48754f98"
        );
        assert_eq!(
            tree(&[("a", "1"), ("b/c", "22")]).digest().to_string(),
            "b840757647a2d8d5cf819ff2037b7c7f7b23305712335fcbc260026aea5f9e1c"
        );
    }

    #[test]
    fn encodings_round_trip_and_nothing_else_is_read() {
        let base = tree(&[("a", "1"), ("b/c", "22"), ("b/d", "")]);
        let bytes = base.to_bytes();
        assert_eq!(Tree::from_bytes(&bytes).unwrap(), base);
        assert_eq!(Tree::from_bytes(&tree(&[]).to_bytes()).unwrap(), tree(&[]));
        for length in 0..bytes.len() {
            assert!(Tree::from_bytes(&bytes[..length]).is_err(), "cut at {length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Tree::from_bytes(&longer).is_err());
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x81;
            assert_ne!(Tree::digest_of_bytes(&flipped), base.digest(), "{position}");
            if let Ok(read) = Tree::from_bytes(&flipped) {
                assert_eq!(read.to_bytes(), flipped, "one encoding for one tree");
            }
        }
        let unsorted = Tree { entries: vec![entry("b", "1"), entry("a", "1")] };
        assert!(Tree::from_bytes(&unsorted.to_bytes()).is_err());
    }

    #[test]
    fn a_huge_count_costs_no_memory() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(Tree::from_bytes(&bytes).is_err());
    }

    #[test]
    fn parts_are_found() {
        let base = tree(&[("a", "1"), ("b-x/c", "2"), ("b/c", "3"), ("b/d/e", "4"), ("bc", "55")]);
        assert_eq!(base.subtree("b"), tree(&[("c", "3"), ("d/e", "4")]));
        assert_eq!(base.subtree("b/d/"), tree(&[("e", "4")]));
        assert_eq!(base.subtree(""), base);
        assert!(base.subtree("x").is_empty() && base.subtree("a").is_empty());
        assert_eq!(base.filter(|entry| entry.size == 2), tree(&[("bc", "55")]));
        assert_eq!(base.get("b/c").unwrap().digest, Digest::of_bytes(b"3"));
        assert!(base.get("b").is_none());
        assert_eq!((base.total_size(), base.len()), (6, 5));
    }
}
