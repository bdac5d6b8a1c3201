//! The words of `docs/glossary.md`, held in `src/`: a type's name belongs to one layer, and coinages that the
//! glossary replaces do not come back, neither as identifiers nor in comments. And source files that the docs name
//! exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Parts of identifiers that the glossary replaces.
const IDENTIFIERS: [&str; 14] = [
    "place", "places", "told", "tell", "tells", "hear", "heard", "doubt", "doubted", "wish", "wishes",
    "sight", "desk", "obstacle",
];

/// Phrases that plain technical English does not need.
const PHRASES: [&str; 20] = [
    "none where",
    "none if",
    "as far as",
    "nobody",
    "told",
    "tell",
    "tells",
    "hear",
    "hears",
    "heard",
    "doubt",
    "doubted",
    "wish",
    "wishes",
    "sight",
    "desk",
    "of no use",
    "whoever",
    "put there",
    "left alone",
];

/// A source file, its strings and character literals left out.
struct Source {
    /// Relative to `src/`.
    path: PathBuf,
    lines: Vec<Line>,
}

#[derive(Default)]
struct Line {
    code: String,
    comment: String,
}

enum State {
    Code,
    Comment,
    Text,
    RawText { hashes: usize },
}

/// Separates code from comments, line by line.
fn lines(text: &str) -> Vec<Line> {
    let letters: Vec<char> = text.chars().collect();
    let mut lines = vec![Line::default()];
    let mut state = State::Code;
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        let line = lines.last_mut().unwrap();
        let (next, length) = match state {
            State::Code => in_code(&letters[at..], line),
            State::Comment if letter == '\n' => (State::Code, 1),
            State::Comment => {
                line.comment.push(letter);
                (State::Comment, 1)
            }
            State::Text if letter == '\\' => (State::Text, 2),
            State::Text => (if letter == '"' { State::Code } else { State::Text }, 1),
            State::RawText { hashes } if ends_raw(&letters[at..], hashes) => (State::Code, 1 + hashes),
            State::RawText { hashes } => (State::RawText { hashes }, 1),
        };
        let passed = &letters[at..(at + length).min(letters.len())];
        passed.iter().filter(|&&letter| letter == '\n').for_each(|_| lines.push(Line::default()));
        (state, at) = (next, at + length);
    }
    lines
}

/// What follows one step in code, and the number of letters of that step.
fn in_code(rest: &[char], line: &mut Line) -> (State, usize) {
    match rest {
        ['/', '/', ..] => (State::Comment, 2),
        ['"', ..] => (State::Text, 1),
        ['r', '"' | '#', ..] if !line.code.ends_with(is_part_of_a_name) => {
            let hashes = rest[1..].iter().take_while(|&&letter| letter == '#').count();
            if rest.get(1 + hashes) == Some(&'"') {
                (State::RawText { hashes }, 2 + hashes)
            } else {
                (State::Code, 1)
            }
        }
        ['\'', '\\', _, tail @ ..] => {
            (State::Code, 4 + tail.iter().take_while(|&&letter| letter != '\'').count())
        }
        ['\'', _, '\'', ..] => (State::Code, 3),
        [letter, ..] => {
            line.code.push(*letter);
            (State::Code, 1)
        }
        [] => (State::Code, 1),
    }
}

fn ends_raw(rest: &[char], hashes: usize) -> bool {
    rest[0] == '"' && rest.len() > hashes && rest[1..=hashes].iter().all(|&letter| letter == '#')
}

fn is_part_of_a_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// All of `src/`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = crate::project::files(&root).into_iter();
    files
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .map(|path| Source { lines: lines(&std::fs::read_to_string(root.join(&path)).unwrap()), path })
        .collect()
}

/// The names in a piece of code.
fn names(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter| !is_part_of_a_name(letter)).filter(|name| !name.is_empty())
}

/// The public type that a line defines.
fn public_type(code: &str) -> Option<&str> {
    let code = code.trim_start().strip_prefix("pub")?;
    let code = if code.starts_with('(') { code.split_once(')')?.1 } else { code };
    let mut names = names(code.strip_prefix(' ')?);
    let keyword = names.next()?;
    matches!(keyword, "struct" | "enum" | "trait" | "type" | "union").then(|| names.next())?
}

/// The words of an identifier: `HeldLease` and `held_lease` are `held` and `lease`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if (letter == '_' || letter.is_uppercase()) && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        words.last_mut().unwrap().extend(letter.to_lowercase().filter(|&letter| letter != '_'));
    }
    words
}

fn has_phrase(comment: &str, phrase: &str) -> bool {
    let comment = comment.to_lowercase();
    comment.match_indices(phrase).any(|(start, found)| {
        let (before, after) = (&comment[..start], &comment[start + found.len()..]);
        !before.ends_with(is_part_of_a_name) && !after.starts_with(is_part_of_a_name)
    })
}

/// Fails with all offenders, so that the message serves as a list of what to do.
fn refuse(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}: {} offend\n{}", offenders.len(), offenders.join("\n"));
}

#[test]
fn a_type_name_belongs_to_one_layer() {
    let mut layers: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for source in sources() {
        let layer = source.path.iter().next().unwrap().to_string_lossy().into_owned();
        for (index, line) in source.lines.iter().enumerate() {
            if let Some(name) = public_type(&line.code) {
                let found = format!("{}:{}", source.path.display(), index + 1);
                layers.entry(name.to_owned()).or_default().entry(layer.clone()).or_default().push(found);
            }
        }
    }
    assert!(layers.len() > 200, "only {} types were seen: the test misses them", layers.len());
    let twice = layers.iter().filter(|(_, layers)| layers.len() > 1);
    let shown = twice.map(|(name, layers)| {
        format!("{name}: {}", layers.values().flatten().cloned().collect::<Vec<_>>().join(", "))
    });
    refuse("one name, one layer", &shown.collect::<Vec<_>>());
}

#[test]
fn identifiers_use_the_words_of_the_glossary() {
    let mut offenders = Vec::new();
    for source in sources() {
        for (index, line) in source.lines.iter().enumerate() {
            let is_coined = |name: &&str| words(name).iter().any(|word| IDENTIFIERS.contains(&word.as_str()));
            let coined: BTreeSet<&str> = names(&line.code).filter(is_coined).collect();
            offenders
                .extend(coined.iter().map(|name| format!("{}:{}: {name}", source.path.display(), index + 1)));
        }
    }
    refuse("identifiers", &offenders);
}

#[test]
fn comments_are_plain() {
    let mut offenders = Vec::new();
    for source in sources() {
        for (index, line) in source.lines.iter().enumerate() {
            for phrase in PHRASES.iter().filter(|phrase| has_phrase(&line.comment, phrase)) {
                let (path, comment) = (source.path.display(), line.comment.trim());
                offenders.push(format!("{path}:{}: `{phrase}` in: {comment}", index + 1));
            }
        }
    }
    refuse("comments", &offenders);
}

/// The back-quoted paths of source files in a page.
fn source_paths(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|quoted| Path::new(quoted).extension().is_some_and(|end| end == "rs"))
}

/// A path is relative to the project's root. A bare name stands for a file of `src/`.
#[test]
fn source_files_that_the_docs_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names: BTreeSet<_> =
        sources().iter().filter_map(|source| Some(source.path.file_name()?.to_owned())).collect();
    let is_there = |path: &str| {
        if path.contains('/') {
            root.join(path).is_file()
        } else {
            names.contains(std::ffi::OsStr::new(path))
        }
    };
    let docs = crate::project::files(&root.join("docs")).into_iter().map(|path| Path::new("docs").join(path));
    let pages = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    let (mut seen, mut offenders) = (0, Vec::new());
    for page in pages.chain([PathBuf::from("README.md")]) {
        let text = std::fs::read_to_string(root.join(&page)).unwrap();
        for path in source_paths(&text) {
            seen += 1;
            if !is_there(path) {
                offenders.push(format!("{}: {path}", page.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} paths were seen: the test misses them");
    refuse("source files", &offenders);
}

#[test]
fn the_rules_themselves_hold() {
    let text =
        "let a = \"place // told\"; // none where\nlet b = '\"'; let r = r#\"told \" place\"#; place();";
    let lines = lines(text);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].code.trim() == "let a = ;" && has_phrase(&lines[0].comment, "none where"));
    assert_eq!(names(&lines[1].code).collect::<Vec<_>>(), ["let", "b", "let", "r", "place"]);
    assert_eq!(words("PlacesOf_an_itemX"), ["places", "of", "an", "item", "x"]);
    assert!(!has_phrase("retold stories", "told") && has_phrase("Told of it", "told"));
    assert_eq!(public_type("    pub(crate) struct Held<'a> {"), Some("Held"));
    assert_eq!(public_type("pub fn struct_of()"), None);
    assert_eq!(source_paths("`a.rs`, b.rs, `c`\n`d/e.rs`").collect::<Vec<_>>(), ["a.rs", "d/e.rs"]);
}
