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
//! cache      objects, trees, records, leases, here and in a remote; depends on none of the others
//! ```
//! Two leaves serve all of them: `digest` and `error_chain`.
//! Imports point only downwards in this list; `tests/it/layers.rs` holds them to it.

pub mod artifacts;
pub mod cache;
pub mod cli;
pub mod digest;
pub mod engine;
pub mod error_chain;
pub mod kernels;
pub mod manifest;
pub mod plan;
pub mod report;
pub mod stages;
