//! From a checked experiment to distinct tasks, their keys, and their states.
//!
//! ```text
//! graph      variants become distinct tasks; equal ones are shared
//! resolve    a task whose inputs are known: its key
//! key        what enters a key, and how it is encoded
//! view       the part of an artifact that a task reads
//! survey     the state of every task, without running any
//! queue      the tasks that are ready to run, by rank
//! reason     why a task is in its state
//! explain    the difference from the nearest earlier record
//! between    why two variants do not share a task
//! equal_values  axis values that make no difference
//! warnings   what stages have warned of, or will
//! history    the records of earlier tasks, by kind
//! sizes      how much tasks have to do, before and after their inputs exist
//! models     the record that predicts a task
//! estimate   seconds, memory and bytes of what would run
//! makespan   how long tasks take together
//! record     what the cache keeps of a finished task
//! lock       the keys and outputs that a lock file pins
//! ```
//!
//! Planning is a pure function of the experiment and of what the cache holds. It never writes to the cache or the
//! project (hashing a source may fill the stat index in the user's cache folder), so that `patchflow plan` is always
//! safe. The engine uses the same [`Resolver`] while it runs.

mod between;
mod equal_values;
mod estimate;
mod explain;
mod graph;
mod history;
mod key;
mod lock;
mod makespan;
mod models;
mod queue;
mod reason;
mod record;
mod resolve;
mod sizes;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
mod view;
mod warnings;

pub use between::{Pair, between};
pub use equal_values::{EqualValues, equal_values};
pub use estimate::{Basis, Cost, Estimate, Unknown, estimate, input_bytes, typical_seconds};
pub use explain::{Explanation, explain};
pub use graph::{Input, OutputRef, Plan, PlanVariant, Task, TaskId, build};
pub use history::{Earlier, History};
pub use key::{
    FAMILY_DOMAIN, ITEM_DOMAIN, InputDigest, NotFinite, Preimage, TASK_DOMAIN, item_family, item_key,
};
pub use lock::{
    Lock, LockError, LockedResult, LockedTask, PlanExtent, check_locked, differing_output, lock_path,
};
pub use makespan::{Load, by_chain, makespan};
pub use models::{Models, host};
pub use queue::{Queue, ranks};
pub use reason::{Difference, Reason};
pub use record::{BackboneProvenance, KeptLog, Notice, Provenance, Record};
pub use resolve::{Output, Outputs, Resolution, ResolvedInput, Resolver, wanted};
pub use sizes::Sizes;
pub use survey::{State, Status, survey};
pub use warnings::warnings;

use std::path::PathBuf;

use crate::cache::CacheError;

/// A mistake that the checks of the manifest cannot find, or a failure to read what a plan depends on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum PlanError {
    /// A local source cannot be read.
    #[error("stage `{stage}`: cannot read the source `{}`", path.display())]
    Source {
        stage: String,
        path: PathBuf,
        #[source]
        source: CacheError,
    },
    /// The features that a stage reads do not include those of the image set that it selects.
    #[error("stage `{stage}`: the features do not include those of `{images}`")]
    NoFeatures { stage: String, images: String },
    /// A port takes a feature group, and the stage that it names reads no image set.
    #[error("stage `{stage}`: `{port}` must name a stage that gives the features of image sets")]
    NotExtract { stage: String, port: String },
    /// A task lacks an output that another task reads.
    #[error("stage `{stage}` has no output `{output}`")]
    NoOutput { stage: String, output: String },
    /// The cache failed.
    #[error("the cache cannot be read")]
    Cache(#[source] CacheError),
    /// A tool whose output is part of the key cannot be run.
    #[error("stage `{stage}`: the tool `{tool}` cannot be run")]
    Tool {
        stage: String,
        tool: String,
        #[source]
        source: std::io::Error,
    },
    /// A field has a value that a key cannot hold.
    #[error("stage `{stage}`: {source}")]
    NotFinite { stage: String, source: NotFinite },
}
