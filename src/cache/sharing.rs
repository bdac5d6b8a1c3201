//! Copying results to the remote: by command, and in the background of a run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::local::Store;
use super::{
    Cache, CacheError, CachedRecord, Digest, ExpectedOutputs, PushOrder, Pushed, RemoteStore, RemoteWarning,
    check_record,
};

/// Number of results that are pushed together, to save requests.
const BATCH: usize = 32;

/// The remote, for the commands that are about it.
#[derive(Debug, Clone, Copy)]
pub struct Sharing<'a> {
    pub(super) local: &'a Store,
    pub(super) remote: &'a RemoteStore,
}

/// Copies results to the remote in the background; the other end of its queue is a [`Sender`].
#[derive(Debug)]
pub struct Pusher<'a> {
    target: Option<Sharing<'a>>,
    orders: Receiver<PushOrder>,
}

impl Sharing<'_> {
    /// The address, as it was typed or configured, without secrets.
    pub fn address(&self) -> &str {
        self.remote.address()
    }

    /// Pushes records with their trees and objects, or those of them that the remote lacks. `report` is called for each
    /// one that is through, and not for those that the user cut off.
    pub fn push(&self, orders: &[PushOrder], report: impl FnMut(Pushed)) {
        self.remote.push(self.local, orders, report);
    }

    /// Reads what the remote has of these results and refuses what is damaged, so that a push replaces it. `report` is
    /// called with the number of files that were read.
    pub fn verify<R: CachedRecord>(
        &self,
        orders: &[PushOrder],
        report: impl FnMut(usize),
    ) -> Result<(), CacheError> {
        let keys: Vec<Digest> = orders.iter().map(|order| order.key).collect();
        self.remote.lookup_many(&keys);
        for key in &keys {
            if let Some(bytes) = self.remote.record(key)
                && let Err(flaw) = check_record::<R>(key, &bytes, &ExpectedOutputs::Any)
            {
                self.remote.refuse_record(key, flaw);
            }
        }
        self.remote.verify(self.local, orders, report)
    }

    /// The keys of which the remote has no record, in order.
    pub fn absent(&self, keys: &[Digest]) -> Vec<Digest> {
        self.remote.lookup_many(keys);
        keys.iter().filter(|key| self.remote.record(key).is_none()).copied().collect()
    }

    /// Returns the keys of all records of the remote; `None` if it cannot list them, like a plain HTTP server.
    pub fn keys(&self) -> Option<Vec<Digest>> {
        self.remote.keys()
    }
}

impl Cache {
    /// Returns a queue for finished results, and the pusher that empties it. Without a remote that takes results,
    /// [`Pusher::run`] returns at once and the queue is closed.
    pub fn pusher(&self) -> (Sender<PushOrder>, Pusher<'_>) {
        let (sender, orders) = channel();
        (sender, Pusher { target: self.sharing().filter(|sharing| sharing.remote.is_written()), orders })
    }

    /// Returns warnings about the remote for the user, each once; empty without a remote.
    pub fn take_remote_warnings(&self) -> Vec<RemoteWarning> {
        self.remote.as_ref().map(RemoteStore::take_warnings).unwrap_or_default()
    }
}

impl Pusher<'_> {
    /// Pushes results until every sender is dropped and the queue is empty, or `cancelled` is set. `report` is called
    /// with the totals so far.
    pub fn run(self, cancelled: &AtomicBool, mut report: impl FnMut(Pushed)) {
        let Some(target) = self.target else { return };
        let mut all = Pushed::default();
        while let Ok(first) = self.orders.recv() {
            let others = self.orders.try_iter().take(BATCH - 1);
            let orders: Vec<PushOrder> = std::iter::once(first).chain(others).collect();
            target.push(&orders, |pushed| {
                all.add(pushed);
                report(all);
            });
            if cancelled.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}
