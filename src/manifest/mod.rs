//! The manifest: TOML in, a checked [`Experiment`] out.
//!
//! Two steps, apart: `raw` and `include` read text into a tree whose every value knows its place and `overrides`
//! changes it; the checks (`grid`, `stage`, `specs`, `wiring`, `graph`) give it meaning. No file of data is
//! opened. Every mistake is found in one go and shown on the text that holds it ([`ManifestError`]).
//!
//! Planning asks [`Experiment::stage`] for a stage's fields and connections in a variant; each distinct case
//! was resolved once, whatever the number of variants.

mod check;
pub mod config;
pub mod diagnostic;
pub mod experiment;
mod graph;
mod grid;
mod include;
pub mod names;
mod overrides;
mod pattern;
mod problems;
mod raw;
mod specs;
mod stage;
mod substitute;
mod wiring;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use config::{Config, find_project};
pub use diagnostic::{Diagnostic, ManifestError, Source, Span};
pub use experiment::{Axis, Experiment, Resolved, ResolvedPort, Stage, Variant};
pub use names::{AxisName, StageName, VariantId};

/// What the command line adds to a manifest.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The project's root; see [`find_project`].
    pub project: PathBuf,
    /// `path=value` of each `--set`, in order.
    pub sets: Vec<String>,
    /// `axis=value,…` of `--only`.
    pub only: Option<String>,
    /// The stage of each `--target`.
    pub targets: Vec<String>,
}

/// Reads the manifest at `path` with its includes and the command line's changes, and checks all of it.
///
/// # Errors
/// Every mistake at once; of a text that is no TOML only the mistakes of syntax.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Experiment, ManifestError> {
    let mut document = include::read(path, &options.project);
    if !document.found.is_empty() {
        let name =
            document.sources.first().map_or_else(|| path.display().to_string(), |one| one.name.clone());
        return Err(ManifestError::new(&name, &document.sources, document.found));
    }
    overrides::apply(&mut document, &options.sets);
    check::check(document, path, options)
}
