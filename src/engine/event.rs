//! What a run tells while it goes: the contract between the engine and whoever shows or stores it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran.
    Executed,
    /// A record gave its outputs, or another process made them meanwhile.
    Hit,
    /// A record of the remote gave its outputs.
    RemoteHit,
    /// Its inputs turned out equal to those of another task of this run.
    Merged,
    /// It failed.
    Failed,
    /// It could not run, because of another failure or a stop.
    Blocked,
}

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
        /// Number of the task in the plan.
        task: usize,
        /// Its name.
        name: String,
        /// The axes' values that tell it from others of its stage.
        values: String,
        /// Its stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Its key.
        key: String,
    },
    /// How far a running task has come; for progress bars, not for files.
    TaskProgress {
        /// Number of the task in the plan.
        task: usize,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What a unit is.
        unit: &'static str,
    },
    /// Another process is making the task; this one waits without a worker.
    TaskWaiting {
        /// Number of the task in the plan.
        task: usize,
        /// Its name.
        name: String,
        /// Who makes it.
        holder: String,
    },
    /// A finished task runs again, because a reader found its objects gone or damaged.
    TaskRemade {
        /// Its name.
        name: String,
        /// Its stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// The first file that was gone or damaged.
        file: String,
    },
    /// A task that was made again is done, or it cannot be.
    RemakeFinished {
        /// Number of the task in the plan.
        task: usize,
        /// Its name.
        name: String,
        /// Whether its objects are there again.
        succeeded: bool,
        /// Seconds that it ran.
        seconds: f64,
    },
    /// A task that had started waits until what it reads is made again.
    TaskStalled {
        /// Number of the task in the plan.
        task: usize,
        /// Its name.
        name: String,
    },
    /// A stage gave other bytes than before for the same key.
    Nondeterministic {
        /// Its name.
        name: String,
        /// Its key.
        key: String,
    },
    /// A task is done, one way or the other; once for each planned task.
    TaskFinished {
        /// Number of the task in the plan.
        task: usize,
        /// Its name.
        name: String,
        /// Its stage.
        stage: String,
        /// Its kind.
        kind: &'static str,
        /// Its key, where it is known.
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
    /// Results were put into the remote; numbers of the run so far.
    Pushed {
        /// Results that were not there.
        records: usize,
        /// Bytes that went up.
        bytes: u64,
    },
    /// The run is over.
    RunFinished {
        /// Tasks that ran.
        executed: usize,
        /// Tasks answered by records.
        hits: usize,
        /// Tasks answered by records of the remote.
        remote_hits: usize,
        /// Tasks equal to another of this run.
        merged: usize,
        /// Tasks that failed.
        failed: usize,
        /// Tasks that could not run.
        blocked: usize,
        /// Finished tasks that were made again for a reader.
        remade: usize,
        /// Whether the user stopped it.
        interrupted: bool,
        /// Seconds in all.
        seconds: f64,
        /// The run's folder.
        folder: PathBuf,
    },
}
