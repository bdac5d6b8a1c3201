//! TOML with spans: a tree in which every name and value has its span. Tables keep the order of the text.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Span};
use crate::stages::fields::{Fields, Value};

/// A value with its span.
#[derive(Clone, Debug)]
pub(super) struct TomlNode {
    pub(super) span: Span,
    pub(super) content: Content,
}

/// The value of a node.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Text, a number, true or false.
    Plain(Value),
    List(Vec<TomlNode>),
    Table(TomlTable),
}

/// Named nodes in the order of the text.
#[derive(Clone, Debug, Default)]
pub(super) struct TomlTable {
    pub(super) entries: Vec<TomlEntry>,
}

/// A name with its value.
#[derive(Clone, Debug)]
pub(super) struct TomlEntry {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) node: TomlNode,
    /// Members of the lists that an including file or `--set` has replaced. A pattern may still name them: narrowing an
    /// axis must not make a mistake of `when = { axis = "other value" }`.
    pub(super) former: Vec<Value>,
}

impl TomlTable {
    /// Returns the entry of that name.
    pub(super) fn entry(&self, name: &str) -> Option<&TomlEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Returns the entry of that name, to change it.
    pub(super) fn entry_mut(&mut self, name: &str) -> Option<&mut TomlEntry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }

    /// Returns the value of that name.
    pub(super) fn get(&self, name: &str) -> Option<&TomlNode> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// Returns the plain values, except those named in `without`.
    pub(super) fn fields(&self, without: &[&str]) -> Fields {
        let kept = self.entries.iter().filter(|entry| !without.contains(&entry.name.as_str()));
        kept.map(|entry| (entry.name.clone(), entry.node.value())).collect()
    }
}

impl TomlEntry {
    /// Replaces the value and keeps the members of the old one in `former`.
    pub(super) fn replace(&mut self, name_span: Span, node: TomlNode) {
        if let Content::List(members) = &self.node.content {
            self.former.extend(members.iter().map(TomlNode::value));
        }
        self.node = node;
        self.name_span = name_span;
    }
}

impl TomlNode {
    /// Returns the text if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the table if it is one.
    pub(super) fn table(&self) -> Option<&TomlTable> {
        match &self.content {
            Content::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Returns the value without spans.
    pub(super) fn value(&self) -> Value {
        match &self.content {
            Content::Plain(value) => value.clone(),
            Content::List(members) => Value::List(members.iter().map(Self::value).collect()),
            Content::Table(table) => Value::Table(table.fields(&[])),
        }
    }
}

/// Where a field is written.
pub(super) struct Location {
    /// Span of the value.
    pub(super) value: Span,
    /// Span of the name; for a member of a list, of its value.
    pub(super) name: Span,
}

/// Finds `path` within `table`: names of fields, numbers for members of lists. `None` if it is not written.
///
/// A name may contain dots: the longest join of the next steps is tried first.
pub(super) fn locate(table: &TomlTable, path: &[String]) -> Option<Location> {
    for taken in (1..=path.len()).rev() {
        if let Some(entry) = table.entry(&path[..taken].join(".")) {
            let location = Location { value: entry.node.span, name: entry.name_span };
            return locate_in(&entry.node, &path[taken..], location);
        }
    }
    None
}

fn locate_in(node: &TomlNode, path: &[String], location: Location) -> Option<Location> {
    if path.is_empty() {
        return Some(location);
    }
    match &node.content {
        Content::Table(table) => locate(table, path),
        Content::List(members) => {
            let member = members.get(path[0].parse::<usize>().ok()?)?;
            locate_in(member, &path[1..], Location { value: member.span, name: member.span })
        }
        // A list of one port, written without brackets.
        Content::Plain(_) => Some(location),
    }
}

/// Parses a document. Syntax errors and values that no field can take are added to `found`.
pub(super) fn parse(text: &str, source: usize, found: &mut Vec<Diagnostic>) -> TomlTable {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader = Converter { source, shift: 0, found };
    for error in errors {
        reader.syntax(text, &error);
    }
    reader.table(root.get_ref())
}

/// Parses one value, which begins `shift` bytes into its source. `None` if it is not TOML.
pub(super) fn parse_value(
    text: &str,
    source: usize,
    shift: usize,
    found: &mut Vec<Diagnostic>,
) -> Option<TomlNode> {
    let (value, errors) = DeValue::parse_recoverable(text);
    if !errors.is_empty() || text.is_empty() {
        return None;
    }
    Some(Converter { source, shift, found }.node(&value))
}

struct Converter<'a> {
    source: usize,
    shift: usize,
    found: &'a mut Vec<Diagnostic>,
}

impl Converter<'_> {
    fn span(&self, range: std::ops::Range<usize>) -> Span {
        Span { source: self.source, start: range.start + self.shift, end: range.end + self.shift }
    }

    fn syntax(&mut self, text: &str, error: &toml::de::Error) {
        let range = error.span().unwrap_or(0..0);
        let written = text.get(range.clone()).unwrap_or_default();
        let help = match role_of(text, &range) {
            TokenRole::BareValue => format!("write \"{written}\""),
            TokenRole::Key => format!("remove or rename one `{written}`"),
            TokenRole::Other => {
                "write `name = value`: strings in \" \", lists in [ ], tables in { } or below a [header]"
                    .to_owned()
            }
        };
        let span = self.span(range);
        self.found.push(Diagnostic::new("syntax::toml", error.message()).at(span, "here").help(help));
    }

    fn table(&mut self, table: &DeTable<'_>) -> TomlTable {
        let mut entries: Vec<TomlEntry> = table
            .iter()
            .map(|(name, node)| TomlEntry {
                name: name.get_ref().to_string(),
                name_span: self.span(name.span()),
                node: self.node(node),
                former: Vec::new(),
            })
            .collect();
        entries.sort_by_key(|entry| entry.name_span);
        TomlTable { entries }
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>) -> TomlNode {
        let span = self.span(value.span());
        let content = match value.get_ref() {
            DeValue::String(text) => Content::Plain(Value::Text(text.to_string())),
            DeValue::Boolean(flag) => Content::Plain(Value::Bool(*flag)),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Content::Plain(Value::Integer(number)),
                Err(_) => self.refuse(span, "does not fit into 64 bits", "write it as a string"),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Content::Plain(Value::Float(number)),
                _ => self.refuse(span, "is not a finite number", "write a finite number"),
            },
            DeValue::Datetime(_) => {
                self.refuse(span, "is a date, which no field takes", "write it in quotes")
            }
            DeValue::Array(members) => {
                Content::List(members.iter().map(|member| self.node(member)).collect())
            }
            DeValue::Table(table) => Content::Table(self.table(table)),
        };
        TomlNode { span, content }
    }

    fn refuse(&mut self, span: Span, why: &str, help: &str) -> Content {
        let message = format!("the value {why}");
        self.found.push(Diagnostic::new("syntax::value", message).at(span, "this value").help(help));
        Content::Plain(Value::Text(String::new()))
    }
}

/// What a refused piece of TOML is, by what stands around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenRole {
    /// A word where a value belongs: a string without quotes.
    BareValue,
    /// A whole key, which can only be wrong by standing twice.
    Key,
    /// Anything else.
    Other,
}

fn role_of(text: &str, range: &std::ops::Range<usize>) -> TokenRole {
    let part = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let (written, before, after) = (part(range.clone()), part(0..range.start), part(range.end..text.len()));
    let line = before.rsplit('\n').next().unwrap_or_default().trim();
    let after = after.trim_start_matches([' ', '\t']);
    let is_header = line.starts_with('[') && after.starts_with([']', '.']);
    if !written.is_empty() && (is_header || after.starts_with('=')) {
        return TokenRole::Key;
    }
    let is_word = written.starts_with(|letter: char| letter.is_alphabetic() || letter == '_');
    let is_value = line.is_empty() || line.ends_with(['=', ',', '[']);
    if is_word && is_value { TokenRole::BareValue } else { TokenRole::Other }
}

/// Writes the value as TOML.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::List(members) => {
            format!("[{}]", members.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether two values are equal; 1 equals 1.0.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Integer(a), Value::Float(b)) | (Value::Float(b), Value::Integer(a)) => {
            (*a as f64).total_cmp(b).is_eq()
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_of_a_refused_word_follows_from_its_surroundings() {
        let role = |text: &str, word: &str| {
            let start = text.rfind(word).unwrap();
            role_of(text, &(start..start + word.len()))
        };
        for text in
            ["a = 1\nb = word", "b = [word]", "b = [1, word, 2]", "b = [\n  word,\n]", "b = { c = word }"]
        {
            assert_eq!(role(text, "word"), TokenRole::BareValue, "{text}");
        }
        for text in
            ["word = 1\nword = 2", "[word]\n[word]", "[a.word]\n[a.word]\n", "b = { word = 1, word = 2 }"]
        {
            assert_eq!(role(text, "word"), TokenRole::Key, "{text}");
        }
        assert_eq!(role("b = = 3", "= 3"), TokenRole::Other);
        assert_eq!(role("b = 01", "01"), TokenRole::Other);
    }
}
