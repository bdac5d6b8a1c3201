//! Which boot of the machine this is. What an earlier boot wrote may have been lost in a power cut, although the
//! metadata of the file reached the disk.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::FileStat;
use crate::cache::local::leases::process::ProcessIdentity;

/// How long before the boot a file must have been changed last to count as older (chosen: small corrections of the
/// clock after the boot move the computed time of the boot).
const MARGIN: Duration = Duration::from_mins(5);

/// A boot of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cache::local) struct Boot {
    /// The random id that the kernel draws at each boot.
    pub(super) id: String,
    /// When it began; `None` if unknown.
    started: Option<SystemTime>,
}

impl Boot {
    /// The present one. On a system that does not name its boots, every process counts as a boot of its own.
    pub(super) fn current() -> Self {
        let ProcessIdentity { boot_id, pid, .. } = ProcessIdentity::current();
        if boot_id.is_empty() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            return Self { id: format!("{pid}-{}", now.as_nanos()), started: None };
        }
        Self {
            id: boot_id.clone(),
            started: uptime().and_then(|uptime| SystemTime::now().checked_sub(uptime)),
        }
    }

    /// Whether a file is as an earlier boot left it, so that what is read now came from the disk. The clock decides:
    /// it must not have been wrong by more than [`MARGIN`] when the file was changed.
    pub(super) fn is_after(&self, stat: &FileStat) -> bool {
        let limit = self.started.and_then(|started| started.checked_sub(MARGIN));
        let limit = limit.and_then(|limit| limit.duration_since(UNIX_EPOCH).ok());
        limit.is_some_and(|limit| {
            let limit = limit.as_nanos() as i64;
            stat.modified_ns < limit && stat.changed_ns < limit
        })
    }
}

/// The time since the machine booted.
fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
impl Boot {
    /// A boot for tests.
    pub(in crate::cache::local) fn named(id: &str, started: SystemTime) -> Self {
        Self { id: id.to_owned(), started: Some(started) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_was_changed_well_before_the_boot_is_older() {
        let boot = Boot::named("boot", UNIX_EPOCH + Duration::from_secs(10_000));
        let second = 1_000_000_000;
        let stat = FileStat {
            device: 1,
            inode: 1,
            size: 1,
            modified_ns: 9_699 * second,
            changed_ns: 9_699 * second,
        };
        assert!(boot.is_after(&stat));
        assert!(!boot.is_after(&FileStat { changed_ns: 9_700 * second, ..stat }));
        assert!(!boot.is_after(&FileStat { modified_ns: 9_700 * second, ..stat }));
        assert!(!Boot { started: None, ..boot }.is_after(&stat));
    }

    #[test]
    fn this_boot_is_known_and_began_in_the_past() {
        let boot = Boot::current();
        assert!(!boot.id.is_empty());
        assert!(boot.started.is_none_or(|started| started < SystemTime::now()));
    }
}
