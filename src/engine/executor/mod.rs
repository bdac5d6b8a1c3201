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

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

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
use crate::cache::{Cache, Lease, Scratch};
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
    /// Takes the folders that units have written into; closed if they are removed at once.
    pub(super) removals: Mutex<Option<Sender<Scratch>>>,
}

impl<'a> RunContext<'a> {
    /// Starts the pool of threads.
    pub(super) fn new(cache: &'a Cache, options: &'a Options<'a>) -> Result<Self, EngineError> {
        let threads = options.threads;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|source| EngineError::Threads { threads, source })?;
        let (meter, inputs) = (Meter::default(), SharedInputs::default());
        Ok(Self { cache, options, pool, meter, inputs, removals: Mutex::default() })
    }

    /// Removes the folders of units on a thread of the scope, until the value that is returned is dropped.
    pub(super) fn remove_in_background<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Removing<'env, 'a> {
        let (sender, removals) = channel::<Scratch>();
        *self.removals.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        scope.spawn(move || {
            let mut remover = None;
            for scratch in removals {
                if remover.is_none() {
                    remover = self.cache.remover().ok();
                }
                // A folder that cannot be moved is removed where it is.
                if let Some(remover) = &mut remover {
                    remover.remove(scratch);
                }
            }
        });
        Removing(self)
    }

    /// Gives up the folder of a unit.
    pub(super) fn discard(&self, scratch: Scratch) {
        let removals = self.removals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(removals) = removals.as_ref() {
            // Without a thread it is removed here.
            let _ = removals.send(scratch);
        }
    }
}

/// The removal of folders in the background; when it is dropped, the thread ends once all are removed.
pub(super) struct Removing<'env, 'a>(&'env RunContext<'a>);

impl Drop for Removing<'_, '_> {
    fn drop(&mut self) {
        *self.0.removals.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Sends the end of a unit to the scheduler. If the scheduler has failed, it is not listening any more, which is
/// ignored.
fn send(ends: &Sender<UnitEnd>, task: TaskId, executed: Executed) {
    let _ = ends.send(UnitEnd { task, executed });
}
