//! How much a stage has to do, from the sizes of its inputs: what its time is predicted from.
//!
//! The formulas give the seconds of one core of the machine on which their constants were measured. Only their ratio
//! is used: the seconds of an earlier task of the kind are scaled by the ratio of the works, so that what a machine is
//! faster or slower at cancels. The constants decide how much fixed costs, pixels and rows count against each other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fields::Fields;
use super::role::Role;
use crate::artifacts::image_set::Selection;
use crate::artifacts::size::{ImageCounts, RowCount, Size};

/// Seconds of a task that does nothing: its folders, its log, its record (chosen).
const TASK_SECONDS: f64 = 3e-3;

/// The sizes of the inputs of a stage.
#[derive(Clone, Debug, Default)]
pub struct InputSizes(Vec<(Role, Option<Arc<Size>>)>);

/// What a stage would do with inputs of these sizes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// Its work in seconds of the reference core; `None` if the sizes of its inputs are unknown, or do not decide it.
    pub seconds: Option<f64>,
    /// The sizes of its outputs by name. Those that are missing are unknown.
    pub outputs: Vec<(&'static str, Size)>,
    /// The fields that decide the outputs, if the sizes say that some of the key decide nothing: stages with equal ones
    /// and equal inputs make equal outputs. `None` if they are those of the key.
    pub deciding: Option<Fields>,
    /// What the stage would warn of by the sizes.
    pub warnings: Vec<String>,
}

/// Version of the formulas, raised when one of them changes: works of other versions are not compared. 1: first
/// (2026-11-28). 2: fitted again, with the blur and the resamples of `evaluate` (2026-11-29).
const FORMULAS: u32 = 2;

/// The work of a finished task, as its record keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Work in seconds of the reference core. Comparable within one kind and one version of the formulas.
    pub seconds: f64,
    /// Version of the formulas.
    #[serde(default)]
    pub formulas: u32,
    /// Numbers in its outputs, if they were known before it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<f64>,
}

impl InputSizes {
    /// Lists the sizes of the inputs; `None` for an unknown one.
    pub fn new(sizes: Vec<(Role, Option<Arc<Size>>)>) -> Self {
        Self(sizes)
    }

    /// Returns the bytes of all inputs; `None` if one is unknown.
    pub fn bytes(&self) -> Option<f64> {
        self.0.iter().map(|(_, size)| size.as_ref()?.bytes).sum()
    }

    /// Returns the images of each input at a port; `None` if one is unknown.
    pub fn images(&self, port: &str) -> Option<Vec<&ImageCounts>> {
        let of_port = self.0.iter().filter(|(role, _)| role.port == port);
        of_port.map(|(_, size)| size.as_ref()?.images.as_ref()).collect()
    }

    /// Returns the images of the first input at a port; `None` if they are unknown.
    pub fn first_images(&self, port: &str) -> Option<&ImageCounts> {
        self.images(port)?.into_iter().next()
    }

    /// Returns the rows of the input at a port; `None` if they are unknown.
    pub fn rows(&self, port: &str) -> Option<RowCount> {
        self.0.iter().find(|(role, _)| role.port == port)?.1.as_ref()?.rows
    }
}

impl Workload {
    /// A workload whose time and outputs nothing predicts.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// A workload of `seconds` beside the fixed cost of every task, with one output.
    pub fn of(seconds: f64, output: &'static str, size: Size) -> Self {
        Self { seconds: Some(TASK_SECONDS + seconds), outputs: vec![(output, size)], ..Self::default() }
    }

    /// Adds the fields that decide the outputs, and a warning.
    #[must_use]
    pub fn deciding(self, fields: Fields, warning: Option<String>) -> Self {
        Self { deciding: Some(fields), warnings: warning.into_iter().collect(), ..self }
    }

    /// Returns the size of an output; `None` if it is unknown.
    pub fn output(&self, name: &str) -> Option<&Size> {
        self.outputs.iter().find(|(output, _)| *output == name).map(|(_, size)| size)
    }

    /// Returns what a record keeps of it; `None` if the work is unknown.
    pub fn work(&self) -> Option<Work> {
        let numbers: Option<f64> = self.outputs.iter().map(|(_, size)| size.numbers()).sum();
        let numbers = numbers.filter(|&numbers| numbers > 0.0);
        self.seconds.map(|seconds| Work { seconds, formulas: FORMULAS, numbers })
    }
}

/// Returns the number of positions (patches, pixels) of the selected images of several sets.
pub fn selected_positions(sets: &[&ImageCounts], selection: &Selection) -> f64 {
    sets.iter().map(|set| set.selected(selection) * set.positions).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::image_set::Label;
    use crate::artifacts::size::ImageClass;

    #[test]
    fn one_unknown_input_makes_the_port_unknown() {
        let class = ImageClass { split: "train".to_owned(), label: Label::Normal, count: 2.0 };
        let known = Size::of_images(ImageCounts { classes: vec![class], positions: 3.0, channels: 1.0 });
        let (one, other) = (Role::indexed("features", 0), Role::indexed("features", 1));
        let sizes = InputSizes::new(vec![(one.clone(), Some(Arc::new(known.clone()))), (other, None)]);
        assert!(sizes.images("features").is_none() && sizes.bytes().is_none());
        assert_eq!(sizes.images("masks"), Some(Vec::new()), "a port without inputs reads nothing");
        let sizes = InputSizes::new(vec![(one, Some(Arc::new(known)))]);
        let all = Selection { split: None, label: None };
        assert!((selected_positions(&sizes.images("features").unwrap(), &all) - 6.0).abs() < 1e-12);
    }
}
