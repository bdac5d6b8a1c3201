//! What the user is warned of: facts. What to do about them is for the command line to say.

use std::path::PathBuf;

use super::circuit_breaker::RequestKind;
use crate::digest::Digest;

/// Something about the remote that the user should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteWarning {
    /// Reading failed too often.
    #[error("`{address}` does not answer and is not used any more in this run ({failure})")]
    Unreachable {
        /// The address.
        address: String,
        /// The first request that failed, and why.
        failure: String,
    },
    /// Writing failed too often or is refused.
    #[error("`{address}` takes no results and is only read from now on ({failure})")]
    NotWritable {
        /// The address.
        address: String,
        /// The first request that failed, and why.
        failure: String,
    },
    /// The folder of the remote does not exist, or the one that it would be created in.
    #[error("`{address}` cannot be used in this run (there is no folder `{}`)", folder.display())]
    NoFolder {
        /// The address.
        address: String,
        /// The folder.
        folder: PathBuf,
    },
    /// Requests failed, but too few to give up.
    #[error("`{address}`: {} (the first: {first})", failed_requests(*kind, *failures))]
    FailedRequests {
        /// The address.
        address: String,
        /// What they did.
        kind: RequestKind,
        /// How many.
        failures: usize,
        /// The first request that failed, and why.
        first: String,
    },
    /// A file does not hold what its name says. It counts as absent.
    #[error("`{address}` has {file}")]
    Damaged {
        /// The address.
        address: String,
        /// The file.
        file: Damaged,
    },
}

impl RemoteWarning {
    /// The address of the remote.
    pub fn address(&self) -> &str {
        match self {
            Self::Unreachable { address, .. }
            | Self::NotWritable { address, .. }
            | Self::NoFolder { address, .. }
            | Self::FailedRequests { address, .. }
            | Self::Damaged { address, .. } => address,
        }
    }
}

/// A damaged file of the remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damaged {
    /// A record, by its key.
    Record(Digest),
    /// A tree.
    Tree(Digest),
    /// An object.
    Object(Digest),
    /// A pack, by its name there.
    Pack(String),
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Record(key) => write!(formatter, "a damaged record {key}, which counts as absent"),
            Self::Tree(digest) => write!(formatter, "a damaged tree {digest}, which counts as absent"),
            Self::Object(digest) => write!(formatter, "a damaged object {digest}, which counts as absent"),
            Self::Pack(name) => {
                write!(formatter, "a damaged pack `{name}`, whose damaged files count as absent")
            }
        }
    }
}

fn failed_requests(kind: RequestKind, count: usize) -> String {
    let word = match kind {
        RequestKind::Read => "answered",
        RequestKind::Write => "taken",
    };
    if count == 1 { format!("1 request was not {word}") } else { format!("{count} requests were not {word}") }
}
