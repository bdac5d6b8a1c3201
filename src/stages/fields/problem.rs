//! What is wrong with the fields of a stage: facts, and the one place that puts them into words.

use std::sync::Arc;

use super::path::stages_for;
use super::reader::suggestion;
use crate::artifacts::Artifact;

/// One mistake in a stage's fields, at a path such as `["select", "label"]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the field from the stage's table; of the table that lacks a field for [`ProblemKind::Missing`].
    pub path: Vec<String>,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`message` and `help` say what each field is")]
pub enum ProblemKind {
    /// A required field is absent.
    Missing { field: String, expected: String },
    /// A field that the stage does not have. `owner` is the kind of the stage, for fields outside inner tables.
    UnknownField { field: String, owner: Option<&'static str>, known: Vec<String> },
    /// A value of the wrong type.
    WrongType { field: String, expected: String, found: &'static str, value: String },
    /// A number outside its range.
    OutOfRange { field: String, value: String, least: String, most: String },
    /// A number below what other fields of the stage require.
    TooSmall { message: String, help: String },
    /// A text that is not among the choices.
    UnknownChoice { field: String, value: String, known: Vec<String> },
    /// A list of ports without members.
    NoPorts { field: String },
    /// A port names a stage that does not exist.
    UnknownStage { name: String, known: Arc<[String]> },
    /// A port has a path or an address where the name of a stage belongs. `taken` are the names of the stages.
    PathNotStage { field: String, path: String, expects: Artifact, taken: Arc<[String]> },
    /// A free name, such as that of an output, that cannot be used.
    BadName { message: String, help: String },
    /// Anything that only one kind of stage checks.
    Unfit { code: &'static str, message: String, help: Option<String> },
}

impl Problem {
    /// Returns the stable code, such as `unknown_field`.
    pub fn code(&self) -> &'static str {
        match &self.kind {
            ProblemKind::Missing { .. } => "missing_field",
            ProblemKind::UnknownField { .. } => "unknown_field",
            ProblemKind::WrongType { .. } => "wrong_type",
            ProblemKind::OutOfRange { .. } | ProblemKind::TooSmall { .. } => "out_of_range",
            ProblemKind::UnknownChoice { .. } => "unknown_choice",
            ProblemKind::NoPorts { .. } => "empty_list",
            ProblemKind::UnknownStage { .. } => "unknown_stage",
            ProblemKind::PathNotStage { .. } => "path_not_stage",
            ProblemKind::BadName { .. } => "bad_name",
            ProblemKind::Unfit { code, .. } => code,
        }
    }

    /// Whether the name of the field is wrong, not its value.
    pub fn is_about_name(&self) -> bool {
        matches!(
            self.kind,
            ProblemKind::Missing { .. } | ProblemKind::UnknownField { .. } | ProblemKind::BadName { .. }
        )
    }

    /// Returns what is wrong: a lower-case fragment.
    pub fn message(&self) -> String {
        match &self.kind {
            ProblemKind::Missing { field, .. } => format!("`{field}` is missing"),
            ProblemKind::UnknownField { field, owner: None, .. } => format!("no field `{field}` here"),
            ProblemKind::UnknownField { field, owner: Some(kind), .. } => {
                format!("`{kind}` has no field `{field}`")
            }
            ProblemKind::WrongType { field, expected, found, value } => {
                format!("`{field}` must be {expected}, not {found} (`{value}`)")
            }
            ProblemKind::OutOfRange { field, value, .. } => format!("`{field}` is out of range: {value}"),
            ProblemKind::UnknownChoice { field, value, .. } => format!("`{field}` has no choice `{value}`"),
            ProblemKind::NoPorts { field } => format!("`{field}` is empty"),
            ProblemKind::UnknownStage { name, .. } => format!("no stage `{name}`"),
            ProblemKind::PathNotStage { field, path, .. } => {
                format!("`{field}` must name a stage, not a file, folder or address (`{path}`)")
            }
            ProblemKind::TooSmall { message, .. }
            | ProblemKind::BadName { message, .. }
            | ProblemKind::Unfit { message, .. } => message.clone(),
        }
    }

    /// Returns what to type instead.
    pub fn help(&self) -> Option<String> {
        match &self.kind {
            ProblemKind::Missing { field, expected } => Some(format!("add `{field} = …` ({expected})")),
            ProblemKind::UnknownField { field: written, known, .. }
            | ProblemKind::UnknownChoice { value: written, known, .. } => Some(suggestion(written, known)),
            ProblemKind::UnknownStage { name, known } => Some(suggestion(name, known)),
            ProblemKind::PathNotStage { field, path, expects, taken } => {
                Some(stages_for(field, path, *expects, taken))
            }
            ProblemKind::WrongType { field, expected, .. } => {
                Some(format!("write `{field} = …` with {expected}"))
            }
            ProblemKind::OutOfRange { least, most, .. } => {
                Some(format!("use a value from {least} to {most}"))
            }
            ProblemKind::TooSmall { help, .. } | ProblemKind::BadName { help, .. } => Some(help.clone()),
            ProblemKind::NoPorts { .. } => Some("name at least one stage".to_owned()),
            ProblemKind::Unfit { help, .. } => help.clone(),
        }
    }
}
