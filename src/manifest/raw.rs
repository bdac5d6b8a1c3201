//! TOML with places: a tree whose every name and value knows where it was written.
//!
//! Tables keep the order of the text. Nothing here knows what a manifest is.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Span};
use crate::stages::fields::{Fields, Value};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) content: Content,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Text, a number, true or false.
    Plain(Value),
    List(Vec<Node>),
    Table(Table),
}

/// Named nodes in the order of the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A name with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) node: Node,
    /// Members of a list that stood here before an include or the command line replaced it: a narrowed axis
    /// must not turn the mention of its other values into a mistake.
    pub(super) former: Vec<Value>,
}

impl Table {
    /// The entry of that name.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The entry of that name, to change it.
    pub(super) fn entry_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.name == name)
    }

    /// The value of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.node)
    }

    /// Plain values, without those named in `without`.
    pub(super) fn fields(&self, without: &[&str]) -> Fields {
        let kept = self.entries.iter().filter(|entry| !without.contains(&entry.name.as_str()));
        kept.map(|entry| (entry.name.clone(), entry.node.value())).collect()
    }
}

impl Entry {
    /// Puts `node` in the place of the old one and remembers the members that were there.
    pub(super) fn replace(&mut self, name_span: Span, node: Node) {
        if let Content::List(members) = &self.node.content {
            self.former.extend(members.iter().map(Node::value));
        }
        self.node = node;
        self.name_span = name_span;
    }
}

impl Node {
    /// The text, where it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The table, where it is one.
    pub(super) fn table(&self) -> Option<&Table> {
        match &self.content {
            Content::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The value without its places.
    pub(super) fn value(&self) -> Value {
        match &self.content {
            Content::Plain(value) => value.clone(),
            Content::List(members) => Value::List(members.iter().map(Self::value).collect()),
            Content::Table(table) => Value::Table(table.fields(&[])),
        }
    }
}

/// A place found by [`find`].
pub(super) struct Place {
    /// The value.
    pub(super) value: Span,
    /// The name that it was written under; a list's member has only its value.
    pub(super) name: Span,
}

/// The place of `path` within `table`: names of fields, numbers for members of a list. `None` where it is not
/// written. A name may hold dots: the longest join of the next steps is tried first.
pub(super) fn find(table: &Table, path: &[String]) -> Option<Place> {
    for taken in (1..=path.len()).rev() {
        if let Some(entry) = table.entry(&path[..taken].join(".")) {
            let place = Place { value: entry.node.span, name: entry.name_span };
            return find_in(&entry.node, &path[taken..], place);
        }
    }
    None
}

fn find_in(node: &Node, path: &[String], place: Place) -> Option<Place> {
    if path.is_empty() {
        return Some(place);
    }
    match &node.content {
        Content::Table(table) => find(table, path),
        Content::List(members) => {
            let member = members.get(path[0].parse::<usize>().ok()?)?;
            find_in(member, &path[1..], Place { value: member.span, name: member.span })
        }
        // A port that stands without the brackets of its list.
        Content::Plain(_) => Some(place),
    }
}

/// Reads a document; every syntax error and every value that no field can take goes to `found`.
pub(super) fn parse(text: &str, source: usize, found: &mut Vec<Diagnostic>) -> Table {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut reader = Converter { source, shift: 0, found };
    for error in errors {
        reader.syntax(text, &error);
    }
    reader.table(root.get_ref())
}

/// Reads one value that stands `shift` bytes into its source; `None` where it is no TOML.
pub(super) fn parse_value(
    text: &str,
    source: usize,
    shift: usize,
    found: &mut Vec<Diagnostic>,
) -> Option<Node> {
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
        let message = error.message();
        let help = if message.contains("quoted") && !written.is_empty() {
            format!("write \"{written}\"")
        } else if message.contains("duplicate key") {
            format!("remove or rename one `{written}`")
        } else {
            "write `name = value`: strings in \" \", lists in [ ], tables in { } or below a [header]"
                .to_owned()
        };
        let span = self.span(range);
        self.found.push(Diagnostic::new("syntax::toml", message).at(span, "here").help(help));
    }

    fn table(&mut self, table: &DeTable<'_>) -> Table {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(name, node)| Entry {
                name: name.get_ref().to_string(),
                name_span: self.span(name.span()),
                node: self.node(node),
                former: Vec::new(),
            })
            .collect();
        entries.sort_by_key(|entry| entry.name_span);
        Table { entries }
    }

    fn node(&mut self, value: &Spanned<DeValue<'_>>) -> Node {
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
        Node { span, content }
    }

    fn refuse(&mut self, span: Span, why: &str, help: &str) -> Content {
        let message = format!("the value {why}");
        self.found.push(Diagnostic::new("syntax::value", message).at(span, "this value").help(help));
        Content::Plain(Value::Text(String::new()))
    }
}

/// The value as TOML that can be typed.
pub(super) fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::List(members) => {
            format!("[{}]", members.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// Whether two values are the same to a reader: 1 and 1.0 are.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Integer(a), Value::Float(b)) | (Value::Float(b), Value::Integer(a)) => {
            (*a as f64).total_cmp(b).is_eq()
        }
        _ => a == b,
    }
}
