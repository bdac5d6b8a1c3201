//! Uploading single files.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path as FilePath;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload, WriteMultipart};

use super::circuit_breaker::{RequestError, RequestKind};
use super::{QUICK, RemoteStore, lock, longest};
use crate::cache::gate::Entry;

/// Bytes of one part of a large file (S3 takes 10,000 parts).
const PART: usize = 16 * 1024 * 1024;

/// Bytes that are written to a folder at once: they stay in the processor's cache. Linux 6 takes 500 MB in 0.25 s in
/// pieces of 100 kB, and in 1.3 s in pieces of 8 MiB (ext4, 2026-11-29).
const PIECE: usize = 128 * 1024;

/// Parts of one file in flight at once.
const PARTS: usize = 4;

impl RemoteStore {
    /// Uploads a file over any other of that name.
    pub(super) async fn put(&self, entry: Entry, content: Vec<u8>) -> Option<()> {
        let (name, size) = (entry.name(), content.len() as u64);
        let put = async {
            let payload = if self.folder.is_some() { in_pieces(content) } else { content.into() };
            self.objects.put(&Path::from(name.as_str()), payload).await?;
            Ok(())
        };
        self.request(RequestKind::Write, &name, longest(size), put).await?;
        self.note_uploaded(entry, size);
        Some(())
    }

    /// Uploads a file unless one of that name exists; a server without such a condition overwrites it.
    pub(super) async fn put_new(&self, entry: Entry, content: Vec<u8>) -> Option<()> {
        let (name, size) = (entry.name(), content.len() as u64);
        let (path, payload) = (Path::from(name.as_str()), PutPayload::from(content));
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
        self.request(RequestKind::Write, &name, QUICK, put).await?;
        self.note_uploaded(entry, size);
        Some(())
    }

    /// Uploads a large file, in parts if the server supports that.
    pub(super) async fn put_file(&self, entry: Entry, file: &FilePath, size: u64) -> Option<()> {
        let name = entry.name();
        self.request(RequestKind::Write, &name, longest(size), self.put_parts(&name, file)).await?;
        self.note_uploaded(entry, size);
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

    fn note_uploaded(&self, entry: Entry, size: u64) {
        lock(&self.names).note_present(entry, size);
        self.sweep(entry);
    }
}
/// A content as pieces of [`PIECE`] bytes, without a copy.
fn in_pieces(content: Vec<u8>) -> PutPayload {
    let whole = PutPayload::from(content);
    let pieces = whole.iter().flat_map(|bytes| {
        let starts = (0..bytes.len()).step_by(PIECE);
        starts.map(|start| bytes.slice(start..bytes.len().min(start + PIECE)))
    });
    pieces.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_whole() {
        let content: Vec<u8> = (0..2 * PIECE + 5).map(|number| number as u8).collect();
        let payload = in_pieces(content.clone());
        let pieces: Vec<&[u8]> = payload.iter().map(AsRef::as_ref).collect();
        assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [PIECE, PIECE, 5]);
        assert_eq!(pieces.concat(), content);
        assert_eq!(in_pieces(Vec::new()).content_length(), 0);
    }
}
