//! `download`: brings the files that everything else is made of.
//!
//! A stage names exactly one source:
//! - `path`: a local folder or file. The plan hashes it in place; this kind never runs for it.
//! - `url` + `digest`: a file by HTTP, unpacked where it is a zip archive.
//! - `dataset`: a data set whose address and digest are known here.
//! - `weights`: torchvision's published weights of a network, by name.
//! - `synthetic`: seeded surfaces with exact masks, for the quickstart and for tests.
//!
//! The output is one folder of files, `files/…`, as they lie in the archive.

mod archive;
mod digest;
mod published;
mod surfaces;
mod transfer;

use std::path::{Path, PathBuf};

use super::fields::{Fields, Reader, fields};
use super::{Context, StageError};

pub use digest::Expected;
pub use surfaces::Synthetic;

/// Bumped when outputs change for equal inputs.
///
/// 1: first.
pub const VERSION: u32 = 1;

/// Bytes that a download may have, packed and unpacked, unless the manifest says otherwise (20 GB:
/// chosen; the largest public set of this kind unpacks to 5 GB).
const DEFAULT_SIZE_BYTES: i64 = 20_000_000_000;

/// Entries that an archive may have, unless the manifest says otherwise (chosen).
const DEFAULT_ENTRIES: i64 = 1_000_000;

/// Where the files come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// A local folder or file, relative to the project's root.
    Path(String),
    /// A file by HTTP.
    Remote(Remote),
    /// Made surfaces.
    Synthetic(Synthetic),
}

/// A file by HTTP, known by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Addresses of the same bytes, tried in order.
    pub urls: Vec<String>,
    /// The digest that its bytes must have.
    pub digest: Expected,
    /// Whether it is a zip archive to unpack; else it is kept as it is.
    pub is_unpacked: bool,
    /// The file's name, from the first address; in the output only where it is not unpacked.
    pub name: String,
    /// Bytes that it may have, packed and unpacked.
    pub max_size_bytes: u64,
    /// Entries that an archive may have.
    pub max_entries: usize,
}

/// Data sets by name: addresses and digest as their authors publish them.
const DATASETS: [(&str, &[&str], &str); 1] = [(
    "ksdd2",
    &["https://go.vicos.si/kolektorsdd2", "http://go.vicos.si/kolektorsdd2"],
    "md5:1ed0f628122776ace4965afa30dfe316",
)];

/// The fields of which exactly one names the source.
const SOURCES: [&str; 5] = ["path", "url", "dataset", "weights", "synthetic"];

impl Spec {
    /// Reads the fields of a `download` stage.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let written: Vec<&'static str> = SOURCES.into_iter().filter(|name| reader.has(name)).collect();
        // A local copy stands in for what is known by name: `--set stages.dataset.path=…`.
        let is_local_copy = matches!(written[..], ["path", "dataset" | "weights"]);
        if let [_, second, ..] = written[..]
            && !is_local_copy
        {
            let message = format!("`{second}` stands beside `{}`", written[0]);
            let help =
                "a download has one source: keep one of `path`, `url`, `dataset`, `weights`, `synthetic`";
            reader.problem(second, "conflicting_fields", message, Some(help.to_owned()));
        }
        reader.know(&SOURCES);
        let path = reader.text("path");
        let urls = reader.text_or_texts("url");
        let is_synthetic = reader.has("synthetic");
        let synthetic = reader.table("synthetic", Synthetic::read);
        match written.first() {
            Some(&"url") => Self::Remote(Remote::read(reader, urls)),
            Some(&"dataset") => Self::Remote(Remote::read_dataset(reader)),
            Some(&"weights") => {
                let choices = published::WEIGHTS.map(|(network, _)| (network, network));
                Self::published_weights(reader.choice("weights", &choices, None))
            }
            Some(&"synthetic") if is_synthetic => Self::Synthetic(synthetic),
            Some(_) => Self::Path(path.unwrap_or_default()),
            None => {
                reader.missing(
                    "path",
                    "a local folder; or `url` with `digest`, `dataset`, `weights`, `synthetic`",
                );
                Self::Path(String::new())
            }
        }
    }

    /// torchvision's published weights of a network: a stage by itself, or implied by an `extract` stage that
    /// names no weights.
    pub fn published_weights(network: &str) -> Self {
        let file =
            published::WEIGHTS.iter().find(|(known, _)| *known == network).map_or("", |&(_, file)| file);
        Self::Remote(Remote {
            urls: vec![format!("{}{file}", published::BASE)],
            digest: Expected::sha256_prefix(published::prefix(file)),
            is_unpacked: false,
            name: file.to_owned(),
            max_size_bytes: DEFAULT_SIZE_BYTES as u64,
            max_entries: 1,
        })
    }

    /// The fields that enter the key: what the bytes are, never where they lie.
    pub fn fields(&self) -> Fields {
        match self {
            Self::Path(_) => Fields::new(),
            Self::Remote(remote) => remote.fields(),
            Self::Synthetic(synthetic) => fields([("synthetic", synthetic.fields().into())]),
        }
    }

    /// The local folder or file that stands for this stage's output, where it is one.
    pub fn source_path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            Self::Remote(_) | Self::Synthetic(_) => None,
        }
    }
}

impl Remote {
    fn read(reader: &mut Reader<'_>, urls: Vec<String>) -> Self {
        for url in &urls {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                let help = "write `https://…`, or `path = \"…\"` for a local file";
                reader.problem("url", "invalid_url", format!("`{url}` is no web address"), Some(help.into()));
            }
        }
        let name = urls.first().map_or_else(String::new, |url| file_name(url));
        let digest = read_digest(reader);
        let is_unpacked = reader.boolean("unpack", is_archive_name(&name));
        if is_unpacked && is_tar_name(&name) {
            let help =
                "pack it again as a zip archive, or set `unpack = false` and unpack it in a `command` stage";
            reader.problem(
                "url",
                "unsupported_archive",
                format!("`{name}` is not a zip archive"),
                Some(help.into()),
            );
        }
        let (max_size_bytes, max_entries) = read_limits(reader);
        Self { urls, digest, is_unpacked, name, max_size_bytes, max_entries }
    }

    fn read_dataset(reader: &mut Reader<'_>) -> Self {
        let choices: Vec<(&'static str, usize)> =
            DATASETS.iter().enumerate().map(|(place, &(name, ..))| (name, place)).collect();
        let (name, urls, digest) = DATASETS[reader.choice("dataset", &choices, None)];
        let (max_size_bytes, max_entries) = read_limits(reader);
        Self {
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            digest: Expected::parse(digest).expect("the digests of this file are well formed"),
            is_unpacked: true,
            name: name.to_owned(),
            max_size_bytes,
            max_entries,
        }
    }

    /// Addresses and limits stay out: they change where the bytes come from, or whether they come at all.
    fn fields(&self) -> Fields {
        let Self { urls: _, digest, is_unpacked, name, max_size_bytes: _, max_entries: _ } = self;
        let mut fields = fields([("digest", digest.to_string().into()), ("unpack", (*is_unpacked).into())]);
        if !is_unpacked {
            fields.insert("name".to_owned(), name.as_str().into());
        }
        fields
    }
}

fn read_digest(reader: &mut Reader<'_>) -> Expected {
    let help = "`\"sha256:…\"`, `\"blake3:…\"` or `\"md5:…\"` of the file: from its publisher, or of a copy that \
                you trust by `sha256sum FILE`";
    match reader.text("digest") {
        None if reader.has("digest") => {}
        None => reader.missing("digest", help),
        Some(text) => match Expected::parse(&text) {
            Ok(digest) => return digest,
            Err(message) => {
                reader.problem("digest", "invalid_digest", message, Some(format!("write {help}")));
            }
        },
    }
    Expected::unknown()
}

fn read_limits(reader: &mut Reader<'_>) -> (u64, usize) {
    let size = reader.integer("max_size_bytes", 1..=i64::MAX, Some(DEFAULT_SIZE_BYTES));
    let entries = reader.integer("max_entries", 1..=100_000_000, Some(DEFAULT_ENTRIES));
    (size as u64, entries as usize)
}

/// The last part of an address without its query, made safe as the name of a file.
fn file_name(url: &str) -> String {
    let address = url.split(['?', '#']).next().unwrap_or_default();
    let path =
        address.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.+".contains(*letter);
    let name: String = last.chars().map(|letter| if is_plain(&letter) { letter } else { '_' }).collect();
    let name = name.trim_start_matches('.');
    if name.is_empty() { "download".to_owned() } else { name.to_owned() }
}

/// Whether a file of that name is taken for an archive: `.zip`, tar, or no extension at all (the
/// content is looked at before anything is unpacked). Others are kept: a `.pth` or `.npz` is a zip
/// archive too, and meant to stay one.
fn is_archive_name(name: &str) -> bool {
    let is_extension =
        |end: &str| end.len() <= 12 && end.starts_with(|letter: char| letter.is_ascii_alphabetic());
    match name.rsplit_once('.') {
        Some((_, end)) if is_extension(end) => end.eq_ignore_ascii_case("zip") || is_tar_name(name),
        _ => true,
    }
}

fn is_tar_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tar.zst", ".7z", ".rar"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// Brings the files into `output/files`.
///
/// # Errors
/// [`StageError::Download`] where no address gave bytes of the digest, [`StageError::Archive`] where
/// the archive is not safe or not whole, and what writing files can meet.
pub fn run(spec: &Spec, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let files = output.join("files");
    match spec {
        Spec::Path(path) => Err(StageError::data(
            format!("`{path}` is a local source and is read in place"),
            "this is a fault of the plan: please report it",
        )),
        Spec::Remote(remote) => bring(remote, &transfer::Policy::default(), &files, context),
        Spec::Synthetic(synthetic) => surfaces::write(synthetic, &files, context),
    }
}

fn bring(
    remote: &Remote,
    policy: &transfer::Policy,
    files: &Path,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let part = transfer::obtain(remote, policy, context)?;
    std::fs::create_dir_all(files).map_err(|source| StageError::io("write", files, source))?;
    if remote.is_unpacked {
        archive::unpack(&part, remote, files, context)?;
    } else {
        move_file(&part, &files.join(&remote.name))?;
    }
    transfer::forget(&part);
    Ok(())
}

fn move_file(from: &Path, to: &PathBuf) -> Result<(), StageError> {
    if std::fs::rename(from, to).is_err() {
        std::fs::copy(from, to).map_err(|source| StageError::io("write", to, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod server;
#[cfg(test)]
mod tests;
