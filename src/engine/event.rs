//! The event stream of a run: the contract between the engine and everything that shows or stores its progress.

use std::path::PathBuf;

use serde::Serialize;

use super::{Outcome, OutcomeCounts};
use crate::plan::TaskId;

/// One thing that happened. Serialised as one line of NDJSON, tagged by `event`.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The plan is known.
    RunStarted {
        /// The experiment's name.
        experiment: String,
        /// Distinct tasks.
        tasks: usize,
        /// Variants.
        variants: usize,
    },
    /// A task starts to run.
    TaskStarted {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
        /// The axis values that distinguish it from other tasks of its stage.
        values: String,
        /// Its stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Its key.
        key: String,
    },
    /// Progress of a running task; for progress bars, not for files.
    TaskProgress {
        /// Its index in the plan.
        task: TaskId,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// The unit's name.
        unit: &'static str,
    },
    /// Another process executes the task; this one waits.
    TaskWaiting {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
        /// The process that executes it.
        holder: String,
    },
    /// A finished task runs again, because a reader found its objects lost or damaged.
    TaskRemade {
        /// Its name.
        name: String,
        /// Its stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// The first lost or damaged file.
        file: String,
    },
    /// A task that ran again has ended, well or badly.
    RemakeFinished {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
        /// Whether its objects are restored.
        succeeded: bool,
        /// Seconds that it ran.
        seconds: f64,
    },
    /// A task that had started waits until its lost inputs are restored.
    TaskStalled {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
    },
    /// A stage produced other bytes than before for the same key.
    Nondeterministic {
        /// Its name.
        name: String,
        /// Its key.
        key: String,
    },
    /// A task has ended, well or badly; once for each planned task.
    TaskFinished {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
        /// Its stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Its key, if known.
        key: Option<String>,
        /// How it ended.
        outcome: Outcome,
        /// Seconds that it ran.
        seconds: f64,
        /// The variants that share it.
        variants: Vec<String>,
        /// What went wrong.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// The log of a task that ran.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<PathBuf>,
    },
    /// Results were pushed to the remote; totals of the run so far.
    Pushed {
        /// Results that the remote did not have.
        records: usize,
        /// Bytes uploaded.
        bytes: u64,
    },
    /// The run is over: always the last event.
    RunFinished {
        /// How many tasks ended in each way.
        #[serde(flatten)]
        outcomes: OutcomeCounts,
        /// Finished tasks that ran again to restore lost objects.
        remade: usize,
        /// Whether the user stopped it.
        interrupted: bool,
        /// Wall-clock seconds.
        seconds: f64,
        /// The run's folder, relative to the project.
        folder: PathBuf,
    },
}
