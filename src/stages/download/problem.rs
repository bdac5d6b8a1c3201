//! Why a download or an archive was refused.

/// Why no address provided the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownloadCause {
    /// The run is offline.
    Offline,
    /// No server answered with a file.
    Unreachable,
    /// A server has a file with another digest.
    OtherFile,
    /// A server answered with a web page.
    WebPage,
    /// A server answered with a pointer of Git LFS.
    LfsPointer,
}

/// Why an archive was not unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum ArchiveProblem {
    /// The file is something else.
    #[error("it is {found}, not a zip archive")]
    Format { found: String },
    /// An entry is compressed by a method that this program does not read.
    #[error(
        "the entry `{entry}` is compressed by the method {method}; only Deflate and stored entries are read"
    )]
    Method { entry: String, method: String },
    /// An entry is encrypted.
    #[error("the entry `{entry}` is encrypted")]
    Encrypted { entry: String },
    /// The archive is damaged, too large, or would write outside of its folder.
    #[error("{message}")]
    Refused { message: String },
}
