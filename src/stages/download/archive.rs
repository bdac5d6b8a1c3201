//! Unpacks an untrusted zip archive.
//!
//! All names, sizes and methods are checked before the first byte is written. Sizes are counted again while unpacking, because
//! the directory of an archive may be wrong.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::{CompressionMethod, ZipArchive};

use super::HttpSource;
use super::content::{FileContent, START_BYTES};
use super::problem::ArchiveProblem;
use crate::stages::{Context, StageError};

/// A file of the archive.
struct Entry {
    index: usize,
    name: String,
    size_bytes: u64,
}

/// Unpacks the archive at `path` into the folder `into`.
pub(super) fn unpack(
    path: &Path,
    source: &HttpSource,
    into: &Path,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let refused = |problem| StageError::Archive { path: PathBuf::from(&source.name), problem };
    let error = |message: String| refused(ArchiveProblem::Refused { message });
    let file = File::open(path).map_err(|source| StageError::io("read", path, source))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    recognise(&mut reader).map_err(|source| StageError::io("read", path, source))?.map_err(refused)?;
    let mut archive = ZipArchive::new(reader).map_err(|source| error(source.to_string()))?;
    let entries = survey(&archive, source).map_err(refused)?;
    let total = entries.iter().map(|entry| entry.size_bytes).sum();
    let mut done = 0;
    for entry in &entries {
        context.check()?;
        done += extract(&mut archive, entry, into, &error)?;
        context.progress.report(done, total, "byte");
    }
    Ok(())
}

/// Checks that the file is a zip archive. The problem names the format that it has instead.
fn recognise(reader: &mut (impl Read + Seek)) -> std::io::Result<Result<(), ArchiveProblem>> {
    let mut start = Vec::new();
    reader.by_ref().take(START_BYTES as u64).read_to_end(&mut start)?;
    reader.rewind()?;
    Ok(match FileContent::of(&start) {
        Some(FileContent::Zip) => Ok(()),
        Some(other) => Err(ArchiveProblem::Format { found: other.to_string() }),
        None => Err(ArchiveProblem::Format { found: "of an unknown format".to_owned() }),
    })
}

/// Lists the files to write. Refuses the whole archive if any entry is unsafe or cannot be read.
fn survey(archive: &ZipArchive<BufReader<File>>, source: &HttpSource) -> Result<Vec<Entry>, ArchiveProblem> {
    let refused = |message: String| ArchiveProblem::Refused { message };
    if archive.len() > source.max_entries {
        let message =
            format!("it has {} entries, `max_entries` allows {}", archive.len(), source.max_entries);
        return Err(refused(message));
    }
    if archive.has_duplicate_names() {
        return Err(refused("it holds the same name twice".to_owned()));
    }
    let (mut entries, mut names, mut total) = (Vec::new(), BTreeSet::new(), 0_u64);
    for index in 0..archive.len() {
        let failed = |error: zip::result::ZipError| refused(format!("entry {index}: {error}"));
        let entry = archive.by_index_data(index).map_err(failed)?;
        let written = entry.name().map_err(failed)?.into_owned();
        let name =
            safe_name(&written).map_err(|problem| refused(format!("the entry `{written}` {problem}")))?;
        if entry.is_symlink() {
            return Err(refused(format!("the entry `{written}` is a symbolic link")));
        }
        if entry.encrypted() {
            return Err(ArchiveProblem::Encrypted { entry: written });
        }
        if entry.is_dir() {
            continue;
        }
        if let Some(method) = unread_method(entry.compression()) {
            return Err(ArchiveProblem::Method { entry: written, method });
        }
        if !names.insert(name.clone()) {
            return Err(refused(format!("it holds `{name}` twice")));
        }
        total = total.saturating_add(entry.size());
        if total > source.max_size_bytes {
            let limit = source.max_size_bytes;
            return Err(refused(format!("it unpacks to more than the {limit} bytes of `max_size_bytes`")));
        }
        entries.push(Entry { index, name, size_bytes: entry.size() });
    }
    Ok(entries)
}

/// Names of methods that this program does not read (PKWARE APPNOTE 6.3.10, 4.4.5). Deflate64 is what Windows writes for
/// files above 2 GB.
const METHODS: [(CompressionMethod, &str); 8] = [
    (CompressionMethod::SHRINK, "Shrink"),
    (CompressionMethod::IMPLODE, "Implode"),
    (CompressionMethod::DEFLATE64, "Deflate64"),
    (CompressionMethod::BZIP2, "BZip2"),
    (CompressionMethod::LZMA, "LZMA"),
    (CompressionMethod::ZSTD, "Zstandard"),
    (CompressionMethod::XZ, "XZ"),
    (CompressionMethod::PPMD, "PPMd"),
];

/// Returns the name of a method that this program does not read; `None` if it reads it.
fn unread_method(method: CompressionMethod) -> Option<String> {
    if method == CompressionMethod::STORE || method == CompressionMethod::DEFLATE {
        return None;
    }
    let known = METHODS.iter().find(|(other, _)| *other == method);
    // Rare ones, by their number: `Unsupported(97)`.
    Some(known.map_or_else(|| format!("{method:?}"), |(_, name)| (*name).to_owned()))
}

/// Returns the name as a path within the target folder. The error says why the name is not allowed.
fn safe_name(written: &str) -> Result<String, &'static str> {
    let name = written.replace('\\', "/");
    if name.contains('\0') {
        return Err("holds a zero byte");
    }
    if name.starts_with('/') {
        return Err("has an absolute path");
    }
    if name.as_bytes().get(1) == Some(&b':') {
        return Err("names a drive");
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("leaves the folder");
    }
    if parts.is_empty() { Err("has no name") } else { Ok(parts.join("/")) }
}

fn extract(
    archive: &mut ZipArchive<BufReader<File>>,
    entry: &Entry,
    into: &Path,
    error: &impl Fn(String) -> StageError,
) -> Result<u64, StageError> {
    let to = into.join(&entry.name);
    let failed = |source| StageError::io("write", &to, source);
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let broken = |source: &dyn std::fmt::Display| error(format!("the entry `{}`: {source}", entry.name));
    let packed = archive.by_index(entry.index).map_err(|source| broken(&source))?;
    // One byte more than the directory declares is enough to detect a wrong size.
    let mut packed = packed.take(entry.size_bytes + 1);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&to).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let read = packed.read(&mut buffer).map_err(|source| broken(&source))?;
        if read == 0 {
            break;
        }
        size += read as u64;
        if size > entry.size_bytes {
            return Err(broken(&format!(
                "it is larger than its declared size of {} bytes",
                entry.size_bytes
            )));
        }
        file.write_all(&buffer[..read]).map_err(failed)?;
    }
    if size < entry.size_bytes { Err(broken(&"it is shorter than its declared size")) } else { Ok(size) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["../x", "a/../../x", "/etc/passwd", "C:\\x", "c:/x", "a\\..\\x", "", "./", "a\0b"] {
            assert!(safe_name(name).is_err(), "{name}");
        }
        assert_eq!(safe_name("train\\10000.png").unwrap(), "train/10000.png");
        assert_eq!(safe_name("./a//b c.png").unwrap(), "a/b c.png");
        assert_eq!(safe_name("a/..b/c").unwrap(), "a/..b/c");
    }
}
