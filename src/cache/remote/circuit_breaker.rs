//! When a remote is no longer asked, and what the user is warned of.
//!
//! Reading and writing fail separately, since a server may well serve files and accept none. The circuit of one kind
//! of request opens after [`CircuitBreaker::FAILURES`] failures in a row; that of writing also after one refusal, since
//! all further requests would be refused as well. Each warning is given once; failures that opened no circuit are
//! summed up at the end.

use std::io;
use std::path::{Path, PathBuf};

use super::warning::RemoteWarning;
use crate::cache::gate::body::BodyError;
use crate::error_chain::error_chain;
use crate::text::without_secrets;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// It asks for files.
    Read,
    /// It puts files there.
    Write,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Client(#[from] object_store::Error),
    #[error("no answer in {seconds} s")]
    Timeout { seconds: u64 },
    #[error("cannot read `{}`", path.display())]
    ReadFile { path: PathBuf, source: io::Error },
    #[error("cannot write `{}`", path.display())]
    WriteFile { path: PathBuf, source: io::Error },
}

impl RequestError {
    /// Why a body could not be copied to `file`.
    pub(super) fn of_body(error: BodyError, file: &Path) -> Self {
        match error {
            BodyError::Remote(error) => Self::Client(error),
            BodyError::Local(source) => Self::WriteFile { path: file.to_owned(), source },
        }
    }

    /// Whether another try is futile: no permission, or no such operation.
    fn is_refusal(&self) -> bool {
        use object_store::Error as E;
        matches!(
            self,
            Self::Client(
                E::PermissionDenied { .. }
                    | E::Unauthenticated { .. }
                    | E::NotImplemented { .. }
                    | E::NotSupported { .. }
            )
        )
    }
}

/// The circuit of one kind of request.
#[derive(Debug, Default)]
struct Circuit {
    failures_in_a_row: u32,
    /// Failures that no warning has named yet.
    failures: usize,
    first_failure: Option<String>,
    is_open: bool,
}

/// Counts failures and collects warnings; see the module.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    address: String,
    reads: Circuit,
    writes: Circuit,
    warnings: Vec<RemoteWarning>,
}

impl CircuitBreaker {
    /// Failures in a row that open a circuit.
    pub(super) const FAILURES: u32 = 3;

    /// A breaker with closed circuits for the remote at this address.
    pub(super) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            reads: Circuit::default(),
            writes: Circuit::default(),
            warnings: Vec::new(),
        }
    }

    /// Whether requests of this kind are made. Nothing is written to a remote that is not read.
    pub(super) fn allows(&self, kind: RequestKind) -> bool {
        !self.reads.is_open && (kind == RequestKind::Read || !self.writes.is_open)
    }

    /// Counts an answer; returns `None` for a failure. `file` names what was requested.
    pub(super) fn record<T>(
        &mut self,
        kind: RequestKind,
        file: &str,
        answer: Result<T, RequestError>,
    ) -> Option<T> {
        let circuit = match kind {
            RequestKind::Read => &mut self.reads,
            RequestKind::Write => &mut self.writes,
        };
        let error = match answer {
            Ok(answer) => {
                circuit.failures_in_a_row = 0;
                return Some(answer);
            }
            Err(error) => error,
        };
        circuit.failures_in_a_row += 1;
        circuit.failures += 1;
        let first =
            circuit.first_failure.get_or_insert_with(|| format!("{file}: {}", on_line(&error))).clone();
        let is_futile = error.is_refusal() && kind == RequestKind::Write;
        if !circuit.is_open && (circuit.failures_in_a_row >= Self::FAILURES || is_futile) {
            circuit.is_open = true;
            let address = self.address.clone();
            self.warn(match kind {
                RequestKind::Read => RemoteWarning::Unreachable { address, failure: first },
                RequestKind::Write => RemoteWarning::NotWritable { address, failure: first },
            });
        }
        None
    }

    /// Opens the circuits before the first request, for a folder that does not exist.
    pub(super) fn open_without_folder(&mut self, folder: PathBuf) {
        self.reads.is_open = true;
        self.warn(RemoteWarning::NoFolder { address: self.address.clone(), folder });
    }

    fn warn(&mut self, warning: RemoteWarning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// The warnings since the last call, and the failures that opened no circuit.
    pub(super) fn take_warnings(&mut self) -> Vec<RemoteWarning> {
        for (circuit, kind) in [(&mut self.reads, RequestKind::Read), (&mut self.writes, RequestKind::Write)]
        {
            let failures = std::mem::take(&mut circuit.failures);
            if let Some(first) = circuit.first_failure.take().filter(|_| !circuit.is_open && failures > 0) {
                let address = self.address.clone();
                self.warnings.push(RemoteWarning::FailedRequests { address, kind, failures, first });
            }
        }
        std::mem::take(&mut self.warnings)
    }
}

/// An error with its causes, on one line and without secrets.
fn on_line(error: &RequestError) -> String {
    let line = error_chain(error).lines().map(str::trim).collect::<Vec<_>>().join(" ");
    without_secrets(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Result<(), RequestError> {
        Err(RequestError::Timeout { seconds: 7 })
    }

    fn refusal() -> Result<(), RequestError> {
        Err(RequestError::Client(object_store::Error::NotImplemented {
            operation: "put".to_owned(),
            implementer: "the test".to_owned(),
        }))
    }

    #[test]
    fn three_failures_in_a_row_open_the_circuit_and_an_answer_between_them_counts() {
        let mut breaker = CircuitBreaker::new("http://host/cache");
        for answer in [failure(), failure(), Ok(()), failure(), failure()] {
            breaker.record(RequestKind::Read, "a", answer);
            assert!(breaker.allows(RequestKind::Read));
        }
        breaker.record(RequestKind::Read, "b", refusal());
        assert!(!breaker.allows(RequestKind::Read) && !breaker.allows(RequestKind::Write));
        let (address, failure) = ("http://host/cache".to_owned(), "a: no answer in 7 s".to_owned());
        assert_eq!(breaker.take_warnings(), [RemoteWarning::Unreachable { address, failure }]);
        assert!(breaker.take_warnings().is_empty());
    }

    #[test]
    fn a_remote_that_takes_no_files_is_still_read() {
        let mut breaker = CircuitBreaker::new("s3://bucket");
        breaker.record(RequestKind::Write, "a", refusal());
        assert!(breaker.allows(RequestKind::Read) && !breaker.allows(RequestKind::Write));
        let warnings = breaker.take_warnings();
        assert!(matches!(&warnings[..], [RemoteWarning::NotWritable { .. }]), "{warnings:?}");
    }

    #[test]
    fn few_failures_are_summed_up_once() {
        let mut breaker = CircuitBreaker::new("/mnt/team");
        breaker.record(RequestKind::Write, "a", failure());
        breaker.record(RequestKind::Write, "b", failure());
        let warnings = breaker.take_warnings();
        let [RemoteWarning::FailedRequests { failures: 2, first, .. }] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert_eq!(first, "a: no answer in 7 s");
        assert!(
            warnings[0].to_string().contains("2 requests were not taken (the first: a: no answer in 7 s)")
        );
        assert!(breaker.take_warnings().is_empty());
    }
}
