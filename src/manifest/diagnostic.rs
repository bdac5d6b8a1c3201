//! What is wrong with a manifest, put onto its text.
//!
//! Checks push [`Diagnostic`]s, whose labels are [`Span`]s of numbered sources (the manifest, its includes,
//! the command line). [`ManifestError`] collects them all, sorts them by place, drops what a grid repeats,
//! and renders through `miette`.

use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};

/// Most lines between two labels of one excerpt (chosen: `miette` prints every line between them).
const NEAR_LINES: usize = 6;

/// A place and its words.
type Label = (Span, String);

/// A range of bytes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The source's number.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A text that was read: a file, or a part of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's path, relative to the project where it lies inside, or `command line`.
    pub name: String,
    /// What it held.
    pub text: Arc<str>,
}

/// One thing that is wrong, where, and what to type instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code such as `patchflow::stage::unknown_field`.
    pub code: String,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// The places, the first being the one to mend.
    pub labels: Vec<(Span, String)>,
    /// What to type instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Starts one with the code `patchflow::<area>::<name>`.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: format!("patchflow::{code}"), message: message.into(), labels: Vec::new(), help: None }
    }

    /// Adds a place with its words.
    pub(super) fn at(mut self, span: Span, words: impl Into<String>) -> Self {
        self.labels.push((span, words.into()));
        self
    }

    /// Says what to type instead.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Everything that is wrong with a manifest or a configuration, by place.
pub struct ManifestError {
    name: String,
    diagnostics: Vec<Diagnostic>,
    shown: Vec<Shown>,
}

impl ManifestError {
    /// Sorts the diagnostics by place and drops repeated ones; `sources[0]` is the file asked for.
    pub(super) fn new(name: &str, sources: &[Source], mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by(|a, b| {
            let place = |one: &Diagnostic| one.labels.first().map(|&(span, _)| span);
            place(a).cmp(&place(b)).then_with(|| (&a.code, &a.message).cmp(&(&b.code, &b.message)))
        });
        diagnostics.dedup();
        let shown = diagnostics.iter().map(|one| Shown::new(one, sources)).collect();
        Self { name: name.to_owned(), diagnostics, shown }
    }

    /// The single diagnostics, by place.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Everything as text for a terminal of `width` columns.
    pub fn render(&self, width: usize, color: bool) -> String {
        let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width)
            .with_links(false)
            .without_syntax_highlighting();
        let mut text = String::new();
        for one in &self.shown {
            if !text.is_empty() {
                text.push('\n');
            }
            // A string takes every write; what cannot be drawn is still said.
            if handler.render_report(&mut text, one).is_err() {
                text.push_str(&one.message);
            }
        }
        text
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.diagnostics.len();
        let noun = if count == 1 { "error" } else { "errors" };
        write!(formatter, "`{}` has {count} {noun}", self.name)
    }
}

impl fmt::Debug for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(100, false))
    }
}

impl std::error::Error for ManifestError {}

impl miette::Diagnostic for ManifestError {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(self.shown.iter().map(|one| one as &dyn miette::Diagnostic)))
    }
}

/// A diagnostic with the text that it speaks of, as `miette` wants it: labels of one excerpt; those of other
/// sources, and far ones, become related notes.
#[derive(Debug)]
struct Shown {
    code: Option<String>,
    message: String,
    help: Option<String>,
    source: Option<NamedSource<Arc<str>>>,
    labels: Vec<LabeledSpan>,
    elsewhere: Vec<Shown>,
}

impl Shown {
    fn new(diagnostic: &Diagnostic, sources: &[Source]) -> Self {
        let mut groups = groups(&diagnostic.labels, sources).into_iter();
        let first = groups.next().unwrap_or_default();
        Self {
            code: Some(diagnostic.code.clone()),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
            source: source_of(&first, sources),
            labels: first.iter().map(|(span, words)| labelled(*span, words)).collect(),
            elsewhere: groups.map(|group| Self::note(&group, sources)).collect(),
        }
    }

    /// A note on other places; words that would stand twice are dropped.
    fn note(group: &[&Label], sources: &[Source]) -> Self {
        let message = &group[0].1;
        let words = |words| if words == message { String::new() } else { String::clone(words) };
        Self {
            code: None,
            message: message.clone(),
            help: None,
            source: source_of(group, sources),
            labels: group.iter().map(|(span, own)| labelled(*span, &words(own))).collect(),
            elsewhere: Vec::new(),
        }
    }
}

fn labelled(span: Span, words: &str) -> LabeledSpan {
    let words = (!words.is_empty()).then(|| words.to_owned());
    LabeledSpan::new(words, span.start, span.end.saturating_sub(span.start))
}

/// Labels that can be shown in one excerpt: of one source and close to each other.
fn groups<'a>(labels: &'a [Label], sources: &[Source]) -> Vec<Vec<&'a Label>> {
    let mut groups: Vec<Vec<&Label>> = Vec::new();
    for label in labels {
        let is_near =
            |group: &&mut Vec<&Label>| group.iter().any(|other| are_near(other.0, label.0, sources));
        match groups.iter_mut().find(is_near) {
            Some(group) => group.push(label),
            None => groups.push(vec![label]),
        }
    }
    groups
}

fn are_near(a: Span, b: Span, sources: &[Source]) -> bool {
    let between = sources.get(a.source).and_then(|source| {
        let (first, last) = (a.start.min(b.start), a.start.max(b.start));
        source.text.get(first..last)
    });
    a.source == b.source && between.is_some_and(|text| text.matches('\n').count() <= NEAR_LINES)
}

fn source_of(group: &[&Label], sources: &[Source]) -> Option<NamedSource<Arc<str>>> {
    let source = sources.get(group.first()?.0.source)?;
    Some(NamedSource::new(&source.name, Arc::clone(&source.text)))
}

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.code.as_ref().map(|code| Box::new(code) as Box<dyn fmt::Display>)
    }

    fn severity(&self) -> Option<Severity> {
        Some(if self.code.is_some() { Severity::Error } else { Severity::Advice })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        if self.elsewhere.is_empty() {
            return None;
        }
        Some(Box::new(self.elsewhere.iter().map(|one| one as &dyn miette::Diagnostic)))
    }
}
