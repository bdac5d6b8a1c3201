//! Which process this is, and whether another one still lives.
//!
//! A process id alone is wrong after a reboot, in a container and once ids wrap round; so it goes with
//! the host, the boot, the id namespace and the start time of the process.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The identity of a process, unique among all that ran or will run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Host name.
    pub host: String,
    /// Random id that the kernel draws at each boot.
    pub boot_id: String,
    /// The namespace in which `pid` counts; containers have one each.
    pub namespace: String,
    /// Process id.
    pub pid: u32,
    /// Start of the process in clock ticks since boot.
    pub process_start: u64,
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It has ended.
    Dead,
    /// It belongs to another host, boot or container, so that it cannot be checked.
    Unknown,
}

impl ProcessIdentity {
    /// This process.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<ProcessIdentity> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let pid = std::process::id();
            Self {
                host: kernel_text("/proc/sys/kernel/hostname"),
                boot_id: kernel_text("/proc/sys/kernel/random/boot_id"),
                namespace: fs::read_link("/proc/self/ns/pid")
                    .map(|link| link.display().to_string())
                    .unwrap_or_default(),
                pid,
                process_start: process_start(pid).unwrap_or(0),
            }
        })
    }

    /// Whether it belongs to another machine, or to an earlier boot of this one: kernel locks say nothing about it.
    pub(in crate::cache::local) fn is_of_another_boot(&self) -> bool {
        let here = Self::current();
        (&self.host, &self.boot_id) != (&here.host, &here.boot_id)
    }

    /// Checks whether the process still runs.
    pub fn liveness(&self) -> Liveness {
        let here = Self::current();
        let seen_from_here = !here.boot_id.is_empty()
            && (&self.host, &self.boot_id, &self.namespace) == (&here.host, &here.boot_id, &here.namespace);
        if !seen_from_here {
            return Liveness::Unknown;
        }
        if process_start(self.pid) == Some(self.process_start) { Liveness::Alive } else { Liveness::Dead }
    }
}

fn kernel_text(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Field 22 of `/proc/<pid>/stat`; the command name before it may hold spaces and parentheses. `None` for a process that
/// has ended, even where its parent never waits for it (states Z and X), as in a container without an init.
fn process_start(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_id_under_another_start_is_not() {
        let me = ProcessIdentity::current().clone();
        assert_eq!(me.liveness(), Liveness::Alive);
        let reused = ProcessIdentity { process_start: me.process_start + 1, ..me };
        assert_eq!(reused.liveness(), Liveness::Dead);
    }

    #[test]
    fn nothing_is_claimed_of_other_hosts_boots_and_containers() {
        let me = ProcessIdentity::current().clone();
        let others = [
            ProcessIdentity { host: "other".into(), ..me.clone() },
            ProcessIdentity { boot_id: "other".into(), ..me.clone() },
            ProcessIdentity { namespace: "other".into(), ..me },
        ];
        assert!(others.iter().all(|other| other.liveness() == Liveness::Unknown));
    }

    #[test]
    fn a_child_that_was_killed_is_dead_before_anyone_waits_for_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let start = process_start(child.id()).unwrap();
        let identity =
            ProcessIdentity { pid: child.id(), process_start: start, ..ProcessIdentity::current().clone() };
        assert_eq!(identity.liveness(), Liveness::Alive);
        child.kill().unwrap();
        let is_dead = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            identity.liveness() == Liveness::Dead
        });
        assert!(is_dead);
        child.wait().unwrap();
        assert_eq!(identity.liveness(), Liveness::Dead);
    }
}
