//! `include = ["base.toml"]`: reads a manifest with everything that it includes, and merges them.
//!
//! Included files come first, in order, then the file itself; later keys win. `[experiment]`, `[grid.axes]`,
//! `[grid.repeats]` and each stage are merged name by name. Any other value, such as a list or the table `select`, is
//! replaced as a whole, so that it can be emptied; so is a stage whose `kind` changes.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, SourceText, Span};
use super::raw::{Content, TomlEntry, TomlNode, TomlTable, parse};

/// A merged manifest with its sources and the mistakes so far.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) root: TomlTable,
    pub(super) sources: Vec<SourceText>,
    pub(super) found: Vec<Diagnostic>,
}

/// Deepest nesting of includes.
const DEEPEST: usize = 32;

/// Most files that a manifest reads, those that are included several times counted each time.
const MOST_FILES: usize = 1000;

/// Most bytes of one file.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Reads `path` and what it includes.
pub(super) fn read(path: &Path, project: &Path) -> Document {
    let mut reader = Reader { project, document: Document::default(), stack: Vec::new(), files: 0 };
    let root = reader.file(path, None);
    Document { root, ..reader.document }
}

struct Reader<'a> {
    project: &'a Path,
    document: Document,
    /// The open files, outermost first: canonical path and displayed name.
    stack: Vec<(PathBuf, String)>,
    /// How many files were read.
    files: usize,
}

/// Reads a text of at most [`MOST_BYTES`].
fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        let message = format!("it has more than {MOST_BYTES} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

impl Reader<'_> {
    /// Reads and merges a file; `included_at` is the span that names it.
    fn file(&mut self, path: &Path, included_at: Option<Span>) -> TomlTable {
        let name = self.displayed(path);
        if self.is_too_much(included_at) {
            return TomlTable::default();
        }
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) => {
                self.unreadable(&name, &error, included_at);
                return TomlTable::default();
            }
        };
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some(first) = self.stack.iter().position(|(open, _)| *open == identity) {
            self.cycle(first, &name, included_at);
            return TomlTable::default();
        }
        let source = self.source(&name, text);
        let text = Arc::clone(&self.document.sources[source].text);
        let own = parse(&text, source, &mut self.document.found);
        self.stack.push((identity, name));
        let merged = self.with_includes(path, own);
        self.stack.pop();
        merged
    }

    fn with_includes(&mut self, path: &Path, mut own: TomlTable) -> TomlTable {
        let Some(index) = own.entries.iter().position(|entry| entry.name == "include") else { return own };
        let include = own.entries.remove(index);
        let mut merged = TomlTable::default();
        for (name, span) in self.names(&include.node) {
            let beside = path.parent().unwrap_or(Path::new("")).join(&name);
            let within = self.project.join(&name);
            let chosen = if beside.is_file() || !within.is_file() { beside } else { within };
            let table = self.file(&chosen, Some(span));
            merge(&mut merged, table, &[]);
        }
        merge(&mut merged, own, &[]);
        merged
    }

    fn names(&mut self, include: &TomlNode) -> Vec<(String, Span)> {
        let Content::List(members) = &include.content else {
            self.wrong_type(include);
            return Vec::new();
        };
        let mut names = Vec::new();
        for member in members {
            match member.text() {
                Some(name) => names.push((name.to_owned(), member.span)),
                None => self.wrong_type(member),
            }
        }
        names
    }

    fn wrong_type(&mut self, node: &TomlNode) {
        let message = format!("`include` must be an array of files, not {}", node.value().type_name());
        let written = node.text().unwrap_or("base.toml");
        self.document.found.push(
            Diagnostic::new("include::wrong_type", message)
                .at(node.span, "here")
                .help(format!("write `include = [\"{written}\"]`")),
        );
    }

    fn unreadable(&mut self, name: &str, error: &std::io::Error, included_at: Option<Span>) {
        let is_missing = error.kind() == std::io::ErrorKind::NotFound;
        let why = if is_missing { "there is no such file".to_owned() } else { error.to_string() };
        let message = format!("cannot read `{name}`: {why}");
        self.document.found.push(match included_at {
            Some(span) => Diagnostic::new("include::unreadable", message)
                .at(span, "included here")
                .help("write the path relative to this file or to the project's root"),
            None => Diagnostic::new("manifest::unreadable", message).help(match error.kind() {
                std::io::ErrorKind::PermissionDenied => "give yourself read permission: `chmod u+r FILE`",
                std::io::ErrorKind::InvalidData => "a manifest is a TOML file in UTF-8",
                _ => "give the path of a manifest, such as `experiments/dual_aug.toml`",
            }),
        });
    }

    /// Whether no further file is read; reports that once.
    fn is_too_much(&mut self, included_at: Option<Span>) -> bool {
        self.files += 1;
        let message = if self.stack.len() > DEEPEST {
            format!("includes are nested more than {DEEPEST} deep")
        } else if self.files == MOST_FILES + 1 {
            format!("more than {MOST_FILES} files are included")
        } else {
            return self.files > MOST_FILES;
        };
        let mut diagnostic =
            Diagnostic::new("include::too_many", message).help("include each file once, from one manifest");
        if let Some(span) = included_at {
            diagnostic = diagnostic.at(span, "this one is not read");
        }
        self.document.found.push(diagnostic);
        true
    }

    fn cycle(&mut self, first: usize, name: &str, included_at: Option<Span>) {
        let mut names: Vec<&str> = self.stack[first..].iter().map(|(_, name)| name.as_str()).collect();
        names.push(name);
        let message = format!("the files include each other: {}", names.join(" -> "));
        let mut diagnostic = Diagnostic::new("include::cycle", message).help("remove this include");
        if let Some(span) = included_at {
            diagnostic = diagnostic.at(span, format!("`{name}` is already being read"));
        }
        self.document.found.push(diagnostic);
    }

    /// The index of a source, which is added unless a file is included twice.
    fn source(&mut self, name: &str, text: String) -> usize {
        let sources = &mut self.document.sources;
        let source = SourceText { name: name.to_owned(), text: text.into() };
        sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            sources.push(source);
            sources.len() - 1
        })
    }

    /// The path relative to the project, if it lies inside.
    fn displayed(&self, path: &Path) -> String {
        let tidy = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let (path, project) = (tidy(path), tidy(self.project));
        path.strip_prefix(&project).unwrap_or(&path).display().to_string()
    }
}

/// Whether the tables at a path are merged name by name.
fn is_merged(path: &[&str]) -> bool {
    matches!(path, [] | ["experiment" | "grid" | "stages"] | ["grid", "axes" | "repeats"] | ["stages", _])
}

/// Merges `over` into `base`; keys of `over` win.
fn merge(base: &mut TomlTable, over: TomlTable, path: &[&str]) {
    for entry in over.entries {
        let Some(old) = base.entry_mut(&entry.name) else {
            base.entries.push(entry);
            continue;
        };
        let TomlEntry { name, name_span, node, .. } = entry;
        let mut inner = path.to_vec();
        inner.push(&name);
        match (&mut old.node.content, node) {
            (Content::Table(under), TomlNode { content: Content::Table(table), span })
                if is_merged(&inner) && !changes_kind(under, &table) =>
            {
                merge(under, table, &inner);
                old.node.span = span;
                old.name_span = name_span;
            }
            (_, node) => old.replace(name_span, node),
        }
    }
}

fn changes_kind(under: &TomlTable, over: &TomlTable) -> bool {
    let kind = |table: &TomlTable| table.get("kind").and_then(TomlNode::text).map(str::to_owned);
    let (old, new) = (kind(under), kind(over));
    old.is_some() && new.is_some() && old != new
}
