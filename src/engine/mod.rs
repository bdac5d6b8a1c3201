//! Runs a plan: looks every task up, executes what no record answers, commits, and tells what happens.
//!
//! ```text
//! schedule   which task next: the scheduler's thread owns every state, workers own their task
//! execute    one task: inputs checked, stage run in a scratch folder, outputs published, record written
//! verify     one task made again in a clean folder and compared with its record; nothing is published
//! items      the memory of single items for preprocess and extract
//! usage      what a task takes of the machine
//! holdings   what a record holds, for whoever takes stock of the cache or collects there
//! event      what is told, to whoever listens
//! ```
//! A run with nobody listening leaves the same records. Nothing here writes to the terminal.

mod event;
mod execute;
mod failure;
pub mod hardware;
mod holdings;
mod items;
mod log;
mod loose;
mod queue;
mod schedule;
mod usage;
mod verify;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

pub use event::{Event, Outcome};
pub use execute::log_path;
pub use failure::Failure;
pub use holdings::{ITEMS, describe};
pub use schedule::{Run, TaskEnd, run};
pub use verify::{Suspect, Verdict, Verified, verify};

use crate::cache::Rehash;
use crate::kernels::backbone::Device;

/// How a plan is run. Nothing here enters a key.
pub struct Options<'a> {
    /// Tasks at once.
    pub jobs: usize,
    /// Threads of the pool that all tasks share.
    pub threads: usize,
    /// Bytes of memory that tasks at once may take together; none where nobody knows.
    pub memory: Option<u64>,
    /// Whether independent tasks go on after a failure.
    pub keep_going: bool,
    /// Stages that run although there is a record.
    pub force: Vec<String>,
    /// Whether a record counts only where all its objects are there, also those that no task reads.
    pub restores: bool,
    /// Whether the network may not be used.
    pub is_offline: bool,
    /// Where coresets and neighbours are searched.
    pub search_device: Device,
    /// Whether sources are hashed anew.
    pub rehash: Rehash,
    /// The project's root.
    pub project: PathBuf,
    /// Folder for the tasks' logs.
    pub logs: PathBuf,
    /// The environment that commands may be passed.
    pub environment: BTreeMap<String, String>,
    /// What a lock file says of each task of the plan (`--locked`).
    pub pins: Option<&'a [crate::plan::Pin]>,
    /// Set when the user wants to stop.
    pub cancelled: &'a AtomicBool,
    /// Told of everything that happens, from any thread.
    pub listener: &'a (dyn Fn(Event) + Sync),
}

/// What can stop a whole run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The plan cannot be resolved.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// The store failed.
    #[error("the cache failed")]
    Store(#[source] crate::cache::StoreError),
    /// The pool of threads cannot be made.
    #[error("cannot start {threads} threads")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// Why.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
}

impl EngineError {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.help(),
            Self::Store(_) => None,
            Self::Threads { .. } => Some("use fewer `--threads`".to_owned()),
        }
    }
}
