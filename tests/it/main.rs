//! Integration tests: one `mod` for each promise, over one builder of temporary projects.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backends;
mod commands;
mod failures;
mod golden_backbone;
mod housekeeping;
mod layers;
mod pipeline;
mod project;
mod shipped;
