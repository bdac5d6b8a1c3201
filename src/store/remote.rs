//! The remote: a store that a team's machines share, by `object_store` (a folder, S3, GCS, Azure, HTTP).
//!
//! ```text
//! <address>/v1/records/ab/cdef…    a task's record, the bytes of the local file
//! <address>/v1/trees/ab/cdef…      a listing
//! <address>/v1/objects/ab/cdef…    an object of 256 KiB or more
//! <address>/v1/packs/ab/cdef…      a listing's smaller objects together ([`pack`])
//! ```
//! Objects go up before listings, listings before the record: what a record needs is there when it is. Everything
//! that comes down is checked against its digest or checksum; what is wrong counts as absent, and is told once.
//!
//! A remote that fails never fails a run: after [`Health::MOST`] failures in a row it is left alone, and told of once.

use std::collections::{HashMap, HashSet};
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::runtime::Runtime;

use super::digest::Digest;
use super::error::StoreError;

mod address;
mod fetch;
mod pack;
mod push;
#[cfg(test)]
mod tests;

pub use address::{RemoteAddress, RemoteMode};
pub use fetch::Fetched;
pub use push::Pushed;

/// Requests at once.
const REQUESTS: usize = 16;

/// The longest that one request may take, for what an HTTP client does not bound itself.
const LONGEST: Duration = Duration::from_mins(10);

/// See the module.
pub struct Remote {
    address: String,
    mode: RemoteMode,
    objects: Arc<dyn ObjectStore>,
    runtime: Runtime,
    health: Mutex<Health>,
    /// Records that were asked for, and what came.
    records: Mutex<HashMap<Digest, Option<Arc<Vec<u8>>>>>,
    /// Names that are known to be there.
    present: Mutex<HashSet<String>>,
    requests: AtomicU64,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What it answers when a file is asked for.
enum Answer {
    /// The file.
    File(Vec<u8>),
    /// It has none of that name.
    Absent,
    /// Nothing: it failed, or was not asked.
    None,
}

impl Answer {
    fn file(self) -> Option<Vec<u8>> {
        if let Self::File(file) = self { Some(file) } else { None }
    }
}

/// How the remote has answered.
#[derive(Debug, Default)]
struct Health {
    failures: u32,
    is_given_up: bool,
    warnings: Vec<String>,
}

impl Health {
    /// Failures in a row after which a remote is left alone.
    const MOST: u32 = 3;
}

impl Remote {
    /// Opens a remote; nothing is asked of it yet.
    ///
    /// # Errors
    /// [`StoreError::Remote`] where the address cannot be understood or its folder cannot be made.
    pub fn open(address: &RemoteAddress, project: &FilePath) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Remote { address: address.url.clone(), reason };
        let objects = address::open(address, project).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("remote")
            .build()
            .map_err(|error| failed(format!("cannot start its thread: {error}")))?;
        Ok(Self {
            address: address.url.clone(),
            mode: address.mode,
            objects,
            runtime,
            health: Mutex::default(),
            records: Mutex::default(),
            present: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether this machine puts its results there.
    pub fn is_written(&self) -> bool {
        self.mode == RemoteMode::ReadWrite && !self.health().is_given_up
    }

    /// Requests that were made.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What the user should know of, each once.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.health().warnings)
    }

    /// Asks for the records of many keys at once; [`Self::record`] then has the answers.
    pub fn ask(&self, keys: &[Digest], cancelled: &AtomicBool) {
        let new: Vec<Digest> = {
            let known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().filter(|key| !known.contains_key(*key)).copied().collect()
        };
        let names: Vec<String> = new.iter().map(|key| name("records", key)).collect();
        for (key, answer) in new.iter().zip(self.get_all(&names, cancelled)) {
            if matches!(answer, Answer::None) {
                continue;
            }
            let record = answer.file().and_then(|file| {
                let sound = super::records::content(key, file);
                if sound.is_none() {
                    self.warn(&format!("the record {key} there is damaged, and counts as absent"));
                }
                sound.map(Arc::new)
            });
            self.records.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, record);
        }
    }

    /// The record of a key.
    pub fn record(&self, key: &Digest) -> Option<Arc<Vec<u8>>> {
        self.ask(&[*key], &AtomicBool::new(false));
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().flatten()
    }

    /// The keys of all records that are there; none where it does not answer.
    pub fn keys(&self) -> Option<Vec<Digest>> {
        let listed = self.attempt("list its records", async {
            let prefix = Path::from("v1/records");
            let mut keys = Vec::new();
            let mut found = self.objects.list(Some(&prefix));
            while let Some(one) = found.next().await {
                let location = one?.location.to_string();
                let digits: String =
                    location.rsplit('/').take(2).collect::<Vec<_>>().into_iter().rev().collect();
                keys.extend(digits.parse::<Digest>().ok());
            }
            Ok(keys)
        });
        listed.map(|mut keys| {
            keys.sort_unstable();
            keys
        })
    }

    /// The files of those names, in order.
    fn get_all(&self, names: &[String], cancelled: &AtomicBool) -> Vec<Answer> {
        let get = |name: String| async move {
            if cancelled.load(Ordering::Relaxed) || self.health().is_given_up {
                return Answer::None;
            }
            match self.count(&name, self.bounded(self.get(&name)).await) {
                None => Answer::None,
                Some(None) => Answer::Absent,
                Some(Some(file)) => Answer::File(file),
            }
        };
        let all = stream::iter(names.iter().cloned().map(get)).buffered(REQUESTS).collect::<Vec<_>>();
        self.runtime.block_on(all)
    }

    async fn get(&self, name: &str) -> object_store::Result<Option<Vec<u8>>> {
        match self.objects.get(&Path::from(name)).await {
            Ok(found) => Ok(Some(found.bytes().await?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a file where no other is; where the server knows no such condition, over it.
    async fn put(&self, name: &str, content: Vec<u8>, only_new: bool) -> object_store::Result<()> {
        let (path, payload) = (Path::from(name), PutPayload::from(content));
        if only_new {
            match self.objects.put_opts(&path, payload.clone(), PutMode::Create.into()).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => return Ok(()),
                Err(
                    object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        self.objects.put(&path, payload).await.map(|_| ())
    }

    /// Whether a file is there.
    async fn has(&self, name: &str) -> object_store::Result<bool> {
        if self.present.lock().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return Ok(true);
        }
        match self.objects.head(&Path::from(name)).await {
            Ok(_) => {
                self.note_present(name);
                Ok(true)
            }
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn note_present(&self, name: &str) {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    async fn bounded<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Result<T, String> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        match tokio::time::timeout(LONGEST, request).await {
            Ok(answer) => answer.map_err(|error| chain(&error)),
            Err(_) => Err(format!("no answer in {} s", LONGEST.as_secs())),
        }
    }

    /// Runs requests to their end; none where one fails, or where the remote was given up. The client bounds each.
    fn attempt<T>(&self, what: &str, request: impl Future<Output = object_store::Result<T>>) -> Option<T> {
        if self.health().is_given_up {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = self.runtime.block_on(request);
        self.count(what, answer.map_err(|error| chain(&error)))
    }

    /// Counts an answer, and gives the remote up after too many failures.
    fn count<T>(&self, what: &str, answer: Result<T, String>) -> Option<T> {
        let mut health = self.health();
        match answer {
            Ok(answer) => {
                health.failures = 0;
                Some(answer)
            }
            Err(reason) => {
                health.failures += 1;
                if health.failures >= Health::MOST && !health.is_given_up {
                    health.is_given_up = true;
                    health.warnings.push(format!(
                        "`{}` does not answer, and is left alone for now ({what}: {reason})",
                        self.address
                    ));
                }
                None
            }
        }
    }

    fn warn(&self, message: &str) {
        let message = format!("`{}`: {message}", self.address);
        let mut health = self.health();
        if !health.warnings.contains(&message) {
            health.warnings.push(message);
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a file there.
fn name(area: &str, digest: &Digest) -> String {
    let digits = digest.to_string();
    format!("v1/{area}/{}/{}", &digits[..2], &digits[2..])
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        cause = error.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
