//! Single files that go up.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path as FilePath;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload, WriteMultipart};

use super::health::{Trouble, Want};
use super::{QUICK, Remote, lock, longest};

/// Bytes of one part of a large file (S3 takes 10,000 parts).
const PART: usize = 16 * 1024 * 1024;

/// Parts of one file that are on their way at once.
const PARTS: usize = 4;

impl Remote {
    /// Whether a file is there and sound, as far as is known; none where that cannot be told.
    pub(super) async fn has(&self, name: &str) -> Option<bool> {
        {
            let names = lock(&self.names);
            if names.doubted.contains(name) || names.present.contains(name) {
                return Some(!names.doubted.contains(name));
            }
        }
        let head = async {
            match self.objects.head(&Path::from(name)).await {
                Ok(_) => Ok(true),
                Err(object_store::Error::NotFound { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            }
        };
        let is_there = self.request(Want::Read, name, QUICK, head).await?;
        if is_there {
            self.note_present(name);
        }
        Some(is_there)
    }

    /// Puts a file there, over another of that name.
    pub(super) async fn put(&self, name: &str, content: Vec<u8>) -> Option<()> {
        let size = content.len() as u64;
        let put = async {
            self.objects.put(&Path::from(name), PutPayload::from(content)).await?;
            Ok(())
        };
        self.request(Want::Write, name, longest(size), put).await?;
        self.note_present(name);
        Some(())
    }

    /// Puts a file where no other is; where the server knows no such condition, over it.
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
                Err(error) => Err(Trouble::from(error)),
            }
        };
        self.request(Want::Write, name, QUICK, put).await?;
        self.note_present(name);
        Some(())
    }

    /// Puts a large file there, in parts where the server takes them.
    pub(super) async fn put_file(&self, name: &str, file: &FilePath, size: u64) -> Option<()> {
        self.request(Want::Write, name, longest(size), self.put_parts(name, file)).await?;
        self.note_present(name);
        Some(())
    }

    async fn put_parts(&self, name: &str, file: &FilePath) -> Result<(), Trouble> {
        let path = Path::from(name);
        let unread = |error: std::io::Error| Trouble {
            reason: format!("cannot read `{}`: {error}", file.display()),
            is_refusal: false,
        };
        let upload = match self.objects.put_multipart(&path).await {
            Ok(upload) => upload,
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                let content = fs::read(file).map_err(unread)?;
                self.objects.put(&path, PutPayload::from(content)).await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut file = File::open(file).map_err(unread)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut part = vec![0; PART];
        loop {
            let read = file.read(&mut part).map_err(unread);
            let sent = match read {
                Ok(0) => break,
                Ok(length) => {
                    upload.write(&part[..length]);
                    upload.wait_for_capacity(PARTS).await.map_err(Trouble::from)
                }
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = sent {
                // What is left of it there has no name yet; the first failure is what counts.
                let _ = upload.abort().await;
                return Err(trouble);
            }
        }
        upload.finish().await?;
        Ok(())
    }

    fn note_present(&self, name: &str) {
        let mut names = lock(&self.names);
        names.doubted.remove(name);
        names.present.insert(name.to_owned());
    }
}
