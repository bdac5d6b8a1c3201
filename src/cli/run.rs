//! `patchflow run`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::session::{self, CliError, Project};
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::artifacts::scores::Metrics;
use crate::engine::{self, Event, Options, Outcome, Run};
use crate::plan::Plan;
use crate::report::{Bars, EventLog, Folder, RunSummary, Table, variant_table};
use crate::store::Store;

/// Set by Ctrl-C.
static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Arguments of `run`.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct RunArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// Tasks at once (default: the number of cores).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Threads that all tasks share (default: the number of cores).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Go on with independent tasks after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Run this stage although its result is cached; may be repeated.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Make again what was evicted or damaged, also where no stage reads it.
    #[arg(long)]
    restore: bool,
    /// Use no network: a download that is not cached fails.
    #[arg(long)]
    offline: bool,
    /// Print one event a line as JSON instead of the table.
    #[arg(long)]
    json: bool,
}

impl RunArguments {
    /// Runs a whole manifest so that all its objects are there.
    pub(super) fn restoring(manifest: PathBuf) -> Self {
        let manifest = ManifestArguments {
            manifest,
            sets: Vec::new(),
            only: None,
            targets: Vec::new(),
            paranoid: false,
        };
        Self {
            manifest,
            jobs: None,
            threads: None,
            keep_going: false,
            force: Vec::new(),
            restore: true,
            offline: false,
            json: false,
        }
    }
}

/// Runs a manifest.
pub(super) fn run(arguments: &RunArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (experiment, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    for stage in &arguments.force {
        session::check_stage(&experiment, stage)?;
    }
    handle_interrupts();
    let folder = Folder::create(&project.root, &plan.experiment).map_err(CliError::Report)?;
    let file = EventLog::new(std::io::BufWriter::new(folder.events().map_err(CliError::Report)?));
    let stdout = arguments.json.then(|| EventLog::new(std::io::stdout()));
    let bars = (!arguments.json).then(Bars::new);
    let listener = |event: Event| {
        file.write(&event);
        log(&event);
        if let Some(log) = &stdout {
            log.write(&event);
        }
        if let Some(bars) = &bars {
            bars.show(&event);
        }
    };
    let options = options(arguments, environment, &project, &folder, &listener);
    let run = match engine::run(&plan, &project.store, &options) {
        Ok(run) => run,
        Err(error) => {
            folder.discard();
            return Err(CliError::Engine(error));
        }
    };
    let metrics = read_metrics(&plan, &run, &project.store);
    let of_task = |task: usize| metrics[task].clone();
    let table = variant_table(&plan, &run, &of_task);
    let linked = folder.link_variants(&plan, &run, &project.store);
    folder.write(&RunSummary::new(&plan, &run, &of_task), &table).map_err(CliError::Report)?;
    if !run.is_interrupted && run.count(Outcome::Failed) == 0 && arguments.manifest.targets.is_empty() {
        folder.point_latest().map_err(CliError::Report)?;
    }
    listener(finished(&run, folder.relative().to_owned()));
    show_failures(&plan, &run, &options);
    if let Some(warning) = project.store.index().take_warning() {
        terminal::show_chain("warning", &warning, Some("sources and objects are hashed again by each run"));
    }
    if !arguments.json {
        terminal::print(&summary(&plan, &run, &table, &folder));
    }
    linked.map_err(CliError::Report)?;
    Ok(if run.is_interrupted {
        Exit::Interrupted
    } else if run.count(Outcome::Failed) > 0 {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// A line for each task that starts and ends, where logs are shown (`-v`, or no terminal to draw bars on).
fn log(event: &Event) {
    match event {
        Event::TaskStarted { name, kind, key, .. } => {
            tracing::info!("{kind} `{name}` starts, key {key:.12}");
        }
        Event::TaskFinished {
            name,
            kind,
            outcome: Outcome::Hit | Outcome::Merged | Outcome::Blocked,
            ..
        } => {
            tracing::debug!("{kind} `{name}` does not run");
        }
        Event::TaskFinished { name, kind, outcome, seconds, .. } => {
            tracing::info!("{kind} `{name}` {outcome:?} in {seconds:.1} s");
        }
        Event::TaskWaiting { name, holder, .. } => tracing::info!("`{name}` waits: {holder} is making it"),
        Event::TaskRemade { name, file, .. } => {
            tracing::info!("`{name}` is made again: `{file}` is gone or damaged");
        }
        Event::Nondeterministic { name, .. } => tracing::warn!("`{name}` gave other bytes than before"),
        Event::TaskProgress { .. }
        | Event::RunStarted { .. }
        | Event::TaskStalled { .. }
        | Event::RemakeFinished { .. }
        | Event::RunFinished { .. } => {}
    }
}

fn options<'a>(
    arguments: &RunArguments,
    environment: &Environment,
    project: &Project,
    folder: &Folder,
    listener: &'a (dyn Fn(Event) + Sync),
) -> Options<'a> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let number = |typed: Option<u16>, configured: Option<usize>| typed.map(usize::from).or(configured);
    Options {
        jobs: number(arguments.jobs, project.config.jobs).unwrap_or(cores),
        threads: number(arguments.threads, project.config.threads).unwrap_or(cores),
        keep_going: arguments.keep_going,
        force: arguments.force.clone(),
        restores: arguments.restore,
        is_offline: arguments.offline,
        rehash: session::rehash(&arguments.manifest),
        project: project.root.clone(),
        logs: folder.logs(),
        environment: environment.variables.clone(),
        cancelled: &CANCELLED,
        listener,
    }
}

/// The first Ctrl-C (or a TERM) asks running tasks to stop; the second ends the program at once, which
/// loses nothing that was finished, either.
fn handle_interrupts() {
    let handler = || {
        if CANCELLED.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice; every commit to the store is atomic")]
            std::process::exit(Exit::Interrupted as i32);
        }
        terminal::tell("stopping: finished work is kept (press Ctrl-C again to end at once)");
    };
    // A second handler, in tests that run several commands in one process, is refused and not needed.
    let _ = ctrlc::set_handler(handler);
}

/// The metrics of each task that has some.
fn read_metrics(plan: &Plan, run: &Run, store: &Store) -> Vec<Option<Metrics>> {
    let read = |task: usize| {
        let outputs = run.tasks[task].outputs.as_ref()?;
        let entry = outputs.get("scores")?.tree.get("metrics.json")?;
        serde_json::from_slice(&store.read(&entry.digest).ok()?).ok()
    };
    (0..plan.tasks.len()).map(|task| if plan.tasks[task].is_shown { read(task) } else { None }).collect()
}

fn finished(run: &Run, folder: PathBuf) -> Event {
    Event::RunFinished {
        executed: run.count(Outcome::Executed),
        hits: run.count(Outcome::Hit),
        merged: run.count(Outcome::Merged),
        failed: run.count(Outcome::Failed),
        blocked: run.count(Outcome::Blocked),
        remade: run.remade,
        interrupted: run.is_interrupted,
        seconds: run.duration.as_secs_f64(),
        folder,
    }
}

fn show_failures(plan: &Plan, run: &Run, options: &Options<'_>) {
    for (task, end) in plan.tasks.iter().zip(&run.tasks) {
        let (Outcome::Failed, Some(failure)) = (end.outcome, &end.failure) else { continue };
        terminal::show_chain(&format!("error in `{}`", task.name), failure, failure.help().as_deref());
        if let Some(key) = &end.key {
            terminal::tell(&format!("  log: {}", engine::log_path(options, task, key).display()));
        }
    }
}

/// `1 task`, `2 tasks`.
fn counted(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// What a person reads at the end of a run.
fn summary(plan: &Plan, run: &Run, table: &Table, folder: &Folder) -> String {
    let mut lines = Vec::new();
    if !table.rows.is_empty() {
        lines.extend(plan.question.clone());
        lines.push(table.to_text());
        if table.repeats() > 1 {
            lines.push(format!("mean ± standard deviation over {} repeats", table.repeats()));
        }
        if table.missing() > 0 {
            lines.push(format!("{} gave no metrics", counted(table.missing(), "evaluation")));
        }
    }
    let always = [(Outcome::Executed, "executed"), (Outcome::Hit, "cached")];
    let mut counts: Vec<String> =
        always.iter().map(|&(outcome, word)| format!("{} {word}", run.count(outcome))).collect();
    for (outcome, word) in
        [(Outcome::Merged, "merged"), (Outcome::Failed, "failed"), (Outcome::Blocked, "blocked")]
    {
        if run.count(outcome) > 0 {
            counts.push(format!("{} {word}", run.count(outcome)));
        }
    }
    if run.remade > 0 {
        counts.push(format!("{} made again", run.remade));
    }
    lines.push(format!(
        "{} for {}: {} in {:.2} s",
        counted(plan.tasks.len(), "task"),
        counted(plan.variants.len(), "variant"),
        counts.join(", "),
        run.duration.as_secs_f64()
    ));
    lines.push(format!("files: {}", folder.relative().display()));
    if run.is_interrupted {
        lines.push("interrupted: what was finished is kept, run again to go on".to_owned());
    }
    lines.join("\n") + "\n"
}
