//! patchflow: reproducible PatchCore experiments as a declarative, content-hashed pipeline.
//!
//! ```text
//! cli        arguments and output, one file per subcommand
//! report     events and outputs -> progress, tables, the run's folder
//! engine     scheduler, executor, events
//! plan       grid -> variants -> task graph -> keys, states, reasons
//! manifest   TOML -> spanned raw -> checked Experiment
//! stages     the kinds of stages behind one trait
//! artifacts  one file per format passed between stages
//! kernels    computations on numbers: no file, no cache, no manifest
//! cache      objects, trees, records and leases, local and in a remote; imports none of the above
//! ```
//!
//! All layers may use `digest`, `error_chain` and `text`. Imports point only downwards in this list;
//! `tests/it/layers.rs` checks them.

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
pub mod text;
