//! Why a remote cannot be used: what stands behind a request that failed.

use std::error::Error;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use super::refusal::{Refusal, short};
use super::transport::TransportError;
use crate::error_chain::error_chain;
use crate::text::without_secrets;

/// What stands behind a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteCause {
    /// The server does not answer, or cannot be reached.
    NoAnswer,
    /// The environment has no credentials.
    NoCredentials,
    /// The server does not accept the credentials.
    Credentials,
    /// The credentials were valid earlier.
    ExpiredCredentials,
    /// The clocks of this machine and the server differ.
    ClockSkew,
    /// The credentials are valid, and do not permit this.
    Forbidden,
    /// There is no such bucket or container.
    NoBucket,
    /// The folder of the address does not exist on the server and cannot be made.
    NoFolder,
    /// The server takes no file of this size.
    TooLarge,
    /// The server does not know the operation: it may be read-only.
    Unsupported,
    /// The server asks for fewer requests.
    Overloaded,
    /// There is no space left.
    Full,
    /// The server refers to another address, such as another region.
    Moved,
    /// The server has failed.
    ServerError,
    /// Anything else.
    Unknown,
}

impl RemoteCause {
    /// What stands behind an error.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(refusal) = Refusal::of(error) {
            return refusal.cause();
        }
        for error in causes(error) {
            if let Some(error) = error.downcast_ref::<TransportError>() {
                return error.cause();
            }
            if let Some(error) = error.downcast_ref::<HttpError>()
                && matches!(error.kind(), HttpErrorKind::Connect | HttpErrorKind::Timeout)
            {
                return Self::NoAnswer;
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return Self::of_io(error.kind());
            }
        }
        Self::Unknown
    }

    /// What stands behind an error of a folder.
    fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            io::ErrorKind::ReadOnlyFilesystem => Self::Unsupported,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Unknown,
        }
    }

    /// Whether every further request would fail as well, whatever it asks for.
    pub(super) fn concerns_all(self) -> bool {
        matches!(
            self,
            Self::NoAnswer
                | Self::NoCredentials
                | Self::Credentials
                | Self::ExpiredCredentials
                | Self::ClockSkew
                | Self::NoBucket
                | Self::Moved
        )
    }

    /// Whether every further request to write would fail as well.
    pub(super) fn concerns_writing(self) -> bool {
        self.concerns_all()
            || matches!(self, Self::Forbidden | Self::NoFolder | Self::Unsupported | Self::Full)
    }
}

/// An error and its causes.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error on one short line, without addresses, which may hold passwords: what the server said, or the innermost
/// error of a connection. Errors of folders are whole, since they name the file.
pub(super) fn on_line(error: &(dyn Error + 'static)) -> String {
    if let Some(refusal) = Refusal::of(error) {
        return refusal.to_string();
    }
    if let Some(error) = causes(error).find_map(|error| error.downcast_ref::<TransportError>()) {
        return error.to_string();
    }
    let is_of_a_connection = causes(error).any(<dyn Error>::is::<HttpError>);
    let innermost = causes(error).last().filter(|_| is_of_a_connection);
    short(&without_secrets(&innermost.map_or_else(|| error_chain(error), ToString::to_string)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_folder_names_its_cause() {
        for (kind, cause) in [
            (io::ErrorKind::PermissionDenied, RemoteCause::Forbidden),
            (io::ErrorKind::StorageFull, RemoteCause::Full),
            (io::ErrorKind::ReadOnlyFilesystem, RemoteCause::Unsupported),
            (io::ErrorKind::Other, RemoteCause::Unknown),
        ] {
            let source = Box::new(io::Error::from(kind));
            assert_eq!(RemoteCause::of(&object_store::Error::Generic { store: "folder", source }), cause);
        }
    }
}
