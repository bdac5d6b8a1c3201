//! Renewal: one thread of the process renews all that it holds, each in its own period.

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Something that is renewed while this value lives.
pub(super) struct Renewed {
    period: Duration,
    renew: Box<dyn Fn(u64) + Send + Sync>,
    /// How often it was renewed, and when it is next.
    next: Mutex<(u64, Instant)>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Renewed").field("period", &self.period).finish_non_exhaustive()
    }
}

struct Registry {
    held: Vec<Weak<Renewed>>,
    has_thread: bool,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { held: Vec::new(), has_thread: false });
static CHANGED: Condvar = Condvar::new();

/// Calls `renew` with 1, 2, 3 … once every `period`, until the value that is returned is dropped.
pub(super) fn register(period: Duration, renew: Box<dyn Fn(u64) + Send + Sync>) -> Arc<Renewed> {
    let renewed = Arc::new(Renewed { period, renew, next: Mutex::new((1, Instant::now() + period)) });
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.held.push(Arc::downgrade(&renewed));
    if !registry.has_thread {
        // Without the thread nothing is renewed: other machines may then repeat the work.
        registry.has_thread = std::thread::Builder::new().name("leases".to_owned()).spawn(run).is_ok();
    }
    CHANGED.notify_one();
    renewed
}

fn run() {
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        registry.held.retain(|held| held.strong_count() > 0);
        let held: Vec<Arc<Renewed>> = registry.held.iter().filter_map(Weak::upgrade).collect();
        // Taking and dropping a lease must not wait for a slow disk.
        drop(registry);
        let wait = held.iter().map(|one| one.renew_if_due()).min().unwrap_or(Duration::MAX);
        drop(held);
        registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        if wait == Duration::MAX && registry.held.is_empty() {
            registry = CHANGED.wait(registry).unwrap_or_else(PoisonError::into_inner);
        } else {
            let wait = wait.min(Duration::from_secs(1));
            registry = CHANGED.wait_timeout(registry, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Renewed {
    /// Renews it if it is due; returns the time until the next renewal.
    fn renew_if_due(&self) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if next.1 <= now {
            (self.renew)(next.0);
            *next = (next.0 + 1, now + self.period);
        }
        next.1.saturating_duration_since(now)
    }
}
