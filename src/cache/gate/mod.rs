//! The gate: everything that comes from a remote is checked here before it is used, and nothing enters another way.
//!
//! | what enters | is checked against |
//! |---|---|
//! | any body | the size that is expected of it ([`body`]): it is read as a stream, and its stated length is not believed |
//! | a record | its checksum, the key that its own preimage gives, the outputs that the stage has ([`record`]) |
//! | a tree | its digest, its form, its names and its sizes ([`tree`]) |
//! | a pack | the members that the tree gives it, byte for byte of its head; each content against its digest |
//! | an object | its digest and its size |
//! | a list of per-image records | its digest, its family, the kind of each record, files and sizes in its trees ([`items`]) |
//!
//! What does not pass counts as absent, is warned of once, is never kept here, and is replaced in the remote when it is
//! made again. Records that are here already are checked in the same way when they are looked up, and so are trees
//! before they are pushed: what this version would refuse it does not hand on.

pub(super) mod body;
pub(super) mod items;
pub(super) mod record;
#[cfg(test)]
mod tests;
pub(super) mod tree;

use crate::digest::Digest;

pub use items::{CachedItem, WantedItems};
pub use record::{CachedRecord, DecodedRecord, ExpectedOutputs, check_record};

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name them")]
pub enum Flaw {
    #[error("it is longer than the {most} bytes that it can have")]
    TooLong { most: u64 },
    #[error("it has other bytes than its name says")]
    OtherContent,
    #[error("it is truncated or malformed")]
    Malformed,
    #[error("it is the record of another key")]
    OtherKey,
    #[error("it names no outputs")]
    NoOutputs,
    #[error("it names the outputs {}, and the stage has {}", listed(found), listed(expected))]
    OtherOutputs { found: Vec<String>, expected: Vec<String> },
    #[error("the name of its output {name:?} is not plain")]
    OutputName { name: String },
    #[error("its output `{name}` has no files")]
    EmptyOutput { name: String },
    #[error("what it says of itself has control characters or is too long")]
    Text,
    #[error("what it says it took is out of range")]
    Number,
    #[error("the path {path:?} in it {why}")]
    Path { path: String, why: &'static str },
    #[error("its paths {one:?} and {other:?} are one path where letter case does not count")]
    LetterCase { one: String, other: String },
    #[error("it gives one content two sizes")]
    TwoSizes,
    #[error("its sizes are impossible")]
    Sizes,
    #[error("it lists images that were processed in another way than its folder says")]
    OtherFamily,
    #[error("it has records of another kind of stage")]
    OtherKind,
    #[error("it names files that are not in the outputs that it names")]
    OtherFiles,
}

/// An entry of a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// A record, by its key.
    Record(Digest),
    /// A tree.
    Tree(Digest),
    /// An object.
    Object(Digest),
    /// A pack, by its name there.
    Pack(Digest),
    /// A list of per-image records.
    Items {
        /// The family of the records.
        family: Digest,
        /// The name of the list.
        list: Digest,
    },
}

/// An entry that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The entry.
    pub entry: Entry,
    /// Why.
    pub flaw: Flaw,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(key) => write!(formatter, "record {key}"),
            Self::Tree(digest) => write!(formatter, "tree {digest}"),
            Self::Object(digest) => write!(formatter, "object {digest}"),
            Self::Pack(name) => write!(formatter, "pack {name}"),
            Self::Items { list, .. } => write!(formatter, "list of per-image records {list}"),
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "a damaged {}, which counts as absent: {}", self.entry, self.flaw)
    }
}

/// Most names in a message; the others are counted.
const MOST_NAMED: usize = 5;

fn listed(names: &[String]) -> String {
    let mut named: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("{name:?}")).collect();
    match names.len().saturating_sub(MOST_NAMED) {
        0 => {}
        more => named.push(format!("{more} more")),
    }
    named.join(", ")
}
