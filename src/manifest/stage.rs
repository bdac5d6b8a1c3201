//! The tables below `[stages]`: names, kinds, `when`, and the uses of axes.

use super::axis::{Combination, GridAxis};
use super::diagnostic::{Diagnostic, SourceText, Span};
use super::names::{StageName, is_name, name_of};
use super::pattern::Pattern;
use super::raw::{TomlEntry, TomlNode, TomlTable, locate};
use super::substitute::{Finder, Uses};
use crate::stages::fields::suggestion;
use crate::stages::{KINDS, Kind};

/// The fields that belong to the manifest and not to the kind.
pub(super) const OWN_FIELDS: [&str; 2] = ["kind", "when"];

/// A stage before its fields are read.
pub(super) struct RawStage<'a> {
    pub(super) name: StageName,
    pub(super) header: Span,
    /// The kind; `None` if the manifest names none that exists.
    pub(super) kind: Option<Kind>,
    pub(super) table: &'a TomlTable,
    pub(super) when: Option<Pattern>,
    pub(super) uses: Uses,
}

impl RawStage<'_> {
    /// Returns whether the stage is in the variant of that combination: whether `when` matches.
    pub(super) fn is_in(&self, combination: &Combination) -> bool {
        self.when.as_ref().is_none_or(|when| when.matches(combination))
    }

    /// Returns the span of `when`.
    pub(super) fn when_span(&self) -> Option<Span> {
        self.table.get("when").map(|node| node.span)
    }

    /// Returns the span of a field's value, or of the header if the field is not written.
    pub(super) fn span(&self, path: &[String]) -> Span {
        locate(self.table, path).map_or(self.header, |location| location.value)
    }
}

/// Reads every stage but its fields.
pub(super) fn read<'a>(
    root: &'a TomlTable,
    axes: &[GridAxis],
    sources: &[SourceText],
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
    let mut reader = StageReader { axes, sources, found };
    table.entries.iter().filter_map(|entry| reader.stage(entry)).collect()
}

fn no_stages(span: Span) -> Diagnostic {
    Diagnostic::new("manifest::no_stages", "the manifest has no stages")
        .at(span, "")
        .help("add `[stages.dataset]` and below it `kind = \"download\"`")
}

struct StageReader<'a> {
    axes: &'a [GridAxis],
    sources: &'a [SourceText],
    found: &'a mut Vec<Diagnostic>,
}

impl StageReader<'_> {
    /// Reads one stage; `None` if it is not a table.
    fn stage<'t>(&mut self, entry: &'t TomlEntry) -> Option<RawStage<'t>> {
        if !is_name(&entry.name) {
            self.found.push(
                Diagnostic::new("stage::bad_name", format!("`{}` cannot name a stage", entry.name))
                    .at(entry.name_span, "only letters, digits, `_` and `-`")
                    .help(format!("write `{}`", name_of(&entry.name))),
            );
        }
        let Some(table) = entry.node.table() else {
            let message =
                format!("`stages.{0}` must be a table, not {1}", entry.name, entry.node.value().type_name());
            let help = format!("write `[stages.{}]` and below it `kind = \"…\"`", entry.name);
            self.found
                .push(Diagnostic::new("stage::wrong_type", message).at(entry.node.span, "here").help(help));
            return None;
        };
        Some(RawStage {
            name: StageName::new(&entry.name),
            header: entry.name_span,
            kind: self.kind(entry, table),
            table,
            when: self.when(table),
            uses: self.uses(table),
        })
    }

    fn when(&mut self, table: &TomlTable) -> Option<Pattern> {
        let when = Pattern::read(table.get("when")?, "when", self.axes);
        when.map_err(|mistakes| self.found.extend(mistakes)).ok()
    }

    fn uses(&mut self, table: &TomlTable) -> Uses {
        let mut finder =
            Finder { axes: self.axes, sources: self.sources, found: self.found, uses: Uses::default() };
        finder.table(table, &OWN_FIELDS, &mut Vec::new());
        finder.uses
    }

    /// Reads `kind`; `None` after a mistake.
    fn kind(&mut self, entry: &TomlEntry, table: &TomlTable) -> Option<Kind> {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name()).collect();
        let Some(node) = table.get("kind") else {
            self.found.push(missing_kind(entry, table, &names));
            return None;
        };
        let Some(name) = node.text() else {
            let message = format!("`kind` must be a string, not {}", node.value().type_name());
            let help = format!("write one of {}", names.join(", "));
            self.found.push(Diagnostic::new("stage::wrong_type", message).at(node.span, "here").help(help));
            return None;
        };
        let kind = Kind::parse(name);
        if kind.is_none() {
            self.found.push(unknown_kind(name, node, &names));
        }
        kind
    }
}

fn missing_kind(entry: &TomlEntry, table: &TomlTable, names: &[&str]) -> Diagnostic {
    let mut written = table.entries.iter().map(|entry| entry.name.as_str());
    let help = match written.find(|name| strsim::jaro_winkler(name, "kind") > 0.85) {
        Some(near) => format!("rename `{near}` to `kind`"),
        None => format!("add `kind = \"…\"`, one of {}", names.join(", ")),
    };
    Diagnostic::new("stage::missing_kind", format!("stage `{}` has no `kind`", entry.name))
        .at(entry.name_span, "missing in here")
        .help(help)
}

fn unknown_kind(name: &str, node: &TomlNode, names: &[&str]) -> Diagnostic {
    let help = if name.contains("${") {
        "a stage has one kind: write two stages and choose between them with `when`".to_owned()
    } else {
        suggestion(name, names)
    };
    Diagnostic::new("stage::unknown_kind", format!("no kind `{name}`")).at(node.span, "not a kind").help(help)
}
