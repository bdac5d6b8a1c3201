//! Integration tests: one `mod` for each promise, over one builder of temporary projects.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backends;
mod commands;
mod estimates;
mod explain;
mod failures;
mod golden_backbone;
mod history;
mod housekeeping;
mod layers;
mod locking;
mod pipeline;
mod processes;
mod project;
mod remote;
mod sdxl;
mod shipped;
mod words;
mod worker;
