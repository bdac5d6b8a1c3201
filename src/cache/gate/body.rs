//! Bodies of answers: read as streams, with a limit, whatever length the server states.

use std::fs::File;
use std::io::{self, Read, Write};

use futures_util::StreamExt;
use object_store::{GetResult, GetResultPayload};

/// Memory that is reserved for a body before any of it has come.
const FIRST_BYTES: u64 = 1024 * 1024;

/// What stopped a body.
#[derive(Debug)]
pub(in crate::cache) enum BodyError {
    /// The connection, or the remote's own file.
    Remote(object_store::Error),
    /// The file here.
    Local(io::Error),
}

impl From<object_store::Error> for BodyError {
    fn from(error: object_store::Error) -> Self {
        Self::Remote(error)
    }
}

/// Reads a body of at most `most` bytes; `None` if it is longer.
pub(in crate::cache) async fn read(found: GetResult, most: u64) -> Result<Option<Vec<u8>>, BodyError> {
    let stated = found.meta.size;
    if stated > most {
        return Ok(None);
    }
    if let GetResultPayload::File(file, _) = found.payload {
        // The file has this length.
        let mut content = Vec::with_capacity(stated as usize);
        let read = move || copy_file(file, most, &mut content).map(|is_whole| is_whole.then_some(content));
        let read = tokio::task::spawn_blocking(read).await;
        return read.unwrap_or_else(|error| Err(BodyError::Local(io::Error::other(error))));
    }
    let mut content = Vec::with_capacity(stated.min(FIRST_BYTES) as usize);
    let is_whole = copy(found, most, &mut content).await?;
    Ok(is_whole.then_some(content))
}

/// Copies a body of at most `most` bytes; `false` if it is longer.
pub(in crate::cache) async fn copy(
    found: GetResult,
    most: u64,
    to: &mut impl Write,
) -> Result<bool, BodyError> {
    if found.meta.size > most {
        return Ok(false);
    }
    let mut body = match found.payload {
        GetResultPayload::File(file, _) => return copy_file(file, most, to),
        GetResultPayload::Stream(body) => body,
    };
    let mut length = 0_u64;
    while let Some(bytes) = body.next().await {
        let bytes = bytes?;
        length += bytes.len() as u64;
        if length > most {
            return Ok(false);
        }
        to.write_all(&bytes).map_err(BodyError::Local)?;
    }
    Ok(true)
}

/// Copies a file of a remote in a folder, which may have grown since its length was read.
fn copy_file(file: File, most: u64, to: &mut impl Write) -> Result<bool, BodyError> {
    let copied = io::copy(&mut file.take(most.saturating_add(1)), to).map_err(BodyError::Local)?;
    Ok(copied <= most)
}
