//! Integration tests: one `mod` for each promise, over one builder of temporary projects.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backends;
mod bounds;
mod commands;
mod documented;
mod estimates;
mod explain;
mod failures;
mod feature_set;
mod golden_backbone;
mod history;
mod housekeeping;
mod layers;
mod locking;
mod outside;
mod own_images;
mod pipeline;
mod processes;
mod programs;
mod project;
mod remote;
mod screens;
mod sdxl;
mod servers;
mod shared_folder;
mod shared_images;
mod shipped;
mod sources;
mod targets;
mod words;
mod worker;
