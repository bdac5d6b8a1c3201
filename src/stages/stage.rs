//! What a kind of stage says of itself: the trait that each kind implements, and the list of kinds.
//!
//! A new kind is one file that implements [`Stage`] and one line in [`KINDS`]. Neither [`Stage`] nor [`About`]
//! has defaults, so that a kind compiles only when every question is answered:
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
//!     pictures: &[],
//!     threads: 1,
//!     memory_bytes: 0,
//!     tolerance: None,
//!     target: None,
//!     source: None,
//!     tools: Vec::new(),
//!     implied: Vec::new(),
//! };
//! assert_eq!(about.version, 1);
//! ```
//!
//! The same without an answer to `is_random` is refused:
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
//!     pictures: &[],
//!     threads: 1,
//!     memory_bytes: 0,
//!     tolerance: None,
//!     target: None,
//!     source: None,
//!     tools: Vec::new(),
//!     implied: Vec::new(),
//! };
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::fields::{Fields, Reader};
use super::role::PortUse;
use super::{Context, Inputs, StageError};
use super::{augment, command, coreset, download, evaluate, extract, fit, preprocess};
use crate::artifacts::Artifact;
use crate::kernels::backbone::Target;

/// Every kind of stage, one line each. The order is that of messages that list them.
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

/// A stage with its checked fields; one type for each kind.
pub trait Stage: fmt::Debug + Send + Sync {
    /// Returns the kind's name in a manifest.
    fn name() -> &'static str
    where
        Self: Sized;

    /// Reads the fields from a stage's table; problems and ports go to the reader.
    fn read(reader: &mut Reader<'_>) -> Self
    where
        Self: Sized;

    /// Returns what planner, scheduler and reports must know.
    fn about(&self) -> About;

    /// Returns what the stage reads of the artifact that is wired to `port`, and how many of them it takes.
    fn port(&self, port: &str) -> PortUse;

    /// Returns the outputs by name. The bare name of the stage means the first one.
    fn outputs(&self) -> Vec<(String, Artifact)>;

    /// Returns the fields that enter the key: everything that can change a byte of the output, and nothing else.
    fn key_fields(&self) -> Fields;

    /// Returns the bytes of memory that the stage takes, about, for inputs of `input_bytes`. The scheduler asks
    /// where no record tells.
    fn estimated_memory(&self, input_bytes: u64) -> u64;

    /// Checks whether this build and machine can run the stage at all, whatever its inputs. `environment` tells
    /// where programs are.
    ///
    /// # Errors
    /// What is missing.
    fn preflight(&self, environment: &BTreeMap<String, String>) -> Result<(), StageError>;

    /// Runs the stage: reads `inputs`, writes each output into the folder of its name in `output`.
    ///
    /// # Errors
    /// What the kind's file says.
    fn run(&self, inputs: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError>;
}

/// What planner, scheduler and reports must know of a stage. It has no `Default`: each kind answers each question.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent questions, each answered where it is asked")]
pub struct About {
    /// Bumped when the outputs change for equal inputs; its history stands in the kind's file.
    pub version: u32,
    /// Whether the experiment's seed reaches the stage.
    pub is_random: bool,
    /// Whether the stage works item by item and finds earlier items again: its time is then that of its new items.
    pub is_item_wise: bool,
    /// Whether it mostly waits for a program or a server. Such a stage holds no thread of the shared pool.
    pub is_blocking: bool,
    /// Whether variants are made for it: a variant ends in its targets, or in its sinks if it has none.
    pub is_target: bool,
    /// Whether a run's folder shows its outputs if a variant ends in it.
    pub is_shown: bool,
    /// Whether `verify` makes it again unless told otherwise.
    pub is_verified: bool,
    /// Which records predict its time and memory.
    pub estimates: Estimates,
    /// Files of the outputs, or folders of them, that a run's folder shows if they are in the cache.
    pub pictures: &'static [&'static str],
    /// Threads that it keeps busy beside the shared pool.
    pub threads: usize,
    /// Bytes of memory that the manifest declares; a record cannot lower them. 0 if nothing is declared.
    pub memory_bytes: u64,
    /// The relative difference `‖new - old‖ / ‖old‖` of a file's numbers up to which equal inputs may give other
    /// bytes; `None` if they must be the same.
    pub tolerance: Option<f64>,
    /// Library, device and precision whose last bits may differ elsewhere: they join the record.
    pub target: Option<Target>,
    /// A local folder or file that is the stage's output, relative to the project. It is hashed in place, and the
    /// stage never runs.
    pub source: Option<String>,
    /// Programs, each with its arguments, whose output joins the key.
    pub tools: Vec<Vec<String>>,
    /// Stages that the plan adds, because a port is open that the stage reads.
    pub implied: Vec<Implied>,
}

/// Which records predict the time and memory of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimates {
    /// Those of any stage of the kind.
    OfKind,
    /// Those of the same stage, or of equal fields: another stage of the kind does other work.
    OfStage,
}

/// A stage that the plan adds for an open port.
#[derive(Clone, Debug)]
pub struct Implied {
    /// The port; the added stage is named `STAGE.PORT`.
    pub port: &'static str,
    /// What it does. Its first output is wired to the port.
    pub spec: Spec,
}

/// A kind of stage.
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

    /// Returns the name in a manifest.
    pub fn name(self) -> &'static str {
        (self.name)()
    }

    /// Reads the fields of a stage of this kind; problems and ports go to the reader.
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

/// A stage of any kind with its checked fields. Clones share them.
///
/// Two are equal if all their fields are, also those outside the key. As JSON it is
/// `{"kind": …, "fields": …}`.
#[derive(Clone)]
pub struct Spec(Arc<Described>);

/// A stage with its answers, asked once.
struct Described {
    kind: Kind,
    about: About,
    key_fields: Fields,
    stage: Box<dyn AnyStage>,
}

impl Spec {
    /// Wraps the fields of a kind.
    pub fn new<S: Stage + Serialize + DeserializeOwned + PartialEq + 'static>(stage: S) -> Self {
        let (about, key_fields) = (stage.about(), stage.key_fields());
        Self(Arc::new(Described { kind: Kind::of::<S>(), about, key_fields, stage: Box::new(stage) }))
    }

    /// Returns the kind.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns what planner, scheduler and reports must know; see [`Stage::about`].
    pub fn about(&self) -> &About {
        &self.0.about
    }

    /// Returns the fields that enter the key; see [`Stage::key_fields`].
    pub fn key_fields(&self) -> &Fields {
        &self.0.key_fields
    }

    /// Returns the use of a port; see [`Stage::port`].
    pub fn port(&self, port: &str) -> PortUse {
        self.0.stage.port(port)
    }

    /// Returns the outputs by name, the default one first.
    pub fn outputs(&self) -> Vec<(String, Artifact)> {
        self.0.stage.outputs()
    }

    /// Returns the estimated bytes of memory; see [`Stage::estimated_memory`].
    pub fn estimated_memory(&self, input_bytes: u64) -> u64 {
        self.0.stage.estimated_memory(input_bytes)
    }

    /// Checks whether this build and machine can run the stage; see [`Stage::preflight`].
    ///
    /// # Errors
    /// What is missing.
    pub fn preflight(&self, environment: &BTreeMap<String, String>) -> Result<(), StageError> {
        self.0.stage.preflight(environment)
    }

    /// Runs the stage; see [`Stage::run`].
    ///
    /// # Errors
    /// What the kind's file says.
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

/// Checked fields hold no NaN.
impl Eq for Spec {}

/// Equal fields have equal key fields; the others are few.
impl Hash for Spec {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.kind.name().hash(state);
        self.0.key_fields.hash(state);
    }
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

/// [`Stage`] with what a trait object cannot derive.
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
    fn every_kind_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), KINDS.len());
        assert!(KINDS.iter().all(|kind| Kind::parse(kind.name()) == Some(*kind)));
    }
}
