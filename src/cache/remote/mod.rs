//! The remote: a store that a team's machines share, by `object_store` (a folder, S3, GCS, Azure, HTTP).
//!
//! ```text
//! <address>/v1/records/ab/cdef…    a task's record, the bytes of the local file
//! <address>/v1/trees/ab/cdef…      a tree
//! <address>/v1/objects/ab/cdef…    an object of 256 KiB or more
//! <address>/v1/packs/ab/cdef…      the smaller objects of a tree, several in one file ([`pack`])
//! <address>/v1/items/FAMILY/NAME   the per-image records of a task in one file (`cache::item_list`)
//! ```
//! Objects go up before trees, trees before the list of per-image records, this before the record: what a record needs is there when it is. Everything that
//! comes down passes the gate (`cache::gate`). What it refuses counts as absent, is warned of once, and is replaced
//! when it is made again.
//!
//! A remote that fails never fails a run ([`circuit_breaker`]). Whatever waits for it ends when the user stops.

mod address;
mod cause;
mod circuit_breaker;
mod client;
mod connection;
mod fetch;
mod folders;
mod items;
mod leftovers;
mod pack;
mod presence;
mod push;
mod refusal;
#[cfg(test)]
mod tests;
mod transport;
mod upload;
mod verify;
mod warning;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path as FilePath, PathBuf};
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
use super::gate::{self, Entry, Flaw, Refused};
use super::local::records;
use super::tree::Tree;
use crate::digest::Digest;

pub use address::{REMOTE_ADDRESSES, REMOTE_SCHEMES, RemoteAddress, RemoteError, RemoteMode};
pub use cause::RemoteCause;
use circuit_breaker::RequestError;
pub use circuit_breaker::RequestKind;
pub use fetch::Fetched;
pub use push::{PushOrder, Pushed};
pub use warning::RemoteWarning;

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

/// Refused entries that are named; the others are counted.
const MOST_NAMED: usize = 5;

/// Interval between checks of whether the user stops.
const POLL: Duration = Duration::from_millis(50);

/// A remote store; see the module.
pub struct RemoteStore {
    /// As it is shown.
    address: String,
    mode: RemoteMode,
    /// Its folder, if it is one.
    folder: Option<PathBuf>,
    /// Whether many files are asked for by listing them: servers of plain HTTP list names that are not ours.
    lists: bool,
    /// Whether it has refused to list its files.
    is_listing_refused: AtomicBool,
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
    refused: Mutex<RefusedEntries>,
    /// Folders of the remote in which leftovers of killed uploads were searched.
    swept: Mutex<HashSet<PathBuf>>,
    requests: AtomicU64,
}

/// What the gate refused.
#[derive(Default)]
struct RefusedEntries {
    /// All of them.
    known: BTreeSet<Entry>,
    /// Those since the last warning.
    unnamed: Vec<Refused>,
}

/// The answer to the question for a record.
struct RecordAnswer {
    record: Option<Arc<Vec<u8>>>,
    when: Instant,
}

/// What is known of the files of the remote.
#[derive(Default)]
struct Names {
    /// Files that exist, with their sizes in bytes.
    present: HashMap<Entry, u64>,
    /// Files that exist and are useless: refused by the gate, or records whose objects are gone.
    invalid: HashSet<Entry>,
    /// Files that were asked for and do not exist.
    absent: HashSet<Entry>,
}

impl Names {
    /// Notes a file of that size; another machine may have replaced it since it was refused.
    fn note_present(&mut self, entry: Entry, size: u64) {
        self.invalid.remove(&entry);
        self.absent.remove(&entry);
        self.present.insert(entry, size);
    }
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
    /// The gate refuses the file.
    Refused(Flaw),
    /// No answer: the request failed or was not made.
    None,
}

/// A file that is asked for.
#[derive(Debug, Clone, Copy)]
struct Question {
    entry: Entry,
    /// Most bytes that it can have.
    most: u64,
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
            folder: address::folder_of(&address.url, project),
            lists: !address.url.starts_with("http"),
            is_listing_refused: AtomicBool::new(false),
            stretch: connection::stretch(),
            objects,
            runtime,
            stop,
            permits: Semaphore::new(REQUESTS),
            breaker: Mutex::new(breaker),
            answers: Mutex::default(),
            trees: Mutex::default(),
            names: Mutex::default(),
            refused: Mutex::default(),
            swept: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    /// The address as it is shown: without secrets.
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
        let mut warnings = self.breaker().take_warnings();
        let refused = std::mem::take(&mut lock(&self.refused).unnamed);
        let more = refused.len().saturating_sub(MOST_NAMED);
        let address = || self.address.clone();
        let named = refused.into_iter().take(MOST_NAMED);
        warnings.extend(named.map(|refused| RemoteWarning::Refused { address: address(), refused }));
        warnings.extend((more > 0).then(|| RemoteWarning::MoreRefused { address: address(), count: more }));
        warnings
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
        let questions: Vec<Question> = keys.iter().map(Question::record).collect();
        for (key, answer) in keys.iter().zip(self.get_all(&questions, QUICK)) {
            let record = match answer {
                Answer::None => continue,
                Answer::Absent => Ok(None),
                Answer::Refused(flaw) => Err(flaw),
                Answer::File(file) => records::content(key, file).ok_or(Flaw::OtherContent).map(Some),
            };
            let record = record.unwrap_or_else(|flaw| {
                self.refuse(Entry::Record(*key), flaw);
                None
            });
            let record = record.map(Arc::new);
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
            lock(&self.names).invalid.insert(Entry::Record(*key));
        }
    }

    /// Refuses a record that [`Self::record`] has returned: it counts as absent from now on.
    pub(in crate::cache) fn refuse_record(&self, key: &Digest, flaw: Flaw) {
        self.refuse(Entry::Record(*key), flaw);
        lock(&self.answers).insert(*key, RecordAnswer { record: None, when: Instant::now() });
    }

    /// Notes that the gate refuses an entry: it counts as absent, is warned of once, and is replaced by a push.
    pub(in crate::cache) fn refuse(&self, entry: Entry, flaw: Flaw) {
        lock(&self.names).invalid.insert(entry);
        let mut refused = lock(&self.refused);
        if refused.known.insert(entry) {
            refused.unnamed.push(Refused { entry, flaw });
        }
    }

    /// The keys of all records, in order; `None` if the remote does not list them, as a plain HTTP server may not.
    pub(in crate::cache) fn keys(&self) -> Option<Vec<Digest>> {
        let list = async { presence::list(&*self.objects, "v1/records").await.map_err(RequestError::from) };
        let listed = self.wait(self.request(RequestKind::Read, "list its records", LONGEST, list)).flatten();
        listed.map(|files| {
            let mut keys: Vec<Digest> = files.into_iter().map(|(key, _)| key).collect();
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

    /// The files that are asked for, in order.
    fn get_all(&self, questions: &[Question], longest: Duration) -> Vec<Answer> {
        let all = stream::iter(questions.iter().map(|question| self.get(question, longest)));
        let all = all.buffered(REQUESTS).collect::<Vec<_>>();
        self.wait(all).unwrap_or_else(|| questions.iter().map(|_| Answer::None).collect())
    }

    async fn get(&self, Question { entry, most }: &Question, longest: Duration) -> Answer {
        let name = entry.name();
        let request = async {
            let found = match self.objects.get(&Path::from(name.as_str())).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match gate::body::read(found, *most).await {
                Ok(body) => Ok(Some(body.ok_or(Flaw::TooLong { most: *most }))),
                Err(error) => Err(RequestError::of_body(error, FilePath::new(&name))),
            }
        };
        let answer = self.request(RequestKind::Read, &name, longest, request).await;
        match answer {
            None => Answer::None,
            Some(None) => {
                lock(&self.names).absent.insert(*entry);
                Answer::Absent
            }
            Some(Some(Ok(file))) => {
                lock(&self.names).note_present(*entry, file.len() as u64);
                Answer::File(file)
            }
            Some(Some(Err(flaw))) => Answer::Refused(flaw),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        lock(&self.breaker)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// The name of its file in the remote.
    fn name(self) -> String {
        let digits = self.digest().to_string();
        if let Self::Items { family, .. } = self {
            return format!("v1/{}/{family}/{digits}", self.area());
        }
        format!("v1/{}/{}/{}", self.area(), &digits[..2], &digits[2..])
    }

    /// The folder of its kind, below `v1`.
    fn area(self) -> &'static str {
        match self {
            Self::Record(_) => "records",
            Self::Tree(_) => "trees",
            Self::Object(_) => "objects",
            Self::Pack(_) => "packs",
            Self::Items { .. } => "items",
        }
    }

    /// The digest in its name.
    fn digest(self) -> Digest {
        match self {
            Self::Record(digest)
            | Self::Tree(digest)
            | Self::Object(digest)
            | Self::Pack(digest)
            | Self::Items { list: digest, .. } => digest,
        }
    }
}

impl Question {
    fn record(key: &Digest) -> Self {
        Self { entry: Entry::Record(*key), most: gate::record::MOST_BYTES }
    }

    fn tree(digest: &Digest) -> Self {
        Self { entry: Entry::Tree(*digest), most: gate::tree::MOST_BYTES }
    }

    fn object(digest: &Digest, size: u64) -> Self {
        Self { entry: Entry::Object(*digest), most: size }
    }

    fn pack(digest: &Digest, size: u64) -> Self {
        Self { entry: Entry::Pack(*digest), most: size }
    }
}

/// The longest time for a file of that size: a megabyte a second is enough.
fn longest(size: u64) -> Duration {
    LONGEST + Duration::from_secs(size / 1_000_000)
}
