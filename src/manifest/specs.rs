//! Parses the fields of every stage, once for each set of values of the axes that it uses.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::axis::{Combination, find_axis};
use super::diagnostic::{Diagnostic, MOST_REPEATS};
use super::index::{AxisIndex, OutputsIndex, ParsedIndex, StageIndex};
use super::outline::Outline;
use super::problems::{located, with_values};
use super::raw::locate;
use super::stage::{OWN_FIELDS, RawStage};
use super::substitute::{SEED, fill};
use crate::artifacts::Artifact;
use crate::stages::fields::{Access, Fields, Port, Problem, ProblemKind, Reader, Value, is_path, nearest};
use crate::stages::{Kind, Spec};

/// A reference to an output of another stage.
pub(super) struct Link {
    pub(super) field: String,
    pub(super) index: Option<usize>,
    pub(super) stage: StageIndex,
    /// `None` for the first output.
    pub(super) output: Option<String>,
    pub(super) expects: Artifact,
    pub(super) access: Access,
}

impl Link {
    /// Whether the stage depends on it.
    pub(super) fn is_read(&self) -> bool {
        self.access == Access::Read
    }

    /// Returns the path of the field within the stage.
    pub(super) fn path(&self) -> Vec<String> {
        path_of(&self.field, self.index)
    }
}

fn path_of(field: &str, index: Option<usize>) -> Vec<String> {
    let mut path: Vec<String> = field.split('.').map(str::to_owned).collect();
    path.extend(index.map(|index| index.to_string()));
    path
}

/// A stage with its fields parsed for one set of axis values.
pub(super) struct ParsedStage {
    pub(super) spec: Spec,
    pub(super) links: Vec<Link>,
    pub(super) outputs: Vec<(String, Artifact)>,
    /// Index of the outputs; equal for stages with equal outputs.
    pub(super) outputs_index: OutputsIndex,
    /// Whether the fields are free of mistakes.
    pub(super) is_sound: bool,
}

/// A stage in one variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StageState {
    /// `when` excludes it.
    Absent,
    /// It is present, but the manifest names no kind that exists.
    UnknownKind,
    /// It is present, with these fields.
    Parsed(ParsedIndex),
}

/// Every stage, parsed.
pub(super) struct Specs {
    /// The parsed forms of each stage: by stage, then by [`ParsedIndex`].
    parsed: Vec<Vec<ParsedStage>>,
    /// The state of each stage in each combination: by stage, then by combination.
    states: Vec<Vec<StageState>>,
}

impl Specs {
    /// Returns the state of a stage in a combination, given by index.
    pub(super) fn state(&self, stage: StageIndex, row: usize) -> StageState {
        self.states[stage.0][row]
    }

    /// Returns a parsed stage.
    pub(super) fn parsed(&self, stage: StageIndex, index: ParsedIndex) -> &ParsedStage {
        &self.parsed[stage.0][index.index()]
    }

    /// Returns everything that a stage was parsed to.
    pub(super) fn all_of(&self, stage: StageIndex) -> &[ParsedStage] {
        &self.parsed[stage.0]
    }

    /// Whether some stage draws random numbers.
    pub(super) fn has_random(&self) -> bool {
        self.parsed.iter().flatten().any(|parsed| parsed.spec.about().is_random)
    }
}

/// Mistakes up to which similar names are searched for each: that takes time for every name of the manifest.
const MOST_SUGGESTED: usize = 100;

/// Parses every stage.
pub(super) fn read(outline: &Outline<'_>, found: &mut Vec<Diagnostic>) -> Specs {
    let mut specs = Specs { parsed: Vec::new(), states: Vec::new() };
    let indices = outline.indices();
    let names: Arc<[String]> = outline.stages.iter().map(|stage| stage.name.to_string()).collect();
    for stage in &outline.stages {
        let mut parser = StageParser::new(outline, (&indices, &names), stage);
        parser.is_suggesting = found.len() < MOST_SUGGESTED;
        let states = parser.states();
        found.extend(parser.diagnostics());
        specs.parsed.push(parser.parsed);
        specs.states.push(states);
    }
    specs
}

struct StageParser<'a> {
    outline: &'a Outline<'a>,
    /// The stages by name, and their names in order.
    indices: &'a HashMap<&'a str, StageIndex>,
    names: &'a Arc<[String]>,
    stage: &'a RawStage<'a>,
    /// Whether similar names are searched for unknown ones.
    is_suggesting: bool,
    /// The axes that the stage's fields use.
    axes: Vec<AxisIndex>,
    parsed: Vec<ParsedStage>,
    /// The distinct lists of outputs.
    outputs: Vec<Vec<(String, Artifact)>>,
    /// The combinations that the fields were parsed for.
    combinations: Vec<&'a Combination>,
    /// For each problem, the indices in `combinations` at which it occurs.
    problems: BTreeMap<Problem, Vec<usize>>,
}

impl<'a> StageParser<'a> {
    fn new(
        outline: &'a Outline<'a>,
        (indices, names): (&'a HashMap<&'a str, StageIndex>, &'a Arc<[String]>),
        stage: &'a RawStage<'a>,
    ) -> Self {
        Self {
            outline,
            indices,
            names,
            stage,
            is_suggesting: true,
            axes: stage.uses.axes_at(&[]),
            parsed: Vec::new(),
            outputs: Vec::new(),
            combinations: Vec::new(),
            problems: BTreeMap::new(),
        }
    }

    /// The state of the stage in each combination. Combinations with equal values on the axes that the stage uses share
    /// one parsed stage.
    fn states(&mut self) -> Vec<StageState> {
        let grid = &self.outline.grid;
        let lengths: Vec<usize> = self.axes.iter().map(|&axis| grid.axis(axis).values.len().max(1)).collect();
        let mut known: Vec<Option<ParsedIndex>> = vec![None; lengths.iter().product()];
        let mut states = Vec::with_capacity(grid.combinations.len());
        for combination in &grid.combinations {
            states.push(match self.stage.kind {
                _ if !self.stage.is_in(combination) => StageState::Absent,
                None => StageState::UnknownKind,
                Some(kind) => {
                    // The values on the stage's axes as one number in mixed radix.
                    let digits = self.axes.iter().zip(&lengths);
                    let number =
                        digits.fold(0, |number, (&axis, length)| number * length + combination[axis].index());
                    StageState::Parsed(*known[number].get_or_insert_with(|| self.parse(kind, combination)))
                }
            });
        }
        states
    }

    fn parse(&mut self, kind: Kind, combination: &'a Combination) -> ParsedIndex {
        let fields = self.fields(combination);
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&fields, &mut problems, &mut ports);
        let spec = kind.read(&mut reader);
        reader.finish();
        let links = ports.iter().filter_map(|port| self.link(port, &mut problems)).collect();
        problems.retain(|problem| !self.stage.uses.is_broken_at(&problem.path));
        let is_sound = problems.is_empty() && !self.stage.uses.has_broken();
        for mut problem in problems {
            add_own_fields(&mut problem, kind);
            self.problems.entry(problem).or_default().push(self.combinations.len());
        }
        self.combinations.push(combination);
        let outputs = spec.outputs();
        let outputs_index = self.outputs_index(&outputs);
        self.parsed.push(ParsedStage { spec, links, outputs, outputs_index, is_sound });
        ParsedIndex(self.parsed.len() as u32 - 1)
    }

    fn outputs_index(&mut self, outputs: &[(String, Artifact)]) -> OutputsIndex {
        let known = self.outputs.iter().position(|known| *known == outputs);
        OutputsIndex(known.unwrap_or_else(|| {
            self.outputs.push(outputs.to_vec());
            self.outputs.len() - 1
        }) as u32)
    }

    /// Returns the fields with each `${…}` filled in.
    fn fields(&self, combination: &Combination) -> Fields {
        let Outline { grid, head, .. } = self.outline;
        fill(self.stage.table, &OWN_FIELDS, &|name| match find_axis(&grid.axes, name) {
            Some(axis) => grid.axis(axis).value(combination[axis]).map(|(value, _)| value.clone()),
            None => (name == SEED).then_some(Value::Integer(head.seed as i64)),
        })
    }

    /// The link of a port that names `stage` or `stage.output`; `None` if there is no such stage.
    fn link(&self, port: &Port, problems: &mut Vec<Problem>) -> Option<Link> {
        let Port { field, index, reference, expects, access } = port.clone();
        let (name, output) = match reference.split_once('.') {
            Some((name, output)) => (name, Some(output.to_owned())),
            None => (reference.as_str(), None),
        };
        if let Some(&stage) = self.indices.get(name) {
            return Some(Link { field, index, stage, output, expects, access });
        }
        let kind = if is_path(&reference) {
            let taken = if self.is_suggesting { Arc::clone(self.names) } else { Arc::default() };
            ProblemKind::PathNotStage { field: field.clone(), path: reference, expects, taken }
        } else {
            ProblemKind::UnknownStage { name: name.to_owned(), known: self.similar_names(name) }
        };
        problems.push(Problem { path: path_of(&field, index), kind });
        None
    }

    /// The name of another stage that is most like `name`, else all names.
    fn similar_names(&self, name: &str) -> Arc<[String]> {
        let is_other = |other: &&String| self.is_suggesting && **other != self.stage.name.as_str();
        let others: Vec<&String> = self.names.iter().filter(is_other).collect();
        match nearest(name, &others) {
            Some(name) => [name.to_owned()].into(),
            None if self.is_suggesting => Arc::clone(self.names),
            None => Arc::default(),
        }
    }

    /// The problems on the text, each with the axis values for which it occurs. Of a mistake that a field makes with
    /// many values, the first is shown, and the others are counted.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (problem, occurrences) in &self.problems {
            groups.entry((problem.path.as_slice(), problem.code())).or_default().push((problem, occurrences));
        }
        let mut diagnostics = Vec::new();
        for group in groups.into_values() {
            let shown = if group.len() > MOST_REPEATS { 1 } else { group.len() };
            let first = diagnostics.len();
            let shown = group.iter().take(shown);
            diagnostics.extend(shown.map(|(problem, occurrences)| self.diagnostic(problem, occurrences)));
            let more = group.len() - (diagnostics.len() - first);
            if more > 0 {
                let message = &mut diagnostics[first].message;
                *message = format!("{message} (and {more} more values)");
            }
        }
        diagnostics
    }

    fn diagnostic(&self, problem: &Problem, occurrences: &[usize]) -> Diagnostic {
        let has_span = !problem.is_about_name() && locate(self.stage.table, &problem.path).is_some();
        let direct = if has_span { self.stage.uses.axes_at(&problem.path) } else { Vec::new() };
        let mut diagnostic = located("stage", problem, self.stage.table, self.stage.header);
        for &axis in &self.axes {
            let here: BTreeSet<_> = occurrences.iter().map(|&index| self.combinations[index][axis]).collect();
            let all: BTreeSet<_> = self.combinations.iter().map(|combination| combination[axis]).collect();
            if direct.contains(&axis) || here.len() < all.len() {
                let here: Vec<_> = here.into_iter().collect();
                diagnostic = with_values(diagnostic, self.outline.grid.axis(axis), &here);
            }
        }
        diagnostic
    }
}

/// Adds what the reader does not know to an unknown field: the kind, and the fields that every stage has.
fn add_own_fields(problem: &mut Problem, kind: Kind) {
    if let ([name], ProblemKind::UnknownField { owner, known, .. }) = (&problem.path[..], &mut problem.kind) {
        *owner = Some(kind.name());
        if let Some(near) = OWN_FIELDS.iter().find(|own| strsim::jaro_winkler(name, own) > 0.8) {
            *known = vec![(*near).to_owned()];
        }
    }
}
