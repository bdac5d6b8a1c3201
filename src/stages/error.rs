//! The errors of stages.

use std::path::PathBuf;

use super::download::{ArchiveProblem, DownloadCause};
use super::preprocess::ImageFault;
use crate::artifacts::ArtifactError;
use crate::kernels::backbone::RuntimeError;

/// Number of problems that a message lists. Further problems are only counted.
const NAMED_PROBLEMS: usize = 10;

/// A failed stage.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum StageError {
    /// The user stopped the run.
    #[error("stopped")]
    Cancelled,
    /// The planner did not connect a port.
    #[error("the input `{role}` is not connected")]
    MissingInput { role: String },
    /// An artifact could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// A verb such as `read`, `write` or `start`.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The stage cannot use the data.
    #[error("{message}")]
    Data {
        /// The problem, including the name of the file.
        message: String,
        /// How to fix it.
        help: Option<String>,
    },
    /// An image of the user could not be read.
    #[error("cannot read the image `{}`", path.display())]
    Image {
        /// Path of the file as the user knows it, not in the cache.
        path: PathBuf,
        #[source]
        source: ImageFault,
    },
    /// Several problems of the data.
    #[error("{} {what}:{}", .errors.len(), listed(.errors))]
    Several {
        /// What they have in common, such as `images cannot be used`.
        what: &'static str,
        errors: Vec<StageError>,
    },
    /// A kernel failed.
    #[error("{what}")]
    Kernel {
        /// The computation that failed, such as `cannot score the image`.
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This build or machine lacks the backend or device of the stage.
    #[error(transparent)]
    Unavailable(RuntimeError),
    /// A program failed.
    #[error("`{program}` {status}{}", quoted(.last_lines))]
    Program {
        program: String,
        /// How the program ended, such as `ended with exit status: 1`.
        status: String,
        /// The last lines that the program wrote to stderr.
        last_lines: Vec<String>,
        /// How to fix it.
        help: Option<String>,
    },
    /// A download failed.
    #[error("cannot download `{url}`: {message}")]
    Download { url: String, message: String, cause: DownloadCause },
    /// An archive is unsafe, incomplete, or written by a method that this program does not read.
    #[error("cannot unpack `{}`: {problem}", path.display())]
    Archive { path: PathBuf, problem: ArchiveProblem },
}

impl StageError {
    /// Returns an error about data that the stage cannot use, with a hint how to fix it.
    pub fn data(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Data { message: message.into(), help: Some(help.into()) }
    }

    /// Returns an error about a file that could not be read or written.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// Returns an error about a kernel that failed in the computation `what`.
    pub fn kernel(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Kernel { what: what.into(), source: Box::new(source) }
    }

    /// Returns the hint that the stage attached to the error, if any.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Data { help, .. } | Self::Program { help, .. } => help.as_deref(),
            _ => None,
        }
    }
}

/// Formats a list of problems for its error message.
fn listed(errors: &[StageError]) -> String {
    let line = |error: &StageError| match std::error::Error::source(error) {
        Some(source) => format!("\n  {error}: {source}"),
        None => format!("\n  {error}"),
    };
    let mut lines: Vec<String> = errors.iter().take(NAMED_PROBLEMS).map(line).collect();
    if errors.len() > NAMED_PROBLEMS {
        lines.push(format!("\n  and {} more", errors.len() - NAMED_PROBLEMS));
    }
    lines.concat()
}

/// Formats the last lines of a program for its error message.
fn quoted(lines: &[String]) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!("; last lines on stderr:\n    {}", lines.join("\n    "))
    }
}
