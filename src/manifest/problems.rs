//! Puts what a [`Reader`](crate::stages::fields::Reader) found back onto the text.

use super::diagnostic::{Diagnostic, Span};
use super::grid::GridAxis;
use super::raw::{Table, find};
use super::substitute::Use;
use crate::stages::fields::{Problem, Value};

/// Most values that a message names before it says how many more there are.
const MOST_NAMED: usize = 3;

/// The diagnostic of `problem` in `table`, whose header is `header`; a missing field is shown there.
pub(super) fn located(area: &str, problem: &Problem, table: &Table, header: Span) -> Diagnostic {
    let span = match find(table, &problem.path) {
        Some(place) if problem.at_name => place.name,
        Some(place) => place.value,
        None => header,
    };
    let words = match problem.code {
        "missing_field" => "missing in here",
        "unknown_field" => "unknown field",
        "unknown_stage" => "not a stage",
        "wrong_type" => "of the wrong type",
        "out_of_range" => "out of range",
        "unknown_choice" => "not a choice",
        _ => "here",
    };
    let mut diagnostic =
        Diagnostic::new(&format!("{area}::{}", problem.code), &problem.message).at(span, words);
    diagnostic.help = problem.help.clone().or_else(|| typed(problem));
    diagnostic
}

/// The remedy of a wrong type, which the reader leaves to its message: `… must be an integer, not …`.
fn typed(problem: &Problem) -> Option<String> {
    let (_, wanted) = problem.message.split_once(" must be ")?;
    let (wanted, _) = wanted.split_once(", not ")?;
    Some(format!("write `{} = …` with {wanted}", problem.path.last()?))
}

/// Whether one path lies within the other.
pub(super) fn is_related(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// Whether the field at `path` holds a `${…}` that could not be filled in, which has been reported.
pub(super) fn is_broken(uses: &[Use], path: &[String]) -> bool {
    !path.is_empty() && uses.iter().any(|one| one.is_broken && is_related(&one.path, path))
}

/// The axes that the field at `path` uses.
pub(super) fn axes_of(uses: &[Use], path: &[String]) -> Vec<usize> {
    let mut axes: Vec<usize> =
        uses.iter().filter(|one| is_related(&one.path, path)).filter_map(|one| one.axis).collect();
    axes.sort_unstable();
    axes.dedup();
    axes
}

/// Says for which values of an axis the diagnostic holds, and labels them.
pub(super) fn with_values(mut diagnostic: Diagnostic, axis: &GridAxis, places: &[u32]) -> Diagnostic {
    let values: Vec<&(Value, Span)> =
        places.iter().filter_map(|&place| axis.values.get(place as usize)).collect();
    let named: Vec<String> = values.iter().take(MOST_NAMED).map(|(value, _)| format!("`{value}`")).collect();
    let more = match values.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    diagnostic.message =
        format!("{} (axis `{}` is {}{more})", diagnostic.message, axis.name, named.join(", "));
    for (_, span) in values.into_iter().take(MOST_NAMED) {
        diagnostic = diagnostic.at(*span, format!("this value of `{}`", axis.name));
    }
    diagnostic
}
