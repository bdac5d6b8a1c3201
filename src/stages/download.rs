//! `download`: provides the input files of an experiment.
//!
//! A stage has exactly one source:
//! - `path`: a local folder or file. The planner hashes it in place, and the stage never runs.
//! - `url` + `digest`: a file from an HTTP server. Zip archives are unpacked.
//! - `dataset`: a data set by name, with a built-in address and digest.
//! - `weights`: the weights of a network that torchvision publishes, by name.
//! - `synthetic`: generated surfaces with exact masks, for the quickstart and for tests.
//!
//! The output is one folder, `files/…`, with the folder structure of the archive.

mod answer;
mod archive;
mod content;
mod digest;
mod problem;
mod published;
mod surfaces;
mod transfer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fields::{Fields, Reader, fields};
use super::{
    About, Context, Estimates, InputSizes, Inputs, PortUse, Spec, Stage, StageError, Variables, Workload,
};
use crate::artifacts::Artifact;
use crate::artifacts::image_set::Label;
use crate::artifacts::size::{ImageClass, ImageCounts, Size};
use crate::kernels::backbone::Network;

pub use digest::Expected;
pub use problem::{ArchiveProblem, DownloadCause};
pub use surfaces::Synthetic;

/// Raised when outputs change for equal inputs.
///
/// 1: first.
pub const VERSION: u32 = 1;

/// Default limit of the size of a download in bytes, packed and unpacked (20 GB: chosen; the largest public set of this
/// kind unpacks to 5 GB).
const DEFAULT_SIZE_BYTES: i64 = 20_000_000_000;

/// Default limit of the number of entries in an archive (chosen).
const DEFAULT_ENTRIES: i64 = 1_000_000;

/// Where the files come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Download {
    /// A local folder or file, relative to the project's root.
    Path(String),
    /// A file from an HTTP server.
    Http(HttpSource),
    /// Generated surfaces.
    Synthetic(Synthetic),
}

/// A file from an HTTP server, identified by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpSource {
    /// Addresses of the file, tried in order.
    pub urls: Vec<String>,
    /// Digest that the file must have.
    pub digest: Expected,
    /// Whether the file is a zip archive that is unpacked. Otherwise the file itself is the output.
    pub is_unpacked: bool,
    /// Name of the file, from the first address. It is part of the output only if the file is not unpacked.
    pub name: String,
    /// Limit of the size in bytes, packed and unpacked.
    pub max_size_bytes: u64,
    /// Limit of the number of entries in an archive.
    pub max_entries: usize,
}

/// Data sets by name, with the addresses of their authors, and digests that independent users recorded (for `ksdd` and
/// `btad`: anomalib 2.7). Archives that are not zip files cannot be unpacked and are not here.
const DATASETS: [(&str, &[&str], &str); 3] = [
    (
        "ksdd2",
        &["https://go.vicos.si/kolektorsdd2", "http://go.vicos.si/kolektorsdd2"],
        "md5:1ed0f628122776ace4965afa30dfe316",
    ),
    (
        "ksdd",
        &["https://go.vicos.si/kolektorsdd", "http://go.vicos.si/kolektorsdd"],
        "sha256:65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc",
    ),
    (
        "btad",
        &["https://avires.dimi.uniud.it/papers/btad/btad.zip"],
        "sha256:461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
    ),
];
/// Seconds for a generated image and its mask, and for each of its pixels
/// (measured: `src/plan/estimate/measured.rs`).
const IMAGE_SECONDS: f64 = 0.25e-3;
const SURFACE_PIXEL_SECONDS: f64 = 180e-9;

/// What the authors of KSDD2 publish: normal and defective images for training and testing, and the typical number of
/// pixels (Božič et al. 2021: about 230 × 630 px).
const KSDD2_IMAGES: [(&str, usize, usize); 2] = [("train", 2085, 246), ("test", 894, 110)];
const KSDD2_PIXELS: f64 = 230.0 * 630.0;

/// The fields that name a source. Exactly one of them is set.
const SOURCES: [&str; 5] = ["path", "url", "dataset", "weights", "synthetic"];

impl Stage for Download {
    fn name() -> &'static str {
        "download"
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let written: Vec<&'static str> = SOURCES.into_iter().filter(|name| reader.has(name)).collect();
        // A local copy may replace a named data set or weights: `--set stages.dataset.path=…`.
        let is_local_copy = matches!(written[..], ["path", "dataset" | "weights"]);
        if let [_, second, ..] = written[..]
            && !is_local_copy
        {
            let message = format!("`{second}` conflicts with `{}`", written[0]);
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
            Some(&"url") => Self::Http(HttpSource::read(reader, urls)),
            Some(&"dataset") => Self::Http(HttpSource::read_dataset(reader)),
            Some(&"weights") => {
                Self::Http(HttpSource::published(reader.choice("weights", &published::choices(), None)))
            }
            Some(&"synthetic") if is_synthetic => Self::Synthetic(synthetic),
            Some(_) => Self::Path(path.unwrap_or_default()),
            None => {
                reader.missing(
                    "path",
                    "a local folder; or `url` with `digest`, `dataset`, `weights` or `synthetic`",
                );
                Self::Path(String::new())
            }
        }
    }

    fn about(&self) -> About {
        let source = match self {
            Self::Path(path) => Some(path.clone()),
            Self::Http(_) | Self::Synthetic(_) => None,
        };
        About {
            version: VERSION,
            is_random: false,
            is_item_wise: false,
            is_blocking: true,
            is_target: false,
            is_shown: false,
            // Running it again would download the file again.
            is_verified: false,
            estimates: Estimates::OfKind,
            foresees: false,
            pictures: &[],
            threads: 1,
            memory_bytes: 0,
            tolerance: None,
            depends_on_machine: false,
            compute_target: None,
            source,
            tools: Vec::new(),
            implied: Vec::new(),
        }
    }

    fn port(&self, _: &str) -> PortUse {
        PortUse::whole()
    }

    fn outputs(&self) -> Vec<(String, Artifact)> {
        vec![("files".to_owned(), Artifact::Files)]
    }

    /// Identifies the content, not where it comes from.
    fn key_fields(&self) -> Fields {
        match self {
            Self::Path(_) => Fields::new(),
            Self::Http(source) => source.key_fields(),
            Self::Synthetic(synthetic) => fields([("synthetic", synthetic.key_fields().into())]),
        }
    }

    fn estimated_memory(&self, _: u64) -> u64 {
        64_000_000
    }

    /// The time of a download depends on the network, and its size is known only if its publisher says it.
    fn workload(&self, _: &InputSizes) -> Workload {
        match self {
            Self::Path(_) => Workload::unknown(),
            Self::Http(source) => Workload {
                outputs: source.published_size().map(|size| ("files", size)).into_iter().collect(),
                ..Workload::default()
            },
            Self::Synthetic(synthetic) => {
                let images = synthetic.images();
                let seconds = images.total() * (IMAGE_SECONDS + images.positions * SURFACE_PIXEL_SECONDS);
                Workload::of(seconds, "files", Size::of_images(images))
            }
        }
    }

    fn preflight(&self, _: &Variables) -> Result<(), StageError> {
        Ok(())
    }

    fn run(&self, _: &Inputs, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
        run(self, output, context)
    }
}

/// Returns the stage that downloads the weights of a network (`IMAGENET1K_V1`) that torchvision publishes. An `extract`
/// stage without `weights` implies it.
pub fn published_weights(network: Network) -> Spec {
    Spec::new(Download::Http(HttpSource::published(published::file(network))))
}

impl HttpSource {
    /// Returns the source of a file that torchvision publishes.
    fn published(file: &str) -> Self {
        Self {
            urls: vec![format!("{}{file}", published::BASE)],
            digest: Expected::sha256_prefix(published::prefix(file)),
            is_unpacked: false,
            name: file.to_owned(),
            max_size_bytes: DEFAULT_SIZE_BYTES as u64,
            max_entries: 1,
        }
    }

    fn read(reader: &mut Reader<'_>, urls: Vec<String>) -> Self {
        for url in &urls {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                let help = "write `https://…`, or `path = \"…\"` for a local file";
                reader.problem(
                    "url",
                    "invalid_url",
                    format!("`{url}` is not a web address"),
                    Some(help.into()),
                );
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
            DATASETS.iter().enumerate().map(|(index, &(name, ..))| (name, index)).collect();
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

    /// Returns the size of a data set whose content is published.
    fn published_size(&self) -> Option<Size> {
        let ksdd2 = Expected::parse(DATASETS[0].2).ok()?;
        (self.digest == ksdd2).then(|| Size::of_images(image_counts(&KSDD2_IMAGES, KSDD2_PIXELS)))
    }

    /// Addresses and limits are left out: they do not change the content.
    fn key_fields(&self) -> Fields {
        let Self { urls: _, digest, is_unpacked, name, max_size_bytes: _, max_entries: _ } = self;
        let mut fields = fields([("digest", digest.to_string().into()), ("unpack", (*is_unpacked).into())]);
        if !is_unpacked {
            fields.insert("name".to_owned(), name.as_str().into());
        }
        fields
    }
}

/// Counts images by split, normal and defective, each of `pixels`.
fn image_counts(splits: &[(&str, usize, usize)], pixels: f64) -> ImageCounts {
    let class =
        |split: &str, label, count: usize| ImageClass { split: split.to_owned(), label, count: count as f64 };
    let classes = splits.iter().flat_map(|&(split, normal, defect)| {
        [class(split, Label::Normal, normal), class(split, Label::Defect, defect)]
    });
    ImageCounts { classes: classes.collect(), positions: pixels, channels: 3.0 }
}

fn read_digest(reader: &mut Reader<'_>) -> Expected {
    let help = "`\"sha256:…\"`, `\"blake3:…\"` or `\"md5:…\"` of the file: from its publisher, or by \
                `sha256sum FILE` from a copy that you trust";
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

/// Returns the last part of an address without its query, with unsafe characters replaced, as a file name.
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

/// Returns whether a file of this name is unpacked by default: `.zip`, tar, or no extension (the content is checked
/// before anything is unpacked). Other files are kept: `.pth` and `.npz` files are zip archives too, but must not be
/// unpacked.
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

/// Writes the files into `output/files`.
///
/// # Errors
/// [`StageError::Download`] if no address provides a file with the digest, [`StageError::Archive`] if the archive is
/// unsafe or incomplete, and [`StageError::Io`] if a file cannot be written.
fn run(spec: &Download, output: &Path, context: &Context<'_>) -> Result<(), StageError> {
    let files = output.join("files");
    match spec {
        Download::Path(path) => Err(StageError::data(
            format!("`{path}` is a local source and is read in place"),
            "this is a bug in the planner: please report it",
        )),
        Download::Http(source) => fetch(source, &transfer::Policy::default(), &files, context),
        Download::Synthetic(synthetic) => surfaces::write(synthetic, &files, context),
    }
}

fn fetch(
    source: &HttpSource,
    policy: &transfer::Policy,
    files: &Path,
    context: &Context<'_>,
) -> Result<(), StageError> {
    let part = transfer::obtain(source, policy, context)?;
    std::fs::create_dir_all(files).map_err(|source| StageError::io("write", files, source))?;
    if source.is_unpacked {
        archive::unpack(&part, source, files, context)?;
    } else {
        move_file(&part, &files.join(&source.name))?;
    }
    transfer::remove_part(&part);
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
