//! The tables below `[stages]`: names, kinds, `when`, and the uses of axes.

use super::diagnostic::{Diagnostic, Source, Span};
use super::grid::GridAxis;
use super::names::{StageName, is_name, name_of};
use super::pattern::Pattern;
use super::raw::{Entry, Node, Table};
use super::substitute::{Finder, Use};
use crate::stages::fields::suggestion;
use crate::stages::{KINDS, Kind};

/// The fields that belong to the manifest and not to the kind.
pub(super) const OWN_FIELDS: [&str; 2] = ["kind", "when"];

/// A stage before its fields are read.
pub(super) struct RawStage<'a> {
    pub(super) name: StageName,
    pub(super) header: Span,
    /// `None` after a mistake.
    pub(super) kind: Option<Kind>,
    pub(super) table: &'a Table,
    pub(super) when: Option<Pattern>,
    pub(super) uses: Vec<Use>,
}

impl RawStage<'_> {
    /// Whether the stage is in the variant of that combination.
    pub(super) fn is_in(&self, combination: &[u32]) -> bool {
        self.when.as_ref().is_none_or(|when| when.matches(combination))
    }

    /// Where `when` stands.
    pub(super) fn when_span(&self) -> Option<Span> {
        self.table.get("when").map(|node| node.span)
    }
}

/// Reads every stage's frame; mistakes go to `found`.
pub(super) fn read<'a>(
    root: &'a Table,
    axes: &[GridAxis],
    sources: &[Source],
    found: &mut Vec<Diagnostic>,
) -> Vec<RawStage<'a>> {
    let Some(entry) = root.entry("stages") else {
        found.push(no_stages(Span { source: 0, start: 0, end: 0 }));
        return Vec::new();
    };
    let Some(table) = entry.node.table() else {
        let message = format!("`stages` must be a table of stages, not {}", entry.node.value().type_name());
        let help = "write `[stages.images]` and below it `kind = \"preprocess\"`";
        found.push(Diagnostic::new("stage::wrong_type", message).at(entry.node.span, "here").help(help));
        return Vec::new();
    };
    if table.entries.is_empty() {
        found.push(no_stages(entry.name_span));
    }
    table.entries.iter().filter_map(|entry| read_one(entry, axes, sources, found)).collect()
}

fn no_stages(span: Span) -> Diagnostic {
    Diagnostic::new("manifest::no_stages", "the manifest has no stages")
        .at(span, "")
        .help("add `[stages.dataset]` and below it `kind = \"download\"`")
}

fn read_one<'a>(
    entry: &'a Entry,
    axes: &[GridAxis],
    sources: &[Source],
    found: &mut Vec<Diagnostic>,
) -> Option<RawStage<'a>> {
    if !is_name(&entry.name) {
        found.push(
            Diagnostic::new("stage::bad_name", format!("`{}` cannot name a stage", entry.name))
                .at(entry.name_span, "only letters, digits, `_` and `-`")
                .help(format!("write `{}`", name_of(&entry.name))),
        );
    }
    let Some(table) = entry.node.table() else {
        let message =
            format!("`stages.{0}` must be a table, not {1}", entry.name, entry.node.value().type_name());
        let help = format!("write `[stages.{}]` and below it `kind = \"…\"`", entry.name);
        found.push(Diagnostic::new("stage::wrong_type", message).at(entry.node.span, "here").help(help));
        return None;
    };
    let kind = read_kind(entry, table, found);
    let when = table.get("when").and_then(|node| Pattern::read(node, "when", axes, found));
    let mut finder = Finder { axes, sources, found, uses: Vec::new() };
    finder.table(table, &OWN_FIELDS, &mut Vec::new());
    let uses = finder.uses;
    Some(RawStage { name: StageName::new(&entry.name), header: entry.name_span, kind, table, when, uses })
}

fn read_kind(entry: &Entry, table: &Table, found: &mut Vec<Diagnostic>) -> Option<Kind> {
    let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
    let Some(node) = table.get("kind") else {
        let written: Vec<&str> = table.entries.iter().map(|entry| entry.name.as_str()).collect();
        let near = written.iter().find(|name| strsim::jaro_winkler(name, "kind") > 0.85);
        let help = match near {
            Some(near) => format!("rename `{near}` to `kind`"),
            None => format!("add `kind = \"…\"`, one of {}", names.join(", ")),
        };
        found.push(
            Diagnostic::new("stage::missing_kind", format!("stage `{}` has no `kind`", entry.name))
                .at(entry.name_span, "missing in here")
                .help(help),
        );
        return None;
    };
    let Some(name) = node.text() else {
        let message = format!("`kind` must be a string, not {}", node.value().type_name());
        let help = format!("write one of {}", names.join(", "));
        found.push(Diagnostic::new("stage::wrong_type", message).at(node.span, "here").help(help));
        return None;
    };
    let kind = Kind::parse(name);
    if kind.is_none() {
        found.push(unknown_kind(name, node, &names));
    }
    kind
}

fn unknown_kind(name: &str, node: &Node, names: &[&str]) -> Diagnostic {
    let help = if name.contains("${") {
        "a stage has one kind: write two stages and choose between them with `when`".to_owned()
    } else {
        suggestion(name, names)
    };
    Diagnostic::new("stage::unknown_kind", format!("no kind `{name}`")).at(node.span, "not a kind").help(help)
}
