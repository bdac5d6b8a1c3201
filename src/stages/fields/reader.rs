//! The reader of a stage's table: one method for each type of field.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use super::{Access, Fields, Port, Problem, ProblemKind, Value};
use crate::artifacts::Artifact;

/// Reads the fields of one table. Never stops at a mistake: it notes the problem and returns a fallback.
pub struct Reader<'a> {
    table: &'a Fields,
    /// Path of the table from the stage's table.
    prefix: Vec<String>,
    /// The fields that were asked for.
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
    ports: &'a mut Vec<Port>,
}

impl<'a> Reader<'a> {
    /// Makes a reader of `table` that adds to `problems` and `ports`.
    pub fn new(table: &'a Fields, problems: &'a mut Vec<Problem>, ports: &'a mut Vec<Port>) -> Self {
        Self { table, prefix: Vec::new(), known: Vec::new(), problems, ports }
    }

    /// Whether the table has the field.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// Whether the field is an empty list.
    pub fn is_empty_list(&self, name: &str) -> bool {
        matches!(self.table.get(name), Some(Value::List(items)) if items.is_empty())
    }

    /// Whether the field is a text.
    pub fn is_text(&self, name: &str) -> bool {
        matches!(self.table.get(name), Some(Value::Text(_)))
    }

    fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.table.get(name)
    }

    /// Marks fields as known, whether or not they are read.
    pub fn know(&mut self, names: &[&'static str]) {
        self.known
            .extend(names.iter().filter(|name| !self.known.contains(name)).copied().collect::<Vec<_>>());
    }

    /// Reports that the value of `name` does not suit this kind of stage.
    pub fn problem(&mut self, name: &str, code: &'static str, message: String, help: Option<String>) {
        self.report(name, ProblemKind::Unfit { code, message, help });
    }

    /// Reports that the number `name` is below what other fields require.
    pub fn too_small(&mut self, name: &str, message: String, help: String) {
        self.report(name, ProblemKind::TooSmall { message, help });
    }

    /// Reports that a free name in the table `field` cannot be used.
    pub fn bad_name(&mut self, field: &str, name: &str, message: String, help: &str) {
        let mut path = self.path(field);
        path.push(name.to_owned());
        self.problems.push(Problem { path, kind: ProblemKind::BadName { message, help: help.to_owned() } });
    }

    /// Reports that the field `name` must be written.
    pub fn missing(&mut self, name: &str, expected: &str) {
        let kind = ProblemKind::Missing { field: name.to_owned(), expected: expected.to_owned() };
        self.problems.push(Problem { path: self.prefix.clone(), kind });
    }

    fn report(&mut self, name: &str, kind: ProblemKind) {
        self.problems.push(Problem { path: self.path(name), kind });
    }

    fn wrong_type(&mut self, name: &str, expected: &str, found: &Value) {
        let (field, expected) = (name.to_owned(), expected.to_owned());
        let (found, value) = (found.type_name(), found.to_string());
        self.report(name, ProblemKind::WrongType { field, expected, found, value });
    }

    /// The path of a field from the stage's table.
    fn path(&self, name: &str) -> Vec<String> {
        let mut path = self.prefix.clone();
        path.push(name.to_owned());
        path
    }

    /// Reads an integer within `range`. Without a default the field is required.
    pub fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>, default: Option<i64>) -> i64 {
        let fallback = default.unwrap_or(*range.start());
        match self.take(name) {
            None if default.is_none() => self.missing(name, "an integer"),
            None => {}
            Some(&Value::Integer(number)) if range.contains(&number) => return number,
            Some(&Value::Integer(number)) => self.out_of_range(name, number, &range),
            Some(other) => self.wrong_type(name, "an integer", other),
        }
        fallback
    }

    /// Reads an optional integer within `range`.
    pub fn optional_integer(&mut self, name: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        self.take(name)?;
        Some(self.integer(name, range, None))
    }

    /// Reads a finite number within `range`, or an integer. Without a default the field is required.
    pub fn float(&mut self, name: &'static str, range: RangeInclusive<f64>, default: Option<f64>) -> f64 {
        let fallback = default.unwrap_or(*range.start());
        let number = match self.take(name) {
            None if default.is_none() => {
                self.missing(name, "a number");
                return fallback;
            }
            None => return fallback,
            Some(&Value::Integer(number)) => number as f64,
            Some(&Value::Float(number)) => number,
            Some(other) => {
                self.wrong_type(name, "a number", other);
                return fallback;
            }
        };
        if range.contains(&number) {
            return number;
        }
        self.out_of_range(name, number, &range);
        fallback
    }

    /// Reads an optional number within `range`.
    pub fn optional_float(&mut self, name: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        self.take(name)?;
        Some(self.float(name, range, None))
    }

    fn out_of_range<T: fmt::Display>(&mut self, name: &'static str, number: T, range: &RangeInclusive<T>) {
        let kind = ProblemKind::OutOfRange {
            field: name.to_owned(),
            value: number.to_string(),
            least: range.start().to_string(),
            most: range.end().to_string(),
        };
        self.report(name, kind);
    }

    /// Reads true or false.
    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        match self.take(name) {
            None => default,
            Some(&Value::Bool(flag)) => flag,
            Some(other) => {
                self.wrong_type(name, "true or false", other);
                default
            }
        }
    }

    /// Reads an optional string.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::Text(text) => Some(text.clone()),
            other => {
                self.wrong_type(name, "a string", other);
                None
            }
        }
    }

    /// Reads a list of strings, empty if the field is absent.
    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::List(items) = value else {
            self.wrong_type(name, "an array of strings", value);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in items {
            match item {
                Value::Text(text) => texts.push(text.clone()),
                other => self.wrong_type(name, "an array of strings", other),
            }
        }
        texts
    }

    /// Reads a list of strings, empty if the field is absent. A single string is a list of one.
    pub fn text_or_texts(&mut self, name: &'static str) -> Vec<String> {
        if let Some(Value::Text(text)) = self.table.get(name) {
            self.take(name);
            return vec![text.clone()];
        }
        self.texts(name)
    }

    /// Reads one of the named choices. Without a default the field is required.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
        default: Option<&str>,
    ) -> T {
        let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
        let of =
            |written: &str| choices.iter().find(|&&(name, _)| name == written).map(|&(_, choice)| choice);
        let fallback = default.and_then(of).unwrap_or(choices[0].1);
        match self.take(name) {
            None if default.is_none() => self.missing(name, &format!("one of {}", list(&names))),
            None => {}
            Some(Value::Text(text)) => match of(text) {
                Some(choice) => return choice,
                None => self.unknown_choice(name, text, &names),
            },
            Some(other) => self.wrong_type(name, &format!("one of {}", list(&names)), other),
        }
        fallback
    }

    /// Reports that `text` is none of `names`.
    pub fn unknown_choice(&mut self, name: &'static str, text: &str, names: &[&str]) {
        let known = names.iter().map(|&name| name.to_owned()).collect();
        let kind = ProblemKind::UnknownChoice { field: name.to_owned(), value: text.to_owned(), known };
        self.report(name, kind);
    }

    /// Reads an inner table through `read`; an empty one if the field is absent.
    pub fn table<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
        let empty = Fields::new();
        let table = match self.take(name) {
            None => &empty,
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong_type(name, "a table", other);
                &empty
            }
        };
        let prefix = self.path(name);
        let mut inner =
            Reader { table, prefix, known: Vec::new(), problems: self.problems, ports: self.ports };
        let result = read(&mut inner);
        inner.finish();
        result
    }

    /// Reads a required port.
    pub fn port(&mut self, name: &'static str, expects: Artifact) {
        if !self.optional_port(name, expects, true) && !self.has(name) {
            self.missing(name, &format!("a stage that gives {expects}"));
        }
    }

    /// Reads an optional port and returns whether it is written. If `is_read` is false, the port is only checked.
    pub fn optional_port(&mut self, name: &'static str, expects: Artifact, is_read: bool) -> bool {
        match self.take(name) {
            None => false,
            Some(Value::Text(reference)) => {
                let access = if is_read { Access::Read } else { Access::Unread };
                self.push_port(name, None, reference, expects, access);
                true
            }
            Some(other) => {
                self.wrong_type(name, "the name of a stage", other);
                false
            }
        }
    }

    /// Reads an optional port that selects among other inputs and is no dependency; returns whether it is written.
    pub fn named_port(&mut self, name: &'static str, expects: Artifact) -> bool {
        let Some(reference) = self.text(name) else { return false };
        self.push_port(name, None, &reference, expects, Access::Named);
        true
    }

    /// Reads a non-empty list of ports. A single name is a list of one.
    pub fn ports(&mut self, name: &'static str, expects: Artifact) {
        match self.take(name) {
            None => self.missing(name, &format!("an array of stages that give {expects}")),
            Some(Value::Text(reference)) => self.push_port(name, Some(0), reference, expects, Access::Read),
            Some(Value::List(items)) if items.is_empty() => {
                self.report(name, ProblemKind::NoPorts { field: name.to_owned() });
            }
            Some(Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    match item {
                        Value::Text(reference) => {
                            self.push_port(name, Some(index), reference, expects, Access::Read);
                        }
                        other => self.wrong_type(name, "an array of stages", other),
                    }
                }
            }
            Some(other) => self.wrong_type(name, "an array of stages", other),
        }
    }

    /// Reads a table of ports with free names (the inputs of a command) and returns the names.
    pub fn port_table(&mut self, name: &'static str, expects: Artifact) -> Vec<String> {
        let Some(value) = self.take(name) else { return Vec::new() };
        let Value::Table(table) = value else {
            self.wrong_type(name, "a table of `name = \"stage\"`", value);
            return Vec::new();
        };
        for (input, reference) in table {
            match reference {
                Value::Text(reference) => {
                    self.push_port(&format!("{name}.{input}"), None, reference, expects, Access::Read);
                }
                other => self.wrong_type(name, "a table of `name = \"stage\"`", other),
            }
        }
        table.keys().cloned().collect()
    }

    /// Reads a table of strings with free names.
    pub fn text_table(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let Some(value) = self.take(name) else { return BTreeMap::new() };
        let mut texts = BTreeMap::new();
        if let Value::Table(table) = value {
            for (key, text) in table {
                match text {
                    Value::Text(text) => {
                        texts.insert(key.clone(), text.clone());
                    }
                    other => self.wrong_type(name, "a table of strings", other),
                }
            }
        } else {
            self.wrong_type(name, "a table of strings", value);
        }
        texts
    }

    fn push_port(
        &mut self,
        field: &str,
        index: Option<usize>,
        reference: &str,
        expects: Artifact,
        access: Access,
    ) {
        self.ports.push(Port {
            field: self.path(field).join("."),
            index,
            reference: reference.to_owned(),
            expects,
            access,
        });
    }

    /// Reports the fields that were not asked for.
    pub fn finish(self) {
        for name in self.table.keys() {
            if self.known.contains(&name.as_str()) {
                continue;
            }
            let known = self.known.iter().map(|&known| known.to_owned()).collect();
            let kind = ProblemKind::UnknownField { field: name.clone(), owner: None, known };
            self.problems.push(Problem { path: self.path(name), kind });
        }
    }
}

/// Most names that a message lists; the others are counted.
const MOST_LISTED: usize = 20;

fn list(names: &[impl AsRef<str>]) -> String {
    let mut listed: Vec<String> =
        names.iter().take(MOST_LISTED).map(|name| format!("`{}`", name.as_ref())).collect();
    match names.len().saturating_sub(MOST_LISTED) {
        0 => {}
        more => listed.push(format!("{more} more")),
    }
    listed.join(", ")
}

/// Returns the one of `names` that is most like `written`, if any is like it.
pub fn nearest<'a>(written: &str, names: &'a [impl AsRef<str>]) -> Option<&'a str> {
    let likeness = |name: &'a str| (strsim::jaro_winkler(written, name), name);
    let scored = names.iter().map(|name| likeness(name.as_ref())).filter(|&(score, _)| score > 0.75);
    scored.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(a.1))).map(|(_, name)| name)
}

/// Suggests the one of `names` that is most like `written`, or lists all of them.
pub fn suggestion(written: &str, names: &[impl AsRef<str>]) -> String {
    match nearest(written, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None if names.is_empty() => "remove it".to_owned(),
        None => format!("known here: {}", list(names)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;

    fn read<T>(table: &Fields, read: impl FnOnce(&mut Reader<'_>) -> T) -> (T, Vec<Problem>, Vec<Port>) {
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(table, &mut problems, &mut ports);
        let result = read(&mut reader);
        reader.finish();
        (result, problems, ports)
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let table = fields([
            ("hieght", Value::Integer(3)),
            ("width", Value::Integer(0)),
            ("ratio", Value::Text("much".into())),
        ]);
        let ((), problems, _) = read(&table, |reader| {
            reader.integer("height", 1..=10, Some(5));
            reader.integer("width", 1..=10, None);
            reader.float("ratio", 0.0..=1.0, None);
            reader.choice("bank", &[("single", 1), ("dual", 2)], None);
        });
        let codes: Vec<&str> = problems.iter().map(Problem::code).collect();
        assert_eq!(codes, ["out_of_range", "wrong_type", "missing_field", "unknown_field"]);
        assert_eq!(problems[3].help().as_deref(), Some("did you mean `height`?"));
    }

    #[test]
    fn one_port_needs_no_brackets() {
        let table = fields([("images", "set".into())]);
        let ((), problems, ports) = read(&table, |reader| reader.ports("images", Artifact::ImageSet));
        assert!(problems.is_empty());
        assert_eq!((ports.len(), ports[0].reference.as_str()), (1, "set"));
    }
}
