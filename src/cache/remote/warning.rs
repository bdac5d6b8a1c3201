//! What the user is warned of: facts. What to do about them is for the command line to say.

use std::path::PathBuf;

use super::circuit_breaker::RequestKind;
use crate::cache::gate::Refused;

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
    /// The gate refuses an entry. It counts as absent.
    #[error("`{address}` has {refused}")]
    Refused {
        /// The address.
        address: String,
        /// The entry, and why.
        refused: Refused,
    },
    /// The gate refuses further entries.
    #[error("`{address}` has {count} more damaged entries, which count as absent")]
    MoreRefused {
        /// The address.
        address: String,
        /// How many.
        count: usize,
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
            | Self::Refused { address, .. }
            | Self::MoreRefused { address, .. } => address,
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
