//! patchflow: reproducible PatchCore experiments as a declarative, content-hashed pipeline.
//!
//! ```text
//! cli        what was typed, and how it is shown
//! report     events and outputs -> progress, tables, the run's folder
//! engine     scheduler, executor, events
//! plan       grid -> variants -> task graph -> keys, states, reasons
//! manifest   TOML -> spanned raw -> checked Experiment
//! stages     one file per kind: Spec, VERSION, run
//! artifacts  one file per format passed between stages
//! kernels    numbers in, numbers out
//! store      objects, listings, records, leases, stat cache; depends on none of the others
//! ```
//! Imports point only downwards in this list; `tests/it/layers.rs` holds them to it.

pub mod artifacts;
pub mod cli;
pub mod engine;
pub mod kernels;
pub mod manifest;
pub mod plan;
pub mod report;
pub mod stages;
pub mod store;
