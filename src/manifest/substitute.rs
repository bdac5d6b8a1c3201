//! `${axis}` in a stage's fields.
//!
//! As a whole value it keeps the type of the axis's value; inside a string it is written into it.
//! `${seed}` is the axis `seed` where there is one, else `experiment.seed`. `$${` is a plain `${`.

use super::diagnostic::{Diagnostic, Source, Span};
use super::grid::GridAxis;
use super::pattern::unknown_axis;
use super::raw::{Content, Node, Table};
use crate::stages::fields::{Fields, Value};

/// The name under which the seed can always be used.
pub(super) const SEED: &str = "seed";

/// One use of `${…}` in a stage.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// The axis; `None` for the experiment's own seed.
    pub(super) axis: Option<usize>,
    /// The field's path within the stage, with numbers for members of lists.
    pub(super) path: Vec<String>,
    /// Whether nothing can be put here, because of a mistake that has been reported.
    pub(super) is_broken: bool,
}

enum Piece<'t> {
    Text(&'t str),
    Axis(&'t str),
    Unclosed,
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            pieces.extend([Piece::Text(&rest[..start - 1]), Piece::Text("${")]);
            rest = &rest[start + 2..];
            continue;
        }
        pieces.push(Piece::Text(&rest[..start]));
        let Some(end) = rest[start..].find('}') else {
            pieces.push(Piece::Unclosed);
            return pieces;
        };
        pieces.push(Piece::Axis(&rest[start + 2..start + end]));
        rest = &rest[start + end + 1..];
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Text("")));
    pieces
}

/// Finds every `${…}` of a stage's table.
pub(super) struct Finder<'a> {
    pub(super) axes: &'a [GridAxis],
    pub(super) sources: &'a [Source],
    pub(super) found: &'a mut Vec<Diagnostic>,
    pub(super) uses: Vec<Use>,
}

impl Finder<'_> {
    /// Visits a table's fields, without those named in `without`.
    pub(super) fn table(&mut self, table: &Table, without: &[&str], path: &mut Vec<String>) {
        for entry in table.entries.iter().filter(|entry| !without.contains(&entry.name.as_str())) {
            path.push(entry.name.clone());
            self.node(&entry.node, path);
            path.pop();
        }
    }

    fn node(&mut self, node: &Node, path: &mut Vec<String>) {
        match &node.content {
            Content::Table(table) => self.table(table, &[], path),
            Content::List(members) => {
                for (place, member) in members.iter().enumerate() {
                    path.push(place.to_string());
                    self.node(member, path);
                    path.pop();
                }
            }
            Content::Plain(Value::Text(text)) if text.contains("${") => self.text(text, node.span, path),
            Content::Plain(_) => {}
        }
    }

    fn text(&mut self, text: &str, span: Span, path: &[String]) {
        let pieces = pieces(text);
        let is_whole = pieces.len() == 1;
        for piece in pieces {
            match piece {
                Piece::Text(_) => {}
                Piece::Unclosed => {
                    let diagnostic = Diagnostic::new("axis::unclosed", "`${` without `}`")
                        .at(self.within(span, "${"), "opened here")
                        .help("write `${axis}`, or `$${` for a plain `${`");
                    self.push(diagnostic, path);
                }
                Piece::Axis(name) => self.axis(name, is_whole, span, path),
            }
        }
    }

    fn axis(&mut self, name: &str, is_whole: bool, span: Span, path: &[String]) {
        let place = self.within(span, &format!("${{{name}}}"));
        let Some(axis) = self.axes.iter().position(|axis| axis.name.as_str() == name) else {
            if name == SEED {
                return self.uses.push(Use { axis: None, path: path.to_vec(), is_broken: false });
            }
            let mut diagnostic = unknown_axis(name, place, self.axes);
            if let Some(help) = diagnostic.help.as_mut().filter(|help| !help.starts_with("did you mean")) {
                *help = format!("{help}; a plain `${{{name}}}` is written `$${{{name}}}`");
            }
            return self.push(diagnostic, path);
        };
        let listed = self.axes[axis]
            .values
            .iter()
            .find(|(value, _)| matches!(value, Value::List(_) | Value::Table(_)));
        if let (false, Some((value, value_span))) = (is_whole, listed) {
            let message = format!(
                "`${{{name}}}` cannot stand inside a string: axis `{name}` has {}",
                value.type_name()
            );
            let diagnostic = Diagnostic::new("axis::not_text", message)
                .at(place, "used here")
                .at(*value_span, "this value")
                .help(format!("use `\"${{{name}}}\"` as the whole value"));
            self.uses.push(Use { axis: Some(axis), path: path.to_vec(), is_broken: true });
            return self.found.push(diagnostic);
        }
        let is_broken = self.axes[axis].values.is_empty();
        self.uses.push(Use { axis: Some(axis), path: path.to_vec(), is_broken });
    }

    fn push(&mut self, diagnostic: Diagnostic, path: &[String]) {
        self.found.push(diagnostic);
        self.uses.push(Use { axis: None, path: path.to_vec(), is_broken: true });
    }

    /// The place of `written` within the text at `span`, or the whole of it.
    fn within(&self, span: Span, written: &str) -> Span {
        let text = self.sources.get(span.source).and_then(|source| source.text.get(span.start..span.end));
        match text.and_then(|text| text.find(written)) {
            Some(offset) => {
                Span { start: span.start + offset, end: span.start + offset + written.len(), ..span }
            }
            None => span,
        }
    }
}

/// The fields of a stage with every `${…}` filled in by `value_of`; what it does not know stays as written.
pub(super) fn fill(table: &Table, without: &[&str], value_of: &dyn Fn(&str) -> Option<Value>) -> Fields {
    let kept = table.entries.iter().filter(|entry| !without.contains(&entry.name.as_str()));
    kept.map(|entry| (entry.name.clone(), fill_node(&entry.node, value_of))).collect()
}

fn fill_node(node: &Node, value_of: &dyn Fn(&str) -> Option<Value>) -> Value {
    match &node.content {
        Content::Plain(Value::Text(text)) if text.contains("${") => fill_text(text, value_of),
        Content::Plain(value) => value.clone(),
        Content::List(members) => {
            Value::List(members.iter().map(|member| fill_node(member, value_of)).collect())
        }
        Content::Table(table) => Value::Table(fill(table, &[], value_of)),
    }
}

fn fill_text(text: &str, value_of: &dyn Fn(&str) -> Option<Value>) -> Value {
    let pieces = pieces(text);
    if let [Piece::Axis(name)] = pieces[..] {
        return value_of(name).unwrap_or_else(|| Value::Text(text.to_owned()));
    }
    let mut filled = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Unclosed => filled.push_str("${"),
            Piece::Axis(name) => match value_of(name) {
                Some(value) => filled.push_str(&value.to_string()),
                None => filled.extend(["${", name, "}"]),
            },
        }
    }
    Value::Text(filled)
}

/// `axis=value` as `--only` takes it.
pub(super) fn equation(axis: &GridAxis, place: u32) -> String {
    format!("{}={}", axis.name, axis.labels.get(place as usize).map_or("", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Value {
        fill_text(text, &|name| match name {
            "ratio" => Some(Value::Float(0.5)),
            "bank" => Some("dual".into()),
            _ => None,
        })
    }

    #[test]
    fn a_whole_value_keeps_its_type_and_a_part_becomes_text() {
        assert_eq!(filled("${ratio}"), Value::Float(0.5));
        assert_eq!(filled("r${ratio}-${bank}"), "r0.5-dual".into());
    }

    #[test]
    fn a_doubled_dollar_is_plain_text() {
        assert_eq!(filled("$${bank} ${bank}"), "${bank} dual".into());
        assert_eq!(filled("costs 5$"), "costs 5$".into());
    }
}
