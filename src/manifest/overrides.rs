//! `--set stages.normal_bank.ratio=0.02`: changes a merged manifest from the command line.
//!
//! The value is read as TOML, else taken as a string; `[a, b]` of bare words is a list of strings. An axis is
//! replaced by one value or a list of them. The text of the option is a source of its own, so that later mistakes in
//! the value are shown on it.

use super::diagnostic::{Diagnostic, SourceText, Span};
use super::include::Document;
use super::raw::{Content, TomlEntry, TomlNode, TomlTable, parse_value};
use crate::stages::fields::{Value, suggestion};

/// Applies every `path=value` to the document, in order.
pub(super) fn apply(document: &mut Document, sets: &[String]) {
    for set in sets {
        let text = format!("--set {set}");
        let source = document.sources.len();
        document.sources.push(SourceText { name: "command line".to_owned(), text: text.as_str().into() });
        let mut option = SetOption { text: &text, source, found: &mut document.found };
        if let Err(diagnostic) = option.apply(&mut document.root) {
            document.found.push(*diagnostic);
        }
    }
}

const START: usize = "--set ".len();

type Refused = Box<Diagnostic>;

/// One `--set`.
struct SetOption<'a> {
    text: &'a str,
    source: usize,
    found: &'a mut Vec<Diagnostic>,
}

impl SetOption<'_> {
    fn span(&self, start: usize, end: usize) -> Span {
        Span { source: self.source, start, end }
    }

    fn apply(&mut self, root: &mut TomlTable) -> Result<(), Refused> {
        let whole = self.span(START, self.text.len());
        let Some(equals) = self.text.find('=') else {
            let diagnostic = Diagnostic::new("set::no_value", "`--set` needs a path and a value")
                .at(whole, "no `=` here")
                .help("write `--set stages.normal_bank.ratio=0.02`");
            return Err(Box::new(diagnostic));
        };
        let steps = self.steps(equals);
        let node = self.value(equals + 1);
        let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
        check_path(root, &names, &steps, whole)?;
        let node = if names[0] == "grid" && names.len() == 3 { listed(node) } else { node };
        put(root, &steps, node)
    }

    /// The names of the dotted path, which ends at `end`, with their spans.
    fn steps(&self, end: usize) -> Vec<(String, Span)> {
        let mut start = START;
        let mut steps = Vec::new();
        for part in self.text[START..end].split('.') {
            let name = part.trim();
            let begin = start + (part.len() - part.trim_start().len());
            steps.push((name.to_owned(), self.span(begin, begin + name.len())));
            start += part.len() + 1;
        }
        steps
    }

    /// The value, which begins at `start`.
    fn value(&mut self, start: usize) -> TomlNode {
        let written = self.text[start..].trim();
        let start = start + (self.text[start..].len() - self.text[start..].trim_start().len());
        if let Some(node) = parse_value(written, self.source, start, self.found) {
            return node;
        }
        let inner = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let content = match inner {
            Some(inner) => Content::List(self.words(inner, start + 1)),
            None => Content::Plain(Value::Text(written.to_owned())),
        };
        TomlNode { span: self.span(start, start + written.len()), content }
    }

    /// The members of a list that lost its quotes to the shell; it begins at `start`.
    fn words(&mut self, inner: &str, mut start: usize) -> Vec<TomlNode> {
        let mut members = Vec::new();
        for part in inner.split(',') {
            let begin = start + (part.len() - part.trim_start().len());
            let word = part.trim();
            let node = parse_value(word, self.source, begin, self.found);
            members.push(node.unwrap_or_else(|| {
                let content = Content::Plain(Value::Text(word.to_owned()));
                TomlNode { span: self.span(begin, begin + word.len()), content }
            }));
            start += part.len() + 1;
        }
        members
    }
}

/// Makes a list of a single value, as axes take lists.
fn listed(node: TomlNode) -> TomlNode {
    match node.content {
        Content::List(_) => node,
        _ => TomlNode { span: node.span, content: Content::List(vec![node]) },
    }
}

/// Refuses unknown paths: below `stages` and the axes, names that the manifest lacks.
fn check_path(
    root: &TomlTable,
    names: &[&str],
    steps: &[(String, Span)],
    whole: Span,
) -> Result<(), Refused> {
    let under = |path: &[&str]| -> Vec<String> {
        let mut table = Some(root);
        for name in path {
            table = table.and_then(|table| table.get(name)).and_then(TomlNode::table);
        }
        table.map(|table| table.entries.iter().map(|entry| entry.name.clone()).collect()).unwrap_or_default()
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let known = [
        owned(&["experiment", "grid", "stages"]),
        match names[0] {
            "experiment" => owned(&["name", "question", "seed", "targets"]),
            "grid" => owned(&["axes", "repeats", "exclude", "include"]),
            _ => under(&["stages"]),
        },
        if names[0] == "grid" && names.len() > 2 { under(&names[..2]) } else { Vec::new() },
    ];
    for (depth, (name, span)) in steps.iter().enumerate().take(2 + usize::from(names[0] == "grid")) {
        if !known[depth].contains(name) {
            let known: Vec<&str> = known[depth].iter().map(String::as_str).collect();
            let above = names[..depth].join(".");
            let message = match above.as_str() {
                "" => format!("a manifest has no `{name}`"),
                "stages" => format!("no stage `{name}`"),
                "grid.axes" | "grid.repeats" => format!("no axis `{name}` in `{above}`"),
                _ => format!("`{above}` has no `{name}`"),
            };
            return Err(Box::new(
                Diagnostic::new("set::unknown_path", message)
                    .at(*span, "not in the manifest")
                    .help(suggestion(name, &known)),
            ));
        }
    }
    let least = match names {
        ["stages", ..] | ["grid", "axes" | "repeats", ..] => 3,
        _ => 2,
    };
    if names.len() < least || names.iter().any(|name| name.is_empty()) {
        return Err(Box::new(
            Diagnostic::new("set::short_path", format!("`{}` is not a single field", names.join(".")))
                .at(whole, "")
                .help("name the field, as in `--set stages.normal_bank.ratio=0.02`"),
        ));
    }
    Ok(())
}

/// Writes `node` at the path and adds the tables that are missing on the way.
fn put(table: &mut TomlTable, steps: &[(String, Span)], node: TomlNode) -> Result<(), Refused> {
    let ((name, span), rest) = steps.split_first().expect("a split text has at least one part");
    if rest.is_empty() {
        match table.entry_mut(name) {
            Some(entry) => entry.replace(*span, node),
            None => {
                table.entries.push(TomlEntry {
                    name: name.clone(),
                    name_span: *span,
                    node,
                    former: Vec::new(),
                });
            }
        }
        return Ok(());
    }
    if table.entry(name).is_none() {
        let node = TomlNode { span: *span, content: Content::Table(TomlTable::default()) };
        table.entries.push(TomlEntry { name: name.clone(), name_span: *span, node, former: Vec::new() });
    }
    let entry = table.entry_mut(name).expect("it was added above");
    match &mut entry.node.content {
        Content::Table(inner) => put(inner, rest, node),
        _ => Err(Box::new(
            Diagnostic::new("set::not_a_table", format!("`{name}` is {}", entry.node.value().type_name()))
                .at(*span, "this has no fields")
                .at(entry.node.span, format!("`{name}` is set here"))
                .help(format!("stop at `{name}`")),
        )),
    }
}
