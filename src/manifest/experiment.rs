//! A checked manifest, as planning sees it.

use super::diagnostic::Source;
use super::names::{AxisName, StageName, VariantId};
use crate::artifacts::Artifact;
use crate::stages::fields::{Access, Fields, Value};
use crate::stages::{Kind, Shape, Spec};

/// A named list of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its name.
    pub name: AxisName,
    /// Its values, in the order of the manifest.
    pub values: Vec<Value>,
    /// Whether statistics run over it.
    pub is_repeat: bool,
}

/// One combination of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// Its name.
    pub id: VariantId,
    /// Its value on each axis, in the order of the axes.
    pub values: Vec<(AxisName, Value)>,
    /// The seed of its random stages: the axis `seed` where there is one, else `experiment.seed`.
    pub seed: u64,
}

/// A stage's name and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// What it does.
    pub kind: Kind,
}

/// A stage as it is in a variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Its checked fields.
    pub spec: Spec,
    /// Its connected ports, in the order in which the kind reads them.
    pub ports: Vec<ResolvedPort>,
}

/// A connected port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPort {
    /// The field that names it; with dots where it lies in a table.
    pub field: String,
    /// Its place among the connected members of a list, without gaps; `None` for a single port.
    pub index: Option<usize>,
    /// The stage that it is connected to.
    pub stage: usize,
    /// That stage's output.
    pub output: String,
    /// The type of that output.
    pub artifact: Artifact,
    /// What it means to the stage.
    pub access: Access,
}

impl Resolved {
    /// Returns the stage and output that are wired to a port which takes one.
    pub fn wired(&self, port: &str) -> Option<(usize, &str)> {
        let port = self.ports.iter().find(|known| known.field == port)?;
        Some((port.stage, &port.output))
    }

    /// Iterates over the ports whose members each get a task of their own.
    pub fn fan_out(&self) -> impl Iterator<Item = &ResolvedPort> {
        self.ports.iter().filter(|port| self.spec.port(&port.field).shape == Shape::Each)
    }
}

impl ResolvedPort {
    /// Whether the stage depends on it.
    pub fn is_read(&self) -> bool {
        self.access == Access::Read
    }
}

/// A checked manifest with its grid spread out.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name, usable as a folder.
    pub name: String,
    /// What it asks.
    pub question: Option<String>,
    /// The axes in the order of the manifest, repeats last.
    pub axes: Vec<Axis>,
    /// The variants, in the order of the product, the last axis running fastest.
    pub variants: Vec<Variant>,
    /// The stages in the order of the manifest.
    pub stages: Vec<Stage>,
    /// The stages that the command line asks for; empty for the default.
    pub targets: Vec<String>,
    /// Every text that it was read from: the manifest, its includes, options of the command line.
    pub sources: Vec<Source>,
    /// The whole manifest after includes and `--set`, before `${axis}` is put in: what a later run is
    /// compared with.
    pub document: Fields,
    pub(super) resolved: Vec<Resolved>,
    /// Variants × stages; `None` where `when` keeps the stage out.
    pub(super) places: Vec<Option<u32>>,
}

impl Experiment {
    /// The stage as it is in the variant; `None` where `when` keeps it out. Costs a look into a table.
    ///
    /// # Panics
    /// Where there is no such variant or stage.
    pub fn stage(&self, variant: usize, stage: usize) -> Option<&Resolved> {
        assert!(stage < self.stages.len(), "stage {stage} of {}", self.stages.len());
        let place = self.places[variant * self.stages.len() + stage]?;
        Some(&self.resolved[place as usize])
    }

    /// The stage of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.stages.iter().position(|stage| stage.name.as_str() == name)
    }

    /// The stages that the variant is made for: those asked for on the command line, else its targets, else those
    /// that no other stage of it reads.
    pub fn targets_of(&self, variant: usize) -> Vec<usize> {
        let row = &self.places[variant * self.stages.len()..][..self.stages.len()];
        if self.targets.is_empty() {
            return default_targets(row, &self.resolved);
        }
        let asked = self.targets.iter().filter_map(|name| self.find(name));
        let mut asked: Vec<usize> = asked.filter(|&stage| row[stage].is_some()).collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    }
}

/// The stages of a variant whose kind is a target, else its sinks.
pub(super) fn default_targets(row: &[Option<u32>], resolved: &[Resolved]) -> Vec<usize> {
    let present = || {
        let all = row.iter().enumerate();
        all.filter_map(|(stage, &place)| Some((stage, &resolved[place? as usize])))
    };
    let targets: Vec<usize> =
        present().filter(|(_, one)| one.spec.about().is_target).map(|(stage, _)| stage).collect();
    if !targets.is_empty() {
        return targets;
    }
    let mut is_read = vec![false; row.len()];
    for port in present().flat_map(|(_, one)| &one.ports).filter(|port| port.is_read()) {
        is_read[port.stage] = true;
    }
    present().map(|(stage, _)| stage).filter(|&stage| !is_read[stage]).collect()
}
