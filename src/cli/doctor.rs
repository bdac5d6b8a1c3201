//! `patchflow doctor`: the backends, devices, threads and cache of this build on this machine. Writes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::disk::free_bytes;
use super::error::CliError;
use super::session;
use super::{Environment, Exit, amounts, terminal};
use crate::engine::hardware;
use crate::kernels::backbone::{Backend, cuda_devices, libtorch_version, simd_level};
use crate::manifest::{self, Config};

/// Arguments of `doctor`.
#[derive(Args)]
pub(super) struct DoctorArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The report of `doctor`.
#[derive(Debug, Serialize)]
struct Report {
    /// The program's version.
    patchflow: &'static str,
    /// The backends of this build; an `extract` stage uses the first unless it names another.
    backends: Vec<&'static str>,
    /// The version of libtorch, if this build has it.
    libtorch: Option<&'static str>,
    /// The devices of this build on this machine.
    devices: Vec<DeviceReport>,
    /// The widest vector instructions of the processor.
    simd: &'static str,
    /// Threads that tasks share.
    threads: usize,
    /// The project's folder.
    project: PathBuf,
    /// The cache.
    cache: FolderReport,
    /// The path of the stat index; `None` if the user has no cache folder.
    stat_cache: Option<PathBuf>,
    /// Whether the stat index exists.
    has_stat_cache: bool,
}

#[derive(Debug, Serialize)]
struct DeviceReport {
    name: String,
    model: String,
}

#[derive(Debug, Serialize)]
struct FolderReport {
    path: PathBuf,
    exists: bool,
    free_bytes: Option<u64>,
}

/// Prints the report.
pub(super) fn run(arguments: &DoctorArguments, environment: &Environment) -> Result<Exit, CliError> {
    let report = Report::of(environment)?;
    terminal::print(&if arguments.json {
        let text = serde_json::to_string_pretty(&report).expect("a report holds only strings and numbers");
        format!("{text}\n")
    } else {
        report.to_text()
    });
    Ok(Exit::Done)
}

impl Report {
    fn of(environment: &Environment) -> Result<Self, CliError> {
        let project = manifest::find_project(&environment.folder);
        let config = Config::load(&project).map_err(CliError::Manifest)?;
        let path = project.join(&config.cache);
        let stat_cache = session::stat_cache(environment);
        Ok(Self {
            patchflow: env!("CARGO_PKG_VERSION"),
            backends: [Backend::Rust, Backend::Torch]
                .into_iter()
                .filter(|backend| backend.is_built())
                .map(Backend::name)
                .collect(),
            libtorch: libtorch_version(),
            devices: devices(),
            simd: simd_level(),
            threads: session::threads(None, &config),
            project,
            cache: FolderReport { exists: path.is_dir(), free_bytes: free_bytes(&path), path },
            has_stat_cache: stat_cache.as_ref().is_some_and(|path| path.is_file()),
            stat_cache,
        })
    }

    fn to_text(&self) -> String {
        let mut rows = vec![("patchflow", self.patchflow.to_owned())];
        let libtorch = self.libtorch.map(|version| format!(" (libtorch {version})")).unwrap_or_default();
        rows.push(("backends", format!("{}{libtorch}", self.backends.join(", "))));
        for device in &self.devices {
            rows.push(("device", format!("{}  {}", device.name, device.model).trim_end().to_owned()));
        }
        rows.push(("simd", self.simd.to_owned()));
        rows.push(("threads", self.threads.to_string()));
        rows.push(("project", self.project.display().to_string()));
        let state = match (self.cache.exists, self.cache.free_bytes) {
            (_, None) => String::new(),
            (true, Some(free)) => format!("  ({} free)", amounts::bytes(free)),
            (false, Some(free)) => format!("  (not made yet, {} free)", amounts::bytes(free)),
        };
        rows.push(("cache", format!("{}{state}", self.cache.path.display())));
        rows.push((
            "stat index",
            match &self.stat_cache {
                None => "in memory: neither XDG_CACHE_HOME nor HOME is set".to_owned(),
                Some(path) if self.has_stat_cache => path.display().to_string(),
                Some(path) => format!("{}  (not made yet)", path.display()),
            },
        ));
        let mut text = String::new();
        for (name, value) in rows {
            let _ = writeln!(text, "{name:<10}  {value}");
        }
        text
    }
}

fn devices() -> Vec<DeviceReport> {
    let mut devices = vec![DeviceReport { name: "cpu".to_owned(), model: hardware::processor() }];
    let models = hardware::graphics_cards();
    devices.extend((0..cuda_devices()).map(|number| DeviceReport {
        name: format!("cuda:{number}"),
        model: models.get(number).cloned().unwrap_or_default(),
    }));
    devices
}
