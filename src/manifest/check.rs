//! From a merged document to an [`Experiment`]: every check in turn, all mistakes together.

use std::path::Path;

use super::LoadOptions;
use super::axis::{Combination, GridAxis};
use super::diagnostic::{Diagnostic, ManifestError, SourceText, Span};
use super::experiment::{Axis, DeclaredStage, Experiment, Unneeded, Variant};
use super::graph;
use super::grid::Grid;
use super::include::Document;
use super::index::{AxisIndex, StageIndex};
use super::names::VariantId;
use super::outline::Outline;
use super::pattern::Pattern;
use super::specs::{self, Specs};
use super::substitute::SEED;
use super::targets::{self, Targets};
use super::wiring::{self, Wiring};
use crate::stages::fields::{Fields, Value};

/// Longest name of a variant in bytes (file systems take 255; a run appends endings).
const ID_LENGTH: usize = 180;

/// Most combinations of the grid times stages: every check takes about twenty bytes for each.
const MOST_CELLS: usize = 20_000_000;

/// The mistake of a manifest that no machine could plan.
fn too_large(outline: &Outline<'_>, cells: usize) -> Diagnostic {
    let (combinations, stages) = (outline.grid.combinations.len(), outline.stages.len());
    let message =
        format!("{combinations} combinations of {stages} stages are {cells}, more than {MOST_CELLS}");
    let diagnostic = Diagnostic::new("grid::too_large", message)
        .help("take values out of the grid, or split the manifest");
    match outline.grid.axes.first() {
        Some(axis) => diagnostic.at(axis.name_span, "the axes multiply"),
        None => diagnostic,
    }
}

/// Checks a document without syntax errors.
///
/// # Errors
/// Every mistake at once.
pub(super) fn check(
    document: Document,
    path: &Path,
    options: &LoadOptions,
) -> Result<Experiment, ManifestError> {
    let Document { root, sources, mut found } = document;
    let outline = Outline::read(&root, path, &sources, &mut found);
    let of_manifest = targets::of_manifest(&outline, &mut found);
    let cells = outline.grid.combinations.len().saturating_mul(outline.stages.len());
    if cells > MOST_CELLS {
        found.push(too_large(&outline, cells));
        return Err(ManifestError::new(&sources[0].name, &sources, found));
    }
    let mut command_line = CommandLine { options, sources, found };
    let targets = Targets { of_manifest, of_command_line: command_line.targets(&outline) };
    let specs = specs::read(&outline, &mut command_line.found);
    let wiring = wiring::connect(&outline, &specs, &mut command_line.found);
    graph::check(&outline, &specs, &wiring, &targets, &mut command_line.found);
    unused_axes(&outline, &specs, options, &mut command_line.found);
    let kept = command_line.only(&outline.grid);
    let CommandLine { sources, found, .. } = command_line;
    if !found.is_empty() {
        return Err(ManifestError::new(&sources[0].name, &sources, found));
    }
    let (targets, unneeded) = (targets.names(&outline), targets::unneeded(&outline, &wiring, &targets));
    let mut experiment = assemble(outline, wiring, &kept);
    experiment.targets = targets;
    experiment.unneeded = unneeded;
    experiment.document = root.fields(&[]);
    experiment.sources = sources;
    Ok(experiment)
}

/// Reads `--target` and `--only`, whose texts join the sources.
struct CommandLine<'a> {
    options: &'a LoadOptions,
    sources: Vec<SourceText>,
    found: Vec<Diagnostic>,
}

impl CommandLine<'_> {
    /// Adds an option to the sources; returns the span of its value.
    fn source(&mut self, flag: &str, value: &str) -> Span {
        let text = format!("{flag} {value}");
        let (source, start, end) = (self.sources.len(), flag.len() + 1, text.len());
        self.sources.push(SourceText { name: "command line".to_owned(), text: text.into() });
        Span { source, start, end }
    }

    /// Finds the stages that `--target` names; reports unknown names.
    fn targets(&mut self, outline: &Outline<'_>) -> Vec<StageIndex> {
        let mut targets = Vec::new();
        for target in &self.options.targets {
            if let Some(stage) = outline.find(target) {
                targets.push(stage);
                continue;
            }
            let span = self.source("--target", target);
            self.found.push(targets::unknown_stage(target, span, outline));
        }
        targets
    }

    /// The combinations that `--only` leaves, as indices into those of the grid.
    fn only(&mut self, grid: &Grid) -> Vec<usize> {
        let all = 0..grid.combinations.len();
        let Some(only) = &self.options.only else { return all.collect() };
        let span = self.source("--only", only);
        let pattern = match Pattern::read_only(only, span.source, span.start, &grid.axes) {
            Ok(pattern) => pattern,
            Err(mistakes) => {
                self.found.extend(mistakes);
                return all.collect();
            }
        };
        let kept: Vec<usize> = all.filter(|&row| pattern.matches(&grid.combinations[row])).collect();
        if kept.is_empty() {
            self.found.push(
                Diagnostic::new("only::empty", "`--only` leaves no variant")
                    .at(span, "excluded by the grid")
                    .help("ask for fewer axes, or look at `grid.exclude`"),
            );
        }
        kept
    }
}

/// Reports axes that no stage uses. Every random stage uses the seed. A `--set` of a stage may have replaced the use.
fn unused_axes(outline: &Outline<'_>, specs: &Specs, options: &LoadOptions, found: &mut Vec<Diagnostic>) {
    let Outline { grid, stages, .. } = outline;
    let is_unclear = stages.iter().any(|stage| stage.kind.is_none() || stage.uses.has_broken());
    if is_unclear {
        return;
    }
    let used: Vec<AxisIndex> = stages
        .iter()
        .flat_map(|stage| {
            stage.uses.axes_at(&[]).into_iter().chain(stage.when.iter().flat_map(Pattern::axes))
        })
        .collect();
    for (index, axis) in grid.axes.iter().enumerate() {
        let is_seed = axis.name.as_str() == SEED;
        if used.contains(&AxisIndex(index)) || axis.values.is_empty() || (is_seed && specs.has_random()) {
            continue;
        }
        let why = if is_seed { ", none of which is random" } else { "" };
        let message = format!("axis `{}` is used by no stage{why}", axis.name);
        let name = &axis.name;
        let help = if options.sets.iter().any(|set| set.trim_start().starts_with("stages.")) {
            let table = if axis.is_repeat { "repeats" } else { "axes" };
            format!("set the axis instead of the field: `--set grid.{table}.{name}=…`")
        } else {
            format!("use `\"${{{name}}}\"` or `when = {{ {name} = … }}` in a stage, or remove it")
        };
        found.push(
            Diagnostic::new("grid::unused_axis", message)
                .at(axis.name_span, "every value would give the same results")
                .help(help),
        );
    }
}

/// Makes the experiment of a manifest without mistakes, with the `kept` combinations as its variants.
fn assemble(outline: Outline<'_>, wiring: Wiring, kept: &[usize]) -> Experiment {
    let Outline { head, grid, stages } = outline;
    let axis = |axis: &GridAxis| Axis {
        name: axis.name.clone(),
        values: axis.values.iter().map(|(value, _)| value.clone()).collect(),
        is_repeat: axis.is_repeat,
    };
    let row = |&row: &usize| wiring.table[row * stages.len()..][..stages.len()].iter().copied();
    Experiment {
        name: head.name,
        question: head.question,
        axes: grid.axes.iter().map(axis).collect(),
        variants: kept.iter().map(|&row| variant(&grid, &grid.combinations[row], head.seed)).collect(),
        stages: stages
            .iter()
            .filter_map(|stage| Some(DeclaredStage { name: stage.name.clone(), kind: stage.kind? }))
            .collect(),
        targets: Vec::new(),
        unneeded: Unneeded::default(),
        sources: Vec::new(),
        document: Fields::new(),
        table: kept.iter().flat_map(row).collect(),
        resolved: wiring.resolved,
    }
}

fn variant(grid: &Grid, combination: &Combination, seed: u64) -> Variant {
    let mut variant = Variant { id: VariantId::new(id(grid, combination)), values: Vec::new(), seed };
    for (axis, &index) in grid.axes.iter().zip(&combination.0) {
        let Some((value, _)) = axis.value(index) else { continue };
        if let (SEED, Value::Integer(number)) = (axis.name.as_str(), value) {
            variant.seed = *number as u64;
        }
        variant.values.push((axis.name.clone(), value.clone()));
    }
    variant
}

/// `bank=dual,augment=none`; a name that is too long is cut and ends with its digest.
fn id(grid: &Grid, combination: &Combination) -> String {
    if combination.0.is_empty() {
        return "default".to_owned();
    }
    let mut id = grid.equations(combination);
    if id.len() > ID_LENGTH {
        let digest = blake3::hash(id.as_bytes()).to_hex();
        id.truncate(ID_LENGTH);
        id.push('~');
        id.push_str(&digest[..16]);
    }
    id
}
