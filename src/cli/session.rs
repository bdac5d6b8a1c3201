//! What every command begins with: the project, its configuration, the experiment, the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Environment, Exit, ManifestArguments, hints};
use crate::artifacts::scores::Metrics;
use crate::cache::{
    Cache, LeaseRules, Rehash, RemoteAddress, RemoteMode, RemoteStore, StatIndex, StoreError, Tree,
};
use crate::engine::EngineError;
use crate::manifest::{self, Config, Experiment, LoadOptions, ManifestError};
use crate::plan::{self, LockError, Plan, PlanError, Resolver, Status};
use crate::report::{HistoryError, ReportError};
use crate::stages::StageError;

/// What can end a command.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The manifest, the configuration or an override is wrong.
    #[error("the manifest is wrong")]
    Manifest(#[source] ManifestError),
    /// The plan is wrong.
    #[error(transparent)]
    Plan(PlanError),
    /// A run could not go on.
    #[error(transparent)]
    Engine(EngineError),
    /// The cache failed.
    #[error("the cache failed")]
    Store(#[source] StoreError),
    /// The run's folder cannot be written.
    #[error(transparent)]
    Report(ReportError),
    /// The run would take more than the user allows.
    #[error("the run would take {needed}, the budget is {allowed}; nothing was run")]
    Budget {
        /// What it would take.
        needed: String,
        /// What is allowed.
        allowed: String,
    },
    /// A task would have to run that this build or machine cannot run.
    #[error("`{task}` would have to run, and cannot; nothing was run")]
    CannotRun {
        /// The task.
        task: String,
        /// Why.
        #[source]
        source: StageError,
    },
    /// No variant has the values that were typed.
    #[error("no variant `{name}` in the grid")]
    UnknownVariant {
        /// What was typed.
        name: String,
        /// What to type instead.
        help: String,
    },
    /// A table is not locked, or not as locked.
    #[error(transparent)]
    Lock(LockError),
    /// A past run cannot be found or read.
    #[error(transparent)]
    History(HistoryError),
    /// A remote was wanted and none is named.
    #[error("no remote is named")]
    NoRemote,
    /// A remote cannot say what it has.
    #[error("`{address}` does not list what it has")]
    Unlisted {
        /// Its address.
        address: String,
    },
    /// A pin was named that is not there.
    #[error("no pin `{name}` in the cache")]
    UnknownPin {
        /// What was typed.
        name: String,
    },
    /// A stage was named that is not in the manifest.
    #[error("no stage `{name}` in the manifest")]
    UnknownStage {
        /// What was typed.
        name: String,
        /// What to type instead.
        help: String,
    },
}

impl CliError {
    /// The code with which the program ends.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Manifest(_)
            | Self::Plan(_)
            | Self::UnknownStage { .. }
            | Self::UnknownVariant { .. }
            | Self::UnknownPin { .. }
            | Self::NoRemote
            | Self::History(_)
            | Self::Store(StoreError::BadPin { .. } | StoreError::Remote { .. })
            | Self::Engine(EngineError::Plan(_)) => Exit::Usage,
            Self::Budget { .. } | Self::Lock(_) | Self::Store(StoreError::Collecting { .. }) => Exit::Refused,
            Self::Engine(_)
            | Self::Store(_)
            | Self::Report(_)
            | Self::CannotRun { .. }
            | Self::Unlisted { .. } => Exit::Failed,
        }
    }

    /// What to do about it, where that is known.
    pub(super) fn help(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.help().or_else(|| hints::of_causes(error)),
            Self::Engine(error) => error.help().or_else(|| hints::of_causes(error)),
            Self::Store(error) | Self::Report(ReportError::Store(error)) => hints::store_error(error),
            Self::Lock(error) => Some(error.help()),
            Self::History(error) => Some(error.help()),
            Self::UnknownStage { help, .. } | Self::UnknownVariant { help, .. } => Some(help.clone()),
            Self::NoRemote => Some(
                "set `remote` in patchflow.toml, or give `--remote ADDRESS` (docs/sharing.md)".to_owned(),
            ),
            Self::Unlisted { .. } => Some(
                "name a manifest, whose tasks are asked for one by one; or see that the remote can be reached"
                    .to_owned(),
            ),
            Self::UnknownPin { .. } => Some("`patchflow cache info` shows the pins".to_owned()),
            Self::Report(_) => Some("check the folder's permissions and free space".to_owned()),
            Self::Budget { .. } => Some("raise `--budget`, or run less by `--only` or `--target`".to_owned()),
            Self::CannotRun { source, .. } => source.help().map(str::to_owned),
            Self::Manifest(_) => None,
        }
    }
}

/// The project and its cache.
pub(super) struct Project {
    /// Its root.
    pub(super) root: PathBuf,
    /// Its configuration.
    pub(super) config: Config,
    /// Its cache.
    pub(super) store: Cache,
}

/// Opens the project of the current folder.
pub(super) fn open_project(environment: &Environment) -> Result<Project, CliError> {
    let root = manifest::find_project(&environment.folder);
    let config = Config::load(&root).map_err(CliError::Manifest)?;
    let cache = root.join(&config.cache);
    let store = Cache::open(cache, stat_index(environment)).map_err(CliError::Store)?;
    Ok(Project { root, config, store: store.with_lease_rules(lease_rules(environment)) })
}

/// Adds the remote: what was typed (an address, or `off`), else what `patchflow.toml` names.
pub(super) fn with_remote(
    project: Project,
    typed: Option<&str>,
    is_offline: bool,
) -> Result<Project, CliError> {
    let is_written = project.config.remote.as_ref().is_none_or(|remote| remote.is_written);
    let named = project.config.remote.as_ref().map(|remote| remote.url.as_str());
    let url = typed.or(named).filter(|&url| url != "off" && !is_offline);
    let mode = if is_written { RemoteMode::ReadWrite } else { RemoteMode::ReadOnly };
    let address = url.map(|url| RemoteAddress { url: url.to_owned(), mode });
    let remote = address
        .map(|address| RemoteStore::open(&address, &project.root, &super::run::CANCELLED))
        .transpose()
        .map_err(CliError::Store)?;
    let Project { root, config, store } = project;
    Ok(Project { root, config, store: store.with_remote(remote) })
}

/// Shows what went wrong with the remote, each thing once.
pub(super) fn show_remote_warnings(store: &Cache) {
    for warning in store.take_remote_warnings() {
        let hint = hints::remote_warning(&warning).map(|hint| format!("; {hint}")).unwrap_or_default();
        super::terminal::tell(&format!("warning: the remote {warning}{hint}"));
    }
}

/// The rules of leases. `PATCHFLOW_TEST_LEASES=<milliseconds>`, for tests, sets the lease time and uses no locks.
fn lease_rules(environment: &Environment) -> LeaseRules {
    let milliseconds = environment.variables.get("PATCHFLOW_TEST_LEASES").and_then(|text| text.parse().ok());
    milliseconds
        .map_or_else(LeaseRules::default, |time| LeaseRules::without_locks(Duration::from_millis(time)))
}

/// The stat cache in the user's cache folder; in memory where there is none.
fn stat_index(environment: &Environment) -> StatIndex {
    stat_cache(environment).map_or_else(StatIndex::in_memory, StatIndex::new)
}

/// The stat cache's file, where the user has a cache folder.
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

/// What is known of every task of a plan beforehand.
pub(super) fn survey(
    arguments: &ManifestArguments,
    plan: &Plan,
    project: &Project,
) -> Result<Vec<Status>, CliError> {
    let mut resolver = Resolver::new(&project.store, &project.root, rehash(arguments));
    plan::survey(plan, &mut resolver, &project.store).map_err(CliError::Plan)
}

/// Whether sources are hashed anew.
pub(super) fn rehash(arguments: &ManifestArguments) -> Rehash {
    if arguments.paranoid { Rehash::Always } else { Rehash::Trust }
}

/// Checks the name of a stage that was typed.
pub(super) fn check_stage(experiment: &Experiment, name: &str) -> Result<(), CliError> {
    if experiment.find(name).is_some() {
        return Ok(());
    }
    let names: Vec<String> = experiment.stages.iter().map(|stage| stage.name.to_string()).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let help = crate::stages::fields::suggestion(name, &known);
    Err(CliError::UnknownStage { name: name.to_owned(), help })
}

/// Tasks that run at once where neither the command line nor `patchflow.toml` says: the number of cores.
pub(super) fn jobs(typed: Option<u16>, project: &Project) -> usize {
    typed.map(usize::from).or(project.config.jobs).unwrap_or_else(cores)
}

/// Threads that all tasks share, likewise.
pub(super) fn threads(typed: Option<u16>, config: &Config) -> usize {
    typed.map(usize::from).or(config.threads).unwrap_or_else(cores)
}

/// The number of cores.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The metrics in a listing of scores; none where there are none or their object is gone.
pub(super) fn metrics(store: &Cache, scores: &Tree) -> Option<Metrics> {
    let entry = scores.get("metrics.json")?;
    serde_json::from_slice(&store.objects().read(&entry.digest).ok()?).ok()
}
