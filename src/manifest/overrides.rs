//! `--set stages.normal_bank.ratio=0.02`: changes a merged manifest from the command line.
//!
//! The value is read as TOML, else taken as a string; `[a, b]` of bare words is a list of strings. An axis is
//! replaced by one value or a list of them. The text of the option is a source of its own, so that a mistake
//! found later in the value is shown on it.

use super::diagnostic::{Diagnostic, Source, Span};
use super::include::Document;
use super::raw::{Content, Entry, Node, Table, parse_value};
use crate::stages::fields::{Value, suggestion};

/// Applies every `path=value` to the document, in order.
pub(super) fn apply(document: &mut Document, sets: &[String]) {
    for set in sets {
        let text = format!("--set {set}");
        let source = document.sources.len();
        document.sources.push(Source { name: "command line".to_owned(), text: text.as_str().into() });
        if let Err(diagnostic) = apply_one(document, &text, source) {
            document.found.push(*diagnostic);
        }
    }
}

const START: usize = "--set ".len();

type Refused = Box<Diagnostic>;

fn apply_one(document: &mut Document, text: &str, source: usize) -> Result<(), Refused> {
    let whole = Span { source, start: START, end: text.len() };
    let Some(equals) = text.find('=') else {
        let diagnostic = Diagnostic::new("set::no_value", "`--set` needs a path and a value")
            .at(whole, "no `=` here")
            .help("write `--set stages.normal_bank.ratio=0.02`");
        return Err(Box::new(diagnostic));
    };
    let steps = steps(text, source, equals);
    let node = value(text, source, equals + 1, &mut document.found);
    let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
    check_path(&document.root, &names, &steps, whole)?;
    let node = if names[0] == "grid" && names.len() == 3 { listed(node) } else { node };
    put(&mut document.root, &steps, node)
}

/// The dotted path's names with their places.
fn steps(text: &str, source: usize, end: usize) -> Vec<(String, Span)> {
    let mut start = START;
    let mut steps = Vec::new();
    for part in text[START..end].split('.') {
        let lead = part.len() - part.trim_start().len();
        let name = part.trim();
        let begin = start + lead;
        steps.push((name.to_owned(), Span { source, start: begin, end: begin + name.len() }));
        start += part.len() + 1;
    }
    steps
}

fn value(text: &str, source: usize, start: usize, found: &mut Vec<Diagnostic>) -> Node {
    let written = text[start..].trim();
    let start = start + (text[start..].len() - text[start..].trim_start().len());
    if let Some(node) = parse_value(written, source, start, found) {
        return node;
    }
    let span = Span { source, start, end: start + written.len() };
    let inner = written.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let content = match inner {
        Some(inner) => Content::List(words(inner, source, start + 1, found)),
        None => Content::Plain(Value::Text(written.to_owned())),
    };
    Node { span, content }
}

/// The members of a list whose quotes the shell took away.
fn words(inner: &str, source: usize, mut start: usize, found: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut members = Vec::new();
    for part in inner.split(',') {
        let begin = start + (part.len() - part.trim_start().len());
        let word = part.trim();
        let span = Span { source, start: begin, end: begin + word.len() };
        members.push(
            parse_value(word, source, begin, found)
                .unwrap_or(Node { span, content: Content::Plain(Value::Text(word.to_owned())) }),
        );
        start += part.len() + 1;
    }
    members
}

/// An axis takes a list; one value stands for a list of one.
fn listed(node: Node) -> Node {
    match node.content {
        Content::List(_) => node,
        _ => Node { span: node.span, content: Content::List(vec![node]) },
    }
}

/// Refuses a path that leads nowhere: below `stages` and the axes only what the manifest names.
fn check_path(root: &Table, names: &[&str], steps: &[(String, Span)], whole: Span) -> Result<(), Refused> {
    let under = |path: &[&str]| -> Vec<String> {
        let mut table = Some(root);
        for name in path {
            table = table.and_then(|table| table.get(name)).and_then(Node::table);
        }
        table.map(|table| table.entries.iter().map(|entry| entry.name.clone()).collect()).unwrap_or_default()
    };
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let known = [
        owned(&["experiment", "grid", "stages"]),
        match names[0] {
            "experiment" => owned(&["name", "question", "seed"]),
            "grid" => owned(&["axes", "repeats", "exclude", "include"]),
            _ => under(&["stages"]),
        },
        if names[0] == "grid" && names.len() > 2 { under(&names[..2]) } else { Vec::new() },
    ];
    for (place, (name, span)) in steps.iter().enumerate().take(2 + usize::from(names[0] == "grid")) {
        if !known[place].contains(name) {
            let known: Vec<&str> = known[place].iter().map(String::as_str).collect();
            let above = names[..place].join(".");
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

/// Writes `node` at the path, making the tables on the way.
fn put(table: &mut Table, steps: &[(String, Span)], node: Node) -> Result<(), Refused> {
    let ((name, span), rest) = steps.split_first().expect("a split text has at least one part");
    if rest.is_empty() {
        match table.entry_mut(name) {
            Some(entry) => entry.replace(*span, node),
            None => {
                table.entries.push(Entry { name: name.clone(), name_span: *span, node, former: Vec::new() });
            }
        }
        return Ok(());
    }
    if table.entry(name).is_none() {
        let node = Node { span: *span, content: Content::Table(Table::default()) };
        table.entries.push(Entry { name: name.clone(), name_span: *span, node, former: Vec::new() });
    }
    let entry = table.entry_mut(name).expect("it has just been made");
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
