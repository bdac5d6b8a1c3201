//! The trait that each kind of stage implements, and the list of kinds.
//!
//! To add a kind, implement [`Stage`] in a new file and add a line to [`KINDS`]. Neither [`Stage`] nor [`About`] has
//! defaults, so a kind compiles only if it answers every question:
//!
//! ```
//! use patchflow::stages::{About, Estimates};
//!
//! let about = About {
//!     version: 1,
//!     is_random: false,
//!     is_item_wise: false,
//!     is_blocking: false,
//!     is_target: false,
//!     is_shown: false,
//!     is_verified: true,
//!     estimates: Estimates::OfKind,
//!     foresees: false,
//!     pictures: &[],
//!     threads: 1,
//!     memory_bytes: 0,
//!     tolerance: None,
//!     depends_on_machine: false,
//!     compute_target: None,
//!     source: None,
//!     tools: Vec::new(),
//!     implied: Vec::new(),
//! };
//! assert_eq!(about.version, 1);
//! ```
//!
//! Without an answer to `is_random`, it does not compile:
//!
//! ```compile_fail
//! use patchflow::stages::{About, Estimates};
//!
//! let about = About {
//!     version: 1,
//!     is_item_wise: false,
//!     is_blocking: false,
//!     is_target: false,
//!     is_shown: false,
//!     is_verified: true,
//!     estimates: Estimates::OfKind,
//!     foresees: false,
//!     pictures: &[],
//!     threads: 1,
//!     memory_bytes: 0,
//!     tolerance: None,
//!     depends_on_machine: false,
//!     compute_target: None,
//!     source: None,
//!     tools: Vec::new(),
//!     implied: Vec::new(),
//! };
//! ```

use std::any::Any;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fields::{Fields, Reader};
use super::role::PortUse;
use super::{Context, InputSizes, Inputs, StageError, Variables, Workload};
use super::{augment, command, coreset, download, evaluate, extract, fit, preprocess};
use crate::artifacts::Artifact;
use crate::kernels::backbone::Target;

/// Every kind of stage. Messages list the kinds in this order.
pub const KINDS: &[Kind] = &[
    Kind::of::<download::Download>(),
    Kind::of::<preprocess::Preprocess>(),
    Kind::of::<augment::Augment>(),
    Kind::of::<extract::Extract>(),
    Kind::of::<coreset::Coreset>(),
    Kind::of::<fit::Fit>(),
    Kind::of::<evaluate::Evaluate>(),
    Kind::of::<command::Command>(),
    #[cfg(test)]
    Kind::of::<super::toy::Toy>(),
];

/// A stage with its checked fields. Each kind has one type that implements this.
pub trait Stage: fmt::Debug + Send + Sync {
    /// Returns the kind's name in a manifest.
    fn name() -> &'static str
    where
        Self: Sized;

    /// Reads the fields from a stage's table. Adds problems and ports to the reader.
    fn read(reader: &mut Reader<'_>) -> Self
    where
        Self: Sized;

    /// Returns the properties that the planner, the scheduler and the reports need.
    fn about(&self) -> About;

    /// Returns which part of the artifacts at `port` the stage reads, and how many artifacts the port takes.
    fn port(&self, port: &str) -> PortUse;

    /// Returns the names and types of the outputs. A reference to the stage without an output name means the first.
    fn outputs(&self) -> Vec<(String, Artifact)>;

    /// Returns the fields that enter the key: everything that can change a byte of the output, and nothing else.
    fn key_fields(&self) -> Fields;

    /// Returns an estimate of the memory in bytes that the stage needs for inputs of `input_bytes`. The scheduler uses
    /// it if no record predicts the memory.
    fn estimated_memory(&self, input_bytes: u64) -> u64;

    /// Returns how much the stage has to do with inputs of these sizes, and the sizes of its outputs. Predicts the
    /// time; see [`Workload`].
    fn workload(&self, inputs: &InputSizes) -> Workload;

    /// Checks whether this build and machine can run the stage, independent of its inputs. `environment` is used to
    /// find programs.
    ///
    /// # Errors
    /// Names what is missing.
    fn preflight(&self, environment: &Variables) -> Result<(), StageError>;

    /// Runs the stage: reads `inputs` and writes each output into the subfolder of `output` that has its name.
    ///
    /// # Errors
    /// Depends on the kind; see its file.
    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError>;
}

/// The properties of a stage that the planner, the scheduler and the reports need. There is no `Default`, so that each
/// kind sets each of them.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent properties, each read on its own")]
pub struct About {
    /// Version of the kind. Raised when the outputs change for equal inputs; the history is in the kind's file.
    pub version: u32,
    /// Whether the results depend on the experiment's seed.
    pub is_random: bool,
    /// Whether the stage works item by item and reuses items of earlier tasks. Its time then depends on its new items.
    pub is_item_wise: bool,
    /// Whether the stage mostly waits for a program or a server. Such a stage uses no thread of the shared pool.
    pub is_blocking: bool,
    /// Whether the stage is a target. A variant runs its targets, or its sinks if it has no targets.
    pub is_target: bool,
    /// Whether the run folder shows the outputs of the stage if it is a sink or target of a variant.
    pub is_shown: bool,
    /// Whether `verify` runs the stage again by default.
    pub is_verified: bool,
    /// Which records predict its time and memory.
    pub estimates: Estimates,
    /// Whether its workload may say more than the time: which fields decide the outputs, and what the stage will warn of.
    pub foresees: bool,
    /// Files or folders of the outputs that the run folder shows if they are in the cache.
    pub pictures: &'static [&'static str],
    /// Number of threads that the stage uses outside the shared pool.
    pub threads: usize,
    /// Memory in bytes that the manifest declares, a lower bound of the estimate. 0 if not declared.
    pub memory_bytes: u64,
    /// Greatest allowed relative difference `‖new - old‖ / ‖old‖` of a file's numbers between two executions with
    /// equal inputs. `None` if the bytes must be equal.
    pub tolerance: Option<f64>,
    /// Whether the bytes may differ on another machine: one with other vector instructions, another card, or another
    /// version of the library that computes. Differences within `tolerance` may occur on any machine.
    pub depends_on_machine: bool,
    /// Backend, device and number format of the stage's network, stored in the record: with others, the last bits of
    /// the outputs may differ. `None` for a stage without a network.
    pub compute_target: Option<Target>,
    /// A local folder or file that is the stage's output, relative to the project. It is hashed in place, and the
    /// stage never runs.
    pub source: Option<String>,
    /// Commands (program and arguments) whose output enters the key.
    pub tools: Vec<Vec<String>>,
    /// Stages that the plan adds for open ports that the stage reads.
    pub implied: Vec<Implied>,
}

/// Which records predict the time and memory of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimates {
    /// Records of any stage of the same kind.
    OfKind,
    /// Records of stages of the kind in which these fields of the key are equal: with others, the kind does other work.
    WithEqual(&'static [&'static str]),
}

/// A stage that the plan adds for an open port.
#[derive(Clone, Debug)]
pub struct Implied {
    /// The open port. The added stage is named `STAGE.PORT`.
    pub port: &'static str,
    /// The added stage. Its first output is wired to the port.
    pub spec: Spec,
}

/// A kind of stage: its name, and how its fields are read from a manifest and from JSON.
#[derive(Clone, Copy)]
pub struct Kind {
    name: fn() -> &'static str,
    read: fn(&mut Reader<'_>) -> Spec,
    restore: fn(serde_json::Value) -> Result<Spec, serde_json::Error>,
}

impl Kind {
    const fn of<S: Stage + Serialize + DeserializeOwned + PartialEq + 'static>() -> Self {
        Self {
            name: S::name,
            read: |reader| Spec::new(S::read(reader)),
            restore: |value| serde_json::from_value::<S>(value).map(Spec::new),
        }
    }

    /// Returns the kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.iter().find(|kind| kind.name() == name).copied()
    }

    /// Returns the kind's name in a manifest.
    pub fn name(self) -> &'static str {
        (self.name)()
    }

    /// Reads the fields of a stage of this kind. Adds problems and ports to the reader.
    pub fn read(self, reader: &mut Reader<'_>) -> Spec {
        (self.read)(reader)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Kind {}

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A stage of any kind with its checked fields. Clones are cheap and share the fields.
///
/// Two specs are equal if all their fields are equal, including those outside the key. The JSON form is
/// `{"kind": …, "fields": …}`.
#[derive(Clone)]
pub struct Spec(Arc<Described>);

/// A stage with its kind, properties and key fields, computed once.
struct Described {
    kind: Kind,
    about: About,
    key_fields: Fields,
    /// Hash of the kind and the key fields; not stable across versions.
    hash: u64,
    stage: Box<dyn AnyStage>,
}

impl Spec {
    /// Wraps a stage of a known kind.
    pub fn new<S: Stage + Serialize + DeserializeOwned + PartialEq + 'static>(stage: S) -> Self {
        let (about, key_fields) = (stage.about(), stage.key_fields());
        let kind = Kind::of::<S>();
        let hash = hash_of_fields(kind, &key_fields);
        Self(Arc::new(Described { kind, about, key_fields, hash, stage: Box::new(stage) }))
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns the properties of the stage; see [`Stage::about`].
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// Returns the fields that enter the key; see [`Stage::key_fields`].
    pub fn key_fields(&self) -> &Fields {
        &self.0.key_fields
    }

    /// Returns [`hash_of_fields`] of the kind and all key fields.
    pub fn hash_of_fields(&self) -> u64 {
        self.0.hash
    }

    /// Returns the use of a port; see [`Stage::port`].
    pub fn port(&self, port: &str) -> PortUse {
        self.0.stage.port(port)
    }

    /// Returns the names and types of the outputs, the default output first.
    pub fn outputs(&self) -> Vec<(String, Artifact)> {
        self.0.stage.outputs()
    }

    /// Returns the estimated memory in bytes; see [`Stage::estimated_memory`].
    pub fn estimated_memory(&self, input_bytes: u64) -> u64 {
        self.0.stage.estimated_memory(input_bytes)
    }

    /// Returns how much the stage has to do; see [`Stage::workload`].
    pub fn workload(&self, inputs: &InputSizes) -> Workload {
        self.0.stage.workload(inputs)
    }

    /// Checks whether this build and machine can run the stage; see [`Stage::preflight`].
    ///
    /// # Errors
    /// Names what is missing.
    pub fn preflight(&self, environment: &Variables) -> Result<(), StageError> {
        self.0.stage.preflight(environment)
    }

    /// Runs the stage; see [`Stage::run`].
    ///
    /// # Errors
    /// Depends on the kind; see its file.
    pub fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        self.0.stage.run(inputs, output, context)
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.stage.fmt(formatter)
    }
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.kind == other.0.kind && self.0.stage.is_equal(other.0.stage.as_any())
    }
}

/// Equality is reflexive, because checked fields never hold NaN.
impl Eq for Spec {}

/// Hashes the kind and the key fields alone: equal specs have equal key fields.
impl Hash for Spec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

/// Hashes a kind and some of its key fields, for tables in memory. Stages are hashed often, and their fields once.
pub fn hash_of_fields(kind: Kind, fields: &Fields) -> u64 {
    let mut hasher = DefaultHasher::new();
    kind.name().hash(&mut hasher);
    fields.hash(&mut hasher);
    hasher.finish()
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.stage.to_json().map_err(S::Error::custom)?;
        let mut map = serializer.serialize_struct("Spec", 2)?;
        map.serialize_field("kind", self.0.kind.name())?;
        map.serialize_field("fields", &fields)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Sealed {
            kind: String,
            fields: serde_json::Value,
        }
        let Sealed { kind, fields } = Sealed::deserialize(deserializer)?;
        let known =
            Kind::parse(&kind).ok_or_else(|| D::Error::custom(format!("no kind `{kind}` in this build")))?;
        (known.restore)(fields).map_err(D::Error::custom)
    }
}

/// Adds equality and JSON to [`Stage`], for trait objects.
trait AnyStage: Stage {
    fn as_any(&self) -> &dyn Any;
    fn is_equal(&self, other: &dyn Any) -> bool;
    fn to_json(&self) -> Result<serde_json::Value, serde_json::Error>;
}

impl<S: Stage + Serialize + PartialEq + 'static> AnyStage for S {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_equal(&self, other: &dyn Any) -> bool {
        other.downcast_ref::<S>().is_some_and(|other| self == other)
    }
    fn to_json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kinds_have_distinct_names() {
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), KINDS.len());
        assert!(KINDS.iter().all(|kind| Kind::parse(kind.name()) == Some(*kind)));
    }
}
