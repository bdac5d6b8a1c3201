//! `patchflow run`.

mod checks;
mod listeners;
mod results;

use std::path::PathBuf;

use clap::Args;

use self::listeners::Listeners;
use self::results::Results;
use super::error::CliError;
use super::forecast::BudgetArguments;
use super::interrupt::{CANCELLED, handle_interrupts};
use super::session::{self, Project};
use super::terminal::Verbosity;
use super::{Environment, Exit, ManifestArguments, amounts, terminal};
use crate::cache::ProcessIdentity;
use crate::engine::{self, Event, Options, Workers};
use crate::manifest::Experiment;
use crate::plan::LockedResult;
use crate::report::{Folder, Profile, RunRequest};

/// Arguments of `run`.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(super) struct RunArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// Tasks at once (default: the number of cores that this process may use).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Threads that all tasks share (default: the number of cores that this process may use).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Memory for all running tasks together, such as `16GB` (default: four fifths of what is free on the machine and within
    /// the limit of its container or batch job).
    #[arg(long, value_name = "SIZE", value_parser = amounts::parse_bytes)]
    memory: Option<u64>,
    /// Continue with independent tasks after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Run this stage even if its result is cached; may be repeated.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    #[command(flatten)]
    budget: BudgetArguments,
    /// Run only what the manifest's lock file pins: refuse other keys, and outputs with other bytes.
    #[arg(long)]
    locked: bool,
    /// Also make evicted or damaged outputs again if no stage reads them.
    #[arg(long)]
    restore: bool,
    #[arg(long, value_name = "ADDRESS", help = session::remote_help())]
    remote: Option<String>,
    /// Use no network and no remote: a download that is not cached fails.
    #[arg(long)]
    offline: bool,
    /// Show the logs of cached tasks on stderr.
    #[arg(long)]
    replay_logs: bool,
    /// Write the timing of the run as a Chrome trace, for Perfetto or a Chromium browser.
    #[arg(long, value_name = "FILE.json")]
    profile: Option<PathBuf>,
    /// Run each task in a worker process: `PROGRAM worker -`, with the sealed unit on standard input.
    #[arg(long, value_name = "PROGRAM", hide = true)]
    worker: Option<PathBuf>,
    /// Print one event a line as JSON instead of the table.
    #[arg(long)]
    json: bool,
}

impl RunArguments {
    /// The arguments that run a whole manifest and restore all its objects.
    pub(super) fn restoring(manifest: PathBuf) -> Self {
        let manifest = ManifestArguments::of(manifest);
        Self {
            manifest,
            jobs: None,
            threads: None,
            memory: None,
            keep_going: false,
            force: Vec::new(),
            budget: BudgetArguments::default(),
            locked: false,
            profile: None,
            worker: None,
            replay_logs: false,
            restore: true,
            remote: None,
            offline: false,
            json: false,
        }
    }
}

/// Runs a manifest.
pub(super) fn run(
    arguments: &RunArguments,
    verbosity: Verbosity,
    environment: &Environment,
) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let project = session::with_remote(project, arguments.remote.as_deref(), arguments.offline, environment)?;
    let (experiment, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    session::warn_of_unneeded(&plan);
    for stage in &arguments.force {
        session::check_stage(&experiment, stage)?;
    }
    let statuses = checks::survey_if_needed(arguments, environment, &project, &plan)?;
    let expected = checks::expected_equal_values(&plan, &statuses, &project);
    session::warn_of_equal_values(&expected);
    checks::check_budget(arguments, &project, &plan, &statuses)?;
    checks::check_preflight(arguments, environment, &plan, &statuses)?;
    let profile = arguments.profile.as_ref().map(|path| Profile::begin(&environment.folder.join(path)));
    let profile = profile.transpose().map_err(CliError::Report)?;
    let pins = checks::pins(arguments, environment, &project, &plan, &statuses)?;
    handle_interrupts();
    let folder = Folder::create(&project.root, &plan.experiment).map_err(CliError::Report)?;
    let request = request(&arguments.manifest, &experiment, &project, environment);
    folder.begin(&request).map_err(CliError::Report)?;
    let listeners = Listeners::new(arguments, verbosity, &plan, &folder, profile)?;
    let listener = |event: Event| listeners.write(&event);
    let options = options(arguments, environment, &project, &folder, pins.as_deref(), &listener);
    let run = engine::run(&plan, &project.cache, &options);
    if let Some(error) = listeners.profile.as_ref().and_then(|profile| profile.write().err()) {
        terminal::show_chain("warning", &error, None);
    }
    let run = run.map_err(|error| {
        folder.clone().discard();
        CliError::Engine(error)
    })?;
    let linked = folder.link_variants(&plan, &run, &project.cache);
    let results = Results::of(request, &plan, &run, &project.cache);
    results.write(&folder)?;
    if !run.is_interrupted && run.counts().failed == 0 {
        folder.point_latest().map_err(CliError::Report)?;
    }
    if arguments.replay_logs {
        results::replay_logs(&plan, &run, &project.cache);
    }
    results::show_cache_warnings(&project);
    results.show(arguments, (&plan, &run), &expected, &folder, environment);
    // The errors are the last words, where they are seen.
    results::show_failures(&plan, &run, &options);
    linked.map_err(CliError::Report)?;
    Ok(if run.is_interrupted { Exit::Interrupted } else { results::exit(&run) })
}

/// The request that `run.json` keeps.
fn request(
    arguments: &ManifestArguments,
    experiment: &Experiment,
    project: &Project,
    environment: &Environment,
) -> RunRequest {
    let path = environment.folder.join(&arguments.manifest);
    RunRequest {
        manifest: path.strip_prefix(&project.root).unwrap_or(&path).display().to_string(),
        sets: arguments.sets.clone(),
        only: arguments.only.clone(),
        targets: arguments.targets.clone(),
        started: jiff::Timestamp::now().to_string(),
        process: Some(ProcessIdentity::current().clone()),
        patchflow: env!("CARGO_PKG_VERSION").to_owned(),
        fields: RunRequest::leaves(&experiment.document),
    }
}

/// The options of the engine.
fn options<'a>(
    arguments: &RunArguments,
    environment: &Environment,
    project: &Project,
    folder: &Folder,
    pins: Option<&'a [LockedResult]>,
    listener: &'a (dyn Fn(Event) + Sync),
) -> Options<'a> {
    Options {
        jobs: session::jobs(arguments.jobs, project),
        threads: session::threads(arguments.threads, &project.config),
        workers: arguments.worker.clone().map_or(Workers::Threads, |program| Workers::Processes { program }),
        memory: arguments.memory.or_else(|| Some(engine::hardware::available_memory()? / 5 * 4)),
        keep_going: arguments.keep_going,
        force: arguments.force.clone(),
        restores: arguments.restore,
        is_offline: arguments.offline,
        search_device: project.config.search_device(),
        rehash: session::rehash(&arguments.manifest),
        folder: folder.relative().to_owned(),
        logs: folder.logs(),
        environment: environment.variables.clone(),
        pins,
        ..Options::new(project.root.clone(), &CANCELLED, listener)
    }
}
