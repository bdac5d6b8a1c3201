//! Leases and holds of the local store, for those who run tasks.

use super::local::Store;
use super::{CacheError, Digest, Holder, Lease};

/// Access to leases and holds: which process works on a key, and which records this process uses.
#[derive(Debug, Clone, Copy)]
pub struct Leases<'a>(pub(super) &'a Store);

impl Leases<'_> {
    /// Takes the lease of a key; `None` at once if another process or thread holds it.
    pub fn take(self, key: &Digest) -> Result<Option<Lease>, CacheError> {
        self.0.lock(key)
    }

    /// Returns the process that works on a key, for a message while waiting. `None` if there is none, if it is known
    /// to have ended, and for the moment between taking a lease and writing the holder's name into it.
    pub fn holder(self, key: &Digest) -> Option<Holder> {
        self.0.holder(key)
    }

    /// Marks a record as in use and protects its objects from collection until the cache is closed. Costs a few
    /// microseconds; free for a key that is held already. Does nothing if the store cannot be written to: then it
    /// cannot be collected either.
    pub fn hold(self, key: &Digest) {
        self.0.hold(key);
    }
}
