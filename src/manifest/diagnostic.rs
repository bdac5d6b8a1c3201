//! Mistakes of a manifest, shown on its text.
//!
//! Checks push [`Diagnostic`]s, whose labels are [`Span`]s of numbered sources (the manifest, its includes,
//! the command line). [`ManifestError`] collects them, sorts them by span, drops those that a grid repeats,
//! and renders them with `miette`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};

use crate::text::{escaped, steers};

/// Most lines between two labels of one excerpt (chosen: `miette` prints every line between them).
const NEAR_LINES: usize = 6;

/// A span and the text shown at it.
type Label = (Span, String);

/// A range of bytes in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Index of the source.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A text that was read: a file, or an option of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Path of the file, relative to the project if it lies inside; or `command line`.
    pub name: String,
    /// The text.
    pub text: Arc<str>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code such as `patchflow::stage::unknown_field`.
    pub code: String,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// Spans, each with the text shown at it. The first is the one to change.
    pub labels: Vec<(Span, String)>,
    /// Advice: what to type instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Makes a diagnostic with the code `patchflow::<area>::<name>`, without labels and help.
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: format!("patchflow::{code}"), message: message.into(), labels: Vec::new(), help: None }
    }

    /// Adds a span and the text shown at it.
    pub(super) fn at(mut self, span: Span, words: impl Into<String>) -> Self {
        self.labels.push((span, words.into()));
        self
    }

    /// Sets the advice.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All mistakes of a manifest or of `patchflow.toml`, sorted by span.
pub struct ManifestError {
    name: String,
    /// How many mistakes there are.
    count: usize,
    /// Those that are shown.
    diagnostics: Vec<Diagnostic>,
    /// How many are neither shown nor counted in the message of one that is.
    left_out: usize,
    shown: Vec<Shown>,
}

impl ManifestError {
    /// Sorts the diagnostics by span and drops repeated ones. `name` is the file that was loaded.
    pub(super) fn new(name: &str, sources: &[SourceText], mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by(|a, b| {
            let span = |one: &Diagnostic| one.labels.first().map(|&(span, _)| span);
            span(a).cmp(&span(b)).then_with(|| (&a.code, &a.message).cmp(&(&b.code, &b.message)))
        });
        diagnostics.dedup();
        let count = diagnostics.len();
        let (diagnostics, left_out) = summarised(diagnostics);
        let shown = diagnostics.iter().map(|one| Shown::new(one, sources)).collect();
        Self { name: name.to_owned(), count, diagnostics, left_out, shown }
    }

    /// Returns the diagnostics that are shown, sorted by span.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Renders all of them for a terminal of `width` columns.
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
            // A string takes every write. What cannot be drawn is at least named.
            if handler.render_report(&mut text, one).is_err() {
                text.push_str(&one.message);
            }
        }
        if self.left_out > 0 {
            let more = format!("\nand {} more errors\n", self.left_out);
            text.push_str(&more);
        }
        text
    }
}

/// Repeats of one mistake that are each shown.
pub(super) const MOST_REPEATS: usize = 3;

/// Most mistakes that are shown; each takes half a millisecond and a screen.
const MOST_SHOWN: usize = 100;

/// Merges the repeats of a mistake, those with the same code and message, into the first if they are many; returns how
/// many mistakes are left out in the end.
fn summarised(diagnostics: Vec<Diagnostic>) -> (Vec<Diagnostic>, usize) {
    let mut repeats: HashMap<(String, String), usize> = HashMap::new();
    for one in &diagnostics {
        *repeats.entry((one.code.clone(), one.message.clone())).or_default() += 1;
    }
    let mut merged: HashSet<(String, String)> = HashSet::new();
    let (mut shown, mut left_out) = (Vec::new(), 0);
    for mut one in diagnostics {
        let identity = (one.code.clone(), one.message.clone());
        let count = repeats.get(&identity).copied().unwrap_or(1);
        let is_repeated = count > MOST_REPEATS;
        if is_repeated && !merged.insert(identity) {
            continue;
        }
        let stands_for = if is_repeated { count } else { 1 };
        if shown.len() == MOST_SHOWN {
            left_out += stands_for;
            continue;
        }
        if is_repeated {
            one.message = format!("{} (and {} more times)", one.message, count - 1);
        }
        shown.push(one);
    }
    (shown, left_out)
}

impl fmt::Display for ManifestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count;
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

/// A diagnostic with its text, as `miette` takes it: the labels of one excerpt. Labels in other sources or far away
/// become related notes.
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
    fn new(diagnostic: &Diagnostic, sources: &[SourceText]) -> Self {
        let mut groups = groups(&diagnostic.labels, sources).into_iter();
        let first = groups.next().unwrap_or_default();
        Self {
            code: Some(diagnostic.code.clone()),
            message: escaped(&diagnostic.message).into_owned(),
            help: diagnostic.help.as_ref().map(|help| escaped(help).into_owned()),
            source: source_of(&first, sources),
            labels: first.iter().map(|(span, words)| labelled(*span, words)).collect(),
            elsewhere: groups.map(|group| Self::note(&group, sources)).collect(),
        }
    }

    /// A note on labels elsewhere. Its first words become the message and are not repeated.
    fn note(group: &[&Label], sources: &[SourceText]) -> Self {
        let message = &group[0].1;
        let words = |words| if words == message { String::new() } else { String::clone(words) };
        Self {
            code: None,
            message: escaped(message).into_owned(),
            help: None,
            source: source_of(group, sources),
            labels: group.iter().map(|(span, own)| labelled(*span, &words(own))).collect(),
            elsewhere: Vec::new(),
        }
    }
}

fn labelled(span: Span, words: &str) -> LabeledSpan {
    let words = (!words.is_empty()).then(|| escaped(words).into_owned());
    LabeledSpan::new(words, span.start, span.end.saturating_sub(span.start))
}

/// Groups labels by excerpt: those of one source that are close to each other.
fn groups<'a>(labels: &'a [Label], sources: &[SourceText]) -> Vec<Vec<&'a Label>> {
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

fn are_near(a: Span, b: Span, sources: &[SourceText]) -> bool {
    let between = sources.get(a.source).and_then(|source| {
        let (first, last) = (a.start.min(b.start), a.start.max(b.start));
        source.text.get(first..last)
    });
    a.source == b.source && between.is_some_and(|text| text.matches('\n').count() <= NEAR_LINES)
}

/// A text of equal length without characters that steer a terminal.
fn plain(text: &Arc<str>) -> Arc<str> {
    let steers = |letter: char| steers(letter) && !matches!(letter, '\n' | '\r' | '\t');
    let is_lone_return = text.replace("\r\n", "").contains('\r');
    if !text.contains(steers) && !is_lone_return {
        return Arc::clone(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if steers(letter) || letter == '\r' && letters.peek() != Some(&'\n') {
            shown.extend(std::iter::repeat_n('?', letter.len_utf8()));
        } else {
            shown.push(letter);
        }
    }
    shown.into()
}

fn source_of(group: &[&Label], sources: &[SourceText]) -> Option<NamedSource<Arc<str>>> {
    let source = sources.get(group.first()?.0.source)?;
    Some(NamedSource::new(&source.name, plain(&source.text)))
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
