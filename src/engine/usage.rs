//! What a task uses of the machine: processor time and memory of this process and its children.
//!
//! All tasks share one process and one pool of threads, so that tasks that run at the same time cannot be separated:
//! [`Meter`] counts them.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Measures the tasks of a run.
#[derive(Debug, Default)]
pub(super) struct Meter {
    running: AtomicUsize,
    started: AtomicUsize,
}

/// A task that is being measured; it counts as running until it is dropped.
pub(super) struct Measured<'a> {
    meter: &'a Meter,
    /// Whether no other task ran when this one started, and how many tasks had started by then.
    was_alone: bool,
    started: usize,
    cpu_seconds: Option<f64>,
}

/// What a task used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResourceUsage {
    /// Processor seconds; `None` if other tasks ran at the same time.
    pub(super) cpu_seconds: Option<f64>,
    /// Peak resident memory; `None` if the system does not say.
    pub(super) peak_bytes: Option<u64>,
}

impl Meter {
    /// Starts to measure a task.
    pub(super) fn start(&self) -> Measured<'_> {
        let was_alone = self.running.fetch_add(1, Ordering::SeqCst) == 0;
        let started = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        if was_alone {
            reset_peak();
        }
        Measured { meter: self, was_alone, started, cpu_seconds: cpu_seconds() }
    }
}

impl Measured<'_> {
    /// Returns what the task has used so far.
    pub(super) fn usage(&self) -> ResourceUsage {
        let is_alone = self.was_alone && self.meter.started.load(Ordering::SeqCst) == self.started;
        ResourceUsage {
            cpu_seconds: self
                .cpu_seconds
                .zip(cpu_seconds())
                .filter(|_| is_alone)
                .map(|(then, now)| now - then),
            peak_bytes: peak_bytes(),
        }
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.meter.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Returns the processor seconds of this process and of its children that have ended, in steps of a tick (10 ms).
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in brackets, may hold anything; utime, stime, cutime and cstime are 14 to 17.
    let (_, fields) = text.rsplit_once(')')?;
    let ticks: Vec<f64> = fields.split_whitespace().skip(11).take(4).filter_map(|n| n.parse().ok()).collect();
    let a_second = rustix::param::clock_ticks_per_second() as f64;
    (ticks.len() == 4).then(|| ticks.iter().sum::<f64>() / a_second)
}

/// Resets the kernel's peak counter (Linux, `proc(5)`: 5 in `clear_refs`). If that fails, the peak is that of the process
/// so far, which is no less.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn peak_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_alone_is_measured_and_two_at_once_are_not() {
        let meter = Meter::default();
        let alone = meter.start();
        let block = vec![1_u8; 64 << 20];
        let usage = alone.usage();
        assert!(usage.peak_bytes.unwrap() >= block.iter().map(|&byte| u64::from(byte)).sum());
        assert!(usage.cpu_seconds.unwrap() >= 0.0);
        let other = meter.start();
        assert_eq!((alone.usage().cpu_seconds, other.usage().cpu_seconds), (None, None));
        drop(other);
        assert_eq!(alone.usage().cpu_seconds, None, "another ran meanwhile");
        drop(alone);
        assert!(meter.start().usage().cpu_seconds.is_some());
    }
}
