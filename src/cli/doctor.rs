//! `patchflow doctor`: the backends, devices, threads and cache of this build on this machine. Writes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::disk::free_bytes;
use super::error::CliError;
use super::session;
use super::{Environment, Exit, amounts, terminal};
use crate::engine::{cgroup, hardware};
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
    /// What decides the number of threads.
    threads_origin: String,
    /// Bytes of memory that a run could use; `None` if the system does not say.
    available_memory_bytes: Option<u64>,
    /// The limit of memory that leaves the least, of a container or a batch job.
    memory_limit: Option<LimitReport>,
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
struct LimitReport {
    bytes: u64,
    free_bytes: u64,
    file: PathBuf,
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
        terminal::prose(&report.to_text(), 12, environment)
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
            threads_origin: threads_origin(&config),
            available_memory_bytes: hardware::available_memory(),
            memory_limit: cgroup::memory_limit().map(|limit| LimitReport {
                bytes: limit.limit_bytes,
                free_bytes: limit.free_bytes,
                file: limit.file,
            }),
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
        rows.push(("threads", format!("{}  ({})", self.threads, self.threads_origin)));
        rows.extend(self.memory().map(|memory| ("memory", memory)));
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

impl Report {
    /// The memory that a run could use, and what limits it.
    fn memory(&self) -> Option<String> {
        let available = amounts::bytes(self.available_memory_bytes?);
        let limit = self.memory_limit.as_ref().map(|limit| {
            let (bytes, free) = (amounts::bytes(limit.bytes), amounts::bytes(limit.free_bytes));
            format!("; {free} free of a limit of {bytes}, {}", limit.file.display())
        });
        Some(format!("{available} available{}", limit.unwrap_or_default()))
    }
}

/// What decides the number of threads: the configuration, a limit, or the cores.
fn threads_origin(config: &Config) -> String {
    if config.threads.is_some() {
        return "patchflow.toml".to_owned();
    }
    match cgroup::processor_limit() {
        Some(limit) if hardware::cores() == (limit.processors as usize).max(1) => {
            format!("a limit of {} processors, {}", limit.processors, limit.file.display())
        }
        _ => "the cores that this process may use".to_owned(),
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
