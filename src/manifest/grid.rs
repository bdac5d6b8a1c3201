//! The grid: axes, their product, and what `exclude` and `include` leave of it.
//!
//! A combination is the place of a value on each axis. They come in the order of the product, the last axis
//! running fastest. `include` brings back what `exclude` took out; neither adds a value.

use std::collections::BTreeSet;

use super::diagnostic::{Diagnostic, Span};
use super::names::{AxisName, is_name, name_of};
use super::pattern::Pattern;
use super::raw::{Content, Entry, Node, Table, is_same, literal};
use crate::stages::fields::{Value, suggestion};

/// Most combinations of a grid (chosen, untested): more is a mistake or wants several manifests.
const MOST: usize = 1_000_000;
/// Longest label of a value in a variant's name, in characters (chosen: names stay readable).
const LABEL_LENGTH: usize = 60;

/// An axis with its places in the text.
#[derive(Clone, Debug)]
pub(super) struct GridAxis {
    pub(super) name: AxisName,
    pub(super) name_span: Span,
    pub(super) values: Vec<(Value, Span)>,
    /// How each value appears in a variant's name; unique, even where letter case does not count.
    pub(super) labels: Vec<String>,
    /// Values that were there before the axis was narrowed.
    pub(super) former: Vec<Value>,
    pub(super) is_repeat: bool,
}

/// Axes and combinations.
#[derive(Debug, Default)]
pub(super) struct Grid {
    pub(super) axes: Vec<GridAxis>,
    /// One row a combination: the place of the value on each axis.
    pub(super) combinations: Vec<Vec<u32>>,
}

/// Reads `[grid]`; mistakes go to `found`. Where they leave no combination the whole product is given, so that
/// the stages can be checked all the same.
pub(super) fn read(grid: Option<&Node>, found: &mut Vec<Diagnostic>) -> Grid {
    let empty = Table::default();
    let table = match grid {
        None => &empty,
        Some(node) => node.table().unwrap_or_else(|| {
            found.push(wrong_type("grid", "a table", node, "write `[grid.axes]`"));
            &empty
        }),
    };
    for entry in &table.entries {
        let known = ["axes", "repeats", "exclude", "include"];
        if !known.contains(&entry.name.as_str()) {
            found.push(
                Diagnostic::new("grid::unknown_field", format!("`grid` has no `{}`", entry.name))
                    .at(entry.name_span, "unknown")
                    .help(suggestion(&entry.name, &known)),
            );
        }
    }
    let mut axes = Vec::new();
    read_axes(table.get("axes"), "axes", &mut axes, found);
    read_axes(table.get("repeats"), "repeats", &mut axes, found);
    let combinations = combine(table, &axes, found);
    Grid { axes, combinations }
}

fn wrong_type(name: &str, wanted: &str, node: &Node, help: impl Into<String>) -> Diagnostic {
    let message = format!("`{name}` must be {wanted}, not {}", node.value().type_name());
    Diagnostic::new("grid::wrong_type", message).at(node.span, "here").help(help)
}

fn read_axes(node: Option<&Node>, field: &str, axes: &mut Vec<GridAxis>, found: &mut Vec<Diagnostic>) {
    let Some(node) = node else { return };
    let Some(table) = node.table() else {
        let help = format!("write `[grid.{field}]` and below it `backbone = [\"resnet18\", \"resnet50\"]`");
        found.push(wrong_type(&format!("grid.{field}"), "a table of lists", node, help));
        return;
    };
    for entry in &table.entries {
        if !is_name(&entry.name) {
            let message = format!("`{}` cannot name an axis", entry.name);
            found.push(
                Diagnostic::new("grid::bad_name", message)
                    .at(entry.name_span, "only letters, digits, `_` and `-`")
                    .help(format!("write `{}`", name_of(&entry.name))),
            );
            continue;
        }
        if let Some(first) = axes.iter().find(|axis| axis.name.as_str() == entry.name) {
            let message = format!("axis `{}` stands below both `axes` and `repeats`", entry.name);
            found.push(
                Diagnostic::new("grid::repeated_axis", message)
                    .at(entry.name_span, "again here")
                    .at(first.name_span, "first here")
                    .help("remove one of them"),
            );
            continue;
        }
        axes.push(read_axis(entry, field == "repeats", found));
    }
}

fn read_axis(entry: &Entry, is_repeat: bool, found: &mut Vec<Diagnostic>) -> GridAxis {
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
        found.push(wrong_type(&entry.name, "an array of values", &entry.node, help));
        return axis;
    };
    if members.is_empty() {
        found.push(
            Diagnostic::new("grid::empty_axis", format!("axis `{}` has no values", entry.name))
                .at(entry.node.span, "empty")
                .help(format!("write `{} = [\"…\"]`, or remove the axis", entry.name)),
        );
    }
    for member in members {
        push_value(&mut axis, member, found);
    }
    axis.labels = labels(&axis.values);
    axis
}

fn push_value(axis: &mut GridAxis, member: &Node, found: &mut Vec<Diagnostic>) {
    let value = member.value();
    if axis.name.as_str() == "seed" && !matches!(value, Value::Integer(0..)) {
        let message = format!("a seed is a whole number from 0, not {} (`{value}`)", value.type_name());
        found.push(
            Diagnostic::new("grid::bad_seed", message)
                .at(member.span, "this value")
                .help("write `seed = [0, 1, 2]`"),
        );
    }
    if let Some((_, first)) = axis.values.iter().find(|(known, _)| is_same(known, &value)) {
        found.push(
            Diagnostic::new("grid::repeated_value", format!("axis `{}` has `{value}` twice", axis.name))
                .at(member.span, "again here")
                .at(*first, "first here")
                .help("remove one of them"),
        );
        return;
    }
    axis.values.push((value, member.span));
}

/// A folder-safe label for each value: other letters become `_`, what then collides gets `~2`, `~3` ….
fn labels(values: &[(Value, Span)]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut labels = Vec::new();
    for (value, _) in values {
        let plain = label(value);
        let mut label = plain.clone();
        let mut count = 1;
        while !taken.insert(label.to_lowercase()) {
            count += 1;
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

fn combine(table: &Table, axes: &[GridAxis], found: &mut Vec<Diagnostic>) -> Vec<Vec<u32>> {
    let lengths: Vec<usize> = axes.iter().map(|axis| axis.values.len().max(1)).collect();
    let exclude = read_patterns(table.entry("exclude"), axes, found);
    let include = read_patterns(table.entry("include"), axes, found);
    if let (Some(entry), None) = (table.entry("include"), table.entry("exclude")) {
        let message = "`grid.include` changes nothing: it brings back what `grid.exclude` took out";
        found.push(
            Diagnostic::new("grid::idle_include", message)
                .at(entry.name_span, "nothing is excluded")
                .help("remove it, or add `[[grid.exclude]]`"),
        );
    }
    let size = lengths.iter().try_fold(1_usize, |size, &length| size.checked_mul(length));
    if size.is_none_or(|size| size > MOST) {
        let span = axes[0].name_span;
        found.push(
            Diagnostic::new("grid::too_large", format!("the grid has more than {MOST} combinations"))
                .at(span, "these axes multiply")
                .help("take values out, or split the manifest"),
        );
        return vec![vec![0; axes.len()]];
    }
    let all = product(&lengths);
    let is_kept = |row: &Vec<u32>| {
        !exclude.iter().any(|pattern| pattern.matches(row))
            || include.iter().any(|pattern| pattern.matches(row))
    };
    let kept: Vec<Vec<u32>> = all.iter().filter(|row| is_kept(row)).cloned().collect();
    if !kept.is_empty() {
        return kept;
    }
    if let Some(entry) = table.entry("exclude") {
        found.push(
            Diagnostic::new("grid::empty", "`grid.exclude` takes out every combination")
                .at(entry.name_span, "nothing is left")
                .help("narrow one of the exclusions by a further axis"),
        );
    }
    all
}

/// Every combination of places, the last axis running fastest; one empty row where there is no axis.
fn product(lengths: &[usize]) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::with_capacity(lengths.len())];
    for &length in lengths {
        let extend = |row: Vec<u32>| {
            (0..length as u32).map(move |place| {
                let mut row = row.clone();
                row.push(place);
                row
            })
        };
        rows = rows.into_iter().flat_map(extend).collect();
    }
    rows
}

fn read_patterns(entry: Option<&Entry>, axes: &[GridAxis], found: &mut Vec<Diagnostic>) -> Vec<Pattern> {
    let Some(entry) = entry else { return Vec::new() };
    let name = &entry.name;
    let Content::List(members) = &entry.node.content else {
        let help = format!("write `[[grid.{name}]]` and below it `axis = \"value\"`");
        found.push(wrong_type(&format!("grid.{name}"), "an array of tables", &entry.node, help));
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for member in members {
        if member.table().is_some_and(|table| table.entries.is_empty()) {
            found.push(
                Diagnostic::new("grid::empty_pattern", format!("this `grid.{name}` names no axis"))
                    .at(member.span, "it would match every combination")
                    .help("write `axis = \"value\"` in it, or remove it"),
            );
            continue;
        }
        patterns.extend(Pattern::read(member, &format!("grid.{name}"), axes, found));
    }
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_in_order_of_the_axes() {
        assert_eq!(product(&[2, 2]), [vec![0, 0], vec![0, 1], vec![1, 0], vec![1, 1]]);
        assert_eq!(product(&[]), [Vec::<u32>::new()]);
    }

    #[test]
    fn labels_are_unique_on_any_file_system() {
        let span = Span { source: 0, start: 0, end: 0 };
        let values = ["a/b", "a_b", "A_B", ""].map(|text| (Value::from(text), span));
        assert_eq!(labels(&values), ["a_b", "a_b~2", "A_B~3", "_"]);
    }
}
