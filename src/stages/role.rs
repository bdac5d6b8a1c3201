//! The names under which a stage knows its inputs, and what it reads of each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::artifacts::image_set::Selection;

/// The port of the masks that go with the blocks of a feature group; member `i` belongs to block set `i`.
pub const MASKS: &str = "masks";

/// The name of one input of a stage: its port and, if the port takes several, which of them.
///
/// Its text (`normal`, `features[0]`, `inputs.x/set`) enters keys and records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Role {
    /// The port: the field of the manifest that names the input, such as `normal` or `inputs.x`.
    pub port: String,
    /// Which input of the port.
    pub member: Member,
}

/// Which input of a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// The only one.
    Only,
    /// The one at that index of a list or group, from 0.
    Index(usize),
    /// The one of that name.
    Named(String),
}

impl Role {
    /// The only input of a port.
    pub fn only(port: impl Into<String>) -> Self {
        Self { port: port.into(), member: Member::Only }
    }

    /// The input at `index` of a port that takes a list or a group.
    pub fn indexed(port: impl Into<String>, index: usize) -> Self {
        Self { port: port.into(), member: Member::Index(index) }
    }

    /// The input called `name` of a port that takes several by name.
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
    /// What is read of each artifact that is wired to it.
    pub reads: Reads,
    /// How many artifacts it takes.
    pub shape: Shape,
}

impl PortUse {
    /// One artifact, read whole.
    pub fn whole() -> Self {
        Self::one(Reads::Everything)
    }

    /// One artifact, of which `reads` is read.
    pub fn one(reads: Reads) -> Self {
        Self { reads, shape: Shape::One }
    }
}

/// How many artifacts a port takes, and what the plan makes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One; its role is the port.
    One,
    /// A list; the roles are `port[i]`.
    List,
    /// A list, and the stage becomes one task for each member, whose role is the port.
    Each,
    /// The features of several image sets; the roles are `port[i]`, without gaps, beside `masks[i]` where masks are
    /// read. Sets of which nothing is read drop out.
    Group {
        /// The port that names the one image set whose features are read; `None` for those of all sets.
        set: Option<&'static str>,
    },
    /// The same without a choice: the role is the port if there is one set, else `port/SET`.
    Named,
}

/// The part of an input that a stage reads. Keys see this part and no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reads {
    /// The whole artifact.
    Everything,
    /// Of an image set, the pixels without masks, labels and splits.
    Pixels,
    /// Of an image set, the selected images: pixels and masks.
    Images(Selection),
    /// Of an image set, the masks of the selected images.
    Masks(Selection),
    /// Of a feature set, the blocks of the selected images, and their masks if `with_masks`.
    Blocks {
        /// Which images.
        selection: Selection,
        /// Whether the masks are read too, as role `masks[i]`.
        with_masks: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts enter keys.
    #[test]
    fn a_role_has_the_text_that_keys_hold() {
        assert_eq!(Role::only("normal").to_string(), "normal");
        assert_eq!(Role::indexed("features", 10).to_string(), "features[10]");
        assert_eq!(Role::named("inputs.x", "images.crops").to_string(), "inputs.x/images.crops");
    }
}
