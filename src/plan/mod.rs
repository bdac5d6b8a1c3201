//! From a checked experiment to distinct tasks, their keys, and their states.
//!
//! ```text
//! graph      variants become distinct tasks; equal ones are shared
//! resolve    a task whose inputs are known: its key
//! key        what enters a key, and how it is encoded
//! view       the part of an artifact that a task reads
//! survey     the state of every task, without running any
//! reason     why a task is in its state
//! explain    the difference from the nearest earlier record
//! estimate   seconds, memory and bytes of what would run
//! record     what the cache keeps of a finished task
//! lock       keys and outputs that a paper pins
//! ```
//!
//! Planning is a pure function of the experiment and of what the cache holds. It never writes to the cache or the
//! project (hashing a source may fill the stat cache in the user's cache folder), so that `patchflow plan` is always
//! safe. The engine uses the same [`Resolver`] while it runs.

mod between;
mod estimate;
mod explain;
mod graph;
mod history;
mod key;
mod lock;
mod queue;
mod reason;
mod record;
mod resolve;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
mod view;

pub use between::{Pair, between};
pub use estimate::{Basis, Estimate, Models, by_chain, estimate, input_bytes, makespan, typical_seconds};
pub use explain::{Explanation, explain};
pub use graph::{Input, OutputRef, Plan, PlanVariant, Task, TaskId, build};
pub use history::{Earlier, History};
pub use key::{ITEM_DOMAIN, InputDigest, NotFinite, Preimage, TASK_DOMAIN, item_key};
pub use lock::{Extent, Lock, LockError, LockedTask, Pin, check_pins, differing_output, lock_path};
pub use queue::{Queue, ranks};
pub use reason::{Difference, Reason};
pub use record::{BackboneProvenance, KeptLog, Provenance, Record};
pub use resolve::{Output, Outputs, Resolution, ResolvedInput, Resolver};
pub use survey::{State, Status, survey};

use std::path::PathBuf;

use crate::cache::StoreError;

/// What can be wrong with a plan that the manifest's own checks cannot see.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A local source cannot be read.
    #[error("stage `{stage}`: cannot read the source `{}`", path.display())]
    Source {
        /// The stage.
        stage: String,
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The features that `evaluate` reads do not hold its images.
    #[error("stage `{stage}`: the features are not those of `{images}`")]
    NoFeatures {
        /// The stage.
        stage: String,
        /// The image set that it evaluates.
        images: String,
    },
    /// A port takes the output of an `extract` stage, as only that knows its image sets.
    #[error("stage `{stage}`: `{port}` must name an `extract` stage")]
    NotExtract {
        /// The stage.
        stage: String,
        /// The port.
        port: String,
    },
    /// An output that a task should have is not there.
    #[error("stage `{stage}` gave no output `{output}`")]
    NoOutput {
        /// The stage that should have given it.
        stage: String,
        /// The output.
        output: String,
    },
    /// The store failed.
    #[error("the cache cannot be read")]
    Store(#[source] StoreError),
    /// A tool whose output joins the key cannot be run.
    #[error("stage `{stage}`: the tool `{tool}` cannot be run")]
    Tool {
        /// The stage.
        stage: String,
        /// The program.
        tool: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value that no key can hold.
    #[error("stage `{stage}`: {source}")]
    NotFinite {
        /// The stage.
        stage: String,
        /// The field.
        source: NotFinite,
    },
}
