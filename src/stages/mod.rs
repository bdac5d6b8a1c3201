//! The kinds of stages: one file each, with its fields, `VERSION` and what it does.
//!
//! A stage reads [`Inputs`] and writes into the scratch folder that it is given, one subfolder for each of
//! its outputs. It sees neither the store, nor its key, nor another stage; progress, cancellation and the
//! reuse of single items reach it through [`Context`]. Only the executor commits.
//!
//! ```text
//! stage       the trait that a kind implements, and the list of kinds
//! role        the names of inputs, and what is read of each
//! fields      a stage's table as data: what the manifest hands in, what the key takes
//! context     what a running stage is given
//! selection   which images of a set a stage reads, and what of their patches
//! scorer      patches against banks, for `fit` and `evaluate`
//! program     a child process with its limits, for `command` and `augment`
//! ```

pub mod augment;
pub mod command;
pub mod context;
pub mod coreset;
pub mod download;
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

pub use context::{Context, Inputs, Item, ItemFile, Items, Make, Progress};
pub use error::StageError;
pub use role::{MASKS, Member, PortUse, Reads, Role, Shape};
pub use stage::{About, Estimates, Implied, KINDS, Kind, Spec, Stage};
