//! The remote: a store that a team's machines share, by `object_store` (a folder, S3, GCS, Azure, HTTP).
//!
//! ```text
//! <address>/v1/records/ab/cdef…    a task's record, the bytes of the local file
//! <address>/v1/trees/ab/cdef…      a tree
//! <address>/v1/objects/ab/cdef…    an object of 256 KiB or more
//! <address>/v1/packs/ab/cdef…      the smaller objects of a tree, several in one file ([`pack`])
//! ```
//! Objects go up before trees, trees before the record: what a record needs is there when it is. Everything that
//! comes down is checked against its digest or checksum. What is wrong counts as absent, is warned of once, and is
//! replaced when it is made again.
//!
//! A remote that fails never fails a run ([`circuit_breaker`]). Whatever waits for it ends when the user stops.

mod address;
mod cause;
mod circuit_breaker;
mod client;
mod connection;
mod fetch;
mod folders;
mod pack;
mod push;
mod refusal;
#[cfg(test)]
mod tests;
mod transport;
mod upload;
mod warning;

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

use self::address::Opened;
use self::circuit_breaker::CircuitBreaker;
use super::CacheError;
use super::local::records;
use super::tree::Tree;
use crate::digest::Digest;

pub use address::{REMOTE_ADDRESSES, REMOTE_SCHEMES, RemoteAddress, RemoteError, RemoteMode};
pub use cause::RemoteCause;
use circuit_breaker::RequestError;
pub use circuit_breaker::RequestKind;
pub use fetch::Fetched;
pub use push::{PushOrder, Pushed};
pub use warning::{Damaged, RemoteWarning};

/// Requests at once.
const REQUESTS: usize = 16;

/// The longest time for a small request, retries included.
const QUICK: Duration = Duration::from_secs(15);

/// The longest time for a file; large ones get more ([`longest`]). A connection that stands still is ended sooner.
const LONGEST: Duration = Duration::from_mins(10);

/// Objects of more bytes go up and come down one at a time, through files rather than memory.
const LARGE: u64 = 64 * 1024 * 1024;

/// Time after which the remote is asked again for a record that was absent, before a task is executed: another
/// machine may have made it meanwhile.
const ABSENT: Duration = Duration::from_secs(30);

/// Interval between checks of whether the user stops.
const POLL: Duration = Duration::from_millis(50);

/// A remote store; see the module.
pub struct RemoteStore {
    /// As it is shown.
    address: String,
    mode: RemoteMode,
    /// The factor on all limits on time.
    stretch: f64,
    objects: Arc<dyn ObjectStore>,
    runtime: Runtime,
    stop: &'static AtomicBool,
    permits: Semaphore,
    breaker: Mutex<CircuitBreaker>,
    answers: Mutex<HashMap<Digest, RecordAnswer>>,
    trees: Mutex<HashMap<Digest, Arc<Tree>>>,
    names: Mutex<Names>,
    requests: AtomicU64,
}

/// The answer to the question for a record.
struct RecordAnswer {
    record: Option<Arc<Vec<u8>>>,
    when: Instant,
}

/// What is known of the files of the remote, by name.
#[derive(Default)]
struct Names {
    /// Files that exist.
    present: HashSet<String>,
    /// Files that exist and are useless: damaged, or records whose objects are gone.
    invalid: HashSet<String>,
}

impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RemoteStore").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The answer to the request for a file.
enum Answer {
    /// The file.
    File(Vec<u8>),
    /// There is no file of that name.
    Absent,
    /// No answer: the request failed or was not made.
    None,
}

impl Answer {
    fn file(self) -> Option<Vec<u8>> {
        if let Self::File(file) = self { Some(file) } else { None }
    }
}

impl RemoteStore {
    /// Opens a remote without any request to it. Whatever waits for it later ends when `stop` is set.
    ///
    /// # Errors
    /// [`CacheError::Remote`] if the address cannot be used.
    pub fn open(
        address: &RemoteAddress,
        project: &FilePath,
        stop: &'static AtomicBool,
    ) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Remote { address: address.shown(), source: Box::new(source) };
        let Opened { objects, notes, warning } = address::open(address, project).map_err(failed)?;
        let mut breaker = CircuitBreaker::new(&address.shown(), notes);
        if let Some(warning) = warning {
            breaker.open_at_once(warning);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .thread_name("remote")
            .build()
            .map_err(|source| failed(RemoteError::Thread { source }))?;
        Ok(Self {
            address: address.shown(),
            mode: address.mode,
            stretch: connection::stretch(),
            objects,
            runtime,
            stop,
            permits: Semaphore::new(REQUESTS),
            breaker: Mutex::new(breaker),
            answers: Mutex::default(),
            trees: Mutex::default(),
            names: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// The address, as it is shown.
    pub(in crate::cache) fn address(&self) -> &str {
        &self.address
    }

    /// Whether results are pushed to it.
    pub(in crate::cache) fn is_written(&self) -> bool {
        self.mode == RemoteMode::ReadWrite && self.breaker().allows(RequestKind::Write)
    }

    /// The number of requests so far; those that the client retries count once.
    #[cfg(test)]
    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What the user should know, each thing once.
    pub(in crate::cache) fn take_warnings(&self) -> Vec<RemoteWarning> {
        self.breaker().take_warnings()
    }

    /// Asks for the records of many keys at once; [`Self::record`] then has the answers.
    pub(in crate::cache) fn lookup_many(&self, keys: &[Digest]) {
        let new: Vec<Digest> = {
            let known = lock(&self.answers);
            keys.iter().filter(|key| !known.contains_key(*key)).copied().collect()
        };
        self.request_records(&new);
    }

    /// Asks again for a record that was absent a while ago.
    pub(in crate::cache) fn recheck(&self, key: &Digest) {
        let is_old = |answer: &RecordAnswer| answer.record.is_none() && answer.when.elapsed() > ABSENT;
        if lock(&self.answers).get(key).is_some_and(is_old) {
            self.request_records(&[*key]);
        }
    }

    fn request_records(&self, keys: &[Digest]) {
        let names: Vec<String> = keys.iter().map(|key| name("records", key)).collect();
        let answers = self.get_all(&names, QUICK);
        for ((key, name), answer) in keys.iter().zip(names).zip(answers) {
            if matches!(answer, Answer::None) {
                continue;
            }
            let record = answer.file().and_then(|file| {
                let sound = records::content(key, file);
                if sound.is_none() {
                    self.mark_invalid(name.clone(), Damaged::Record(*key));
                }
                sound.map(Arc::new)
            });
            if record.is_some() {
                lock(&self.names).present.insert(name);
            }
            lock(&self.answers).insert(*key, RecordAnswer { record, when: Instant::now() });
        }
    }

    /// The record of a key; asks for it unless the answer is known.
    pub(in crate::cache) fn record(&self, key: &Digest) -> Option<Arc<Vec<u8>>> {
        self.lookup_many(&[*key]);
        lock(&self.answers).get(key).and_then(|answer| answer.record.clone())
    }

    /// Marks a record whose objects are not there, so that all of it is pushed again once it is made.
    pub(in crate::cache) fn mark_invalid_record(&self, key: &Digest) {
        if self.record(key).is_some() {
            lock(&self.names).invalid.insert(name("records", key));
        }
    }

    /// The keys of all records, in order; `None` if the remote does not list them, as a plain HTTP server may not.
    pub(in crate::cache) fn keys(&self) -> Option<Vec<Digest>> {
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
        let listed = self.wait(self.request(RequestKind::Read, "list its records", LONGEST, list)).flatten();
        listed.map(|mut keys| {
            keys.sort_unstable();
            keys
        })
    }

    /// Runs requests to their end; `None` if the user stops first.
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

    /// Makes one request with a time limit; `None` if it fails or the circuit is open.
    async fn request<T>(
        &self,
        kind: RequestKind,
        file: &str,
        longest: Duration,
        request: impl Future<Output = Result<T, RequestError>>,
    ) -> Option<T> {
        let _permit = self.permits.acquire().await.ok()?;
        if !self.breaker().allows(kind) {
            return None;
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let longest = longest.mul_f64(self.stretch);
        let timeout = RequestError::Timeout { seconds: longest.as_secs() };
        let answer = tokio::time::timeout(longest, request).await.unwrap_or(Err(timeout));
        self.breaker().record(kind, file, answer)
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
            match self.request(RequestKind::Read, &name, longest, request).await {
                None => Answer::None,
                Some(None) => Answer::Absent,
                Some(Some(file)) => Answer::File(file),
            }
        };
        let all = stream::iter(names.iter().cloned().map(get)).buffered(REQUESTS).collect::<Vec<_>>();
        self.wait(all).unwrap_or_else(|| names.iter().map(|_| Answer::None).collect())
    }

    /// Marks a file as damaged and warns of it once.
    fn mark_invalid(&self, name: String, file: Damaged) {
        lock(&self.names).invalid.insert(name);
        self.breaker().warn_damaged(file);
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        lock(&self.breaker)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a file of the remote.
fn name(area: &str, digest: &Digest) -> String {
    let digits = digest.to_string();
    format!("v1/{area}/{}/{}", &digits[..2], &digits[2..])
}

/// The longest time for a file of that size: a megabyte a second is enough.
fn longest(size: u64) -> Duration {
    LONGEST + Duration::from_secs(size / 1_000_000)
}
