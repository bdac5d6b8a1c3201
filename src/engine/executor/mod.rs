//! Executors run units: the wall between the scheduler, which decides what runs, and whatever runs it.
//!
//! ```text
//! unit        one execution as plain data: all that another process needs beside the cache
//! inputs      trees and hashed sources of a unit's inputs
//! execution   runs one unit whose lease is held: inputs checked, stage run
//! commit      publishes its outputs and writes its record
//! threads     the executor that runs units on threads of this process
//! processes   the executor that runs each unit in a process of its own
//! worker      what such a process does with its unit
//! ```
//! An executor must not decide what runs next, read the plan, or write to the terminal. The end of each unit goes to
//! the scheduler's channel.

mod commit;
mod execution;
mod inputs;
mod processes;
mod threads;
mod unit;
mod worker;

use std::sync::mpsc::Sender;

use serde::{Deserialize, Serialize};

pub(super) use self::commit::backbone_provenance;
pub(super) use self::execution::{Execution, StageFolders, guarded};
pub(super) use self::inputs::{LoadedInput, SharedInputs};
pub(super) use self::processes::Processes;
pub(super) use self::threads::Threads;
use self::unit::UnitInput;
pub use self::unit::{Unit, UnitError};
pub use self::worker::{UnitReport, work};
use super::failure::Failure;
use super::usage::Meter;
use super::{EngineError, Options};
use crate::cache::{Cache, Lease};
use crate::plan::{Outputs, TaskId};
use crate::stages::Role;

/// Runs units.
pub(super) trait Executor {
    /// Starts a unit and returns at once; its end is sent to the scheduler. The caller holds the lease of the unit's
    /// key and hands it over: to be kept until the unit has ended, or given back for a worker that takes it itself.
    fn start(&self, unit: Unit, lease: Lease);
}

/// The end of a unit.
pub(super) struct UnitEnd {
    /// The task that the unit executed.
    pub(super) task: TaskId,
    /// How it ended.
    pub(super) executed: Executed,
}

/// How the execution of a unit ended.
pub(super) enum Executed {
    /// The outputs are published. `differs` says whether an earlier record of the key had others.
    Done { outputs: Outputs, seconds: f64, differs: bool },
    /// Nothing ran, because the cache has a record of the key.
    Recorded { outputs: Outputs },
    /// Objects of inputs are lost or damaged, and must be restored first.
    InputsLost(Vec<LostInput>),
    /// The execution failed.
    Failed { failure: Failure, seconds: f64 },
}

/// An input with a lost or damaged object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LostInput {
    /// The input's role.
    pub role: Role,
    /// Path of its first lost file.
    pub file: String,
}

/// What all units of a process share.
pub(super) struct RunContext<'a> {
    /// The cache.
    pub(super) cache: &'a Cache,
    /// How units are run.
    pub(super) options: &'a Options<'a>,
    /// The threads on which stages compute.
    pub(super) pool: rayon::ThreadPool,
    /// Measures what units use.
    pub(super) meter: Meter,
    /// Trees and sources that are already in memory.
    pub(super) inputs: SharedInputs,
}

impl<'a> RunContext<'a> {
    /// Starts the pool of threads.
    pub(super) fn new(cache: &'a Cache, options: &'a Options<'a>) -> Result<Self, EngineError> {
        let threads = options.threads;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|source| EngineError::Threads { threads, source })?;
        Ok(Self { cache, options, pool, meter: Meter::default(), inputs: SharedInputs::default() })
    }
}

/// Sends the end of a unit to the scheduler. If the scheduler has failed, it is not listening any more, which is
/// ignored.
fn send(ends: &Sender<UnitEnd>, task: TaskId, executed: Executed) {
    let _ = ends.send(UnitEnd { task, executed });
}
