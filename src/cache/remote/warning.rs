//! What the user is warned of: facts. What to do about them is for the command line to say.

use std::path::PathBuf;

use super::cause::RemoteCause;
use super::circuit_breaker::RequestKind;
use crate::cache::gate::Refused;

/// Something about the remote that the user should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteWarning {
    /// The remote does not answer, or failed too often.
    #[error("`{address}` {} and is not used any more in this run ({failure})", state(*cause))]
    Unreachable {
        /// The address.
        address: String,
        /// What stands behind it.
        cause: RemoteCause,
        /// The first request that failed, and why.
        failure: String,
    },
    /// Writing failed too often or is refused.
    #[error("`{address}` takes no results and is only read from now on ({failure})")]
    NotWritable {
        /// The address.
        address: String,
        /// What stands behind it.
        cause: RemoteCause,
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
    /// The client of the remote cannot be set up with what the environment says.
    #[error("`{address}` cannot be used in this run ({failure})")]
    NotConfigured {
        /// The address.
        address: String,
        /// What stands behind it.
        cause: RemoteCause,
        /// What is missing or malformed.
        failure: String,
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
        /// What stands behind the first.
        cause: RemoteCause,
        /// The first request that failed, and why.
        first: String,
    },
    /// Files that are not there are answered with 403, and nothing was read or written.
    #[error("`{address}` answers 403 for files that are not there, so it cannot be seen whether any are")]
    Hidden {
        /// The address.
        address: String,
    },
    /// Files are in an archive class. They count as absent.
    #[error("`{address}` has archived files that cannot be read and count as absent (the first: {file})")]
    Archived {
        /// The address.
        address: String,
        /// The first such file.
        file: String,
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
            | Self::NotConfigured { address, .. }
            | Self::FailedRequests { address, .. }
            | Self::Hidden { address }
            | Self::Archived { address, .. }
            | Self::Refused { address, .. }
            | Self::MoreRefused { address, .. } => address,
        }
    }

    /// What stands behind it, for failed requests.
    pub fn cause(&self) -> RemoteCause {
        match self {
            Self::Unreachable { cause, .. }
            | Self::NotWritable { cause, .. }
            | Self::NotConfigured { cause, .. }
            | Self::FailedRequests { cause, .. } => *cause,
            Self::NoFolder { .. } => RemoteCause::NoFolder,
            Self::Hidden { .. } => RemoteCause::Forbidden,
            Self::Archived { .. } | Self::Refused { .. } | Self::MoreRefused { .. } => RemoteCause::Unknown,
        }
    }
}

/// The state of a remote that is given up.
fn state(cause: RemoteCause) -> &'static str {
    match cause {
        RemoteCause::NoAnswer => "does not answer",
        RemoteCause::NoCredentials => "cannot be used without credentials",
        RemoteCause::Credentials => "does not accept the credentials",
        RemoteCause::ExpiredCredentials => "says that the credentials have expired",
        RemoteCause::ClockSkew => "says that the clock of this machine is wrong",
        RemoteCause::Forbidden => "does not permit reading",
        RemoteCause::NoBucket | RemoteCause::NoFolder => "does not exist",
        RemoteCause::Overloaded => "asks for fewer requests",
        RemoteCause::Moved => "is at another address",
        RemoteCause::TooLarge
        | RemoteCause::Unsupported
        | RemoteCause::Full
        | RemoteCause::ServerError
        | RemoteCause::Unknown => "fails",
    }
}

fn failed_requests(kind: RequestKind, count: usize) -> String {
    let word = match kind {
        RequestKind::Read => "answered",
        RequestKind::Write => "taken",
    };
    if count == 1 { format!("1 request was not {word}") } else { format!("{count} requests were not {word}") }
}
