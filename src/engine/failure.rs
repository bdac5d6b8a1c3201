//! Why a task failed, and the remedy.

use std::path::PathBuf;

use crate::artifacts::ArtifactError;
use crate::cache::CacheError;
use crate::plan::PlanError;
use crate::stages::{Role, StageError};

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The stage failed.
    #[error("{0}")]
    Stage(#[source] StageError),
    /// The cache failed.
    #[error("the cache failed")]
    Cache(#[source] CacheError),
    /// The folder in which the task ran was removed meanwhile, as often as it was begun again.
    #[error("the cache was removed while the task ran: `{}` is gone", path.display())]
    CacheRemoved {
        /// The folder.
        path: PathBuf,
    },
    /// The inputs or the key of the task could not be found.
    #[error(transparent)]
    Plan(PlanError),
    /// A source was edited while the stage read it.
    #[error("`{file}` changed while the stage read it")]
    SourceChanged {
        /// The first file that was edited.
        file: String,
    },
    /// A source has changed since the unit was made, before the stage read it.
    #[error("`{file}` has changed since the task was planned")]
    SourceDiffers {
        /// The first file that has changed.
        file: String,
    },
    /// The tree of a unit's input is not in the cache.
    #[error("the tree of the input `{role}` is not in the cache")]
    NoTree {
        /// The input's role.
        role: Role,
    },
    /// A worker process failed.
    #[error("{message}")]
    Worker {
        /// The error of the worker, with all causes.
        message: String,
        /// The worker's advice, if it has any.
        help: Option<String>,
    },
    /// A worker process cannot be run.
    #[error("cannot run the worker `{}`", program.display())]
    WorkerProcess {
        /// The program.
        program: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The stage panicked, which is a bug of the program.
    #[error("internal error: {message}")]
    Panic {
        /// The message of the panic.
        message: String,
    },
    /// Lost inputs could not be restored, because the task that makes them failed.
    #[error("`{stage}` could not be made again: {message}")]
    Remake {
        /// Name of that task.
        stage: String,
        /// Its error, with all causes.
        message: String,
    },
    /// The log cannot be written.
    #[error("cannot write the log `{}`", path.display())]
    Log {
        /// Path of the log.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// `--locked`: the key is not the pinned one.
    #[error("`{task}` is not as locked: its inputs or fields are others")]
    LockedKey {
        /// Name of the task.
        task: String,
    },
    /// `--locked`: the outputs are not the pinned ones.
    #[error("`{task}` gave other bytes than the lock says: `{output}`{}", file.as_ref().map(|file| format!(", first `{file}`")).unwrap_or_default())]
    LockedOutput {
        /// Name of the task.
        task: String,
        /// Name of the output.
        output: String,
        /// The first file that differs, if the pinned tree is in the cache.
        file: Option<String>,
    },
    /// A stage produced other bytes than its record names; tasks that need the recorded bytes cannot go on.
    #[error("`{stage}` is not deterministic: it gave other bytes than its record says")]
    Nondeterministic {
        /// Name of the stage.
        stage: String,
    },
}

impl Failure {
    /// Returns whether the user stopped the task.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stage(StageError::Cancelled))
    }
}

/// Returns the path of the file that could not be written because the disk is full, if one of the error's causes is
/// that.
pub fn full_disk(error: &(dyn std::error::Error + 'static)) -> Option<PathBuf> {
    let is_full = |source: &std::io::Error| {
        matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = if let Some(CacheError::Write { path, source }) = error.downcast_ref() {
            Some((path, source))
        } else if let Some(ArtifactError::Io { path, source, .. }) = error.downcast_ref() {
            Some((path, source))
        } else if let Some(StageError::Io { path, source, .. }) = error.downcast_ref() {
            Some((path, source))
        } else if let Some(Failure::Log { path, source }) = error.downcast_ref() {
            Some((path, source))
        } else {
            None
        };
        if let Some((path, _)) = found.filter(|(_, source)| is_full(source)) {
            return Some(path.clone());
        }
        // A transparent error shows the causes of what it wraps, and not the wrapped error itself.
        cause = match error.downcast_ref() {
            Some(StageError::Artifact(inner)) => Some(inner),
            _ => error.source(),
        };
    }
    None
}
