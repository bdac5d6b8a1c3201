//! A checked manifest, as planning sees it.

use super::diagnostic::SourceText;
use super::index::{ResolvedIndex, StageIndex};
use super::names::{AxisName, StageName, VariantId};
use crate::artifacts::Artifact;
use crate::stages::fields::{Access, Fields, Value};
use crate::stages::{Kind, Shape, Spec};

/// A named list of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// The name.
    pub name: AxisName,
    /// The values, in the order of the manifest.
    pub values: Vec<Value>,
    /// Whether tables show statistics over it.
    pub is_repeat: bool,
}

/// One combination of axis values.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The name.
    pub id: VariantId,
    /// The value on each axis, in the order of the axes.
    pub values: Vec<(AxisName, Value)>,
    /// The seed of its random stages: the value of the axis `seed` if there is one, else `experiment.seed`.
    pub seed: u64,
}

/// Name and kind of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredStage {
    /// The name.
    pub name: StageName,
    /// The kind.
    pub kind: Kind,
}

/// A stage with its fields checked and its ports connected, as it is in one or more variants.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedStage {
    /// The checked fields.
    pub spec: Spec,
    /// The connected ports, in the order in which the kind reads them.
    pub ports: Vec<ResolvedPort>,
}

/// A connected port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedPort {
    /// The field that holds the reference; dotted if the field is in an inner table.
    pub field: String,
    /// Index among the connected members of a list, without gaps; `None` for a single port.
    pub index: Option<usize>,
    /// The upstream stage.
    pub stage: StageIndex,
    /// The output of that stage.
    pub output: String,
    /// The artifact of that output.
    pub artifact: Artifact,
    /// What the stage uses the port for.
    pub access: Access,
}

/// The stages of a manifest that no target needs, so that they never run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    /// Their names, in the order of the manifest.
    pub stages: Vec<String>,
    /// Those of them that no other of them reads: as targets, they make all of them run.
    pub ends: Vec<String>,
    /// The names of the targets.
    pub targets: Vec<String>,
}

impl ResolvedStage {
    /// Returns the upstream stage and output of a single port.
    pub fn wired(&self, port: &str) -> Option<(StageIndex, &str)> {
        let port = self.ports.iter().find(|known| known.field == port)?;
        Some((port.stage, &port.output))
    }

    /// Iterates over the ports whose members each get a task of their own.
    pub fn fan_out(&self) -> impl Iterator<Item = &ResolvedPort> {
        self.ports.iter().filter(|port| self.spec.port(&port.field).shape == Shape::Each)
    }

    /// Iterates over the ports of the image sets whose features the stage gives: those that each get a task of their own,
    /// else, as for a command, all image sets that it reads.
    pub fn image_sets(&self) -> impl Iterator<Item = &ResolvedPort> {
        let fans_out = self.fan_out().next().is_some();
        self.ports.iter().filter(move |port| {
            let is_each = self.spec.port(&port.field).shape == Shape::Each;
            if fans_out { is_each } else { port.artifact == Artifact::ImageSet && port.is_read() }
        })
    }

    /// Iterates over the stages that this one depends on.
    pub(super) fn upstream(&self) -> impl Iterator<Item = StageIndex> {
        self.ports.iter().filter(|port| port.is_read()).map(|port| port.stage)
    }
}

impl ResolvedPort {
    /// Returns whether the stage depends on the port.
    pub fn is_read(&self) -> bool {
        self.access == Access::Read
    }
}

/// A checked manifest with its grid expanded.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// The name; safe as the name of a folder.
    pub name: String,
    /// The question that the experiment answers.
    pub question: Option<String>,
    /// The axes in the order of the manifest, repeats last.
    pub axes: Vec<Axis>,
    /// The variants in the order of the product, the last axis running fastest.
    pub variants: Vec<Variant>,
    /// The stages in the order of the manifest.
    pub stages: Vec<DeclaredStage>,
    /// The stages that `--target` names, else those that `targets` of `[experiment]` names; empty for the default.
    pub targets: Vec<String>,
    /// The stages that no target needs.
    pub unneeded: Unneeded,
    /// Every text that was read: the manifest, its includes, options of the command line.
    pub sources: Vec<SourceText>,
    /// The whole manifest after includes and `--set`, with each `${axis}` as written. Later runs are compared with it.
    pub document: Fields,
    pub(super) resolved: Vec<ResolvedStage>,
    /// The stages of all variants, row by row: `[variants, stages]`. `None` if `when` excludes the stage.
    pub(super) table: Vec<Option<ResolvedIndex>>,
}

impl Experiment {
    /// Returns a stage as it is in a variant, given by index; `None` if `when` excludes it. Costs one lookup.
    ///
    /// # Panics
    /// If there is no such variant or stage.
    pub fn stage(&self, variant: usize, stage: StageIndex) -> Option<&ResolvedStage> {
        let resolved = self.row(variant)[stage.0]?;
        Some(&self.resolved[resolved.index()])
    }

    /// Finds a stage by name.
    pub fn find(&self, name: &str) -> Option<StageIndex> {
        self.stages.iter().position(|stage| stage.name.as_str() == name).map(StageIndex)
    }

    /// Returns the targets of a variant: the stages that `--target` names; without any, those that the manifest names;
    /// without any, the stages whose kind is a target (`evaluate`); without any, those that no other stage reads.
    pub fn targets_of(&self, variant: usize) -> Vec<StageIndex> {
        let row = self.row(variant);
        if self.targets.is_empty() {
            return default_targets(row, &self.resolved);
        }
        let named = self.targets.iter().filter_map(|name| self.find(name));
        let mut named: Vec<StageIndex> = named.filter(|stage| row[stage.0].is_some()).collect();
        named.sort_unstable();
        named.dedup();
        named
    }

    /// Returns the stages of a variant, in the order of [`Experiment::stages`]; `None` for those that `when`
    /// excludes.
    fn row(&self, variant: usize) -> &[Option<ResolvedIndex>] {
        &self.table[variant * self.stages.len()..][..self.stages.len()]
    }
}

/// Returns the stages of a variant whose kind is a target; if there are none, those that no other stage reads.
pub(super) fn default_targets(row: &[Option<ResolvedIndex>], resolved: &[ResolvedStage]) -> Vec<StageIndex> {
    let present = || {
        let all = row.iter().enumerate();
        all.filter_map(|(stage, &index)| Some((StageIndex(stage), &resolved[index?.index()])))
    };
    let targets: Vec<StageIndex> =
        present().filter(|(_, one)| one.spec.about().is_target).map(|(stage, _)| stage).collect();
    if !targets.is_empty() {
        return targets;
    }
    let mut is_read = vec![false; row.len()];
    for stage in present().flat_map(|(_, one)| one.upstream()) {
        is_read[stage.0] = true;
    }
    present().map(|(stage, _)| stage).filter(|stage| !is_read[stage.0]).collect()
}
