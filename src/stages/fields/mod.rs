//! The fields of a stage as data: what the manifest passes to a kind, and what a kind puts into the key.
//!
//! [`Reader`] turns a stage's table into its `Spec`. It collects every [`Problem`] instead of stopping at the
//! first, and reports unknown fields with the nearest known name. It knows no files and no spans: the manifest
//! finds the text at each problem's path.

mod path;
mod problem;
mod reader;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::artifacts::Artifact;

pub use path::{is_path, stages_for};
pub use problem::{Problem, ProblemKind};
pub use reader::{Reader, nearest, suggestion};

/// A plain value of a manifest, and a leaf or node of a key's preimage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A finite number; never NaN.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// An ordered list.
    List(Vec<Value>),
    /// Named values, sorted by name.
    Table(Fields),
}

/// Named values, sorted by name.
pub type Fields = BTreeMap<String, Value>;

impl Value {
    /// Returns the value as plain JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Integer(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Bool(flag) => (*flag).into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Table(fields) => {
                fields.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
            }
        }
    }

    /// Returns the type as messages name it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => formatter.write_str(text),
            Self::Integer(number) => write!(formatter, "{number}"),
            Self::Float(number) => write!(formatter, "{number}"),
            Self::Bool(flag) => write!(formatter, "{flag}"),
            Self::List(items) => {
                let shown: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(formatter, "[{}]", shown.join(", "))
            }
            Self::Table(fields) => {
                let shown: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                write!(formatter, "{{ {} }}", shown.join(", "))
            }
        }
    }
}

impl From<&str> for Value {
    fn from(x: &str) -> Self {
        Self::Text(x.to_owned())
    }
}
impl From<String> for Value {
    fn from(x: String) -> Self {
        Self::Text(x)
    }
}
impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Self::Bool(x)
    }
}
impl From<i64> for Value {
    fn from(x: i64) -> Self {
        Self::Integer(x)
    }
}
impl From<u32> for Value {
    fn from(x: u32) -> Self {
        Self::Integer(i64::from(x))
    }
}
impl From<usize> for Value {
    fn from(x: usize) -> Self {
        Self::Integer(x as i64)
    }
}
impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}
impl From<Fields> for Value {
    fn from(x: Fields) -> Self {
        Self::Table(x)
    }
}
impl From<Vec<String>> for Value {
    fn from(x: Vec<String>) -> Self {
        Self::List(x.into_iter().map(Self::Text).collect())
    }
}
/// As text: a seed may be greater than an `i64` holds.
impl From<u64> for Value {
    fn from(x: u64) -> Self {
        Self::Text(x.to_string())
    }
}

/// Builds [`Fields`] from names and values: `fields([("height", 316.into())])`.
pub fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Fields {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// An input of a stage: a reference to an output, and the artifact that it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The field that holds the reference; dotted if the field is in an inner table.
    pub field: String,
    /// The index if the port is a list.
    pub index: Option<usize>,
    /// The reference: `stage` or `stage.output`.
    pub reference: String,
    /// The artifact that the port takes.
    pub expects: Artifact,
    /// What the stage uses it for.
    pub access: Access,
}

/// What a stage uses a port for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The stage reads it: a dependency.
    Read,
    /// The stage selects among other inputs by it. It must be in the variant, but is no dependency itself.
    Named,
    /// With its other fields the stage does not use it; it is only checked.
    Unread,
}

/// Returns the name of a choice in the table that [`Reader::choice`] reads it from.
///
/// # Panics
/// If the table lacks the choice. An empty name would enter keys without notice.
pub fn name_of<T: PartialEq>(choices: &[(&'static str, T)], choice: &T) -> &'static str {
    let named = choices.iter().find(|(_, known)| known == choice);
    named.expect("a table of choices names every variant").0
}

/// By the bits of floats, which are never NaN.
impl std::hash::Hash for Value {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Text(text) => text.hash(state),
            Self::Integer(number) => number.hash(state),
            // Equal numbers, equal bits: -0.0 is 0.0.
            Self::Float(number) => (number + 0.0).to_bits().hash(state),
            Self::Bool(flag) => flag.hash(state),
            Self::List(items) => items.hash(state),
            Self::Table(fields) => fields.hash(state),
        }
    }
}
