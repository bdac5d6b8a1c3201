//! What a manifest says before the fields of its stages are read: name, seed, grid, and the frame of each stage.

use std::collections::HashMap;
use std::path::Path;

use super::axis::find_axis;
use super::diagnostic::{Diagnostic, SourceText, Span};
use super::grid::{self, Grid};
use super::index::StageIndex;
use super::names::folder_name_of;
use super::problems::located;
use super::raw::{TomlEntry, TomlTable, locate};
use super::stage::{self, RawStage};
use super::substitute::SEED;
use crate::stages::fields::{Reader, Value, suggestion};
use crate::text::is_plain_name;

/// The parts of a manifest around the fields of its stages.
pub(super) struct Outline<'a> {
    pub(super) head: Head,
    pub(super) grid: Grid,
    pub(super) stages: Vec<RawStage<'a>>,
}

/// The table `[experiment]`.
pub(super) struct Head {
    pub(super) name: String,
    pub(super) question: Option<String>,
    pub(super) seed: u64,
    /// The stages that `targets` names, each where it is written.
    pub(super) targets: Vec<(String, Span)>,
}

impl<'a> Outline<'a> {
    /// Reads the outline of the manifest at `path`.
    pub(super) fn read(
        root: &'a TomlTable,
        path: &Path,
        sources: &[SourceText],
        found: &mut Vec<Diagnostic>,
    ) -> Self {
        check_tables(root, found);
        let grid = grid::read(root.get("grid"), found);
        let head = read_head(root, path, &grid, found);
        let stages = stage::read(root, &grid.axes, sources, found);
        Self { head, grid, stages }
    }

    /// Returns a stage.
    pub(super) fn stage(&self, index: StageIndex) -> &RawStage<'a> {
        &self.stages[index.0]
    }

    /// The stages by name, for many lookups.
    pub(super) fn indices(&self) -> HashMap<&str, StageIndex> {
        // If a name stands twice, which is a mistake, the first counts.
        let all = self.stages.iter().enumerate().rev();
        all.map(|(index, stage)| (stage.name.as_str(), StageIndex(index))).collect()
    }

    /// Finds a stage by name.
    pub(super) fn find(&self, name: &str) -> Option<StageIndex> {
        self.stages.iter().position(|stage| stage.name.as_str() == name).map(StageIndex)
    }
}

/// Reports unknown tables at the top of the manifest.
fn check_tables(root: &TomlTable, found: &mut Vec<Diagnostic>) {
    let known = ["experiment", "grid", "stages", "include"];
    for entry in root.entries.iter().filter(|entry| !known.contains(&entry.name.as_str())) {
        found.push(
            Diagnostic::new("manifest::unknown_table", format!("a manifest has no `{}`", entry.name))
                .at(entry.name_span, "unknown")
                .help(suggestion(&entry.name, &known)),
        );
    }
}

fn read_head(root: &TomlTable, path: &Path, grid: &Grid, found: &mut Vec<Diagnostic>) -> Head {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut head = Head { name: folder_name_of(&stem), question: None, seed: 0, targets: Vec::new() };
    let Some(entry) = root.entry("experiment") else { return head };
    let Some(table) = entry.node.table() else {
        let message = format!("`experiment` must be a table, not {}", entry.node.value().type_name());
        let help = "write `[experiment]` and below it `name = \"…\"`";
        found.push(Diagnostic::new("experiment::wrong_type", message).at(entry.node.span, "here").help(help));
        return head;
    };
    let mut fields = table.fields(&[]);
    if find_axis(&grid.axes, SEED).is_some() && fields.get(SEED) == Some(&Value::from("${seed}")) {
        fields.remove(SEED);
    }
    let (mut problems, mut ports) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(&fields, &mut problems, &mut ports);
    let name = reader.text("name");
    head.question = reader.text("question");
    head.seed = reader.integer(SEED, 0..=i64::MAX, Some(0)) as u64;
    let targets = reader.texts("targets");
    if reader.is_empty_list("targets") {
        reader.problem("targets", "empty_list", "`targets` is empty".to_owned(), None);
    }
    reader.finish();
    let span = |index: usize| {
        let path = ["targets".to_owned(), index.to_string()];
        locate(table, &path).map_or(entry.name_span, |location| location.value)
    };
    head.targets = targets.into_iter().enumerate().map(|(index, name)| (name, span(index))).collect();
    found.extend(problems.iter().map(|problem| located("experiment", problem, table, entry.name_span)));
    if let Some(name) = name {
        found.extend(bad_name(&name, entry, table));
        head.name = name;
    }
    head
}

/// The mistake of a name that cannot be a folder's.
fn bad_name(name: &str, entry: &TomlEntry, table: &TomlTable) -> Option<Diagnostic> {
    let span = table.get("name").map_or(entry.name_span, |node| node.span);
    (!is_plain_name(name)).then(|| {
        Diagnostic::new("experiment::bad_name", format!("`{name}` cannot name a folder"))
            .at(span, "letters, digits, `_`, `-` and `.`, at most 100 bytes, no dot at either end")
            .help(format!("write `name = \"{}\"`", folder_name_of(name)))
    })
}
