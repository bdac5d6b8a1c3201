//! Names of stages, axes and variants.

use std::fmt;

/// The name of a stage: letters, digits, `_`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageName(String);

/// The name of an axis: letters, digits, `_`, `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AxisName(String);

/// The name of a variant, safe as a folder: `bank=dual,augment=none,seed=0`; `default` if there are no axes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariantId(String);

impl StageName {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AxisName {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl VariantId {
    pub(super) fn new(name: String) -> Self {
        Self(name)
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for AxisName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for VariantId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Returns whether `name` can name a stage or an axis: ASCII letters, digits, `_`, `-`; not empty.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
}

/// Makes the name of a stage or an axis from any text: other letters become `_`.
pub(super) fn name_of(text: &str) -> String {
    let name: String =
        text.chars().map(|letter| if is_name(&letter.to_string()) { letter } else { '_' }).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

/// Makes a name that is plain ([`crate::text::is_plain_name`]) of any text.
pub(super) fn folder_name_of(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    let name: String = text.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
    let name: String = name.trim_matches('.').chars().take(25).collect();
    if name.is_empty() { "experiment".to_owned() } else { name }
}
