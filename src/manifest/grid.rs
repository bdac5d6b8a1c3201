//! The grid: the product of the axes, and what `exclude` and `include` leave of it.
//!
//! Combinations come in the order of the product, the last axis running fastest. `include` restores combinations that
//! `exclude` removed; neither adds a value.

use super::axis::{AxisReader, Combination, GridAxis, wrong_type};
use super::diagnostic::Diagnostic;
use super::index::{AxisIndex, ValueIndex};
use super::pattern::Pattern;
use super::raw::{Content, TomlEntry, TomlNode, TomlTable};
use crate::stages::fields::suggestion;

/// Largest number of combinations of a grid (chosen, untested): more is a mistake, or should be several manifests.
const MOST: usize = 1_000_000;

/// Axes and combinations.
#[derive(Debug, Default)]
pub(super) struct Grid {
    pub(super) axes: Vec<GridAxis>,
    pub(super) combinations: Vec<Combination>,
}

impl Grid {
    /// Returns an axis.
    pub(super) fn axis(&self, axis: AxisIndex) -> &GridAxis {
        &self.axes[axis.0]
    }

    /// Writes a combination as `bank=dual,augment=none`.
    pub(super) fn equations(&self, combination: &Combination) -> String {
        let values = self.axes.iter().zip(&combination.0).map(|(axis, &value)| axis.equation(value));
        values.collect::<Vec<_>>().join(",")
    }
}

/// Reads `[grid]`. If its mistakes leave no combination, the grid has the whole product, so that the stages can still
/// be checked.
pub(super) fn read(grid: Option<&TomlNode>, found: &mut Vec<Diagnostic>) -> Grid {
    let empty = TomlTable::default();
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
    let mut reader = AxisReader { axes: Vec::new(), found };
    reader.table(table.get("axes"), "axes");
    reader.table(table.get("repeats"), "repeats");
    let axes = reader.axes;
    let combinations = Combiner { table, axes: &axes, found }.combine();
    Grid { axes, combinations }
}

/// Makes the combinations of the axes of `[grid]`.
struct Combiner<'a> {
    table: &'a TomlTable,
    axes: &'a [GridAxis],
    found: &'a mut Vec<Diagnostic>,
}

impl Combiner<'_> {
    fn combine(&mut self) -> Vec<Combination> {
        let exclude = self.patterns("exclude");
        let include = self.patterns("include");
        self.check_include();
        let lengths: Vec<usize> = self.axes.iter().map(|axis| axis.values.len().max(1)).collect();
        if self.is_too_large(&lengths) {
            return vec![Combination(vec![ValueIndex(0); self.axes.len()])];
        }
        let all = product(&lengths);
        let is_kept = |combination: &&Combination| {
            !exclude.iter().any(|pattern| pattern.matches(combination))
                || include.iter().any(|pattern| pattern.matches(combination))
        };
        let kept: Vec<Combination> = all.iter().filter(is_kept).cloned().collect();
        if !kept.is_empty() {
            return kept;
        }
        if let Some(entry) = self.table.entry("exclude") {
            self.found.push(
                Diagnostic::new("grid::empty", "`grid.exclude` takes out every combination")
                    .at(entry.name_span, "nothing is left")
                    .help("narrow one of the exclusions by a further axis"),
            );
        }
        all
    }

    /// Reports an `include` without an `exclude`.
    fn check_include(&mut self) {
        if let (Some(entry), None) = (self.table.entry("include"), self.table.entry("exclude")) {
            let message = "`grid.include` changes nothing: it brings back what `grid.exclude` took out";
            self.found.push(
                Diagnostic::new("grid::idle_include", message)
                    .at(entry.name_span, "nothing is excluded")
                    .help("remove it, or add `[[grid.exclude]]`"),
            );
        }
    }

    fn is_too_large(&mut self, lengths: &[usize]) -> bool {
        let size = lengths.iter().try_fold(1_usize, |size, &length| size.checked_mul(length));
        let is_too_large = size.is_none_or(|size| size > MOST);
        if is_too_large {
            self.found.push(
                Diagnostic::new("grid::too_large", format!("the grid has more than {MOST} combinations"))
                    .at(self.axes[0].name_span, "these axes multiply")
                    .help("take values out, or split the manifest"),
            );
        }
        is_too_large
    }

    /// Reads the patterns of `exclude` or `include`.
    fn patterns(&mut self, name: &str) -> Vec<Pattern> {
        let Some(TomlEntry { node, .. }) = self.table.entry(name) else { return Vec::new() };
        let Content::List(members) = &node.content else {
            let help = format!("write `[[grid.{name}]]` and below it `axis = \"value\"`");
            self.found.push(wrong_type(&format!("grid.{name}"), "an array of tables", node, help));
            return Vec::new();
        };
        let mut patterns = Vec::new();
        for member in members {
            if member.table().is_some_and(|table| table.entries.is_empty()) {
                self.found.push(
                    Diagnostic::new("grid::empty_pattern", format!("this `grid.{name}` names no axis"))
                        .at(member.span, "it would match every combination")
                        .help("write `axis = \"value\"` in it, or remove it"),
                );
                continue;
            }
            match Pattern::read(member, &format!("grid.{name}"), self.axes) {
                Ok(pattern) => patterns.push(pattern),
                Err(mistakes) => self.found.extend(mistakes),
            }
        }
        patterns
    }
}

/// Returns every combination, the last axis running fastest; one empty combination if there are no axes.
fn product(lengths: &[usize]) -> Vec<Combination> {
    let mut combinations = vec![Vec::with_capacity(lengths.len())];
    for &length in lengths {
        let extend = |combination: Vec<ValueIndex>| {
            (0..length as u32).map(move |value| {
                let mut combination = combination.clone();
                combination.push(ValueIndex(value));
                combination
            })
        };
        combinations = combinations.into_iter().flat_map(extend).collect();
    }
    combinations.into_iter().map(Combination).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_in_order_of_the_axes() {
        let product = |lengths: &[usize]| -> Vec<Vec<u32>> {
            let rows = product(lengths).into_iter();
            rows.map(|Combination(row)| row.into_iter().map(|value| value.0).collect()).collect()
        };
        assert_eq!(product(&[2, 2]), [vec![0, 0], vec![0, 1], vec![1, 0], vec![1, 1]]);
        assert_eq!(product(&[]), [Vec::<u32>::new()]);
    }
}
