//! Choices of axis values: `when`, `grid.exclude`, `grid.include` and `--only`.

use super::diagnostic::{Diagnostic, Span};
use super::grid::GridAxis;
use super::raw::{Content, Node, Table, is_same, parse_value};
use crate::stages::fields::{Value, suggestion};

/// Which values of some axes are meant; other axes do not matter.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    /// The axis, and for each of its values whether it is meant.
    clauses: Vec<(usize, Vec<bool>)>,
}

impl Pattern {
    /// Whether a combination (the place of the value on each axis) is meant.
    pub(super) fn matches(&self, combination: &[u32]) -> bool {
        self.clauses
            .iter()
            .all(|(axis, meant)| meant.get(combination[*axis] as usize).copied().unwrap_or(false))
    }

    /// The axes that it speaks of.
    pub(super) fn axes(&self) -> impl Iterator<Item = usize> {
        self.clauses.iter().map(|&(axis, _)| axis)
    }

    /// Reads `{ axis = value or list of values, … }`; `None` after a mistake. `place` names it in messages.
    pub(super) fn read(
        node: &Node,
        place: &str,
        axes: &[GridAxis],
        found: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let Some(table) = node.table() else {
            let message =
                format!("`{place}` must be a table of axes and values, not {}", node.value().type_name());
            found.push(
                Diagnostic::new("grid::wrong_type", message)
                    .at(node.span, "here")
                    .help(format!("write `{place} = {{ axis = \"value\" }}`")),
            );
            return None;
        };
        let before = found.len();
        let clauses = read_clauses(table, axes, found);
        (found.len() == before).then_some(Self { clauses })
    }

    /// Reads `bank=dual,augment=none` of the command line, which starts `shift` bytes into its source.
    /// An axis that comes twice may take either value.
    pub(super) fn read_only(
        text: &str,
        source: usize,
        shift: usize,
        axes: &[GridAxis],
        found: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let before = found.len();
        let mut pattern = Self { clauses: Vec::new() };
        let mut start = shift;
        for part in text.split(',') {
            let span = Span { source, start, end: start + part.len() };
            start += part.len() + 1;
            match read_equation(part, span, axes) {
                Ok((axis, place)) => pattern.allow(axis, place, axes[axis].values.len()),
                Err(diagnostic) => found.push(*diagnostic),
            }
        }
        (found.len() == before).then_some(pattern)
    }

    fn allow(&mut self, axis: usize, place: usize, length: usize) {
        if let Some((_, meant)) = self.clauses.iter_mut().find(|(known, _)| *known == axis) {
            meant[place] = true;
            return;
        }
        let meant = (0..length).map(|other| other == place).collect();
        self.clauses.push((axis, meant));
    }
}

fn read_clauses(table: &Table, axes: &[GridAxis], found: &mut Vec<Diagnostic>) -> Vec<(usize, Vec<bool>)> {
    let mut clauses = Vec::new();
    for entry in &table.entries {
        let Some(place) = axes.iter().position(|axis| axis.name.as_str() == entry.name) else {
            found.push(unknown_axis(&entry.name, entry.name_span, axes));
            continue;
        };
        let axis = &axes[place];
        let mut meant = vec![false; axis.values.len()];
        for choice in choices(&entry.node, axis) {
            let value = choice.value();
            match axis.values.iter().position(|(known, _)| is_same(known, &value)) {
                Some(place) => meant[place] = true,
                None if axis.former.iter().any(|known| is_same(known, &value)) => {}
                None => found.push(unknown_value(&value.to_string(), choice.span, axis)),
            }
        }
        clauses.push((place, meant));
    }
    clauses
}

/// A list means its members, unless the axis has that very list as a value.
fn choices<'a>(node: &'a Node, axis: &GridAxis) -> Vec<&'a Node> {
    match &node.content {
        Content::List(members) if !axis.values.iter().any(|(known, _)| *known == node.value()) => {
            members.iter().collect()
        }
        _ => vec![node],
    }
}

fn read_equation(part: &str, span: Span, axes: &[GridAxis]) -> Result<(usize, usize), Box<Diagnostic>> {
    let Some((name, value)) = part.split_once('=') else {
        let diagnostic = Diagnostic::new("only::no_value", "`--only` needs `axis=value`")
            .at(span, "no `=` here")
            .help("write `--only 'bank=dual,augment=none'`");
        return Err(Box::new(diagnostic));
    };
    let name_span = Span { end: span.start + name.len(), ..span };
    let value_span = Span { start: name_span.end + 1, ..span };
    let Some(axis) = axes.iter().position(|axis| axis.name.as_str() == name.trim()) else {
        return Err(Box::new(unknown_axis(name.trim(), name_span, axes)));
    };
    let value = value.trim();
    let typed = parse_value(value, span.source, 0, &mut Vec::new()).map(|node| node.value());
    let is_meant = |(known, label): (&Value, &String)| {
        label == value
            || known.to_string() == value
            || typed.as_ref().is_some_and(|typed| is_same(known, typed))
    };
    let mut known = axes[axis].values.iter().map(|(known, _)| known).zip(&axes[axis].labels);
    match known.position(is_meant) {
        Some(place) => Ok((axis, place)),
        None => Err(Box::new(unknown_value(value, value_span, &axes[axis]))),
    }
}

/// No axis of that name; the nearest one is named.
pub(super) fn unknown_axis(name: &str, span: Span, axes: &[GridAxis]) -> Diagnostic {
    let names: Vec<&str> = axes.iter().map(|axis| axis.name.as_str()).collect();
    let help = if names.is_empty() {
        format!("this manifest has no axes: add `{name} = [\"…\"]` below `[grid.axes]`")
    } else {
        suggestion(name, &names)
    };
    Diagnostic::new("grid::unknown_axis", format!("no axis `{name}`")).at(span, "not an axis").help(help)
}

fn unknown_value(value: &str, span: Span, axis: &GridAxis) -> Diagnostic {
    let known: Vec<String> = axis.values.iter().map(|(known, _)| known.to_string()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Diagnostic::new("grid::unknown_value", format!("axis `{}` has no value `{value}`", axis.name))
        .at(span, "not a value of the axis")
        .help(suggestion(value, &known))
}
