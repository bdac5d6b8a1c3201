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
    /// Its inputs or its key could not be found.
    #[error(transparent)]
    Plan(PlanError),
    /// A source was edited while the stage read it.
    #[error("`{file}` changed while the stage read it")]
    SourceChanged {
        /// The first such file.
        file: String,
    },
    /// A source has changed since the unit was made.
    #[error("`{file}` has changed since the task was planned")]
    SourceDiffers {
        /// The first such file.
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
        /// Its error, with all causes.
        message: String,
        /// Its remedy, if known.
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
    /// The program itself is at fault.
    #[error("internal error: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
    /// Lost inputs could not be restored.
    #[error("`{stage}` could not be made again: {message}")]
    Remake {
        /// The stage that failed.
        stage: String,
        /// How.
        message: String,
    },
    /// The log cannot be written.
    #[error("cannot write the log `{}`", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `--locked`: the key is not the pinned one.
    #[error("`{task}` is not as locked: its inputs or fields are others")]
    LockedKey {
        /// The task.
        task: String,
    },
    /// `--locked`: the outputs are not the pinned ones.
    #[error("`{task}` gave other bytes than the lock says: `{output}`{}", file.as_ref().map(|file| format!(", first `{file}`")).unwrap_or_default())]
    LockedOutput {
        /// The task.
        task: String,
        /// The output.
        output: String,
        /// The first file that differs, if the pinned tree is in the cache.
        file: Option<String>,
    },
    /// A stage produced other bytes than its record names; tasks that need the recorded bytes cannot go on.
    #[error("`{stage}` is not deterministic: it gave other bytes than its record says")]
    Nondeterministic {
        /// The stage.
        stage: String,
    },
}

impl Failure {
    /// Whether the user stopped it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stage(StageError::Cancelled))
    }
}

/// The file that could not be written because the disk is full, if one of the causes says so.
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
