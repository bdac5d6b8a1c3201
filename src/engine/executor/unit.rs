//! One execution as plain data.
//!
//! A unit names its inputs by digest and holds no file of the cache: another process or machine can run it from the
//! cache alone. Only a local source is named by path; it is hashed again there, and must still have the bytes that the
//! unit was made of.

use std::path::{Path, PathBuf};

use crate::cache::Digest;
use crate::engine::{Options, log_path};
use crate::plan::{Plan, Preimage, Resolution, ResolvedInput, TaskId};
use crate::stages::{Role, Spec};

/// The version of the form in which units are written.
pub(in crate::engine) const UNIT_FORMAT: u32 = 1;

/// One execution of a task.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The version of this form.
    pub format: u32,
    /// The version of the program that made the unit.
    pub patchflow: String,
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
    /// What the key is the hash of; names the kind and its version.
    pub preimage: Preimage,
    /// The stage's fields.
    pub spec: Spec,
    /// The inputs, in the order of roles.
    pub inputs: Vec<UnitInput>,
    /// Whether the new record takes the place of an earlier one.
    pub is_replacing: bool,
    /// Whether single items are made anew as well.
    pub is_forced: bool,
    /// Whether the network may not be used.
    pub is_offline: bool,
    /// Threads on which the stage computes.
    pub threads: usize,
    /// Bytes of memory that it is expected to use.
    pub memory_bytes: u64,
    /// The file of its log; relative to the project if it lies there.
    pub log: PathBuf,
}

impl Unit {
    /// The unit of a task of a plan, with these inputs and this key.
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
            format: UNIT_FORMAT,
            patchflow: env!("CARGO_PKG_VERSION").to_owned(),
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
            log: portable(&options.project, &log_path(options, of, key)),
        }
    }
}

/// One input of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A path as a unit names it: relative to the project if it lies there.
fn portable(project: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(project).unwrap_or(path).to_owned()
}
