//! Axes: names, values, and the labels that values have in the names of variants.

use std::collections::{BTreeSet, HashMap};
use std::ops::Index;

use super::diagnostic::{Diagnostic, Span};
use super::index::{AxisIndex, ValueIndex};
use super::names::{AxisName, is_name, name_of};
use super::raw::{Content, TomlEntry, TomlNode, is_same, literal};
use crate::stages::fields::{Value, suggestion};

/// Longest label of a value in a variant's name, in characters (chosen: names stay readable).
const LABEL_LENGTH: usize = 60;

/// An axis with its spans.
#[derive(Clone, Debug)]
pub(super) struct GridAxis {
    pub(super) name: AxisName,
    pub(super) name_span: Span,
    pub(super) values: Vec<(Value, Span)>,
    /// The label of each value in the names of variants; unique, even on file systems that ignore letter case.
    pub(super) labels: Vec<String>,
    /// Values that the axis had before `--set` or an including file replaced them.
    pub(super) former: Vec<Value>,
    pub(super) is_repeat: bool,
}

/// A value on each axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Combination(pub(super) Vec<ValueIndex>);

impl Index<AxisIndex> for Combination {
    type Output = ValueIndex;

    fn index(&self, axis: AxisIndex) -> &ValueIndex {
        &self.0[axis.0]
    }
}

impl GridAxis {
    /// Returns a value with its span; `None` if the axis is empty, which is reported elsewhere.
    pub(super) fn value(&self, index: ValueIndex) -> Option<&(Value, Span)> {
        self.values.get(index.index())
    }

    /// Returns the index of a value.
    pub(super) fn find(&self, value: &Value) -> Option<ValueIndex> {
        let index = self.values.iter().position(|(known, _)| is_same(known, value))?;
        Some(ValueIndex(index as u32))
    }

    /// Writes `axis=value` as `--only` takes it.
    pub(super) fn equation(&self, value: ValueIndex) -> String {
        format!("{}={}", self.name, self.labels.get(value.index()).map_or("", String::as_str))
    }
}

/// Finds an axis by name.
pub(super) fn find_axis(axes: &[GridAxis], name: &str) -> Option<AxisIndex> {
    axes.iter().position(|axis| axis.name.as_str() == name).map(AxisIndex)
}

/// Returns the mistake of naming an axis that does not exist.
pub(super) fn unknown_axis(name: &str, span: Span, axes: &[GridAxis]) -> Diagnostic {
    let names: Vec<&str> = axes.iter().map(|axis| axis.name.as_str()).collect();
    let help = if names.is_empty() {
        format!("this manifest has no axes: add `{name} = [\"…\"]` below `[grid.axes]`")
    } else {
        suggestion(name, &names)
    };
    Diagnostic::new("grid::unknown_axis", format!("no axis `{name}`")).at(span, "not an axis").help(help)
}

/// Returns the mistake of a value of the wrong type in `[grid]`.
pub(super) fn wrong_type(name: &str, expected: &str, node: &TomlNode, help: impl Into<String>) -> Diagnostic {
    let message = format!("`{name}` must be {expected}, not {}", node.value().type_name());
    Diagnostic::new("grid::wrong_type", message).at(node.span, "here").help(help)
}

/// Reads the axes of `[grid.axes]` and `[grid.repeats]`.
pub(super) struct AxisReader<'a> {
    pub(super) axes: Vec<GridAxis>,
    pub(super) found: &'a mut Vec<Diagnostic>,
}

impl AxisReader<'_> {
    /// Reads the axes of one table, `axes` or `repeats`.
    pub(super) fn table(&mut self, node: Option<&TomlNode>, field: &str) {
        let Some(node) = node else { return };
        let Some(table) = node.table() else {
            let help =
                format!("write `[grid.{field}]` and below it `backbone = [\"resnet18\", \"resnet50\"]`");
            self.found.push(wrong_type(&format!("grid.{field}"), "a table of lists", node, help));
            return;
        };
        for entry in &table.entries {
            if self.is_free(entry) {
                let axis = self.axis(entry, field == "repeats");
                self.axes.push(axis);
            }
        }
    }

    /// Returns whether an axis can have that name, and reports the mistake if not.
    fn is_free(&mut self, entry: &TomlEntry) -> bool {
        if !is_name(&entry.name) {
            let message = format!("`{}` cannot name an axis", entry.name);
            self.found.push(
                Diagnostic::new("grid::bad_name", message)
                    .at(entry.name_span, "only letters, digits, `_` and `-`")
                    .help(format!("write `{}`", name_of(&entry.name))),
            );
            return false;
        }
        let Some(first) = self.axes.iter().find(|axis| axis.name.as_str() == entry.name) else { return true };
        let message = format!("axis `{}` stands below both `axes` and `repeats`", entry.name);
        self.found.push(
            Diagnostic::new("grid::repeated_axis", message)
                .at(entry.name_span, "again here")
                .at(first.name_span, "first here")
                .help("remove one of them"),
        );
        false
    }

    fn axis(&mut self, entry: &TomlEntry, is_repeat: bool) -> GridAxis {
        let mut axis = GridAxis {
            name: AxisName::new(&entry.name),
            name_span: entry.name_span,
            values: Vec::new(),
            labels: Vec::new(),
            former: entry.former.clone(),
            is_repeat,
        };
        let Content::List(members) = &entry.node.content else {
            let help = format!("write `{} = [{}]`", entry.name, literal(&entry.node.value()));
            self.found.push(wrong_type(&entry.name, "an array of values", &entry.node, help));
            return axis;
        };
        if members.is_empty() {
            self.found.push(
                Diagnostic::new("grid::empty_axis", format!("axis `{}` has no values", entry.name))
                    .at(entry.node.span, "empty")
                    .help(format!("write `{} = [\"…\"]`, or remove the axis", entry.name)),
            );
        }
        let mut known = HashMap::new();
        for member in members {
            self.value(&mut axis, member, &mut known);
        }
        axis.labels = labels(&axis.values);
        axis
    }

    /// Adds a value; `known` has the spans of the values before it.
    fn value(&mut self, axis: &mut GridAxis, member: &TomlNode, known: &mut HashMap<String, Span>) {
        let value = member.value();
        if axis.name.as_str() == "seed" && !matches!(value, Value::Integer(0..)) {
            let message = format!("a seed is a whole number from 0, not {} (`{value}`)", value.type_name());
            self.found.push(
                Diagnostic::new("grid::bad_seed", message)
                    .at(member.span, "this value")
                    .help("write `seed = [0, 1, 2]`"),
            );
        }
        if let Some(first) = known.get(&identity(&value)) {
            self.found.push(
                Diagnostic::new("grid::repeated_value", format!("axis `{}` has `{value}` twice", axis.name))
                    .at(member.span, "again here")
                    .at(*first, "first here")
                    .help("remove one of them"),
            );
            return;
        }
        known.insert(identity(&value), member.span);
        axis.values.push((value, member.span));
    }
}

/// A text that two values share exactly if they are the same; 1 and 1.0 are ([`is_same`]).
fn identity(value: &Value) -> String {
    match value {
        Value::Integer(number) => format!("{number}"),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{}", *number as i64),
        Value::Float(number) => format!("{:x}", number.to_bits()),
        other => literal(other),
    }
}

/// A label for each value that is safe in folder names: other letters become `_`, repeated labels get `~2`, `~3`.
fn labels(values: &[(Value, Span)]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    // The count at which the search for a free label goes on.
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut labels = Vec::new();
    for (value, _) in values {
        let plain = label(value);
        let mut label = plain.clone();
        let count = counts.entry(plain.to_lowercase()).or_insert(1);
        while !taken.insert(label.to_lowercase()) {
            *count += 1;
            label = format!("{plain}~{count}");
        }
        labels.push(label);
    }
    labels
}

fn label(value: &Value) -> String {
    let text = match value {
        Value::List(members) => members.iter().map(label).collect::<Vec<_>>().join("+"),
        other => other.to_string(),
    };
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.+".contains(letter);
    let text: String = text.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
    if text.is_empty() { "_".to_owned() } else { text.chars().take(LABEL_LENGTH).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_on_any_file_system() {
        let span = Span { source: 0, start: 0, end: 0 };
        let values = ["a/b", "a_b", "A_B", ""].map(|text| (Value::from(text), span));
        assert_eq!(labels(&values), ["a_b", "a_b~2", "A_B~3", "_"]);
    }
}
