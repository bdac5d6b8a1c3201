//! Runs a plan: looks every task up, executes those without a record, publishes, and reports progress as events.
//!
//! ```text
//! state      the state of every task, changed by events: what to do next, as pure data
//! scheduler  the thread that performs what the state asks for: look-ups, leases, starts
//! executor   runs units: one execution as plain data, on a thread here or in another process
//! verify     runs a task again in a clean folder and compares it with its record; nothing is published
//! items      the memory of single items for preprocess and extract
//! item_list  the items of a task as one list, which other machines find in the remote
//! usage      what a task uses of the machine
//! holdings   what a record holds, for taking stock of the cache and for collection
//! event      the event stream of a run
//! failure    why a task did not end well
//! outcome    how tasks ended, and how many
//! log        the log of a task
//! hardware   processor, memory and graphics cards, for records and limits
//! cgroup     the limits of a container or a batch job
//! ```
//! A run without a listener leaves the same records. Nothing here writes to the terminal.

pub mod cgroup;
mod event;
mod executor;
mod failure;
pub mod hardware;
mod holdings;
mod item_list;
mod items;
mod log;
mod outcome;
mod scheduler;
mod scratch_items;
mod state;
mod usage;
mod verify;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

pub use event::Event;
pub use executor::{LostInput, Unit, UnitError, UnitReport, work};
pub use failure::{Failure, full_disk};
pub use holdings::{ITEMS, describe};
pub use log::log_path;
pub use outcome::{Outcome, OutcomeCounts};
pub use scheduler::run;
pub use state::{Run, TaskEnd};
pub use verify::{Suspect, Verdict, Verified, verify};

use crate::cache::Rehash;
use crate::kernels::backbone::Device;
use crate::stages::Variables;

/// Where units are run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// On threads of this process.
    #[default]
    Threads,
    /// Each in a process that `program` starts as `program worker -`. Such units report no progress.
    Processes {
        /// The program.
        program: PathBuf,
    },
}

/// How a plan is run. Nothing here enters a key.
pub struct Options<'a> {
    /// Maximum number of tasks that run at the same time.
    pub jobs: usize,
    /// Threads of the pool that all tasks of a process share.
    pub threads: usize,
    /// Where units are run.
    pub workers: Workers,
    /// Bytes of memory that running tasks may use together; `None` if unknown.
    pub memory: Option<u64>,
    /// Whether independent tasks go on after a failure.
    pub keep_going: bool,
    /// Stages that run even if they have a record.
    pub force: Vec<String>,
    /// Whether a record counts only if all its objects are in the cache, even those that no task reads.
    pub restores: bool,
    /// Whether the network must not be used.
    pub is_offline: bool,
    /// The device on which coresets and neighbours are searched.
    pub search_device: Device,
    /// Whether sources are hashed again.
    pub rehash: Rehash,
    /// The project's root.
    pub project: PathBuf,
    /// The run's folder, relative to the project's root.
    pub folder: PathBuf,
    /// The folder that the logs of the tasks are written to.
    pub logs: PathBuf,
    /// The environment from which variables may be passed to commands.
    pub environment: Variables,
    /// What the lock file pins for each task of the plan (`--locked`).
    pub pins: Option<&'a [crate::plan::LockedResult]>,
    /// Set to true when the user wants to stop.
    pub cancelled: &'a AtomicBool,
    /// Event callback, called from any thread.
    pub listener: &'a (dyn Fn(Event) + Sync),
}

impl<'a> Options<'a> {
    /// Returns the options of a plain run of a project: one task at a time on one thread, trusting the stat index.
    pub fn new(project: PathBuf, cancelled: &'a AtomicBool, listener: &'a (dyn Fn(Event) + Sync)) -> Self {
        Self {
            jobs: 1,
            threads: 1,
            workers: Workers::Threads,
            memory: None,
            keep_going: false,
            force: Vec::new(),
            restores: false,
            is_offline: false,
            search_device: Device::Cpu,
            rehash: Rehash::Trust,
            logs: project.join("logs"),
            folder: PathBuf::new(),
            project,
            environment: Variables::new(),
            pins: None,
            cancelled,
            listener,
        }
    }
}

/// What can stop a whole run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The plan cannot be resolved: an input or a key cannot be found.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// The cache failed.
    #[error("the cache failed")]
    Cache(#[source] crate::cache::CacheError),
    /// The pool of threads cannot be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// The number of threads asked for.
        threads: usize,
        /// The cause.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
}
