//! The checked experiment of a merged document: every check in turn, all mistakes together.

use std::path::Path;

use super::LoadOptions;
use super::diagnostic::{Diagnostic, ManifestError, Source, Span};
use super::experiment::{Axis, Experiment, Stage, Variant};
use super::graph;
use super::grid::{self, Grid, GridAxis};
use super::include::Document;
use super::names::{VariantId, folder_name_of, is_folder_name};
use super::pattern::Pattern;
use super::problems::located;
use super::raw::Table;
use super::specs::{self, Specs};
use super::stage::{self, RawStage};
use super::substitute::{SEED, equation};
use super::wiring::{self, Wiring};
use crate::stages::fields::{Fields, Reader, Value, suggestion};

/// Longest name of a variant in bytes (file systems take 255; a run appends endings).
const ID_LENGTH: usize = 180;

/// Checks a document that was read without a mistake of syntax.
pub(super) fn check(
    document: Document,
    path: &Path,
    options: &LoadOptions,
) -> Result<Experiment, ManifestError> {
    let Document { root, mut sources, mut found } = document;
    top_level(&root, &mut found);
    let grid = grid::read(root.get("grid"), &mut found);
    let head = read_head(&root, path, &grid, &mut found);
    let stages = stage::read(&root, &grid.axes, &sources, &mut found);
    let targets = read_targets(&stages, &options.targets, &mut sources, &mut found);
    let specs = specs::read(&stages, &grid, head.seed, &mut found);
    let wiring = wiring::connect(&stages, &specs, &grid, &mut found);
    graph::check(&stages, &specs, &grid, &wiring, &targets, &mut found);
    unused_axes(&stages, &specs, &grid, &mut found);
    let kept = read_only(&grid, options, &mut sources, &mut found);
    if !found.is_empty() {
        return Err(ManifestError::new(&sources[0].name, &sources, found));
    }
    let mut experiment = assemble(head, &grid, &stages, wiring, &kept, options, sources);
    experiment.document = root.fields(&[]);
    Ok(experiment)
}

fn top_level(root: &Table, found: &mut Vec<Diagnostic>) {
    let known = ["experiment", "grid", "stages", "include"];
    for entry in root.entries.iter().filter(|entry| !known.contains(&entry.name.as_str())) {
        found.push(
            Diagnostic::new("manifest::unknown_table", format!("a manifest has no `{}`", entry.name))
                .at(entry.name_span, "unknown")
                .help(suggestion(&entry.name, &known)),
        );
    }
}

struct Head {
    name: String,
    question: Option<String>,
    seed: u64,
}

fn read_head(root: &Table, path: &Path, grid: &Grid, found: &mut Vec<Diagnostic>) -> Head {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut head = Head { name: folder_name_of(&stem), question: None, seed: 0 };
    let Some(entry) = root.entry("experiment") else { return head };
    let Some(table) = entry.node.table() else {
        let message = format!("`experiment` must be a table, not {}", entry.node.value().type_name());
        let help = "write `[experiment]` and below it `name = \"…\"`";
        found.push(Diagnostic::new("experiment::wrong_type", message).at(entry.node.span, "here").help(help));
        return head;
    };
    let mut fields = table.fields(&[]);
    let has_seeds = grid.axes.iter().any(|axis| axis.name.as_str() == SEED);
    if has_seeds && fields.get(SEED) == Some(&Value::from("${seed}")) {
        fields.remove(SEED);
    }
    let (mut problems, mut ports) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(&fields, &mut problems, &mut ports);
    let name = reader.text("name");
    head.question = reader.text("question");
    head.seed = reader.integer(SEED, 0..=i64::MAX, Some(0)) as u64;
    reader.finish();
    found.extend(problems.iter().map(|problem| located("experiment", problem, table, entry.name_span)));
    if let Some(name) = name {
        if !is_folder_name(&name) {
            let span = table.get("name").map_or(entry.name_span, |node| node.span);
            found.push(
                Diagnostic::new("experiment::bad_name", format!("`{name}` cannot name a folder"))
                    .at(span, "letters, digits, `_`, `-` and `.`, at most 100 bytes, no dot at either end")
                    .help(format!("write `name = \"{}\"`", folder_name_of(&name))),
            );
        }
        head.name = name;
    }
    head
}

/// Puts an option of the command line among the sources.
fn option_source(text: String, sources: &mut Vec<Source>) -> usize {
    sources.push(Source { name: "command line".to_owned(), text: text.into() });
    sources.len() - 1
}

fn read_targets(
    stages: &[RawStage<'_>],
    targets: &[String],
    sources: &mut Vec<Source>,
    found: &mut Vec<Diagnostic>,
) -> Vec<usize> {
    let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
    let mut places = Vec::new();
    for target in targets {
        if let Some(place) = names.iter().position(|name| name == target) {
            places.push(place);
            continue;
        }
        let flag = "--target ";
        let source = option_source(format!("{flag}{target}"), sources);
        found.push(
            Diagnostic::new("stage::unknown_stage", format!("no stage `{target}`"))
                .at(Span { source, start: flag.len(), end: flag.len() + target.len() }, "not a stage")
                .help(suggestion(target, &names)),
        );
    }
    places
}

/// The combinations that `--only` leaves.
fn read_only(
    grid: &Grid,
    options: &LoadOptions,
    sources: &mut Vec<Source>,
    found: &mut Vec<Diagnostic>,
) -> Vec<usize> {
    let all = 0..grid.combinations.len();
    let Some(only) = &options.only else { return all.collect() };
    let flag = "--only ";
    let source = option_source(format!("{flag}{only}"), sources);
    let Some(pattern) = Pattern::read_only(only, source, flag.len(), &grid.axes, found) else {
        return all.collect();
    };
    let kept: Vec<usize> = all.filter(|&row| pattern.matches(&grid.combinations[row])).collect();
    if kept.is_empty() {
        found.push(
            Diagnostic::new("only::empty", "`--only` leaves no variant")
                .at(Span { source, start: flag.len(), end: flag.len() + only.len() }, "excluded by the grid")
                .help("ask for fewer axes, or look at `grid.exclude`"),
        );
    }
    kept
}

/// An axis must be used by a stage; the seed is used by every random one.
fn unused_axes(stages: &[RawStage<'_>], specs: &Specs, grid: &Grid, found: &mut Vec<Diagnostic>) {
    let mut is_used = vec![false; grid.axes.len()];
    for stage in stages {
        let written = stage.uses.iter().filter_map(|one| one.axis);
        for axis in written.chain(stage.when.iter().flat_map(Pattern::axes)) {
            is_used[axis] = true;
        }
    }
    let is_random = specs.readings.iter().flatten().any(|reading| reading.spec.about().is_random);
    let is_unclear =
        stages.iter().any(|stage| stage.kind.is_none() || stage.uses.iter().any(|one| one.is_broken));
    for (axis, is_used) in grid.axes.iter().zip(is_used) {
        let is_seed = axis.name.as_str() == SEED;
        if is_used || is_unclear || axis.values.is_empty() || (is_seed && is_random) {
            continue;
        }
        let why = if is_seed { ", none of which is random" } else { "" };
        let message = format!("axis `{}` is used by no stage{why}", axis.name);
        found.push(
            Diagnostic::new("grid::unused_axis", message)
                .at(axis.name_span, "every value would give the same results")
                .help(format!(
                    "use `\"${{{0}}}\"` or `when = {{ {0} = … }}` in a stage, or remove it",
                    axis.name
                )),
        );
    }
}

fn assemble(
    head: Head,
    grid: &Grid,
    stages: &[RawStage<'_>],
    wiring: Wiring,
    kept: &[usize],
    options: &LoadOptions,
    sources: Vec<Source>,
) -> Experiment {
    let axis = |axis: &GridAxis| Axis {
        name: axis.name.clone(),
        values: axis.values.iter().map(|(value, _)| value.clone()).collect(),
        is_repeat: axis.is_repeat,
    };
    let rows = |&row: &usize| wiring.places[row * stages.len()..][..stages.len()].iter().copied();
    Experiment {
        name: head.name,
        question: head.question,
        axes: grid.axes.iter().map(axis).collect(),
        variants: kept.iter().map(|&row| variant(grid, &grid.combinations[row], head.seed)).collect(),
        stages: stages
            .iter()
            .filter_map(|stage| Some(Stage { name: stage.name.clone(), kind: stage.kind? }))
            .collect(),
        targets: options.targets.clone(),
        sources,
        document: Fields::new(),
        places: kept.iter().flat_map(rows).collect(),
        resolved: wiring.resolved,
    }
}

fn variant(grid: &Grid, combination: &[u32], seed: u64) -> Variant {
    let mut variant = Variant { id: VariantId::new(id(grid, combination)), values: Vec::new(), seed };
    for (axis, &place) in grid.axes.iter().zip(combination) {
        let value = axis.values[place as usize].0.clone();
        if let (SEED, Value::Integer(number)) = (axis.name.as_str(), &value) {
            variant.seed = *number as u64;
        }
        variant.values.push((axis.name.clone(), value));
    }
    variant
}

/// `bank=dual,augment=none`; a name that is too long keeps its beginning and gets a digest.
fn id(grid: &Grid, combination: &[u32]) -> String {
    if combination.is_empty() {
        return "default".to_owned();
    }
    let values = grid.axes.iter().zip(combination).map(|(axis, &place)| equation(axis, place));
    let mut id = values.collect::<Vec<_>>().join(",");
    if id.len() > ID_LENGTH {
        let digest = blake3::hash(id.as_bytes()).to_hex();
        id.truncate(ID_LENGTH);
        id.push('~');
        id.push_str(&digest[..16]);
    }
    id
}
