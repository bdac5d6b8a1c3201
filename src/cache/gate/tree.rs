//! Trees at the gate.
//!
//! A tree that [`Tree::from_bytes`] reads has no path that leaves its folder, and none twice. Those that come from
//! outside must also be fit for every file system and terminal, and their sizes, by which memory and disk are used
//! before any content is seen, must make sense.

use std::collections::BTreeMap;

use super::Flaw;
use crate::cache::tree::{Tree, TreeEntry};
use crate::digest::Digest;
use crate::text;

/// Most bytes of a tree's file: some two million files.
pub(in crate::cache) const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// Longest name of a file or folder in bytes: that of file systems.
const LONGEST_NAME: usize = 255;

/// Longest path in bytes: below the 4,096 of Linux, with room for the folder that it is put into.
const LONGEST_PATH: usize = 2048;

/// Most bytes of a tree's files together: a pebibyte.
const MOST_CONTENT: u64 = 1 << 50;

/// Reads the tree of a digest, if it passes.
pub(in crate::cache) fn read(digest: &Digest, bytes: &[u8]) -> Result<Tree, Flaw> {
    if Tree::digest_of_bytes(bytes) != *digest {
        return Err(Flaw::OtherContent);
    }
    let tree = Tree::from_bytes(bytes).map_err(|_| Flaw::Malformed)?;
    check(&tree)?;
    Ok(tree)
}

/// Whether the machines that share a remote could use a tree.
pub(in crate::cache) fn check(tree: &Tree) -> Result<(), Flaw> {
    tree.entries().iter().try_for_each(|entry| check_path(&entry.path))?;
    check_letter_case(tree.entries())?;
    check_sizes(tree.entries())
}

fn check_path(path: &str) -> Result<(), Flaw> {
    let why = if path.contains(text::steers) {
        "has control characters"
    } else if path.len() > LONGEST_PATH || path.split('/').any(|name| name.len() > LONGEST_NAME) {
        "is too long"
    } else {
        return Ok(());
    };
    Err(Flaw::Path { path: path.to_owned(), why })
}

/// Refuses paths, of files or folders, that differ in letter case alone: on some file systems they are one.
fn check_letter_case(entries: &[TreeEntry]) -> Result<(), Flaw> {
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    let mut checked_folder = "";
    for TreeEntry { path, .. } in entries {
        let mut part = path.as_str();
        loop {
            let other = *known.entry(part.to_lowercase()).or_insert(part);
            if other != part {
                return Err(Flaw::LetterCase { one: other.to_owned(), other: part.to_owned() });
            }
            match part.rsplit_once('/') {
                Some((folder, _)) if folder != checked_folder => part = folder,
                _ => break,
            }
        }
        checked_folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    }
    Ok(())
}

fn check_sizes(entries: &[TreeEntry]) -> Result<(), Flaw> {
    let empty = Digest::of_bytes(b"");
    let mut total = 0_u64;
    let mut sizes: BTreeMap<&Digest, u64> = BTreeMap::new();
    for TreeEntry { digest, size, .. } in entries {
        total = total.saturating_add(*size);
        if (*size == 0) != (*digest == empty) {
            return Err(Flaw::Sizes);
        }
        if *sizes.entry(digest).or_insert(*size) != *size {
            return Err(Flaw::TwoSizes);
        }
    }
    if total > MOST_CONTENT { Err(Flaw::Sizes) } else { Ok(()) }
}
