//! Connects ports to outputs, for every stage and combination, and checks that they fit.
//!
//! What a port is connected to depends on the stage's own fields, on whether the other stage is there and on
//! the other stage's outputs, and on nothing else: each such case is resolved once.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Diagnostic, Span};
use super::experiment::{Resolved, ResolvedPort};
use super::grid::Grid;
use super::problems::{axes_of, is_broken, with_values};
use super::raw::find;
use super::specs::{Link, Reading, Specs, State};
use super::stage::RawStage;
use crate::artifacts::Artifact;
use crate::stages::fields::{Access, suggestion};

/// A port whose stage `when` keeps out of the variant.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub(super) path: Vec<String>,
    pub(super) target: usize,
}

/// Every case of every stage.
#[derive(Debug, Default)]
pub(super) struct Wiring {
    pub(super) resolved: Vec<Resolved>,
    /// For each case the ports that lead nowhere.
    pub(super) gaps: Vec<Vec<Gap>>,
    /// Combinations × stages; `None` where the stage is not there or its kind is a mistake.
    pub(super) places: Vec<Option<u32>>,
}

/// Connects everything; mistakes go to `found`.
pub(super) fn connect(
    stages: &[RawStage<'_>],
    specs: &Specs,
    grid: &Grid,
    found: &mut Vec<Diagnostic>,
) -> Wiring {
    let mut wiring = Wiring::default();
    let mut known: Vec<BTreeMap<Vec<u32>, u32>> = vec![BTreeMap::new(); stages.len()];
    let mut case = Vec::new();
    for (row, combination) in grid.combinations.iter().enumerate() {
        for (stage, known) in known.iter_mut().enumerate() {
            let State::Read(reading) = specs.states[stage][row] else {
                wiring.places.push(None);
                continue;
            };
            let one = &specs.readings[stage][reading as usize];
            describe(&mut case, reading, one, specs, row);
            let place = known.get(&case[..]).copied().unwrap_or_else(|| {
                let mut connector = Connector { stages, specs, grid, row, combination, stage, found };
                let (resolved, gaps) = connector.resolve(one);
                wiring.resolved.push(resolved);
                wiring.gaps.push(gaps);
                let place = wiring.resolved.len() as u32 - 1;
                known.insert(case.clone(), place);
                place
            });
            wiring.places.push(Some(place));
        }
    }
    wiring
}

/// Writes down all that the case depends on.
fn describe(case: &mut Vec<u32>, reading: u32, one: &Reading, specs: &Specs, row: usize) {
    case.clear();
    case.push(reading);
    for link in &one.links {
        case.push(match specs.states[link.stage][row] {
            State::Absent => 0,
            State::Unknown => 1,
            State::Read(reading) => 2 + specs.readings[link.stage][reading as usize].outputs_id,
        });
    }
}

struct Connector<'a> {
    stages: &'a [RawStage<'a>],
    specs: &'a Specs,
    grid: &'a Grid,
    row: usize,
    combination: &'a [u32],
    stage: usize,
    found: &'a mut Vec<Diagnostic>,
}

impl Connector<'_> {
    fn resolve(&mut self, reading: &Reading) -> (Resolved, Vec<Gap>) {
        let mut ports: Vec<ResolvedPort> = Vec::new();
        let mut gaps = Vec::new();
        for link in &reading.links {
            if self.state(link) == State::Absent {
                if link.access != Access::Unread && self.is_gap(link, reading) {
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
                self.refuse_twice(&ports, &port, link);
                ports.push(port);
            }
        }
        (Resolved { spec: reading.spec.clone(), ports }, gaps)
    }

    fn state(&self, link: &Link) -> State {
        self.specs.states[link.stage][self.row]
    }

    /// A member drops out of its list, unless none is left; then the first one stands for all.
    fn is_gap(&self, link: &Link, reading: &Reading) -> bool {
        let mut members = reading.links.iter().filter(|other| other.field == link.field);
        match link.index {
            None => true,
            Some(index) => {
                members.clone().all(|other| self.state(other) == State::Absent)
                    && members.next().is_some_and(|first| first.index == Some(index))
            }
        }
    }

    /// The output that a link names; `None` after a mistake or where the kind is one.
    fn output(&mut self, link: &Link) -> Option<(String, Artifact)> {
        let State::Read(reading) = self.state(link) else { return None };
        let given = &self.specs.readings[link.stage][reading as usize];
        let output = match &link.output {
            None => given.outputs.first(),
            Some(name) => given.outputs.iter().find(|(known, _)| known == name),
        };
        let Some((name, artifact)) = output else {
            if given.is_sound {
                self.unknown_output(link, given);
            }
            return None;
        };
        if !link.expects.accepts(*artifact) {
            self.wrong_artifact(link, given, *artifact);
        }
        Some((name.clone(), *artifact))
    }

    fn push(&mut self, mut diagnostic: Diagnostic, path: &[String]) {
        let stage = &self.stages[self.stage];
        if is_broken(&stage.uses, path) {
            return;
        }
        for axis in axes_of(&stage.uses, path) {
            diagnostic = with_values(diagnostic, &self.grid.axes[axis], &[self.combination[axis]]);
        }
        self.found.push(diagnostic);
    }

    fn span(&self, path: &[String]) -> Span {
        place(&self.stages[self.stage], path)
    }

    fn unknown_output(&mut self, link: &Link, given: &Reading) {
        let path = link.path();
        let names: Vec<&str> = given.outputs.iter().map(|(name, _)| name.as_str()).collect();
        let upstream = &self.stages[link.stage];
        let (name, output) = (&upstream.name, link.output.as_deref().unwrap_or_default());
        let diagnostic =
            Diagnostic::new("stage::unknown_output", format!("stage `{name}` has no output `{output}`"))
                .at(self.span(&path), "not an output")
                .at(upstream.header, "of this stage")
                .help(suggestion(output, &names));
        self.push(diagnostic, &path);
    }

    fn wrong_artifact(&mut self, link: &Link, given: &Reading, artifact: Artifact) {
        let path = link.path();
        let upstream = &self.stages[link.stage];
        let (field, expects) = (&link.field, link.expects);
        let reference = match &link.output {
            Some(output) => format!("{}.{output}", upstream.name),
            None => upstream.name.to_string(),
        };
        let message = format!("`{field}` needs {expects}, but `{reference}` gives {artifact}");
        let mut diagnostic = Diagnostic::new("stage::wrong_artifact", message)
            .at(self.span(&path), format!("this needs {expects}"))
            .at(upstream.header, format!("this gives {artifact}"));
        diagnostic.help = Some(self.who_gives(link, given));
        self.push(diagnostic, &path);
    }

    /// Names the outputs that would fit: of the same stage, else of others.
    fn who_gives(&self, link: &Link, given: &Reading) -> String {
        let fits = |(_, artifact): &&(String, Artifact)| link.expects.accepts(*artifact);
        if let Some((output, _)) = given.outputs.iter().find(fits) {
            return format!("write `{}.{output}`", self.stages[link.stage].name);
        }
        let mut names = Vec::new();
        for (other, readings) in self.specs.readings.iter().enumerate() {
            let Some(reading) = readings.first().filter(|_| other != self.stage) else { continue };
            for (place, (output, _)) in reading.outputs.iter().enumerate().filter(|(_, one)| fits(one)) {
                let name = &self.stages[other].name;
                names.push(if place == 0 { format!("`{name}`") } else { format!("`{name}.{output}`") });
            }
        }
        match names.len() {
            0 => format!("add a stage that gives {}", link.expects),
            1 => format!("write {}", names[0]),
            _ => format!("write one of {}", names.join(", ")),
        }
    }

    fn refuse_twice(&mut self, ports: &[ResolvedPort], port: &ResolvedPort, link: &Link) {
        let is_same = |other: &&ResolvedPort| {
            (&other.field, other.stage, &other.output) == (&port.field, port.stage, &port.output)
        };
        if ports.iter().any(|other| is_same(&other)) {
            let name = &self.stages[port.stage].name;
            let path = link.path();
            let diagnostic =
                Diagnostic::new("stage::repeated_stage", format!("`{}` names `{name}` twice", port.field))
                    .at(self.span(&path), "again here")
                    .help("remove one of them");
            self.push(diagnostic, &path);
        }
    }
}

/// Where a stage's field is written, else its header.
pub(super) fn place(stage: &RawStage<'_>, path: &[String]) -> Span {
    find(stage.table, path).map_or(stage.header, |place| place.value)
}

/// The stages that a combination needs: its targets and, through what is read, everything before them.
pub(super) fn needed(targets: Vec<usize>, row: &[Option<u32>], resolved: &[Resolved]) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut waiting = targets;
    while let Some(stage) = waiting.pop() {
        if !needed.insert(stage) {
            continue;
        }
        if let Some(place) = row[stage] {
            let ports = resolved[place as usize].ports.iter().filter(|port| port.is_read());
            waiting.extend(ports.map(|port| port.stage));
        }
    }
    needed
}
