//! One execution as plain data.
//!
//! A unit names its inputs by digest and holds no file of the cache: another process or machine can run it from the
//! cache alone. Only a local source is named by path; it is hashed again there, and must still have the bytes that the
//! unit was made of.
//!
//! [`Unit::seal`] writes a unit as JSON, [`Unit::open`] reads it. A unit of another build is refused: its program would
//! have run something else under the same key.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RunContext;
use crate::cache::{CacheError, Digest};
use crate::engine::{Options, log_path};
use crate::plan::{Plan, Preimage, Resolution, ResolvedInput, TaskId};
use crate::stages::{Role, Spec, Work};

/// The version of the format of sealed units.
const UNIT_FORMAT: u32 = 1;

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The program and format version that made a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::engine) struct Build {
    /// The version of the format.
    format: u32,
    /// The version of the program.
    patchflow: String,
}

/// Why a sealed unit is not run.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum UnitError {
    /// The bytes are not a sealed unit.
    #[error("not a sealed unit")]
    Unreadable(#[source] serde_json::Error),
    /// The unit has another format version: `format`.
    #[error("the unit has format {format}, this build reads format {UNIT_FORMAT}")]
    OtherFormat { format: u32 },
    /// Another version of the program made it.
    #[error("the unit was made by patchflow {made_by}, this is {VERSION}")]
    OtherProgram { made_by: String },
    /// The kind of the stage has version `needed` in the unit, and `ours` in this program.
    #[error("the unit needs version {needed} of `{kind}`, this build has {ours}")]
    OtherKind { kind: String, needed: u32, ours: u32 },
    /// The key is not that of the fields and inputs.
    #[error("the unit's key is not that of its fields and inputs")]
    WrongKey,
}

/// One execution of a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unit {
    /// The program that made the unit.
    #[serde(flatten)]
    pub(in crate::engine) build: Build,
    /// The task's index in the plan.
    pub task: TaskId,
    /// The task's name.
    pub name: String,
    /// The stage's name.
    pub stage: String,
    /// The experiment's name.
    pub experiment: String,
    /// The key of the record to be made.
    pub key: Digest,
    /// The data that the key is the hash of, with the kind and its version.
    pub preimage: Preimage,
    /// The stage's fields.
    pub spec: Spec,
    /// The inputs, in the order of roles.
    pub inputs: Vec<UnitInput>,
    /// Whether the new record takes the place of an earlier one.
    pub is_replacing: bool,
    /// Whether per-image records are ignored and made again.
    pub is_forced: bool,
    /// Whether the network may not be used.
    pub is_offline: bool,
    /// Threads on which the stage computes.
    pub threads: usize,
    /// Bytes of memory that the unit is expected to use.
    pub memory_bytes: u64,
    /// How much the task has to do; `None` if that is unknown.
    #[serde(default)]
    pub work: Option<Work>,
    /// Path of the log; relative to the project if it lies there.
    pub log: PathBuf,
}

impl Unit {
    /// Makes the unit of a task whose inputs and key are known.
    pub(in crate::engine) fn new(
        plan: &Plan,
        task: TaskId,
        resolution: &Resolution,
        options: &Options<'_>,
    ) -> Self {
        let of = &plan.tasks[task.0];
        let Resolution { key, preimage, inputs } = resolution;
        let input = |input: &ResolvedInput| {
            let source = input.source.as_ref().map(|source| portable(&options.project, &source.path));
            UnitInput { role: input.role.clone(), digest: input.digest, whole: input.whole, source }
        };
        Self {
            build: Build { format: UNIT_FORMAT, patchflow: VERSION.to_owned() },
            task,
            name: of.name.clone(),
            stage: of.stage.clone(),
            experiment: plan.experiment.clone(),
            key: *key,
            preimage: preimage.clone(),
            spec: of.spec.clone(),
            inputs: inputs.iter().map(input).collect(),
            is_replacing: false,
            is_forced: false,
            is_offline: options.is_offline,
            threads: options.threads,
            memory_bytes: 0,
            work: None,
            log: portable(&options.project, &log_path(options, of, key)),
        }
    }
}

impl Unit {
    /// Writes the unit for another process. The trees of its inputs are published first, so that the cache alone is
    /// enough to run it.
    pub(in crate::engine) fn seal(&self, context: &RunContext<'_>) -> Result<Vec<u8>, CacheError> {
        let publication = context.cache.publication()?;
        for input in &self.inputs {
            if let Some(tree) = context.inputs.tree(&input.digest, context.cache)? {
                publication.publish_tree(&tree)?;
            }
        }
        Ok(serde_json::to_vec(self).expect("a unit holds only strings, finite numbers and paths in UTF-8"))
    }

    /// Reads a sealed unit.
    ///
    /// # Errors
    /// The unit of another build, or one that was changed, is refused.
    pub fn open(bytes: &[u8]) -> Result<Self, UnitError> {
        let Build { format, patchflow } = serde_json::from_slice(bytes).map_err(UnitError::Unreadable)?;
        if format != UNIT_FORMAT {
            return Err(UnitError::OtherFormat { format });
        }
        if patchflow != VERSION {
            return Err(UnitError::OtherProgram { made_by: patchflow });
        }
        let unit: Self = serde_json::from_slice(bytes).map_err(UnitError::Unreadable)?;
        let (needed, ours) = (unit.preimage.version, unit.spec.about().version);
        if needed != ours {
            return Err(UnitError::OtherKind { kind: unit.preimage.kind, needed, ours });
        }
        if unit.is_consistent() { Ok(unit) } else { Err(UnitError::WrongKey) }
    }

    /// Returns whether the key is that of the fields and inputs. A number that JSON does not carry exactly (one of
    /// more than 15 digits may come back one unit in the last place off) gives another key, and is refused.
    fn is_consistent(&self) -> bool {
        let Preimage { kind, spec, inputs, .. } = &self.preimage;
        let is_keyed = |input: &UnitInput| {
            let role = input.role.to_string();
            inputs.iter().any(|of_key| of_key.role == role && of_key.digest == input.digest)
        };
        self.preimage.key().is_ok_and(|key| key == self.key)
            && kind == self.spec.kind().name()
            // The output of tools joins the fields of the key.
            && self.spec.key_fields().iter().all(|(name, value)| spec.get(name) == Some(value))
            && self.inputs.len() == inputs.len()
            && self.inputs.iter().all(is_keyed)
    }
}

/// One input of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitInput {
    /// Its role.
    pub role: Role,
    /// Digest of the tree that is read.
    pub digest: Digest,
    /// Digest of the whole output that the tree is a part of.
    pub whole: Digest,
    /// Where its files lie if they are not objects of the cache: a local folder or file, relative to the project if it
    /// lies there.
    pub source: Option<PathBuf>,
}

/// Returns a path as a unit names it: relative to the project if it lies there.
fn portable(project: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(project).unwrap_or(path).to_owned()
}
