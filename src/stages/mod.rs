//! The kinds of stages. Each kind has one file with its fields, its `VERSION` and its implementation.
//!
//! A stage reads [`Inputs`] and writes into a scratch folder, one subfolder for each output. It has no access to the
//! cache, to its key or to other stages. It reports progress, checks for cancellation and reuses single items through
//! [`Context`]. Only the executor commits outputs to the cache.
//!
//! ```text
//! stage       the trait that a kind implements, and the list of kinds
//! role        the names of inputs, and which part of each is read
//! fields      a stage's table as data: read from the manifest, encoded into the key
//! context     inputs, progress, items and settings of a running stage
//! selection   the table `select`: which images of a set a stage reads
//! scorer      scores images against the banks of a model, for `fit` and `evaluate`
//! workload    how much a stage has to do, from the sizes of its inputs
//! program     runs a child process with a time limit, for `command` and `augment`
//! ```

pub mod augment;
pub mod command;
pub mod context;
pub mod coreset;
mod device;
pub mod download;
mod drawing;
pub mod error;
pub mod evaluate;
pub mod extract;
pub mod fields;
pub mod fit;
pub mod preprocess;
mod program;
mod role;
pub mod scorer;
pub mod selection;
mod stage;
#[cfg(test)]
mod toy;
pub mod workload;

pub use context::{Context, Inputs, Item, ItemFile, Items, Make, Progress, Variables};
pub use error::StageError;
pub use role::{MASKS, Member, PortUse, Reads, Role, Shape};
pub use stage::{About, Estimates, Implied, KINDS, Kind, Spec, Stage, hash_of_fields};
pub use workload::{InputSizes, Work, Workload};
