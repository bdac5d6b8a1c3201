//! Connects ports to outputs, for every stage and combination, and checks that they fit.
//!
//! What a port is connected to depends on the stage's own fields, on which upstream stages are present, and on their
//! outputs. Each distinct case is resolved once.

use std::collections::{BTreeMap, BTreeSet};

use super::axis::Combination;
use super::diagnostic::Diagnostic;
use super::experiment::{ResolvedPort, ResolvedStage};
use super::index::{ParsedIndex, ResolvedIndex, StageIndex};
use super::outline::Outline;
use super::problems::with_values;
use super::specs::{Link, ParsedStage, Specs, StageState};
use crate::artifacts::Artifact;
use crate::stages::fields::{Access, is_path, nearest, stages_for, suggestion};

/// A port to a stage that `when` excludes from the variant.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub(super) path: Vec<String>,
    pub(super) target: StageIndex,
}

/// Every stage, with its ports connected.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    pub(super) resolved: Vec<ResolvedStage>,
    /// For each resolved stage, its ports to absent stages.
    gaps: Vec<Vec<Gap>>,
    /// Combinations × stages; `None` if the stage is absent or its kind is a mistake.
    pub(super) table: Vec<Option<ResolvedIndex>>,
}

impl Wiring {
    /// Returns a resolved stage.
    pub(super) fn resolved(&self, index: ResolvedIndex) -> &ResolvedStage {
        &self.resolved[index.index()]
    }

    /// Returns the ports of a resolved stage that lead to absent stages.
    pub(super) fn gaps(&self, index: ResolvedIndex) -> &[Gap] {
        &self.gaps[index.index()]
    }

    /// Returns the stages that a combination needs: its targets and everything upstream of them.
    pub(super) fn needed(
        &self,
        targets: Vec<StageIndex>,
        row: &[Option<ResolvedIndex>],
    ) -> BTreeSet<StageIndex> {
        let mut needed = BTreeSet::new();
        let mut waiting = targets;
        while let Some(stage) = waiting.pop() {
            if let (true, Some(index)) = (needed.insert(stage), row[stage.0]) {
                waiting.extend(self.resolved(index).upstream());
            }
        }
        needed
    }

    fn push(&mut self, (resolved, gaps): (ResolvedStage, Vec<Gap>)) -> ResolvedIndex {
        self.resolved.push(resolved);
        self.gaps.push(gaps);
        ResolvedIndex(self.resolved.len() as u32 - 1)
    }
}

/// Connects every stage in every combination.
pub(super) fn connect(outline: &Outline<'_>, specs: &Specs, found: &mut Vec<Diagnostic>) -> Wiring {
    let mut wiring = Wiring::default();
    let mut known: Vec<BTreeMap<Vec<u32>, ResolvedIndex>> = vec![BTreeMap::new(); outline.stages.len()];
    let mut case = Vec::new();
    for (row, combination) in outline.grid.combinations.iter().enumerate() {
        for (stage, known) in known.iter_mut().enumerate() {
            let stage = StageIndex(stage);
            let StageState::Parsed(index) = specs.state(stage, row) else {
                wiring.table.push(None);
                continue;
            };
            let parsed = specs.parsed(stage, index);
            describe(&mut case, index, parsed, specs, row);
            let resolved = known.get(&case[..]).copied().unwrap_or_else(|| {
                let mut connector = Connector { outline, specs, row, combination, stage, found };
                let index = wiring.push(connector.resolve(parsed));
                known.insert(case.clone(), index);
                index
            });
            wiring.table.push(Some(resolved));
        }
    }
    wiring
}

/// Writes everything that the connections of a stage depend on to `case`.
fn describe(case: &mut Vec<u32>, index: ParsedIndex, parsed: &ParsedStage, specs: &Specs, row: usize) {
    case.clear();
    case.push(index.0);
    for link in &parsed.links {
        case.push(match specs.state(link.stage, row) {
            StageState::Absent => 0,
            StageState::UnknownKind => 1,
            StageState::Parsed(index) => 2 + specs.parsed(link.stage, index).outputs_index.0,
        });
    }
}

/// Connects the ports of one stage in one combination.
struct Connector<'a> {
    outline: &'a Outline<'a>,
    specs: &'a Specs,
    /// Index of the combination.
    row: usize,
    combination: &'a Combination,
    stage: StageIndex,
    found: &'a mut Vec<Diagnostic>,
}

impl Connector<'_> {
    fn resolve(&mut self, parsed: &ParsedStage) -> (ResolvedStage, Vec<Gap>) {
        let mut ports: Vec<ResolvedPort> = Vec::new();
        let mut gaps = Vec::new();
        for link in &parsed.links {
            if self.state(link) == StageState::Absent {
                if link.access != Access::Unread && self.is_gap(link, parsed) {
                    gaps.push(Gap { path: link.path(), target: link.stage });
                }
            } else if let Some((output, artifact)) = self.output(link) {
                let index = link.index.map(|_| ports.iter().filter(|port| port.field == link.field).count());
                let port = ResolvedPort {
                    field: link.field.clone(),
                    index,
                    stage: link.stage,
                    output,
                    artifact,
                    access: link.access,
                };
                self.check_repeated(&ports, &port, link);
                ports.push(port);
            }
        }
        (ResolvedStage { spec: parsed.spec.clone(), ports }, gaps)
    }

    fn state(&self, link: &Link) -> StageState {
        self.specs.state(link.stage, self.row)
    }

    /// Returns whether an absent stage is a gap. A list leaves absent members out; if all are absent, its first
    /// member is the gap.
    fn is_gap(&self, link: &Link, parsed: &ParsedStage) -> bool {
        let mut members = parsed.links.iter().filter(|other| other.field == link.field);
        match link.index {
            None => true,
            Some(index) => {
                members.clone().all(|other| self.state(other) == StageState::Absent)
                    && members.next().is_some_and(|first| first.index == Some(index))
            }
        }
    }

    /// The output that a link names; `None` after a mistake, or if the upstream kind is one.
    fn output(&mut self, link: &Link) -> Option<(String, Artifact)> {
        let StageState::Parsed(index) = self.state(link) else { return None };
        let upstream = self.specs.parsed(link.stage, index);
        let output = match &link.output {
            None => upstream.outputs.first(),
            Some(name) => upstream.outputs.iter().find(|(known, _)| known == name),
        };
        let Some((name, artifact)) = output else {
            if upstream.is_sound {
                self.unknown_output(link, upstream);
            }
            return None;
        };
        if !link.expects.accepts(*artifact) {
            self.wrong_artifact(link, upstream, *artifact);
        }
        Some((name.clone(), *artifact))
    }

    /// Reports a mistake at `path`, unless the field has a `${…}` that could not be filled in.
    fn push(&mut self, mut diagnostic: Diagnostic, path: &[String]) {
        let uses = &self.outline.stage(self.stage).uses;
        if uses.is_broken_at(path) {
            return;
        }
        for axis in uses.axes_at(path) {
            diagnostic = with_values(diagnostic, self.outline.grid.axis(axis), &[self.combination[axis]]);
        }
        self.found.push(diagnostic);
    }

    fn unknown_output(&mut self, link: &Link, giver: &ParsedStage) {
        let path = link.path();
        let names: Vec<&str> = giver.outputs.iter().map(|(name, _)| name.as_str()).collect();
        let upstream = self.outline.stage(link.stage);
        let (name, output) = (&upstream.name, link.output.as_deref().unwrap_or_default());
        let reference = format!("{name}.{output}");
        let help = if is_path(&reference) && nearest(output, &names).is_none() {
            let taken: Vec<&str> = self.outline.stages.iter().map(|stage| stage.name.as_str()).collect();
            stages_for(&link.field, &reference, link.expects, &taken)
        } else {
            suggestion(output, &names)
        };
        let diagnostic =
            Diagnostic::new("stage::unknown_output", format!("stage `{name}` has no output `{output}`"))
                .at(self.outline.stage(self.stage).span(&path), "not an output")
                .at(upstream.header, "of this stage")
                .help(help);
        self.push(diagnostic, &path);
    }

    fn wrong_artifact(&mut self, link: &Link, giver: &ParsedStage, artifact: Artifact) {
        let path = link.path();
        let upstream = self.outline.stage(link.stage);
        let (field, expects) = (&link.field, link.expects);
        let reference = match &link.output {
            Some(output) => format!("{}.{output}", upstream.name),
            None => upstream.name.to_string(),
        };
        let message = format!("`{field}` needs {expects}, but `{reference}` gives {artifact}");
        let mut diagnostic = Diagnostic::new("stage::wrong_artifact", message)
            .at(self.outline.stage(self.stage).span(&path), format!("this needs {expects}"))
            .at(upstream.header, format!("this gives {artifact}"));
        diagnostic.help = Some(self.who_gives(link, giver));
        self.push(diagnostic, &path);
    }

    /// Names the outputs that would fit: of the same stage, else of other stages.
    fn who_gives(&self, link: &Link, giver: &ParsedStage) -> String {
        let fits = |(_, artifact): &&(String, Artifact)| link.expects.accepts(*artifact);
        if let Some((output, _)) = giver.outputs.iter().find(fits) {
            return format!("write `{}.{output}`", self.outline.stage(link.stage).name);
        }
        let mut names = Vec::new();
        for other in (0..self.outline.stages.len()).map(StageIndex).filter(|&other| other != self.stage) {
            let Some(parsed) = self.specs.all_of(other).first() else { continue };
            for (index, (output, _)) in parsed.outputs.iter().enumerate().filter(|(_, one)| fits(one)) {
                let name = &self.outline.stage(other).name;
                names.push(if index == 0 { format!("`{name}`") } else { format!("`{name}.{output}`") });
            }
        }
        match names.len() {
            0 => format!("add a stage that gives {}", link.expects),
            1 => format!("write {}", names[0]),
            _ => format!("write one of {}", names.join(", ")),
        }
    }

    /// Reports an output that a list names twice.
    fn check_repeated(&mut self, ports: &[ResolvedPort], port: &ResolvedPort, link: &Link) {
        let is_same = |other: &&ResolvedPort| {
            (&other.field, other.stage, &other.output) == (&port.field, port.stage, &port.output)
        };
        if ports.iter().any(|other| is_same(&other)) {
            let name = &self.outline.stage(port.stage).name;
            let path = link.path();
            let diagnostic =
                Diagnostic::new("stage::repeated_stage", format!("`{}` names `{name}` twice", port.field))
                    .at(self.outline.stage(self.stage).span(&path), "again here")
                    .help("remove one of them");
            self.push(diagnostic, &path);
        }
    }
}
