//! What the names of files and folders say: kinds of files, words for normal folders, leftovers of other programs.

use image::ImageFormat;

use crate::artifacts::size::is_image_name;

/// Names of folders of normal images, ignoring case. A folder is normal only if its whole name is one of them: `Ungood`
/// and `NODefect` contain such a word and are something else.
const NORMAL: [&str; 9] =
    ["good", "ok", "normal", "nodefect_images", "mt_free", "negative", "neg", "defect_free", "non_defective"];

/// Names of folders whose images are defective, of no known kind.
const DEFECTIVE: [&str; 10] =
    ["bad", "ko", "ng", "defect", "defective", "anomaly", "anomalous", "abnormal", "positive", "ungood"];

/// Extensions of images and arrays that [`ImageFormat`] does not know and that are not read.
const UNREAD: [&str; 16] = [
    "jp2", "j2k", "heic", "heif", "dng", "raw", "cr2", "cr3", "nef", "arw", "svg", "pcx", "npy", "npz",
    "mat", "dcm",
];

/// What a file is, judged by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// An image of a kind that is read.
    Image,
    /// An image of a kind that is not read.
    UnreadImage,
    /// A file of an operating system or an archiver.
    Leftover,
    /// Any other file.
    Other,
}

/// Returns the kind of a file.
pub(super) fn file_kind(name: &str) -> FileKind {
    let extension = extension(name);
    let format = ImageFormat::from_extension(&extension);
    if is_leftover(name) {
        FileKind::Leftover
    } else if is_image_name(name) {
        FileKind::Image
    } else if format.is_some() || UNREAD.contains(&extension.as_str()) {
        FileKind::UnreadImage
    } else {
        FileKind::Other
    }
}

/// Returns whether a file is an image of a kind that is read.
pub(super) fn is_image(name: &str) -> bool {
    file_kind(name) == FileKind::Image
}

fn is_leftover(name: &str) -> bool {
    let is_of_system = |part: &str| {
        part.starts_with('.')
            || part == "__MACOSX"
            || part.eq_ignore_ascii_case("thumbs.db")
            || part.eq_ignore_ascii_case("desktop.ini")
    };
    name.split('/').any(is_of_system)
}

/// Returns whether a file manager named the file as a copy of another.
pub(super) fn is_copy(name: &str) -> bool {
    let stem = without_extension(name.rsplit('/').next().unwrap_or(name));
    stem.contains("(copy") || stem.contains(" - Copy")
}

/// Returns the extension in lower case; empty if there is none.
pub(super) fn extension(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').map_or_else(String::new, |(_, end)| end.to_ascii_lowercase())
}

/// Returns a name without its extension.
pub(super) fn without_extension(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, end)) if !end.contains('/') => stem,
        _ => name,
    }
}

/// Returns the folder of a name; empty for a name without one.
pub(super) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Splits a name at `/`.
pub(super) fn parts(name: &str) -> Vec<&str> {
    name.split('/').collect()
}

/// Returns whether a word names normal images, ignoring case.
pub(super) fn is_normal_word(word: &str) -> bool {
    NORMAL.iter().any(|normal| normal.eq_ignore_ascii_case(word))
}

/// Returns whether a word names defective images without saying of which kind, ignoring case.
pub(super) fn is_defect_word(word: &str) -> bool {
    DEFECTIVE.iter().any(|defect| defect.eq_ignore_ascii_case(word))
}

/// Returns the words for normal images, for messages.
pub(super) fn normal_words() -> String {
    NORMAL.map(|word| format!("`{word}`")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files_follow_their_names() {
        for name in ["a.png", "a.PNG", "a.JPG", "b/a.jpeg", "a.jfif", "a.jpe", "a.bmp"] {
            assert_eq!(file_kind(name), FileKind::Image, "{name}");
        }
        for name in ["a.gif", "a.dng", "a.npy", "a.heic"] {
            assert_eq!(file_kind(name), FileKind::UnreadImage, "{name}");
        }
        for name in [".DS_Store", "a/._x.png", "__MACOSX/a.png", "x/Thumbs.db", "desktop.ini"] {
            assert_eq!(file_kind(name), FileKind::Leftover, "{name}");
        }
        for name in ["a.txt", "a", "dir.png/a", "a.csv"] {
            assert_eq!(file_kind(name), FileKind::Other, "{name}");
        }
    }

    #[test]
    fn only_whole_words_are_normal() {
        for word in ["good", "OK", "Normal", "MT_Free", "NODefect_images"] {
            assert!(is_normal_word(word), "{word}");
        }
        for word in ["Ungood", "NG", "NODefect", "goods", "0"] {
            assert!(!is_normal_word(word), "{word}");
        }
    }

    #[test]
    fn copies_of_file_managers_are_recognised() {
        assert!(is_copy("train/10301_GT (copy).png") && is_copy("a/b - Copy.jpg"));
        assert!(!is_copy("a/part (1).jpg") && !is_copy("copy/1.png"));
    }
}
