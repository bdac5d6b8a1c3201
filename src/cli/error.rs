//! The errors that end a command, their exit codes and what to do about them.

use std::path::PathBuf;

use super::{Exit, hints};
use crate::cache::CacheError;
use crate::engine::{EngineError, UnitError};
use crate::manifest::ManifestError;
use crate::plan::{LockError, PlanError};
use crate::report::{HistoryError, ReportError};
use crate::stages::StageError;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The manifest, the configuration or an override is wrong.
    #[error("the manifest is wrong")]
    Manifest(#[source] ManifestError),
    /// The plan is wrong.
    #[error(transparent)]
    Plan(PlanError),
    /// A run failed as a whole.
    #[error(transparent)]
    Engine(EngineError),
    /// The cache failed.
    #[error("the cache failed")]
    Cache(#[source] CacheError),
    /// The run's folder cannot be written.
    #[error(transparent)]
    Report(ReportError),
    /// The run would exceed a budget.
    #[error("the run would take {needed}, the budget is {allowed}; nothing was run")]
    Budget { needed: String, allowed: String },
    /// Nothing says whether the run would stay within a budget.
    #[error("cannot say whether the run stays within the budget: {why}; nothing was run")]
    UnknownCost { why: String },
    /// This build or machine cannot run a task that is not cached.
    #[error("`{task}` is not cached and cannot run here; nothing was run")]
    CannotRun {
        task: String,
        #[source]
        source: StageError,
    },
    /// No variant has these values.
    #[error("no variant `{name}` in the grid")]
    UnknownVariant { name: String, help: String },
    /// The lock is missing, or the plan differs from it.
    #[error(transparent)]
    Lock(LockError),
    /// A past run cannot be found or read.
    #[error(transparent)]
    History(HistoryError),
    /// The command needs a remote, and none is configured.
    #[error("no remote is configured")]
    NoRemote,
    /// The remote cannot list its records.
    #[error("`{address}` cannot list its records")]
    Unlisted { address: String },
    /// A sealed unit cannot be read.
    #[error("cannot read the unit `{}`", path.display())]
    UnitFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A sealed unit is refused.
    #[error("the unit is refused")]
    Unit(#[source] UnitError),
    /// Data cannot be written to stdout.
    #[error("cannot write to the standard output")]
    Output {
        #[source]
        source: std::io::Error,
    },
    /// No pin has this name.
    #[error("no pin `{name}` in the cache")]
    UnknownPin { name: String },
    /// The manifest has no stage of this name.
    #[error("no stage `{name}` in the manifest")]
    UnknownStage { name: String, help: String },
}

impl CliError {
    /// The exit code.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Manifest(_)
            | Self::Plan(_)
            | Self::UnknownStage { .. }
            | Self::UnknownVariant { .. }
            | Self::UnknownPin { .. }
            | Self::NoRemote
            | Self::UnitFile { .. }
            | Self::History(_)
            | Self::Cache(CacheError::BadPin { .. } | CacheError::Remote { .. })
            | Self::Engine(EngineError::Plan(_)) => Exit::Usage,
            Self::Budget { .. }
            | Self::UnknownCost { .. }
            | Self::Lock(_)
            | Self::Unit(_)
            | Self::Cache(CacheError::Collecting { .. }) => Exit::Refused,
            Self::Engine(_)
            | Self::Cache(_)
            | Self::Report(_)
            | Self::CannotRun { .. }
            | Self::Output { .. }
            | Self::Unlisted { .. } => Exit::Failed,
        }
    }

    /// What to do about it, if known.
    pub(super) fn help(&self) -> Option<String> {
        match self {
            Self::Plan(error) => hints::of(error),
            Self::Engine(error) => hints::of(error),
            Self::Cache(error) | Self::Report(ReportError::Cache(error)) => hints::of(error),
            Self::Lock(error) => Some(hints::lock_error(error)),
            Self::History(error) => Some(hints::history_error(error)),
            Self::UnknownStage { help, .. } | Self::UnknownVariant { help, .. } => Some(help.clone()),
            Self::NoRemote => Some(
                "set `remote` in patchflow.toml, or give `--remote ADDRESS` (docs/sharing.md)".to_owned(),
            ),
            Self::Unlisted { .. } => Some(
                "name a manifest, so that its tasks are looked up one by one; or check that the remote can be reached"
                    .to_owned(),
            ),
            Self::UnknownPin { .. } => Some("`patchflow cache info` shows the pins".to_owned()),
            Self::Report(_) => Some("check the folder's permissions and free space".to_owned()),
            Self::Budget { .. } => Some("raise `--budget`, or run less with `--only` or `--target`".to_owned()),
            Self::UnknownCost { .. } => Some(hints::UNKNOWN_COST.to_owned()),
            Self::CannotRun { source, .. } => hints::of(source),
            Self::Unit(_) => Some("use the build of patchflow that runs the manifest".to_owned()),
            Self::Output { .. } => Some("free space where it goes, or print to another file".to_owned()),
            Self::Manifest(_) | Self::UnitFile { .. } => None,
        }
    }
}
