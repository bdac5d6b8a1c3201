//! The client of a server, with the meanings that servers give to their answers.
//!
//! - `403 Forbidden` for a file: S3 and GCS answer so for files that do not exist if the credentials do not permit
//!   listing the bucket (`s3:ListBucket`). One question for a file that certainly does not exist decides it.
//! - Objects in an archive class cannot be read at once and count as absent, each by itself.
//! - A server that does not know conditional writes is not asked for them again: the last writer wins.
//! - Answers to HEAD have no body. If they refuse, the reason is read from an answer to GET.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::OnceCell;

use super::lock;
use super::refusal::Refusal;

/// A file that no remote has.
const ABSENT: &str = "v1/absent";

/// What was noticed about a remote.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether files that are not there are answered with 403.
    pub(super) is_403_absent: AtomicBool,
    /// Whether a file was read or written.
    pub(super) is_served: AtomicBool,
    /// The first file in an archive class.
    archived: Mutex<Option<String>>,
}

impl Notes {
    /// The first file that was found in an archive class.
    pub(super) fn take_archived(&self) -> Option<String> {
        lock(&self.archived).take()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    inner: Arc<dyn ObjectStore>,
    notes: Arc<Notes>,
    /// Whether the server does not know conditional writes.
    is_unconditional: AtomicBool,
    /// Whether a file that does not exist is answered with 403.
    absent_is_403: OnceCell<bool>,
}

impl Client {
    /// Gives the answers of a client their meanings, and notes what is noticed.
    pub(super) fn new(inner: impl ObjectStore, notes: Arc<Notes>) -> Self {
        Self {
            inner: Arc::new(inner),
            notes,
            is_unconditional: AtomicBool::new(false),
            absent_is_403: OnceCell::new(),
        }
    }

    /// What a refusal of a file means.
    async fn meaning(&self, file: &Path, error: Error) -> Error {
        let Some(refusal) = Refusal::of(&error).cloned() else { return error };
        if refusal.is_archived() {
            lock(&self.notes.archived).get_or_insert_with(|| file.to_string());
            return absent(file, error);
        }
        if !refusal.is_plain_denial() {
            return if refusal.is_unexplained() { self.ask().await.err().unwrap_or(error) } else { error };
        }
        match self.absent_is_403.get_or_try_init(|| self.ask()).await {
            Ok(true) => {
                self.notes.is_403_absent.store(true, Ordering::Relaxed);
                absent(file, error)
            }
            Ok(false) => error,
            Err(explained) => explained,
        }
    }

    /// Asks for a file that does not exist; returns whether the answer is 403 rather than 404.
    async fn ask(&self) -> Result<bool> {
        match self.inner.get(&Path::from(ABSENT)).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(false),
            Err(error) if Refusal::of(&error).is_some_and(Refusal::is_plain_denial) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn note_served<T>(&self, answer: Result<T>) -> Result<T> {
        if answer.is_ok() {
            self.notes.is_served.store(true, Ordering::Relaxed);
        }
        answer
    }
}

fn absent(file: &Path, error: Error) -> Error {
    Error::NotFound { path: file.to_string(), source: Box::new(error) }
}

/// Sorts a refusal to write by its status, so that callers see whether another try is futile.
fn of_write(file: &Path, error: Error) -> Error {
    let path = file.to_string();
    match Refusal::of(&error).map(|refusal| refusal.status) {
        Some(401) => Error::Unauthenticated { path, source: Box::new(error) },
        Some(400 | 402 | 403 | 404 | 411..=413 | 507) => {
            Error::PermissionDenied { path, source: Box::new(error) }
        }
        _ => error,
    }
}

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(&self, file: &Path, content: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let is_conditional = options.mode == PutMode::Create;
        if is_conditional && self.is_unconditional.load(Ordering::Relaxed) {
            options.mode = PutMode::Overwrite;
        }
        let put = self.inner.put_opts(file, content.clone(), options.clone()).await;
        let put = match put {
            Err(error) if options.mode == PutMode::Create && is_unsupported(&error) => {
                self.is_unconditional.store(true, Ordering::Relaxed);
                options.mode = PutMode::Overwrite;
                self.inner.put_opts(file, content, options).await
            }
            put => put,
        };
        self.note_served(put.map_err(|error| of_write(file, error)))
    }

    async fn put_multipart_opts(
        &self,
        file: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(file, options).await.map_err(|error| of_write(file, error))
    }

    async fn get_opts(&self, file: &Path, options: GetOptions) -> Result<GetResult> {
        match self.note_served(self.inner.get_opts(file, options).await) {
            Ok(found) => Ok(found),
            Err(error) => Err(self.meaning(file, error).await),
        }
    }

    fn delete_stream(&self, files: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(files)
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(folder)
    }

    async fn list_with_delimiter(&self, folder: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(folder).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Whether the client or the server does not know the operation.
fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::NotImplemented { .. } | Error::NotSupported { .. })
        || Refusal::of(error).is_some_and(Refusal::is_unsupported)
}
