//! The targets of a manifest, and the stages that none of them needs.

use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Span};
use super::experiment::{Unneeded, default_targets};
use super::index::StageIndex;
use super::outline::Outline;
use super::wiring::Wiring;
use crate::stages::fields::suggestion;

/// The stages that are run for their own sake. Each list may be empty; the default is then taken instead.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// Those that `targets` of `[experiment]` names.
    pub(super) of_manifest: Vec<StageIndex>,
    /// Those that `--target` names.
    pub(super) of_command_line: Vec<StageIndex>,
}

impl Targets {
    /// Returns the names of the targets: of the command line, else of the manifest.
    pub(super) fn names(&self, outline: &Outline<'_>) -> Vec<String> {
        let named = if self.of_command_line.is_empty() { &self.of_manifest } else { &self.of_command_line };
        named.iter().map(|&stage| outline.stage(stage).name.to_string()).collect()
    }
}

/// Finds the stages that `targets` of `[experiment]` names; reports unknown and repeated ones.
pub(super) fn of_manifest(outline: &Outline<'_>, found: &mut Vec<Diagnostic>) -> Vec<StageIndex> {
    let mut targets = Vec::new();
    for (name, span) in &outline.head.targets {
        match outline.find(name) {
            Some(stage) if targets.contains(&stage) => found.push(
                Diagnostic::new("experiment::repeated_target", format!("`targets` names `{name}` twice"))
                    .at(*span, "again here")
                    .help("remove one of them"),
            ),
            Some(stage) => targets.push(stage),
            None => found.push(unknown_stage(name, *span, outline)),
        }
    }
    targets
}

/// The mistake of a target that is no stage.
pub(super) fn unknown_stage(name: &str, span: Span, outline: &Outline<'_>) -> Diagnostic {
    let names: Vec<&str> = outline.stages.iter().map(|stage| stage.name.as_str()).collect();
    Diagnostic::new("stage::unknown_stage", format!("no stage `{name}`"))
        .at(span, "not a stage")
        .help(suggestion(name, &names))
}

/// Finds the stages that are in some variant and that no target of any variant needs. A stage that a needed one names and
/// does not read, such as the defect bank of a model with one bank, counts as needed: that choice is written down. With
/// `--target` nothing is unneeded, since the user asked for a part.
pub(super) fn unneeded(outline: &Outline<'_>, wiring: &Wiring, targets: &Targets) -> Unneeded {
    if !targets.of_command_line.is_empty() {
        return Unneeded::default();
    }
    let rows: BTreeSet<_> = wiring.table.chunks(outline.stages.len().max(1)).collect();
    let (mut present, mut needed, mut all_targets) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for row in rows {
        present.extend((0..row.len()).map(StageIndex).filter(|stage| row[stage.0].is_some()));
        let mut waiting = if targets.of_manifest.is_empty() {
            default_targets(row, &wiring.resolved)
        } else {
            targets.of_manifest.clone()
        };
        waiting.retain(|stage| row[stage.0].is_some());
        all_targets.extend(waiting.iter().copied());
        while let Some(stage) = waiting.pop() {
            if let (true, Some(index)) = (needed.insert((row, stage)), row[stage.0]) {
                waiting.extend(wiring.resolved(index).ports.iter().map(|port| port.stage));
            }
        }
    }
    let needed: BTreeSet<StageIndex> = needed.into_iter().map(|(_, stage)| stage).collect();
    let unneeded: BTreeSet<StageIndex> = present.difference(&needed).copied().collect();
    let read_by = |stage: StageIndex| {
        let resolved = wiring.table.iter().skip(stage.0).step_by(outline.stages.len().max(1));
        resolved.flatten().flat_map(|&index| &wiring.resolved(index).ports).map(|port| port.stage)
    };
    let read: BTreeSet<StageIndex> = unneeded.iter().flat_map(|&stage| read_by(stage)).collect();
    let names = |stages: Vec<StageIndex>| -> Vec<String> {
        stages.into_iter().map(|stage| outline.stage(stage).name.to_string()).collect()
    };
    Unneeded {
        ends: names(unneeded.difference(&read).copied().collect()),
        stages: names(unneeded.into_iter().collect()),
        targets: names(all_targets.into_iter().collect()),
    }
}
