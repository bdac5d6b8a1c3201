//! What can go wrong while a stage runs.

use std::path::PathBuf;

use crate::artifacts::ArtifactError;
use crate::kernels::backbone::RuntimeError;

/// A failed stage. Messages name the file and, where it is not plain, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The user stopped the run.
    #[error("stopped")]
    Cancelled,
    /// The plan left a port open.
    #[error("the input `{role}` is not connected")]
    MissingInput {
        /// Its role.
        role: String,
    },
    /// An artifact could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `read`, `write`, `start` …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The data are not what the stage needs.
    #[error("{message}")]
    Data {
        /// What is wrong, with the file's name.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// An image could not be decoded.
    #[error("cannot decode the image `{}`", path.display())]
    Image {
        /// The file, as the user knows it.
        path: PathBuf,
        /// The decoder's answer.
        #[source]
        source: image::ImageError,
    },
    /// A kernel refused the numbers.
    #[error("{what}")]
    Kernel {
        /// What was computed.
        what: String,
        /// The kernel's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This build or machine does not have what the stage computes with.
    #[error(transparent)]
    Unavailable(RuntimeError),
    /// A program ended badly.
    #[error("`{program}` {status}{}", said(.last_lines))]
    Program {
        /// The program.
        program: String,
        /// How it ended: `ended with exit status: 1`.
        status: String,
        /// Its last lines on stderr.
        last_lines: Vec<String>,
        /// What to do about it.
        help: Option<String>,
    },
    /// A download did not succeed.
    #[error("cannot download `{url}`: {message}")]
    Download {
        /// The address.
        url: String,
        /// What went wrong.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// An archive is not safe or not whole.
    #[error("cannot unpack `{}`: {message}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with which entry.
        message: String,
    },
}

impl StageError {
    /// The data are not what the stage needs.
    pub fn data(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Data { message: message.into(), help: Some(help.into()) }
    }

    /// A file could not be used.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// A kernel refused the numbers of `what`.
    pub fn kernel(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Kernel { what: what.into(), source: Box::new(source) }
    }

    /// Returns the remedy that the stage itself gives, if any.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Data { help, .. } | Self::Program { help, .. } | Self::Download { help, .. } => {
                help.as_deref()
            }
            _ => None,
        }
    }
}

/// The last lines of a program, below its end.
fn said(lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("; it said last:\n    {}", lines.join("\n    ")) }
}
