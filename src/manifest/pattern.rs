//! Patterns of axis values: `when`, `grid.exclude`, `grid.include` and `--only`.

use super::axis::{Combination, GridAxis, find_axis, unknown_axis};
use super::diagnostic::{Diagnostic, Span};
use super::index::{AxisIndex, ValueIndex};
use super::raw::{Content, TomlEntry, TomlNode, TomlTable, is_same, parse_value};
use crate::stages::fields::{Value, suggestion};

/// A choice of values of some axes; any value of the other axes matches.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    clauses: Vec<Clause>,
}

/// The chosen values of one axis.
#[derive(Clone, Debug)]
struct Clause {
    axis: AxisIndex,
    /// For each value of the axis, whether it is chosen.
    is_chosen: Vec<bool>,
}

impl Clause {
    fn new(axis: AxisIndex, axes: &[GridAxis]) -> Self {
        Self { axis, is_chosen: vec![false; axes[axis.0].values.len()] }
    }

    fn matches(&self, combination: &Combination) -> bool {
        self.is_chosen.get(combination[self.axis].index()).copied().unwrap_or(false)
    }
}

impl Pattern {
    /// Whether a combination matches.
    pub(super) fn matches(&self, combination: &Combination) -> bool {
        self.clauses.iter().all(|clause| clause.matches(combination))
    }

    /// Iterates over the axes that the pattern names.
    pub(super) fn axes(&self) -> impl Iterator<Item = AxisIndex> {
        self.clauses.iter().map(|clause| clause.axis)
    }

    /// Reads `{ axis = value or list of values, … }`; messages call it `name`.
    ///
    /// # Errors
    /// Every mistake of the pattern.
    pub(super) fn read(node: &TomlNode, name: &str, axes: &[GridAxis]) -> Result<Self, Vec<Diagnostic>> {
        let Some(table) = node.table() else {
            let message =
                format!("`{name}` must be a table of axes and values, not {}", node.value().type_name());
            let diagnostic = Diagnostic::new("grid::wrong_type", message)
                .at(node.span, "here")
                .help(format!("write `{name} = {{ axis = \"value\" }}`"));
            return Err(vec![diagnostic]);
        };
        Self::read_table(table, axes)
    }

    fn read_table(table: &TomlTable, axes: &[GridAxis]) -> Result<Self, Vec<Diagnostic>> {
        let (mut clauses, mut found) = (Vec::new(), Vec::new());
        for entry in &table.entries {
            match read_clause(entry, axes) {
                Ok(clause) => clauses.push(clause),
                Err(mistakes) => found.extend(mistakes),
            }
        }
        if found.is_empty() { Ok(Self { clauses }) } else { Err(found) }
    }

    /// Reads `bank=dual,augment=none` of the command line, which begins `shift` bytes into its source. An axis that is
    /// named twice takes either value.
    ///
    /// # Errors
    /// Every mistake of the option.
    pub(super) fn read_only(
        text: &str,
        source: usize,
        shift: usize,
        axes: &[GridAxis],
    ) -> Result<Self, Vec<Diagnostic>> {
        let (mut pattern, mut found) = (Self { clauses: Vec::new() }, Vec::new());
        let mut start = shift;
        for part in text.split(',') {
            let span = Span { source, start, end: start + part.len() };
            start += part.len() + 1;
            match read_equation(part, span, axes) {
                Ok((axis, value)) => pattern.clause_mut(axis, axes).is_chosen[value.index()] = true,
                Err(diagnostic) => found.push(*diagnostic),
            }
        }
        if found.is_empty() { Ok(pattern) } else { Err(found) }
    }

    /// The clause of an axis, added if there is none.
    fn clause_mut(&mut self, axis: AxisIndex, axes: &[GridAxis]) -> &mut Clause {
        let known = self.clauses.iter().position(|clause| clause.axis == axis);
        let index = known.unwrap_or_else(|| {
            self.clauses.push(Clause::new(axis, axes));
            self.clauses.len() - 1
        });
        &mut self.clauses[index]
    }
}

fn read_clause(entry: &TomlEntry, axes: &[GridAxis]) -> Result<Clause, Vec<Diagnostic>> {
    let Some(index) = find_axis(axes, &entry.name) else {
        return Err(vec![unknown_axis(&entry.name, entry.name_span, axes)]);
    };
    let axis = &axes[index.0];
    let (mut clause, mut found) = (Clause::new(index, axes), Vec::new());
    for choice in choices(&entry.node, axis) {
        let value = choice.value();
        match axis.find(&value) {
            Some(value) => clause.is_chosen[value.index()] = true,
            None if axis.former.iter().any(|known| is_same(known, &value)) => {}
            None => found.push(unknown_value(&value.to_string(), choice.span, axis)),
        }
    }
    if found.is_empty() { Ok(clause) } else { Err(found) }
}

/// The members of a list, unless that list is itself a value of the axis.
fn choices<'a>(node: &'a TomlNode, axis: &GridAxis) -> Vec<&'a TomlNode> {
    match &node.content {
        Content::List(members) if !axis.values.iter().any(|(known, _)| *known == node.value()) => {
            members.iter().collect()
        }
        _ => vec![node],
    }
}

fn read_equation(
    part: &str,
    span: Span,
    axes: &[GridAxis],
) -> Result<(AxisIndex, ValueIndex), Box<Diagnostic>> {
    let Some((name, value)) = part.split_once('=') else {
        let diagnostic = Diagnostic::new("only::no_value", "`--only` needs `axis=value`")
            .at(span, "no `=` here")
            .help("write `--only 'bank=dual,augment=none'`");
        return Err(Box::new(diagnostic));
    };
    let name_span = Span { end: span.start + name.len(), ..span };
    let value_span = Span { start: name_span.end + 1, ..span };
    let Some(axis) = find_axis(axes, name.trim()) else {
        return Err(Box::new(unknown_axis(name.trim(), name_span, axes)));
    };
    match find_typed(value.trim(), span.source, &axes[axis.0]) {
        Some(value) => Ok((axis, value)),
        None => Err(Box::new(unknown_value(value.trim(), value_span, &axes[axis.0]))),
    }
}

/// Finds a value of an axis by its label, its text or its TOML.
fn find_typed(text: &str, source: usize, axis: &GridAxis) -> Option<ValueIndex> {
    let typed = parse_value(text, source, 0, &mut Vec::new()).map(|node| node.value());
    let is_typed = |(known, label): (&Value, &String)| {
        label == text
            || known.to_string() == text
            || typed.as_ref().is_some_and(|typed| is_same(known, typed))
    };
    let mut known = axis.values.iter().map(|(known, _)| known).zip(&axis.labels);
    known.position(is_typed).map(|index| ValueIndex(index as u32))
}

fn unknown_value(value: &str, span: Span, axis: &GridAxis) -> Diagnostic {
    let known: Vec<String> = axis.values.iter().map(|(known, _)| known.to_string()).collect();
    Diagnostic::new("grid::unknown_value", format!("axis `{}` has no value `{value}`", axis.name))
        .at(span, "not a value of the axis")
        .help(suggestion(value, &known))
}
