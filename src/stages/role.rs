//! The names of a stage's inputs (roles), and the part of each input that the stage reads.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::artifacts::image_set::Selection;

/// The port of the masks that belong to a feature group. Member `i` holds the masks of feature set `i`.
pub const MASKS: &str = "masks";

/// The name of one input of a stage: its port and, if the port takes several artifacts, which of them.
///
/// The text form (`normal`, `features[0]`, `inputs.x/set`) enters keys and records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Role {
    /// The field of the manifest that names the input, such as `normal` or `inputs.x`.
    pub port: String,
    /// Which input of the port.
    pub member: Member,
}

/// Which input of a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// The only input of the port.
    Only,
    /// The input at this index of a list or group, counted from 0.
    Index(usize),
    /// The input with this name.
    Named(String),
}

impl Role {
    /// Returns the role of the only input of a port.
    pub fn only(port: impl Into<String>) -> Self {
        Self { port: port.into(), member: Member::Only }
    }

    /// Returns the role of the input at `index` of a port that takes a list or a group.
    pub fn indexed(port: impl Into<String>, index: usize) -> Self {
        Self { port: port.into(), member: Member::Index(index) }
    }

    /// Returns the role of the input `name` of a port that takes named inputs.
    pub fn named(port: impl Into<String>, name: impl Into<String>) -> Self {
        Self { port: port.into(), member: Member::Named(name.into()) }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Member::Only => formatter.write_str(&self.port),
            Member::Index(index) => write!(formatter, "{}[{index}]", self.port),
            Member::Named(name) => write!(formatter, "{}/{name}", self.port),
        }
    }
}

/// How a stage uses one of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// The part of each artifact that is read.
    pub reads: Reads,
    /// How many artifacts the port takes.
    pub shape: Shape,
}

impl PortUse {
    /// One artifact, read completely.
    pub fn whole() -> Self {
        Self::one(Reads::Everything)
    }

    /// One artifact, of which the part `reads` is read.
    pub fn one(reads: Reads) -> Self {
        Self { reads, shape: Shape::One }
    }
}

/// How many artifacts a port takes, and how they become roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One artifact. Its role is the port.
    One,
    /// A list of artifacts. The roles are `port[i]`.
    List,
    /// A list of artifacts. The stage becomes one task for each, in which the artifact's role is the port.
    Each,
    /// The features of several image sets. The roles are `port[i]`, and `masks[i]` if masks are read. Sets without
    /// selected images are omitted, so that the indices have no gaps.
    Group {
        /// The port that names the image set whose features are read. `None` if those of all sets are read.
        set: Option<&'static str>,
    },
    /// The artifacts of all sets. The role is the port if there is one set, else `port/SET`.
    Named,
}

/// The part of an input that a stage reads. Only this part enters the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reads {
    /// The whole artifact.
    Everything,
    /// The pixels of an image set, without masks, labels and splits.
    Pixels,
    /// The pixels and masks of the selected images of an image set.
    Images(Selection),
    /// The masks of the selected images of an image set.
    Masks(Selection),
    /// The features of the selected images of a feature set.
    Blocks {
        /// Which images are selected.
        selection: Selection,
        /// Whether their masks are read too, as role `masks[i]`.
        with_masks: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys contain these texts, so they must not change.
    #[test]
    fn the_text_of_a_role_is_stable() {
        assert_eq!(Role::only("normal").to_string(), "normal");
        assert_eq!(Role::indexed("features", 10).to_string(), "features[10]");
        assert_eq!(Role::named("inputs.x", "images.crops").to_string(), "inputs.x/images.crops");
    }
}
