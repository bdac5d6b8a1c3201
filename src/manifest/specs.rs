//! Reads the fields of every stage, once for each set of values of the axes that it uses.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::Diagnostic;
use super::grid::Grid;
use super::problems::{axes_of, is_broken, located, with_values};
use super::raw::find;
use super::stage::{OWN_FIELDS, RawStage};
use super::substitute::{SEED, fill};
use crate::artifacts::Artifact;
use crate::stages::fields::{Access, Fields, Port, Problem, Reader, Value, suggestion};
use crate::stages::{Kind, Spec};

/// A reference to another stage's output.
pub(super) struct Link {
    pub(super) field: String,
    pub(super) index: Option<usize>,
    pub(super) stage: usize,
    /// `None` for the first one.
    pub(super) output: Option<String>,
    pub(super) expects: Artifact,
    pub(super) access: Access,
}

impl Link {
    /// Whether the stage depends on it.
    pub(super) fn is_read(&self) -> bool {
        self.access == Access::Read
    }

    /// The field's path within the stage.
    pub(super) fn path(&self) -> Vec<String> {
        path_of(&self.field, self.index)
    }
}

fn path_of(field: &str, index: Option<usize>) -> Vec<String> {
    let mut path: Vec<String> = field.split('.').map(str::to_owned).collect();
    path.extend(index.map(|index| index.to_string()));
    path
}

/// One reading of a stage's fields.
pub(super) struct Reading {
    pub(super) spec: Spec,
    pub(super) links: Vec<Link>,
    pub(super) outputs: Vec<(String, Artifact)>,
    /// Equal for readings of the stage with equal outputs.
    pub(super) outputs_id: u32,
    /// Whether its fields are free of mistakes.
    pub(super) is_sound: bool,
}

/// What a stage is in one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `when` keeps it out.
    Absent,
    /// It is there, but its kind is a mistake.
    Unknown,
    /// It is there, with that reading.
    Read(u32),
}

/// Every stage's readings, and which one belongs to which combination.
pub(super) struct Specs {
    /// By stage.
    pub(super) readings: Vec<Vec<Reading>>,
    /// By stage, then by combination.
    pub(super) states: Vec<Vec<State>>,
}

/// Reads every stage; mistakes go to `found`.
pub(super) fn read(stages: &[RawStage<'_>], grid: &Grid, seed: u64, found: &mut Vec<Diagnostic>) -> Specs {
    let mut specs = Specs { readings: Vec::new(), states: Vec::new() };
    for place in 0..stages.len() {
        let mut reader = StageReader::new(stages, place, grid, seed);
        let states = reader.states();
        reader.report(found);
        specs.readings.push(reader.readings);
        specs.states.push(states);
    }
    specs
}

type Occurrences = BTreeMap<(Vec<String>, bool, &'static str, String, Option<String>), Vec<usize>>;

struct StageReader<'a> {
    stages: &'a [RawStage<'a>],
    stage: &'a RawStage<'a>,
    grid: &'a Grid,
    seed: u64,
    axes: Vec<usize>,
    readings: Vec<Reading>,
    outputs: Vec<Vec<(String, Artifact)>>,
    /// The combinations for which the fields were read.
    seen: Vec<&'a [u32]>,
    /// For each problem the places in `seen` at which it occurs.
    problems: Occurrences,
}

impl<'a> StageReader<'a> {
    fn new(stages: &'a [RawStage<'a>], place: usize, grid: &'a Grid, seed: u64) -> Self {
        let stage = &stages[place];
        Self {
            stages,
            stage,
            grid,
            seed,
            axes: axes_of(&stage.uses, &[]),
            readings: Vec::new(),
            outputs: Vec::new(),
            seen: Vec::new(),
            problems: Occurrences::new(),
        }
    }

    /// The state for each combination. The reading is found by the values of the stage's own axes alone.
    fn states(&mut self) -> Vec<State> {
        let length = |&axis: &usize| self.grid.axes[axis].values.len().max(1);
        let lengths: Vec<usize> = self.axes.iter().map(length).collect();
        let mut known: Vec<Option<u32>> = vec![None; lengths.iter().product()];
        let mut states = Vec::with_capacity(self.grid.combinations.len());
        for combination in &self.grid.combinations {
            states.push(match self.stage.kind {
                _ if !self.stage.is_in(combination) => State::Absent,
                None => State::Unknown,
                Some(kind) => {
                    let mix = |place, (axis, length): (&usize, &usize)| {
                        place * length + combination[*axis] as usize
                    };
                    let place = self.axes.iter().zip(&lengths).fold(0, mix);
                    State::Read(*known[place].get_or_insert_with(|| self.read(kind, combination)))
                }
            });
        }
        states
    }

    fn read(&mut self, kind: Kind, combination: &'a [u32]) -> u32 {
        let fields = self.fields(combination);
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&fields, &mut problems, &mut ports);
        let spec = kind.read(&mut reader);
        reader.finish();
        let links = ports.iter().filter_map(|port| self.link(port, &mut problems)).collect();
        problems.retain(|problem| !is_broken(&self.stage.uses, &problem.path));
        let is_sound = problems.is_empty() && !self.stage.uses.iter().any(|one| one.is_broken);
        for problem in problems {
            let Problem { path, at_name, code, message, help } = self.improve(problem);
            self.problems.entry((path, at_name, code, message, help)).or_default().push(self.seen.len());
        }
        self.seen.push(combination);
        let outputs = spec.outputs();
        let outputs_id = self.outputs.iter().position(|known| *known == outputs).unwrap_or_else(|| {
            self.outputs.push(outputs.clone());
            self.outputs.len() - 1
        }) as u32;
        self.readings.push(Reading { spec, links, outputs, outputs_id, is_sound });
        self.readings.len() as u32 - 1
    }

    fn fields(&self, combination: &[u32]) -> Fields {
        fill(self.stage.table, &OWN_FIELDS, &|name| match self
            .grid
            .axes
            .iter()
            .position(|axis| axis.name.as_str() == name)
        {
            Some(axis) => {
                let values = &self.grid.axes[axis].values;
                values.get(combination[axis] as usize).map(|(value, _)| value.clone())
            }
            None => (name == SEED).then_some(Value::Integer(self.seed as i64)),
        })
    }

    fn link(&self, port: &Port, problems: &mut Vec<Problem>) -> Option<Link> {
        let (stage, output) = self.resolve(&port.reference, path_of(&port.field, port.index), problems)?;
        let Port { field, index, reference: _, expects, access } = port.clone();
        Some(Link { field, index, stage, output, expects, access })
    }

    /// The stage and output of `stage` or `stage.output`.
    fn resolve(
        &self,
        reference: &str,
        path: Vec<String>,
        problems: &mut Vec<Problem>,
    ) -> Option<(usize, Option<String>)> {
        let (name, output) = match reference.split_once('.') {
            Some((name, output)) => (name, Some(output.to_owned())),
            None => (reference, None),
        };
        if let Some(stage) = self.stages.iter().position(|stage| stage.name.as_str() == name) {
            return Some((stage, output));
        }
        let others = self.stages.iter().filter(|stage| stage.name != self.stage.name);
        let names: Vec<&str> = others.map(|stage| stage.name.as_str()).collect();
        problems.push(Problem {
            path,
            at_name: false,
            code: "unknown_stage",
            message: format!("no stage `{name}`"),
            help: Some(suggestion(name, &names)),
        });
        None
    }

    /// The reader does not know the fields that every stage has.
    fn improve(&self, mut problem: Problem) -> Problem {
        if let ("unknown_field", [name]) = (problem.code, &problem.path[..]) {
            let near = OWN_FIELDS.iter().find(|own| strsim::jaro_winkler(name, own) > 0.8);
            if let Some(near) = near {
                problem.help = Some(format!("did you mean `{near}`?"));
            }
            let kind = self.stage.kind.map_or("", Kind::name);
            problem.message = format!("`{kind}` has no field `{name}`");
        }
        problem
    }

    /// Puts the problems onto the text and names the values of axes for which alone they hold.
    fn report(&mut self, found: &mut Vec<Diagnostic>) {
        for ((path, at_name, code, message, help), places) in std::mem::take(&mut self.problems) {
            let direct = if find(self.stage.table, &path).is_some() && !at_name {
                axes_of(&self.stage.uses, &path)
            } else {
                Vec::new()
            };
            let problem = Problem { path, at_name, code, message, help };
            let mut diagnostic = located("stage", &problem, self.stage.table, self.stage.header);
            for &axis in &self.axes {
                let here: BTreeSet<u32> = places.iter().map(|&place| self.seen[place][axis]).collect();
                let all: BTreeSet<u32> = self.seen.iter().map(|seen| seen[axis]).collect();
                if direct.contains(&axis) || here.len() < all.len() {
                    let here: Vec<u32> = here.into_iter().collect();
                    diagnostic = with_values(diagnostic, &self.grid.axes[axis], &here);
                }
            }
            found.push(diagnostic);
        }
    }
}
