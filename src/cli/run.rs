//! `patchflow run`.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::forecast::{BudgetArguments, Forecast};
use super::interrupt::{CANCELLED, handle_interrupts};
use super::run_log::RunLog;
use super::session::{self, Project};
use super::terminal::Verbosity;
use super::{Environment, Exit, ManifestArguments, amounts, hints, terminal};
use crate::artifacts::scores::Metrics;
use crate::cache::{Cache, ProcessIdentity};
use crate::engine::{self, Event, Failure, Options, Outcome, OutcomeCounts, Run, Workers};
use crate::manifest::Experiment;
use crate::plan::{
    Lock, LockedResult, Notice, Plan, PlanExtent, Record, Sizes, Status, TaskId, check_locked, equal_values,
    lock_path,
};
use crate::report::{
    Bars, Differences, EventLog, Folder, Profile, ResultTable, RunRequest, RunSummary, TableWarnings,
    differences, filled, variant_table,
};
use crate::text::counted;

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
    // A survey prefetches many records at once, which the run then finds in the cache.
    let with_survey = !arguments.budget.budget.is_empty()
        || arguments.locked
        || project.cache.prefers_batches()
        || has_unavailable_task(&plan, environment);
    let statuses = with_survey.then(|| session::survey(&arguments.manifest, &plan, &project)).transpose()?;
    let statuses = statuses.unwrap_or_default();
    let outputs = |task: TaskId| statuses.get(task.0)?.outputs.as_ref();
    let expected = equal_values(&plan, &mut Sizes::new(&plan, &project.cache), &outputs);
    session::warn_of_equal_values(&expected);
    check_budget(arguments, &project, &plan, &statuses)?;
    if !arguments.keep_going {
        check_preflight(arguments, environment, &plan, &statuses)?;
    }
    let profile = arguments.profile.as_ref().map(|path| Profile::begin(&environment.folder.join(path)));
    let profile = profile.transpose().map_err(CliError::Report)?;
    let pins =
        arguments.locked.then(|| locked(arguments, environment, &project, &plan, &statuses)).transpose()?;
    handle_interrupts();
    let folder = Folder::create(&project.root, &plan.experiment).map_err(CliError::Report)?;
    let request = request(&arguments.manifest, &experiment, &project, environment);
    folder.begin(&request).map_err(CliError::Report)?;
    let file = EventLog::new(std::io::BufWriter::new(folder.events().map_err(CliError::Report)?));
    let stdout = arguments.json.then(|| EventLog::new(terminal::StandardOutput));
    let has_bars = !arguments.json && verbosity != Verbosity::Quiet;
    let bars = has_bars.then(|| Bars::new(super::log::titles(&plan), plan.tasks.len()));
    let lines = RunLog::new(&plan);
    let listener = |event: Event| {
        file.write(&event);
        if let Some(profile) = &profile {
            profile.note(&event);
        }
        lines.write(&event);
        if let Some(log) = &stdout {
            log.write(&event);
        }
        if let Some(bars) = &bars {
            bars.show(&event);
        }
    };
    let options = options(arguments, environment, &project, &folder, pins.as_deref(), &listener);
    let run = engine::run(&plan, &project.cache, &options);
    if let Some(error) = profile.as_ref().and_then(|profile| profile.write().err()) {
        terminal::show_chain("warning", &error, None);
    }
    let run = run.map_err(|error| {
        folder.clone().discard();
        CliError::Engine(error)
    })?;
    let metrics = read_metrics(&plan, &run, &project.cache);
    let of_task = |task: usize| metrics[task].clone();
    let table = variant_table(&plan, &run, &of_task);
    let differences = differences(&plan, &of_task);
    let linked = folder.link_variants(&plan, &run, &project.cache);
    let summarised =
        RunSummary::new(request, &plan, &run, &of_task, &|task| notices(&run, task, &project.cache));
    let outputs = |task: TaskId| run.tasks[task.0].outputs.as_ref();
    let equal_values = equal_values(&plan, &mut Sizes::new(&plan, &project.cache), &outputs);
    let summarised = RunSummary { equal_values, ..summarised };
    folder.write(&summarised, &table, &differences).map_err(CliError::Report)?;
    if !run.is_interrupted && run.counts().failed == 0 {
        folder.point_latest().map_err(CliError::Report)?;
    }
    if arguments.replay_logs {
        replay(&plan, &run, &project.cache);
    }
    session::show_remote_warnings(&project.cache);
    show_warning(&project.cache);
    if arguments.json {
        let unexpected = summarised.equal_values.iter().filter(|equal| !expected.contains(equal));
        session::warn_of_equal_values(&unexpected.cloned().collect::<Vec<_>>());
    } else {
        let width = terminal::width(environment);
        let warnings = TableWarnings::new(&summarised);
        terminal::print(&summary(&plan, &run, &table, &differences, &warnings, &folder, width));
    }
    // The errors are the last words, where they are seen.
    show_failures(&plan, &run, &options);
    linked.map_err(CliError::Report)?;
    Ok(if run.is_interrupted { Exit::Interrupted } else { exit(&run) })
}

/// The exit code of a run that was not interrupted. The codes of a violated lock take precedence over that of a failed
/// task.
fn exit(run: &Run) -> Exit {
    let mut exit = Exit::Done;
    for failure in run.tasks.iter().filter_map(|task| task.failure.as_ref()) {
        exit = match failure {
            Failure::LockedOutput { .. } => return Exit::Differs,
            Failure::LockedKey { .. } => Exit::Refused,
            _ if exit == Exit::Refused => exit,
            _ => Exit::Failed,
        };
    }
    exit
}

/// Reads the pins of the lock file, and refuses the run if a key or output that is already known differs.
fn locked(
    arguments: &RunArguments,
    environment: &Environment,
    project: &Project,
    plan: &Plan,
    statuses: &[Status],
) -> Result<Vec<LockedResult>, CliError> {
    let lock = Lock::read(&lock_path(&environment.folder.join(&arguments.manifest.manifest)));
    let is_part = arguments.manifest.only.is_some() || !arguments.manifest.targets.is_empty();
    let extent = if is_part { PlanExtent::Part } else { PlanExtent::Whole };
    let results = lock.and_then(|lock| lock.results(plan, extent)).map_err(CliError::Lock)?;
    check_locked(plan, statuses, &results, &project.cache).map_err(CliError::Lock)?;
    Ok(results)
}

/// Shows the logs of the cached tasks.
fn replay(plan: &Plan, run: &Run, cache: &Cache) {
    for (index, end) in run.tasks.iter().enumerate() {
        let (Outcome::Hit, Some(key)) = (end.outcome, &end.key) else { continue };
        if let Some(log) = super::log::log_of(plan, TaskId(index), key, cache) {
            terminal::message(log.trim_end());
        }
    }
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

/// Refuses a run that exceeds a budget, or of which that cannot be said.
fn check_budget(
    arguments: &RunArguments,
    project: &Project,
    plan: &Plan,
    statuses: &[Status],
) -> Result<(), CliError> {
    if arguments.budget.budget.is_empty() {
        return Ok(());
    }
    let forecast = Forecast::new(plan, statuses, project, session::jobs(arguments.jobs, project));
    forecast.check(&arguments.budget)
}

/// Whether this build or machine cannot run one of the tasks.
fn has_unavailable_task(plan: &Plan, environment: &Environment) -> bool {
    plan.tasks.iter().any(|task| task.spec.preflight(&environment.variables).is_err())
}

/// Refuses the whole run if one of the tasks that would run cannot run here. This includes tasks whose key is not known
/// yet: their inputs are new, so a hit is unlikely.
fn check_preflight(
    arguments: &RunArguments,
    environment: &Environment,
    plan: &Plan,
    statuses: &[Status],
) -> Result<(), CliError> {
    for (task, status) in plan.tasks.iter().zip(statuses) {
        let would_run = !status.state().is_hit() || arguments.force.contains(&task.stage);
        if let Some(source) = task.spec.preflight(&environment.variables).err().filter(|_| would_run) {
            return Err(CliError::CannotRun { task: task.name.clone(), source });
        }
    }
    Ok(())
}

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

/// The metrics of each task, if it has any.
fn read_metrics(plan: &Plan, run: &Run, cache: &Cache) -> Vec<Option<Metrics>> {
    let read = |task: usize| session::metrics(cache, &run.tasks[task].outputs.as_ref()?.get("scores")?.tree);
    (0..plan.tasks.len()).map(|task| if plan.tasks[task].is_shown { read(task) } else { None }).collect()
}

/// What the stage of a task has noted and warned of, from the task's record.
fn notices(run: &Run, task: usize, cache: &Cache) -> Vec<Notice> {
    let bytes = run.tasks[task].key.and_then(|key| cache.records().get(&key).ok().flatten());
    let record = bytes.and_then(|bytes| Record::from_bytes(&bytes));
    record.map(|record| record.provenance.notices).unwrap_or_default()
}

fn show_warning(cache: &Cache) {
    if let Some(error) = cache.take_flush_error() {
        terminal::show_chain("warning", &error, Some(hints::UNFLUSHED));
    }
    if let Some(warning) = cache.index().take_warning() {
        terminal::show_chain("warning", &warning, Some("sources and objects are hashed again by each run"));
    }
}

fn show_failures(plan: &Plan, run: &Run, options: &Options<'_>) {
    for (index, (task, end)) in plan.tasks.iter().zip(&run.tasks).enumerate() {
        let (Outcome::Failed, Some(failure)) = (end.outcome, &end.failure) else { continue };
        let head = format!("error in {}", super::log::quoted_title(plan, TaskId(index)));
        terminal::show_chain(&head, failure, hints::of(failure).as_deref());
        if let Some(key) = &end.key {
            terminal::message(&format!("  log: {}", engine::log_path(options, task, key).display()));
        }
    }
}

/// The most differences that are printed at the end of a run.
const SHOWN_DIFFERENCES: usize = 24;

/// The text at the end of a run.
fn summary(
    plan: &Plan,
    run: &Run,
    table: &ResultTable,
    differences: &Differences,
    warnings: &TableWarnings,
    folder: &Folder,
    width: usize,
) -> String {
    let mut lines = Vec::new();
    if table.has_values() {
        lines.extend(plan.question.as_ref().map(|question| filled(question, width, 0)));
        lines.push(table.to_text(width));
        if table.repeats() > 1 {
            lines.push(format!("mean ± standard deviation over {} repeats", table.repeats()));
        }
        if (1..=SHOWN_DIFFERENCES).contains(&differences.0.len()) {
            lines.push(differences.to_text(width));
            lines.push(filled(&differences.caption(), width, 2));
        } else if !differences.0.is_empty() {
            let count = counted(differences.0.len(), "paired difference");
            lines.push(format!("{count} between the axes' values: differences.md"));
        }
    }
    if table.missing() > 0 {
        lines.push(format!("{} without metrics", counted(table.missing(), "evaluation")));
    }
    if table.has_values() {
        lines.extend(warnings.lines());
    }
    let OutcomeCounts { executed, hits, remote_hits, merged, failed, blocked } = run.counts();
    let mut counts = vec![format!("{executed} executed"), format!("{hits} cached")];
    let others =
        [(remote_hits, "from the remote"), (merged, "merged"), (failed, "failed"), (blocked, "blocked")];
    counts
        .extend(others.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")));
    if run.remade > 0 {
        counts.push(format!("{} made again", run.remade));
    }
    let counts = format!(
        "{} for {}: {} in {:.2} s",
        counted(plan.tasks.len(), "task"),
        counted(plan.variants.len(), "variant"),
        counts.join(", "),
        run.duration.as_secs_f64()
    );
    lines.push(filled(&counts, width, 2));
    lines.push(format!("files: {}", folder.relative().display()));
    if run.is_interrupted {
        lines.push("interrupted: finished work is kept; run again to continue".to_owned());
    }
    lines.join("\n") + "\n"
}
