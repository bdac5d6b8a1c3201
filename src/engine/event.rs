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
        /// Number of distinct tasks.
        tasks: usize,
        /// Number of variants.
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
        /// Name of its stage.
        stage: String,
        /// Name of its kind.
        kind: &'static str,
        /// Its key.
        key: String,
    },
    /// Progress of a running task; for progress bars, not for files.
    TaskProgress {
        /// Its index in the plan.
        task: TaskId,
        /// Steps finished.
        done: u64,
        /// Steps in all.
        total: u64,
        /// What one step is: `image`, `pick`, `step` (of a training) or `byte`.
        #[serde(rename = "unit")]
        step_name: &'static str,
    },
    /// A running stage says what it has read or left out.
    TaskNote {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
        /// The note.
        message: String,
    },
    /// A stage warns of something in its inputs. A task that a record answers repeats the warnings of its execution.
    TaskWarning {
        /// Its index in the plan.
        task: TaskId,
        /// Its name.
        name: String,
        /// The warning.
        message: String,
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
        /// Name of its stage.
        stage: String,
        /// Name of its kind.
        kind: &'static str,
        /// Path of the first lost or damaged file.
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
        /// Name of its stage.
        stage: String,
        /// Name of its kind.
        kind: &'static str,
        /// Its key, if known.
        key: Option<String>,
        /// How it ended.
        outcome: Outcome,
        /// Seconds that it ran.
        seconds: f64,
        /// Names of the variants that share it.
        variants: Vec<String>,
        /// The error with its causes, if it failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// Path of its log, if it ran.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<PathBuf>,
    },
    /// Results were pushed to the remote. The numbers are totals of the run so far.
    Pushed {
        /// Number of results that the remote did not have.
        records: usize,
        /// Bytes that were uploaded.
        bytes: u64,
    },
    /// The run is over: always the last event.
    RunFinished {
        /// How many tasks ended in each way.
        #[serde(flatten)]
        outcomes: OutcomeCounts,
        /// Number of finished tasks that ran again to restore lost objects.
        remade: usize,
        /// Whether the user stopped the run.
        interrupted: bool,
        /// Wall-clock seconds.
        seconds: f64,
        /// The run's folder, relative to the project.
        folder: PathBuf,
    },
}
