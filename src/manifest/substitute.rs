//! `${axis}` in a stage's fields.
//!
//! As a whole value it keeps the type of the axis's value; inside a string it becomes part of the text.
//! `${seed}` is the axis `seed` if there is one, else `experiment.seed`. `$${` is a plain `${`.

use super::axis::{GridAxis, find_axis, unknown_axis};
use super::diagnostic::{Diagnostic, SourceText, Span};
use super::index::AxisIndex;
use super::raw::{Content, TomlNode, TomlTable};
use crate::stages::fields::{Fields, Value, nearest};

/// The name under which the seed can always be used.
pub(super) const SEED: &str = "seed";

/// One `${…}` in a stage.
#[derive(Clone, Debug)]
struct Use {
    /// The axis; `None` for the experiment's own seed.
    axis: Option<AxisIndex>,
    /// Path of the field within the stage, with numbers for members of lists.
    path: Vec<String>,
    /// Whether it cannot be filled in; the reason has been reported.
    is_broken: bool,
}

impl Use {
    /// Whether it lies within the field at `path`, or the field within what it fills in.
    fn is_at(&self, path: &[String]) -> bool {
        self.path.iter().zip(path).all(|(a, b)| a == b)
    }
}

/// Every `${…}` of a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses(Vec<Use>);

impl Uses {
    /// Whether some `${…}` cannot be filled in.
    pub(super) fn has_broken(&self) -> bool {
        self.0.iter().any(|one| one.is_broken)
    }

    /// Whether the field at `path` has a `${…}` that cannot be filled in, which has been reported.
    pub(super) fn is_broken_at(&self, path: &[String]) -> bool {
        !path.is_empty() && self.0.iter().any(|one| one.is_broken && one.is_at(path))
    }

    /// Returns the axes that the field at `path` uses; for an empty path, those of all fields.
    pub(super) fn axes_at(&self, path: &[String]) -> Vec<AxisIndex> {
        let mut axes: Vec<AxisIndex> =
            self.0.iter().filter(|one| one.is_at(path)).filter_map(|one| one.axis).collect();
        axes.sort_unstable();
        axes.dedup();
        axes
    }

    fn push(&mut self, axis: Option<AxisIndex>, path: &[String], is_broken: bool) {
        self.0.push(Use { axis, path: path.to_vec(), is_broken });
    }
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
    pub(super) sources: &'a [SourceText],
    pub(super) found: &'a mut Vec<Diagnostic>,
    pub(super) uses: Uses,
}

impl Finder<'_> {
    /// Visits the fields of a table, except those named in `without`.
    pub(super) fn table(&mut self, table: &TomlTable, without: &[&str], path: &mut Vec<String>) {
        for entry in table.entries.iter().filter(|entry| !without.contains(&entry.name.as_str())) {
            path.push(entry.name.clone());
            self.node(&entry.node, path);
            path.pop();
        }
    }

    fn node(&mut self, node: &TomlNode, path: &mut Vec<String>) {
        match &node.content {
            Content::Table(table) => self.table(table, &[], path),
            Content::List(members) => {
                for (index, member) in members.iter().enumerate() {
                    path.push(index.to_string());
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
        let use_span = self.within(span, &format!("${{{name}}}"));
        let Some(index) = find_axis(self.axes, name) else {
            if name == SEED {
                return self.uses.push(None, path, false);
            }
            let mut diagnostic = unknown_axis(name, use_span, self.axes);
            let names: Vec<&str> = self.axes.iter().map(|axis| axis.name.as_str()).collect();
            if let (None, Some(help)) = (nearest(name, &names), diagnostic.help.as_mut()) {
                *help = format!("{help}; a plain `${{{name}}}` is written `$${{{name}}}`");
            }
            return self.push(diagnostic, path);
        };
        let axis = &self.axes[index.0];
        let listed = axis.values.iter().find(|(value, _)| matches!(value, Value::List(_) | Value::Table(_)));
        if let (false, Some((value, value_span))) = (is_whole, listed) {
            let message = format!(
                "`${{{name}}}` cannot stand inside a string: axis `{name}` has {}",
                value.type_name()
            );
            let diagnostic = Diagnostic::new("axis::not_text", message)
                .at(use_span, "used here")
                .at(*value_span, "this value")
                .help(format!("use `\"${{{name}}}\"` as the whole value"));
            self.uses.push(Some(index), path, true);
            return self.found.push(diagnostic);
        }
        self.uses.push(Some(index), path, axis.values.is_empty());
    }

    fn push(&mut self, diagnostic: Diagnostic, path: &[String]) {
        self.found.push(diagnostic);
        self.uses.push(None, path, true);
    }

    /// The span of `written` within the text at `span`, or all of `span`.
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

/// Returns the fields of a table, except those named in `without`, with every `${…}` filled in by `value_of`. What
/// `value_of` does not know stays as written.
pub(super) fn fill(table: &TomlTable, without: &[&str], value_of: &dyn Fn(&str) -> Option<Value>) -> Fields {
    let kept = table.entries.iter().filter(|entry| !without.contains(&entry.name.as_str()));
    kept.map(|entry| (entry.name.clone(), fill_node(&entry.node, value_of))).collect()
}

fn fill_node(node: &TomlNode, value_of: &dyn Fn(&str) -> Option<Value>) -> Value {
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
