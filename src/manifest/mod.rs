//! The manifest: TOML in, a checked [`Experiment`] out.
//!
//! First the text becomes a tree of values with spans:
//!
//! ```text
//! raw         TOML with spans
//! include     merges a manifest with the files that it includes
//! overrides   --set
//! ```
//! Then the tree becomes an experiment:
//!
//! ```text
//! outline     name, seed, grid, and the stages without their fields
//!   grid        axes (axis), and the combinations that patterns (pattern) leave
//!   stage       name, kind, `when`, and each `${axis}` (substitute)
//! specs       the fields of every stage, once for each set of values of the axes that it uses
//! wiring      connects ports to outputs
//! graph       checks whole variants: absent stages, cycles
//! check       calls all of these, and makes the experiment
//! ```
//! No data file is opened. All mistakes are found in one call and shown on the text ([`ManifestError`], `diagnostic`).
//!
//! Planning takes a stage's fields and connections in a variant from [`Experiment::stage`]. Each distinct case
//! is resolved once, whatever the number of variants.

mod axis;
mod check;
pub mod config;
pub mod diagnostic;
pub mod experiment;
mod graph;
mod grid;
mod include;
mod index;
pub mod names;
mod outline;
mod overrides;
mod pattern;
mod problems;
mod raw;
mod specs;
mod stage;
mod substitute;
mod targets;
mod wiring;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use config::{Config, RemoteConfig, find_project};
pub use diagnostic::{Diagnostic, ManifestError, SourceText, Span};
pub use experiment::{Axis, DeclaredStage, Experiment, ResolvedPort, ResolvedStage, Unneeded, Variant};
pub use index::StageIndex;
pub use names::{AxisName, StageName, VariantId};

/// The changes that the command line makes to a manifest.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Root of the project; see [`find_project`].
    pub project: PathBuf,
    /// `path=value` of each `--set`, in order.
    pub sets: Vec<String>,
    /// `axis=value,…` of `--only`.
    pub only: Option<String>,
    /// The stage of each `--target`.
    pub targets: Vec<String>,
}

/// Reads the manifest at `path` with its includes and the changes of the command line, and checks all of it.
///
/// # Errors
/// Every mistake at once; if a text is not TOML, its syntax errors only.
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
