//! From a [`Problem`] of a stage's fields to a [`Diagnostic`] on the text.

use super::axis::GridAxis;
use super::diagnostic::{Diagnostic, Span};
use super::index::ValueIndex;
use super::raw::{TomlTable, locate};
use crate::stages::fields::{Problem, ProblemKind, Value};

/// Most values that a message names; the others are counted.
const MOST_NAMED: usize = 3;

/// Shows a problem of `table` on the text, or on `header` if the field is not written.
pub(super) fn located(area: &str, problem: &Problem, table: &TomlTable, header: Span) -> Diagnostic {
    let span = match locate(table, &problem.path) {
        Some(location) if problem.is_about_name() => location.name,
        Some(location) => location.value,
        None => header,
    };
    let code = format!("{area}::{}", problem.code());
    let mut diagnostic = Diagnostic::new(&code, problem.message()).at(span, label(&problem.kind));
    diagnostic.help = problem.help();
    diagnostic
}

/// Returns the text shown at the span.
fn label(kind: &ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Missing { .. } => "missing in here",
        ProblemKind::UnknownField { .. } => "unknown field",
        ProblemKind::UnknownStage { .. } | ProblemKind::PathNotStage { .. } => "not a stage",
        ProblemKind::WrongType { .. } => "of the wrong type",
        ProblemKind::OutOfRange { .. } | ProblemKind::TooSmall { .. } => "out of range",
        ProblemKind::UnknownChoice { .. } => "not a choice",
        ProblemKind::BadName { .. } => "not a plain name",
        ProblemKind::NoPorts { .. } | ProblemKind::Unfit { .. } => "here",
    }
}

/// Adds for which values of an axis the diagnostic holds, with a label on each.
pub(super) fn with_values(mut diagnostic: Diagnostic, axis: &GridAxis, values: &[ValueIndex]) -> Diagnostic {
    let values: Vec<&(Value, Span)> = values.iter().filter_map(|&value| axis.value(value)).collect();
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
