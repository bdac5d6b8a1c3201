//! `patchflow.toml`: how this project runs on this machine. None of it can change a result.
//!
//! The file also marks the root of the project, to which every path of a manifest is relative.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, ManifestError, SourceText, Span};
use super::problems::located;
use super::raw::parse;
use crate::kernels::backbone::Device;
use crate::stages::fields::Reader;

/// Name of the file.
pub const CONFIG_FILE: &str = "patchflow.toml";

/// The settings of `patchflow.toml`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the cache. The file gives it relative to the project.
    pub cache: PathBuf,
    /// Largest number of tasks that run at once; `None` for the number of cores.
    pub jobs: Option<usize>,
    /// Threads that all tasks share; `None` for the number of cores.
    pub threads: Option<usize>,
    /// The cache that machines share.
    pub remote: Option<RemoteConfig>,
    /// Device of coreset and nearest-neighbour search; `None` (`auto`) for the fastest of this build and machine.
    pub search_device: Option<Device>,
}

/// The remote, by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// A folder relative to the project, or a URL.
    pub url: String,
    /// Whether runs push their results to it.
    pub is_written: bool,
}

impl Config {
    /// Reads the configuration of `project`; the default if there is no file.
    ///
    /// # Errors
    /// Every mistake of the file at once.
    pub fn load(project: &Path) -> Result<Self, ManifestError> {
        let path = project.join(CONFIG_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", path.display());
                let diagnostic =
                    Diagnostic::new("config::unreadable", message).help("make it readable, or move it");
                return Err(ManifestError::new(CONFIG_FILE, &[], vec![diagnostic]));
            }
        };
        Self::read(&text, project)
    }

    /// Returns the device of coreset and nearest-neighbour search on this build and machine.
    pub fn search_device(&self) -> Device {
        self.search_device.unwrap_or_else(Device::fastest)
    }

    fn read(text: &str, project: &Path) -> Result<Self, ManifestError> {
        let mut found = Vec::new();
        let table = parse(text, 0, &mut found);
        let is_whole = found.is_empty();
        let fields = table.fields(&[]);
        let (mut problems, mut ports) = (Vec::new(), Vec::new());
        let mut reader = Reader::new(&fields, &mut problems, &mut ports);
        let size = |size: i64| usize::try_from(size).expect("the range keeps it positive");
        let config = Self {
            cache: project.join(reader.text("cache").unwrap_or_else(|| "cache".to_owned())),
            jobs: reader.optional_integer("jobs", 1..=4096).map(size),
            threads: reader.optional_integer("threads", 1..=4096).map(size),
            remote: read_remote(&mut reader),
            search_device: read_device(&mut reader),
        };
        reader.finish();
        if is_whole {
            let header = Span { source: 0, start: 0, end: 0 };
            found.extend(problems.iter().map(|problem| located("config", problem, &table, header)));
        }
        if found.is_empty() {
            return Ok(config);
        }
        let source = SourceText { name: CONFIG_FILE.to_owned(), text: text.into() };
        Err(ManifestError::new(CONFIG_FILE, &[source], found))
    }
}

/// The choices of `remote_mode`: whether there is a remote, and whether runs publish to it.
const REMOTE_MODES: [(&str, Option<bool>); 3] =
    [("read-write", Some(true)), ("read-only", Some(false)), ("off", None)];

fn read_remote(reader: &mut Reader<'_>) -> Option<RemoteConfig> {
    let url = reader.text("remote");
    let mode = reader.choice("remote_mode", &REMOTE_MODES, Some("read-write"));
    Some(RemoteConfig { url: url?, is_written: mode? })
}

fn read_device(reader: &mut Reader<'_>) -> Option<Device> {
    let name = reader.text("search_device").unwrap_or_else(|| "cpu".to_owned());
    if name == "auto" {
        return None;
    }
    let device = Device::parse(&name);
    if device.is_none() {
        reader.unknown_choice("search_device", &name, &["cpu", "cuda", "cuda:1", "auto"]);
    }
    device
}

/// Finds the project of a folder: the nearest folder that holds `patchflow.toml`, from the folder itself upwards, else
/// the folder itself.
pub fn find_project(from: &Path) -> PathBuf {
    let from = std::path::absolute(from).unwrap_or_else(|_| from.to_owned());
    let project = from.ancestors().find(|folder| folder.join(CONFIG_FILE).is_file());
    project.unwrap_or(&from).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_without_a_file_has_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::load(folder.path()).unwrap();
        let cache = folder.path().join("cache");
        let search_device = Some(Device::Cpu);
        assert_eq!(config, Config { cache, jobs: None, threads: None, remote: None, search_device });
    }

    #[test]
    fn the_search_device_is_read() {
        let read = |line: &str| Config::read(line, Path::new("")).map(|config| config.search_device);
        assert_eq!(read("search_device = \"cuda:2\"").unwrap(), Some(Device::Cuda(2)));
        assert_eq!(read("search_device = \"auto\"").unwrap(), None);
        assert!(read("search_device = \"gpu\"").is_err());
    }

    #[test]
    fn the_project_is_the_nearest_folder_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(find_project(&inner), inner);
        std::fs::write(folder.path().join(CONFIG_FILE), "").unwrap();
        assert_eq!(find_project(&inner), folder.path());
        std::fs::write(folder.path().join("a").join(CONFIG_FILE), "").unwrap();
        assert_eq!(find_project(&inner), folder.path().join("a"));
    }

    #[test]
    fn every_mistake_of_the_file_is_shown() {
        let error =
            Config::read("cahce = \"/data\"\njobs = 0\nthreads = \"all\"\n", Path::new("")).unwrap_err();
        insta::assert_snapshot!(error.render(100, false), @r#"
    patchflow::config::unknown_field

      × no field `cahce` here
       ╭─[patchflow.toml:1:1]
     1 │ cahce = "/data"
       · ──┬──
       ·   ╰── unknown field
     2 │ jobs = 0
       ╰────
      help: did you mean `cache`?

    patchflow::config::out_of_range

      × `jobs` is out of range: 0
       ╭─[patchflow.toml:2:8]
     1 │ cahce = "/data"
     2 │ jobs = 0
       ·        ┬
       ·        ╰── out of range
     3 │ threads = "all"
       ╰────
      help: use a value from 1 to 4096

    patchflow::config::wrong_type

      × `threads` must be an integer, not a string (`all`)
       ╭─[patchflow.toml:3:11]
     2 │ jobs = 0
     3 │ threads = "all"
       ·           ──┬──
       ·             ╰── of the wrong type
       ╰────
      help: write `threads = …` with an integer
    "#);
    }
}
