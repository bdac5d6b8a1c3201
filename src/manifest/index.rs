//! Indices: one type for each list, so that an index into one list is not used on another.

/// Index of a stage in the order of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageIndex(pub usize);

/// Index of an axis in the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AxisIndex(pub(super) usize);

/// Index of a value on its axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ValueIndex(pub(super) u32);

/// Index of a [`ParsedStage`](super::specs::ParsedStage) among those of its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ParsedIndex(pub(super) u32);

/// Index of a list of outputs among the distinct lists of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OutputsIndex(pub(super) u32);

/// Index of a [`ResolvedStage`](super::ResolvedStage) among those of the experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ResolvedIndex(pub(super) u32);

impl ValueIndex {
    /// The index into the list of values.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl ParsedIndex {
    /// The index into the list of parsed stages.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl ResolvedIndex {
    /// The index into the list of resolved stages.
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}
