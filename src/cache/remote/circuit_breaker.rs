//! When a remote is no longer asked, and what the user is warned of.
//!
//! Reading and writing fail separately, since a server may well serve files and accept none. The circuit of one kind
//! of request opens after [`CircuitBreaker::FAILURES`] failures in a row, and at once if every further request would
//! fail as well: the server keeps one waiting, refuses the credentials, has no such bucket, or takes no files. Each
//! warning is given once; failures that opened no circuit are summed up at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cause::{RemoteCause, on_line};
use super::client::Notes;
use super::warning::RemoteWarning;
use crate::cache::gate::body::BodyError;

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

    /// What stands behind it.
    fn cause(&self) -> RemoteCause {
        use object_store::Error as E;
        match self {
            Self::Timeout { .. } => RemoteCause::NoAnswer,
            Self::Client(error) => match RemoteCause::of(error) {
                RemoteCause::Unknown => match error {
                    E::PermissionDenied { .. } => RemoteCause::Forbidden,
                    E::Unauthenticated { .. } => RemoteCause::Credentials,
                    E::NotImplemented { .. } | E::NotSupported { .. } => RemoteCause::Unsupported,
                    _ => RemoteCause::Unknown,
                },
                cause => cause,
            },
            // A file of this machine says nothing about the remote.
            Self::ReadFile { .. } | Self::WriteFile { .. } => RemoteCause::Unknown,
        }
    }
}

/// The circuit of one kind of request.
#[derive(Debug, Default)]
struct Circuit {
    failures_in_a_row: u32,
    /// Failures that no warning has named yet.
    failures: usize,
    first_failure: Option<(RemoteCause, String)>,
    is_open: bool,
}

/// Counts failures and collects warnings; see the module.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// As it is shown.
    address: String,
    notes: Arc<Notes>,
    reads: Circuit,
    writes: Circuit,
    warnings: Vec<RemoteWarning>,
}

impl CircuitBreaker {
    /// Failures in a row that open a circuit.
    pub(super) const FAILURES: u32 = 3;

    /// A breaker with closed circuits for the remote at this address.
    pub(super) fn new(address: &str, notes: Arc<Notes>) -> Self {
        Self {
            address: address.to_owned(),
            notes,
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
        let cause = error.cause();
        // A file that is too large says nothing about others.
        circuit.failures_in_a_row += u32::from(cause != RemoteCause::TooLarge);
        circuit.failures += 1;
        let (first_cause, first) = circuit
            .first_failure
            .get_or_insert_with(|| (cause, format!("{file}: {}", on_line(&error))))
            .clone();
        let is_futile = match kind {
            RequestKind::Read => cause.concerns_all(),
            RequestKind::Write => cause.concerns_writing(),
        };
        if is_futile {
            self.open(kind, cause, format!("{file}: {}", on_line(&error)));
        } else if circuit.failures_in_a_row >= Self::FAILURES {
            self.open(kind, first_cause, first);
        }
        None
    }

    /// Opens a circuit, or both, unless it is open.
    fn open(&mut self, kind: RequestKind, cause: RemoteCause, failure: String) {
        if !self.allows(kind) {
            return;
        }
        let address = self.address.clone();
        if kind == RequestKind::Read || cause.concerns_all() {
            self.reads.is_open = true;
            self.warn(RemoteWarning::Unreachable { address, cause, failure });
        } else {
            self.writes.is_open = true;
            self.warn(RemoteWarning::NotWritable { address, cause, failure });
        }
    }

    /// Opens the circuits before the first request, for a remote that cannot be used.
    pub(super) fn open_at_once(&mut self, warning: RemoteWarning) {
        self.reads.is_open = true;
        self.warn(warning);
    }

    fn warn(&mut self, warning: RemoteWarning) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// The warnings since the last call, and the failures that opened no circuit.
    pub(super) fn take_warnings(&mut self) -> Vec<RemoteWarning> {
        let is_given_up = self.reads.is_open;
        for (circuit, kind) in [(&mut self.reads, RequestKind::Read), (&mut self.writes, RequestKind::Write)]
        {
            let failures = std::mem::take(&mut circuit.failures);
            let Some((cause, first)) = circuit.first_failure.take().filter(|_| failures > 0) else {
                continue;
            };
            if !circuit.is_open && !is_given_up {
                let address = self.address.clone();
                self.warnings.push(RemoteWarning::FailedRequests { address, kind, failures, cause, first });
            }
        }
        self.warn_of_notes();
        std::mem::take(&mut self.warnings)
    }

    fn warn_of_notes(&mut self) {
        let address = self.address.clone();
        if let Some(file) = self.notes.take_archived() {
            self.warn(RemoteWarning::Archived { address: address.clone(), file });
        }
        let is_403_absent = self.notes.is_403_absent.swap(false, Ordering::Relaxed);
        if !is_403_absent || !self.allows(RequestKind::Write) {
            return;
        }
        if self.notes.is_served.load(Ordering::Relaxed) {
            tracing::info!("`{address}` answers 403 for files that are not there, which count as absent");
        } else {
            self.warn(RemoteWarning::Hidden { address });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::refusal::Refusal;
    use super::*;

    fn failure() -> Result<(), RequestError> {
        Err(RequestError::Client(object_store::Error::Generic { store: "test", source: "it broke".into() }))
    }

    fn breaker(address: &str) -> CircuitBreaker {
        CircuitBreaker::new(address, Arc::default())
    }

    fn silence() -> Result<(), RequestError> {
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
        let mut breaker = breaker("http://host/cache");
        for answer in [failure(), failure(), Ok(()), failure(), failure()] {
            breaker.record(RequestKind::Read, "a", answer);
            assert!(breaker.allows(RequestKind::Read));
        }
        breaker.record(RequestKind::Read, "b", refusal());
        assert!(!breaker.allows(RequestKind::Read) && !breaker.allows(RequestKind::Write));
        let (address, failure) =
            ("http://host/cache".to_owned(), "a: Generic test error: it broke".to_owned());
        let cause = RemoteCause::Unknown;
        assert_eq!(breaker.take_warnings(), [RemoteWarning::Unreachable { address, cause, failure }]);
        assert!(breaker.take_warnings().is_empty());
    }

    #[test]
    fn a_remote_that_takes_no_files_is_still_read() {
        let mut breaker = breaker("s3://bucket");
        breaker.record(RequestKind::Write, "a", refusal());
        assert!(breaker.allows(RequestKind::Read) && !breaker.allows(RequestKind::Write));
        let warnings = breaker.take_warnings();
        assert!(matches!(&warnings[..], [RemoteWarning::NotWritable { .. }]), "{warnings:?}");
    }

    #[test]
    fn few_failures_are_summed_up_once() {
        let mut breaker = breaker("/mnt/team");
        breaker.record(RequestKind::Write, "a", failure());
        breaker.record(RequestKind::Write, "b", failure());
        let warnings = breaker.take_warnings();
        let [RemoteWarning::FailedRequests { failures: 2, first, .. }] = &warnings[..] else {
            panic!("{warnings:?}")
        };
        assert_eq!(first, "a: Generic test error: it broke");
        assert!(warnings[0].to_string().contains("2 requests were not taken (the first: a: "));
        assert!(breaker.take_warnings().is_empty());
    }

    #[test]
    fn one_wait_in_vain_is_enough_and_is_warned_of_once() {
        for kind in [RequestKind::Read, RequestKind::Write] {
            let mut breaker = breaker("http://host/cache");
            breaker.record(kind, "a", silence());
            assert!(!breaker.allows(RequestKind::Read) && !breaker.allows(RequestKind::Write));
            // Requests that were under way fail as well.
            breaker.record(RequestKind::Write, "b", silence());
            breaker.record(RequestKind::Write, "c", refusal());
            let warnings = breaker.take_warnings();
            assert!(
                matches!(&warnings[..], [RemoteWarning::Unreachable { cause: RemoteCause::NoAnswer, .. }]),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn files_that_are_too_large_stop_no_others() {
        let refusal = Refusal::read(reqwest::StatusCode::PAYLOAD_TOO_LARGE, None, b"");
        let mut breaker = breaker("http://host/cache");
        for _ in 0..9 {
            let source = Box::new(refusal.clone());
            let error = object_store::Error::Generic { store: "test", source };
            breaker.record::<()>(RequestKind::Write, "a", Err(error.into()));
        }
        assert!(breaker.allows(RequestKind::Write));
        let warnings = breaker.take_warnings();
        let [RemoteWarning::FailedRequests { failures: 9, cause: RemoteCause::TooLarge, .. }] = &warnings[..]
        else {
            panic!("{warnings:?}")
        };
    }

    #[test]
    fn hidden_files_are_warned_of_unless_some_were_served() {
        let mut breaker = breaker("s3://bucket");
        let notes = Arc::clone(&breaker.notes);
        notes.is_403_absent.store(true, Ordering::Relaxed);
        assert!(matches!(&breaker.take_warnings()[..], [RemoteWarning::Hidden { .. }]));
        notes.is_403_absent.store(true, Ordering::Relaxed);
        notes.is_served.store(true, Ordering::Relaxed);
        assert!(breaker.take_warnings().is_empty());
    }
}
