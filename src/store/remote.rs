//! The remote: a store that a team's machines share, by `object_store` (a folder, S3, GCS, Azure, HTTP).
//!
//! ```text
//! <address>/v1/records/ab/cdef…    a task's record, the bytes of the local file
//! <address>/v1/trees/ab/cdef…      a listing
//! <address>/v1/objects/ab/cdef…    an object of 256 KiB or more
//! <address>/v1/packs/ab/cdef…      a listing's smaller objects together ([`pack`])
//! ```
//! Objects go up before listings, listings before the record: what a record needs is there when it is. Everything
//! that comes down is checked against its digest or checksum; what is wrong counts as absent, is told once, and is
//! put there anew by whoever makes it again.
//!
//! A remote that fails never fails a run ([`health`]). Whatever waits for it ends when the user stops.

use std::collections::{HashMap, HashSet};
use std::path::Path as FilePath;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use self::health::{Health, Trouble, Want};
use super::digest::Digest;
use super::error::StoreError;
use super::tree::Tree;

mod address;
mod fetch;
mod health;
mod pack;
mod push;
mod send;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;

pub use address::{RemoteAddress, RemoteMode};
pub use fetch::Fetched;
pub use push::{PushOrder, Pushed};

/// Requests at once.
const REQUESTS: usize = 16;

/// The longest that a small question may take, its repetitions included.
const QUICK: Duration = Duration::from_secs(15);

/// The longest that a file may take; large ones get more ([`longest`]). A connection that stands still is ended sooner.
const LONGEST: Duration = Duration::from_mins(10);

/// Objects of so many bytes go up and come down one at a time, through files rather than memory.
const LARGE: u64 = 64 * 1024 * 1024;

/// Time after which a record that was absent is asked for again, before a task is executed: another machine may have
/// made it meanwhile.
const ABSENT: Duration = Duration::from_secs(30);

/// Time between two looks at the user's wish to stop.
const POLL: Duration = Duration::from_millis(50);

/// See the module.
pub struct Remote {
    address: String,
    mode: RemoteMode,
    objects: Arc<dyn ObjectStore>,
    runtime: Runtime,
    stop: &'static AtomicBool,
    permits: Semaphore,
    health: Mutex<Health>,
    records: Mutex<HashMap<Digest, Asked>>,
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
    names: Mutex<Names>,
    requests: AtomicU64,
}

/// What came when a record was asked for.
struct Asked {
    record: Option<Arc<Vec<u8>>>,
    when: Instant,
}

/// What is known of files there.
#[derive(Default)]
struct Names {
    /// They are there.
    present: HashSet<String>,
    /// They are there and of no use: damaged, or records whose objects are gone.
    doubted: HashSet<String>,
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

impl Remote {
    /// Opens a remote; nothing is asked of it yet, and nothing is made. Whatever waits for it later ends when `stop` is
    /// set.
    ///
    /// # Errors
    /// [`StoreError::Remote`] where the address cannot be understood.
    pub fn open(
        address: &RemoteAddress,
        project: &FilePath,
        stop: &'static AtomicBool,
    ) -> Result<Self, StoreError> {
        let failed = |reason: String| StoreError::Remote { address: address.url.clone(), reason };
        let objects = address::open(address, project).map_err(failed)?;
        let mut health = Health::new(&address.url);
        if let Some(reason) = address::absence(address, project) {
            health.give_up(&reason);
        }
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
            stop,
            permits: Semaphore::new(REQUESTS),
            health: Mutex::new(health),
            records: Mutex::default(),
            trees: Mutex::default(),
            names: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether this machine puts its results there.
    pub fn is_written(&self) -> bool {
        self.mode == RemoteMode::ReadWrite && self.health().allows(Want::Write)
    }

    /// Requests that were made; those that the client repeats count once.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What the user should know of, each once: the address, and what it does or does not.
    pub fn take_warnings(&self) -> Vec<String> {
        let warnings = self.health().take_warnings();
        warnings.into_iter().map(|warning| format!("`{}` {warning}", self.address)).collect()
    }

    /// Asks for the records of many keys at once; [`Self::record`] then has the answers.
    pub fn ask(&self, keys: &[Digest]) {
        let new: Vec<Digest> = {
            let known = lock(&self.records);
            keys.iter().filter(|key| !known.contains_key(*key)).copied().collect()
        };
        self.ask_new(&new);
    }

    /// Asks for a record again that was absent a while ago.
    pub fn ask_again(&self, key: &Digest) {
        let is_old = |asked: &Asked| asked.record.is_none() && asked.when.elapsed() > ABSENT;
        if lock(&self.records).get(key).is_some_and(is_old) {
            self.ask_new(&[*key]);
        }
    }

    fn ask_new(&self, keys: &[Digest]) {
        let names: Vec<String> = keys.iter().map(|key| name("records", key)).collect();
        let answers = self.get_all(&names, QUICK);
        for ((key, name), answer) in keys.iter().zip(names).zip(answers) {
            if matches!(answer, Answer::None) {
                continue;
            }
            let record = answer.file().and_then(|file| {
                let sound = super::records::content(key, file);
                if sound.is_none() {
                    self.doubt(name.clone(), &format!("has a damaged record {key}, which counts as absent"));
                }
                sound.map(Arc::new)
            });
            if record.is_some() {
                lock(&self.names).present.insert(name);
            }
            lock(&self.records).insert(*key, Asked { record, when: Instant::now() });
        }
    }

    /// The record of a key.
    pub fn record(&self, key: &Digest) -> Option<Arc<Vec<u8>>> {
        self.ask(&[*key]);
        lock(&self.records).get(key).and_then(|asked| asked.record.clone())
    }

    /// Notes that a record there does not lead to its objects: who makes them puts all of it there anew.
    pub fn doubt_record(&self, key: &Digest) {
        if self.record(key).is_some() {
            lock(&self.names).doubted.insert(name("records", key));
        }
    }

    /// The keys of all records that are there; none where it does not answer, as a plain HTTP server may not.
    pub fn keys(&self) -> Option<Vec<Digest>> {
        let list = async {
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
        };
        let listed = self.wait(self.request(Want::Read, "list its records", LONGEST, list)).flatten();
        listed.map(|mut keys| {
            keys.sort_unstable();
            keys
        })
    }

    /// Runs requests to their end; none where the user stops first.
    fn wait<T>(&self, requests: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            while !self.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(POLL).await;
            }
        };
        self.runtime.block_on(async {
            match select(pin!(requests), pin!(stopped)).await {
                Either::Left((answer, _)) => Some(answer),
                Either::Right(_) => None,
            }
        })
    }

    /// Makes one request within a time; none where it fails, or the remote is left alone.
    async fn request<T>(
        &self,
        want: Want,
        what: &str,
        longest: Duration,
        request: impl Future<Output = Result<T, Trouble>>,
    ) -> Option<T> {
        let _permit = self.permits.acquire().await.ok()?;
        if !self.health().allows(want) {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let answer = tokio::time::timeout(longest, request).await.unwrap_or_else(|_| {
            let reason = format!("no answer in {} s", longest.as_secs());
            Err(Trouble { reason, is_refusal: false })
        });
        self.health().note(want, what, answer)
    }

    /// The files of those names, in order.
    fn get_all(&self, names: &[String], longest: Duration) -> Vec<Answer> {
        let get = |name: String| async move {
            let request = async {
                match self.objects.get(&Path::from(name.as_str())).await {
                    Ok(found) => Ok(Some(Vec::from(found.bytes().await?))),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            };
            match self.request(Want::Read, &name, longest, request).await {
                None => Answer::None,
                Some(None) => Answer::Absent,
                Some(Some(file)) => Answer::File(file),
            }
        };
        let all = stream::iter(names.iter().cloned().map(get)).buffered(REQUESTS).collect::<Vec<_>>();
        self.wait(all).unwrap_or_else(|| names.iter().map(|_| Answer::None).collect())
    }

    /// Notes a file there that is of no use, and tells it.
    fn doubt(&self, name: String, message: &str) {
        lock(&self.names).doubted.insert(name);
        self.health().tell(message.to_owned());
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.health)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a file there.
fn name(area: &str, digest: &Digest) -> String {
    let digits = digest.to_string();
    format!("v1/{area}/{}/{}", &digits[..2], &digits[2..])
}

/// The longest that a file of that size may take: a megabyte a second is enough.
fn longest(size: u64) -> Duration {
    LONGEST + Duration::from_secs(size / 1_000_000)
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
