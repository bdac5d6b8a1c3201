//! Uploading single files.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path as FilePath;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload, WriteMultipart};

use super::circuit_breaker::{RequestError, RequestKind};
use super::{QUICK, RemoteStore, lock, longest};

/// Bytes of one part of a large file (S3 takes 10,000 parts).
const PART: usize = 16 * 1024 * 1024;

/// Parts of one file in flight at once.
const PARTS: usize = 4;

impl RemoteStore {
    /// Whether a file exists and is not known to be invalid; `None` if that is unknown.
    pub(super) async fn has(&self, name: &str) -> Option<bool> {
        {
            let names = lock(&self.names);
            if names.invalid.contains(name) || names.present.contains(name) {
                return Some(!names.invalid.contains(name));
            }
        }
        let head = async {
            match self.objects.head(&Path::from(name)).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        let is_there = self.request(RequestKind::Read, name, QUICK, head).await?;
        if is_there {
            self.note_present(name);
        }
        Some(is_there)
    }

    /// Uploads a file over any other of that name.
    pub(super) async fn put(&self, name: &str, content: Vec<u8>) -> Option<()> {
        let size = content.len() as u64;
        let put = async {
            self.objects.put(&Path::from(name), PutPayload::from(content)).await?;
            Ok(())
        };
        self.request(RequestKind::Write, name, longest(size), put).await?;
        self.note_present(name);
        Some(())
    }

    /// Uploads a file unless one of that name exists; a server without such a condition overwrites it.
    pub(super) async fn put_new(&self, name: &str, content: Vec<u8>) -> Option<()> {
        let (path, payload) = (Path::from(name), PutPayload::from(content));
        let put = async {
            use object_store::Error as E;
            match self.objects.put_opts(&path, payload.clone(), PutMode::Create.into()).await {
                Ok(_) | Err(E::AlreadyExists { .. } | E::Precondition { .. }) => Ok(()),
                // Generic: servers that do not know the header, and folders without hard links.
                Err(E::NotImplemented { .. } | E::NotSupported { .. } | E::Generic { .. }) => {
                    self.objects.put(&path, payload).await?;
                    Ok(())
                }
                Err(error) => Err(RequestError::from(error)),
            }
        };
        self.request(RequestKind::Write, name, QUICK, put).await?;
        self.note_present(name);
        Some(())
    }

    /// Uploads a large file, in parts if the server supports that.
    pub(super) async fn put_file(&self, name: &str, file: &FilePath, size: u64) -> Option<()> {
        self.request(RequestKind::Write, name, longest(size), self.put_parts(name, file)).await?;
        self.note_present(name);
        Some(())
    }

    async fn put_parts(&self, name: &str, file: &FilePath) -> Result<(), RequestError> {
        let path = Path::from(name);
        let unread = |source: std::io::Error| RequestError::ReadFile { path: file.to_owned(), source };
        let upload = match self.objects.put_multipart(&path).await {
            Ok(upload) => upload,
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                let content = fs::read(file).map_err(unread)?;
                self.objects.put(&path, PutPayload::from(content)).await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut content = File::open(file).map_err(unread)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut part = vec![0; PART];
        loop {
            let read = content.read(&mut part).map_err(unread);
            let sent = match read {
                Ok(0) => break,
                Ok(length) => {
                    upload.write(&part[..length]);
                    upload.wait_for_capacity(PARTS).await.map_err(RequestError::from)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = sent {
                // Uploaded parts have no name yet; the first failure is the one to report.
                let _ = upload.abort().await;
                return Err(error);
            }
        }
        upload.finish().await?;
        Ok(())
    }

    fn note_present(&self, name: &str) {
        let mut names = lock(&self.names);
        names.invalid.remove(name);
        names.present.insert(name.to_owned());
    }
}
