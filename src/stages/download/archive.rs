//! Unpacks an untrusted zip archive.
//!
//! All names and sizes are checked before the first byte is written. Sizes are counted again while unpacking, because
//! the directory of an archive may be wrong.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::HttpSource;
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
    let error = |message: String| StageError::Archive { path: PathBuf::from(&source.name), message };
    let file = File::open(path).map_err(|source| StageError::io("read", path, source))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    recognise(&mut reader).map_err(error)?;
    let mut archive = ZipArchive::new(reader).map_err(|source| error(source.to_string()))?;
    let entries = survey(&archive, source).map_err(error)?;
    let total = entries.iter().map(|entry| entry.size_bytes).sum();
    let mut done = 0;
    for entry in &entries {
        context.check()?;
        done += extract(&mut archive, entry, into, &error)?;
        context.progress.report(done, total, "byte");
    }
    Ok(())
}

/// Checks that the file is a zip archive. The error names the format that it has instead.
fn recognise(reader: &mut (impl Read + Seek)) -> Result<(), String> {
    let mut start = Vec::new();
    reader.by_ref().take(6).read_to_end(&mut start).map_err(|error| error.to_string())?;
    reader.rewind().map_err(|error| error.to_string())?;
    let what = match start[..] {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => return Ok(()),
        [0x1f, 0x8b, ..] => "a gzip file",
        [0xfd, b'7', b'z', ..] => "an xz file",
        [b'7', b'z', ..] => "a 7z archive",
        [b'<', ..] => "a web page",
        _ => "not a zip archive",
    };
    Err(format!("it is {what}; only zip archives can be unpacked, `unpack = false` keeps the file as it is"))
}

/// Lists the files to write. Refuses the whole archive if any entry is unsafe.
fn survey(archive: &ZipArchive<BufReader<File>>, source: &HttpSource) -> Result<Vec<Entry>, String> {
    if archive.len() > source.max_entries {
        return Err(format!("it has {} entries, `max_entries` allows {}", archive.len(), source.max_entries));
    }
    if archive.has_duplicate_names() {
        return Err("it holds the same name twice".to_owned());
    }
    let (mut entries, mut names, mut total) = (Vec::new(), BTreeSet::new(), 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(|error| format!("entry {index}: {error}"))?;
        let written = entry.name().map_err(|error| format!("entry {index}: {error}"))?;
        let name = safe_name(&written).map_err(|problem| format!("the entry `{written}` {problem}"))?;
        if entry.is_symlink() {
            return Err(format!("the entry `{written}` is a symbolic link"));
        }
        if entry.encrypted() {
            return Err(format!("the entry `{written}` is encrypted"));
        }
        if entry.is_dir() {
            continue;
        }
        if !names.insert(name.clone()) {
            return Err(format!("it holds `{name}` twice"));
        }
        total = total.saturating_add(entry.size());
        if total > source.max_size_bytes {
            return Err(format!(
                "it unpacks to more than the {} bytes of `max_size_bytes`",
                source.max_size_bytes
            ));
        }
        entries.push(Entry { index, name, size_bytes: entry.size() });
    }
    Ok(entries)
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
