//! The first steps of most commands: opening the project and its cache, loading and planning a manifest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::CliError;
use super::interrupt::CANCELLED;
use super::{Environment, ManifestArguments, hints};
use crate::artifacts::scores::Metrics;
use crate::cache::{
    Cache, LeaseRules, REMOTE_ADDRESSES, Rehash, RemoteAddress, RemoteMode, RemoteStore, StatIndex, Tree,
};
use crate::engine::hardware;
use crate::manifest::{self, Config, Experiment, LoadOptions, Unneeded};
use crate::plan::{self, EqualValues, Plan, Resolver, Status};

/// The project and its cache.
pub(super) struct Project {
    /// Its root.
    pub(super) root: PathBuf,
    /// Its configuration.
    pub(super) config: Config,
    /// Its cache.
    pub(super) cache: Cache,
}

/// Opens the project of the current folder.
pub(super) fn open_project(environment: &Environment) -> Result<Project, CliError> {
    let root = manifest::find_project(&environment.folder);
    let config = Config::load(&root).map_err(CliError::Manifest)?;
    let cache = root.join(&config.cache);
    let cache = Cache::open(cache, stat_index(environment)).map_err(CliError::Cache)?;
    Ok(Project { root, config, cache: cache.with_lease_rules(lease_rules(environment)) })
}

/// The help of `--remote`.
pub(super) fn remote_help() -> String {
    format!("The remote: {REMOTE_ADDRESSES}; `off` for none (default: patchflow.toml's)")
}

/// Adds the remote: the typed address (or none, for `off`), else that of `patchflow.toml`. A relative folder starts where
/// it was written: at the current folder, or at the project's root.
pub(super) fn with_remote(
    project: Project,
    typed: Option<&str>,
    is_offline: bool,
    environment: &Environment,
) -> Result<Project, CliError> {
    let is_written = project.config.remote.as_ref().is_none_or(|remote| remote.is_written);
    let named = project.config.remote.as_ref().map(|remote| remote.url.as_str());
    let url = typed.or(named).filter(|&url| url != "off" && !is_offline);
    let mode = if is_written { RemoteMode::ReadWrite } else { RemoteMode::ReadOnly };
    let address = url.map(|url| RemoteAddress { url: url.to_owned(), mode });
    let start = if typed.is_some() { &environment.folder } else { &project.root };
    let remote = address
        .map(|address| RemoteStore::open(&address, start, &CANCELLED))
        .transpose()
        .map_err(CliError::Cache)?;
    let Project { root, config, cache } = project;
    Ok(Project { root, config, cache: cache.with_remote(remote) })
}

/// Shows the warnings of the remote, each once.
pub(super) fn show_remote_warnings(cache: &Cache) {
    for warning in cache.take_remote_warnings() {
        let hint = hints::remote_warning(&warning).map(|hint| format!("; {hint}")).unwrap_or_default();
        super::terminal::message(&format!("warning: the remote {warning}{hint}"));
    }
}

/// The rules of leases. `PATCHFLOW_TEST_LEASES=<milliseconds>`, for tests, sets the lease time and uses no locks.
fn lease_rules(environment: &Environment) -> LeaseRules {
    let milliseconds =
        environment.variables.get("PATCHFLOW_TEST_LEASES").and_then(|text| text.to_str()?.parse().ok());
    milliseconds
        .map_or_else(LeaseRules::default, |time| LeaseRules::without_locks(Duration::from_millis(time)))
}

/// The stat index in the user's cache folder; in memory if there is none.
fn stat_index(environment: &Environment) -> StatIndex {
    stat_cache(environment).map_or_else(StatIndex::in_memory, StatIndex::new)
}

/// The path of the stat index; `None` if the user has no cache folder.
pub(super) fn stat_cache(environment: &Environment) -> Option<PathBuf> {
    let folder =
        |name: &str| environment.variables.get(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("patchflow").join("stat.sqlite"))
}

/// Loads a manifest and plans it.
pub(super) fn load(
    arguments: &ManifestArguments,
    project: &Path,
    environment: &Environment,
) -> Result<(Experiment, Plan), CliError> {
    let options = LoadOptions {
        project: project.to_owned(),
        sets: arguments.sets.clone(),
        only: arguments.only.clone(),
        targets: arguments.targets.clone(),
    };
    let path = environment.folder.join(&arguments.manifest);
    let experiment = manifest::load(&path, &options).map_err(CliError::Manifest)?;
    let plan = plan::build(&experiment).map_err(CliError::Plan)?;
    Ok((experiment, plan))
}

/// Shows a warning that names the stages that no target needs, if there are any.
pub(super) fn warn_of_unneeded(plan: &Plan) {
    let Unneeded { stages, ends: _, targets: _ } = &plan.unneeded;
    let names: Vec<String> = stages.iter().map(|stage| format!("`{stage}`")).collect();
    let verb = match names.len() {
        0 => return,
        1 => "it does",
        _ => "they do",
    };
    super::terminal::message(&format!(
        "warning: no target needs {}, so {verb} not run\n  help: {}",
        names.join(", "),
        hints::unneeded(&plan.unneeded)
    ));
}

/// Returns the axis values that distinguish a task, to follow its name: ` (ratio=0.1)`, or nothing.
pub(super) fn of_values(values: &str) -> String {
    if values.is_empty() { String::new() } else { format!(" ({values})") }
}

/// Shows a warning of axis values that make no difference.
pub(super) fn warn_of_equal_values(all: &[EqualValues]) {
    for equal in all {
        let hint = hints::equal_values(equal);
        super::terminal::message(&format!("warning: {equal}\n  help: {hint}"));
    }
}

/// Surveys the state of every task of a plan.
pub(super) fn survey(
    arguments: &ManifestArguments,
    plan: &Plan,
    project: &Project,
) -> Result<Vec<Status>, CliError> {
    let mut resolver = Resolver::new(&project.cache, &project.root, rehash(arguments));
    plan::survey(plan, &mut resolver, &project.cache).map_err(CliError::Plan)
}

/// Returns whether all source files are hashed again.
pub(super) fn rehash(arguments: &ManifestArguments) -> Rehash {
    if arguments.paranoid { Rehash::Always } else { Rehash::Trust }
}

/// Checks that a stage of that name exists.
pub(super) fn check_stage(experiment: &Experiment, name: &str) -> Result<(), CliError> {
    if experiment.find(name).is_some() {
        return Ok(());
    }
    let names: Vec<String> = experiment.stages.iter().map(|stage| stage.name.to_string()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let help = crate::stages::fields::suggestion(name, &known);
    Err(CliError::UnknownStage { name: name.to_owned(), help })
}

/// The number of tasks that run at once: as typed, else as in `patchflow.toml`, else the number of cores.
pub(super) fn jobs(typed: Option<u16>, project: &Project) -> usize {
    typed.map(usize::from).or(project.config.jobs).unwrap_or_else(hardware::cores)
}

/// The number of threads that all tasks share: as typed, else as in `patchflow.toml`, else the number of cores.
pub(super) fn threads(typed: Option<u16>, config: &Config) -> usize {
    typed.map(usize::from).or(config.threads).unwrap_or_else(hardware::cores)
}

/// The metrics in a tree of scores; `None` if it has none or their object is gone.
pub(super) fn metrics(cache: &Cache, scores: &Tree) -> Option<Metrics> {
    let entry = scores.get("metrics.json")?;
    serde_json::from_slice(&cache.objects().read(&entry.digest).ok()?).ok()
}
