//! What a file is, by its first bytes.

use std::fmt;

/// Number of bytes that are looked at.
pub(super) const START_BYTES: usize = 4096;

/// Longest title of a page that is shown, in characters.
const LONGEST_TITLE: usize = 80;

/// A kind of content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileContent {
    /// A zip archive.
    Zip,
    /// An HTML page, as a server sends it instead of a file: to sign in, to accept terms, to confirm a large download.
    WebPage { title: Option<String> },
    /// A text that stands for a file in a repository with Git LFS.
    LfsPointer,
    /// A file of this other format.
    Other(&'static str),
}

/// The first bytes of formats that are no zip archives, and their names.
const FORMATS: [(&[u8], &str); 8] = [
    (&[0x1f, 0x8b], "a gzip file"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "an xz file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZh", "a bzip2 file"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "a Zstandard file"),
    (b"Rar!", "a RAR archive"),
    (b"%PDF", "a PDF file"),
    (b"\x93NUMPY", "a NumPy file"),
];

/// The first words of HTML pages, in lower case.
const TAGS: [&str; 9] =
    ["<!doctype html", "<html", "<head", "<body", "<title", "<meta", "<script", "<iframe", "<!--"];

impl FileContent {
    /// Recognises content by its `start`. `None` if it is of no known kind.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        if let [b'P', b'K', 3 | 5, 4 | 6, ..] = start {
            return Some(Self::Zip);
        }
        if let Some(&(_, name)) = FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(Self::Other(name));
        }
        // A tar archive has no magic number at its start.
        if start.get(257..262) == Some(b"ustar") {
            return Some(Self::Other("a tar archive"));
        }
        if start.starts_with(b"version https://git-lfs.github.com/spec/") {
            return Some(Self::LfsPointer);
        }
        let text = String::from_utf8_lossy(start);
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let lower = text.to_ascii_lowercase();
        let is_page = TAGS.iter().any(|tag| lower.starts_with(tag))
            || lower.starts_with("<?xml") && lower.contains("<html");
        is_page.then(|| Self::WebPage { title: title(text, &lower) })
    }

    /// Returns whether a server sends such content instead of the file that was asked for.
    pub(super) fn is_stand_in(&self) -> bool {
        matches!(self, Self::WebPage { .. } | Self::LfsPointer)
    }
}

/// Returns whether the bytes could be text.
pub(super) fn is_text(start: &[u8]) -> bool {
    // A character may be cut at the end.
    let text = std::str::from_utf8(start).map_or_else(|error| error.error_len().is_none(), |_| true);
    text && !start.contains(&0)
}

/// Returns the title of a page on one line. `lower` is the text in lower case.
fn title(text: &str, lower: &str) -> Option<String> {
    let tag = lower.find("<title")?;
    let begin = tag + lower[tag..].find('>')? + 1;
    let end = begin + lower[begin..].find("</title")?;
    let words: Vec<&str> = text[begin..end].split_whitespace().collect();
    let title: String =
        words.join(" ").chars().filter(|letter| !letter.is_control()).take(LONGEST_TITLE).collect();
    (!title.is_empty()).then_some(title)
}

impl fmt::Display for FileContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zip => formatter.write_str("a zip archive"),
            Self::WebPage { title: None } => formatter.write_str("a web page"),
            Self::WebPage { title: Some(title) } => write!(formatter, "a web page, `{title}`"),
            Self::LfsPointer => formatter.write_str("a pointer of Git LFS"),
            Self::Other(name) => formatter.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(title: Option<&str>) -> FileContent {
        FileContent::WebPage { title: title.map(str::to_owned) }
    }

    #[test]
    fn pages_are_recognised_with_their_title() {
        assert_eq!(FileContent::of(b"<!DOCTYPE html><html><body>"), Some(page(None)));
        assert_eq!(
            FileContent::of(b"\xef\xbb\xbf\r\n <HTML lang=\"en\"><head><title>Sign\n  in</title>"),
            Some(page(Some("Sign in")))
        );
        let drive =
            b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title><meta http-equiv";
        assert_eq!(FileContent::of(drive), Some(page(Some("Google Drive - Virus scan warning"))));
        assert_eq!(FileContent::of(b"<?xml version=\"1.0\"?>\n<html xmlns=\"x\">"), Some(page(None)));
        assert_eq!(FileContent::of(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>"), None);
        assert_eq!(
            FileContent::of("<title>İ</title>".as_bytes()),
            Some(page(Some("İ"))),
            "lower case keeps lengths"
        );
    }

    #[test]
    fn archives_and_pointers_are_recognised() {
        assert_eq!(FileContent::of(b"PK\x03\x04"), Some(FileContent::Zip));
        assert_eq!(FileContent::of(b"PK\x05\x06"), Some(FileContent::Zip), "an empty archive");
        assert_eq!(
            FileContent::of(b"version https://git-lfs.github.com/spec/v1\noid"),
            Some(FileContent::LfsPointer)
        );
        let mut tar = vec![0; 600];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(FileContent::of(&tar), Some(FileContent::Other("a tar archive")));
        for (magic, name) in FORMATS {
            assert_eq!(FileContent::of(magic), Some(FileContent::Other(name)));
        }
        assert_eq!((FileContent::of(b""), FileContent::of(b"\x89PNG")), (None, None));
    }

    #[test]
    fn text_may_be_cut_within_a_letter() {
        assert!(is_text("größe".as_bytes()) && is_text(&"ß".as_bytes()[..1]) && is_text(b""));
        assert!(!is_text(b"\xff\xfe") && !is_text(b"a\0b"));
    }
}
