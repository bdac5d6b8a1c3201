//! Counts the files of the input by kind, and those that are no part of the set, and says why.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::Listing;
use super::names::{FileKind, extension, file_kind, folder_of, parts};
use crate::artifacts::{File, Files};
use crate::stages::Progress;
use crate::text::counted;

/// Number of groups that a line lists. Further files are only counted.
const NAMED_GROUPS: usize = 12;

/// Number of folders that a pattern shows.
const SHOWN_FOLDERS: usize = 4;

/// Extensions of files that describe data. They are counted, without a warning.
const DESCRIPTIONS: [&str; 16] = [
    "txt", "md", "json", "jsonl", "xml", "csv", "tsv", "yaml", "yml", "html", "pdf", "pyb", "pkl", "py",
    "zip", "log",
];

/// A group of files: whether they need a warning, the pattern of their names, and the reason.
type Group = (bool, String, String);

/// Reports the files that are left out: in a warning if they are or may be images, else in a note.
pub(super) fn report(input: &Files, prefix: &str, listing: &Listing<'_>, progress: &dyn Progress) {
    let mut groups: BTreeMap<Group, usize> = BTreeMap::new();
    let of_set = |source: &super::layout::Source<'_>| {
        std::iter::once(source.image)
            .chain(source.masks.iter().copied())
            .map(std::ptr::from_ref)
            .collect::<Vec<_>>()
    };
    let lists = listing.lists.iter().map(|&file| std::ptr::from_ref(file));
    let used: BTreeSet<*const File> = listing.sources.iter().flat_map(of_set).chain(lists).collect();
    let names = || input.iter().filter(|(_, file)| used.contains(&std::ptr::from_ref(*file)));
    let folders: BTreeSet<&str> = names().map(|(name, _)| folder_of(name)).collect();
    let tops: BTreeSet<&str> = names().filter_map(|(name, _)| top(name, prefix)).collect();
    for (name, _) in input.iter().filter(|(_, file)| !used.contains(&std::ptr::from_ref(*file))) {
        // The files of a set with problems are named by these; only their kinds are reported here.
        if !listing.problems.is_empty() && file_kind(name) == FileKind::Image {
            continue;
        }
        let (is_warning, reason) = reason(name, prefix, listing, &folders, &tops);
        *groups.entry((is_warning, pattern(name), reason)).or_default() += 1;
    }
    for is_warning in [true, false] {
        let groups: Vec<_> = groups.iter().filter(|((of, ..), _)| *of == is_warning).collect();
        if groups.is_empty() {
            continue;
        }
        let line = line(&groups);
        if is_warning { progress.warn(&line) } else { progress.note(&line) }
    }
}

/// Warns of images of several kinds of files: if the kind goes with the label, a model can learn it instead of the defects.
pub(super) fn report_kinds(input: &Files, listing: &Listing<'_>, progress: &dyn Progress) {
    let images: BTreeSet<*const File> =
        listing.sources.iter().map(|source| std::ptr::from_ref(source.image)).collect();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in input.iter().filter(|(_, file)| images.contains(&std::ptr::from_ref(*file))) {
        let kind = extension(name);
        let kind = if kind == "jpeg" { "jpg".to_owned() } else { kind };
        *kinds.entry(kind).or_default() += 1;
    }
    if kinds.len() > 1 {
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} `.{kind}`")).collect();
        progress.warn(&format!(
            "the images are files of several kinds: {}; scores are comparable only if the kind does not go with the label",
            kinds.join(", ")
        ));
    }
}

fn line(groups: &[(&Group, &usize)]) -> String {
    let mut texts: Vec<String> = groups
        .iter()
        .take(NAMED_GROUPS)
        .map(|((_, pattern, reason), count)| format!("{} `{pattern}`: {reason}", counted(**count, "file")))
        .collect();
    let rest: usize = groups.iter().skip(NAMED_GROUPS).map(|(_, count)| **count).sum();
    if rest > 0 {
        texts.push(format!("{} more", counted(rest, "file")));
    }
    format!("left out: {}", texts.join("; "))
}

/// Returns the first folder of a name below the layout's folder.
fn top<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    name.strip_prefix(prefix)?.split_once('/').map(|(folder, _)| folder)
}

/// Returns why a file is left out, and whether that needs a warning.
fn reason(
    name: &str,
    prefix: &str,
    listing: &Listing<'_>,
    folders: &BTreeSet<&str>,
    tops: &BTreeSet<&str>,
) -> (bool, String) {
    let inside = name.strip_prefix(prefix);
    if let Some(reason) = inside.and_then(|name| listing.left_out.get(name)) {
        return (false, (*reason).to_owned());
    }
    let is_description = DESCRIPTIONS.contains(&extension(name).as_str());
    match file_kind(name) {
        FileKind::Leftover => (false, "a file of an operating system or an archiver".to_owned()),
        FileKind::UnreadImage => (true, "kind not read".to_owned()),
        FileKind::Other if folders.contains(folder_of(name)) && !is_description => {
            (true, "kind not read".to_owned())
        }
        FileKind::Other => (false, "no image".to_owned()),
        FileKind::Image if inside.is_none() => {
            (true, format!("outside of `{}`", prefix.trim_end_matches('/')))
        }
        FileKind::Image => match top(name, prefix).filter(|top| !tops.contains(top)) {
            Some(top) => (true, format!("`{top}` is no folder of this layout")),
            None => (true, "not where this layout has images".to_owned()),
        },
    }
}

/// Returns the pattern that stands for a file and its neighbours: at most [`SHOWN_FOLDERS`] folders, and the extension.
pub(super) fn pattern(name: &str) -> String {
    let folders = parts(folder_of(name));
    if folders == [""] {
        return name.to_owned();
    }
    let rest = if folders.len() > SHOWN_FOLDERS { "…/" } else { "" };
    let file = name.rsplit('/').next().unwrap_or(name);
    let end = file.rsplit_once('.').map_or(String::new(), |(_, end)| format!(".{end}"));
    format!("{}/{rest}*{end}", folders[..folders.len().min(SHOWN_FOLDERS)].join("/"))
}
