//! `patchflow verify`.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;

use super::error::CliError;
use super::interrupt::{CANCELLED, handle_interrupts, is_cancelled};
use super::session::{self, Project};
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::cache::Digest;
use crate::engine::{self, Event, Options, Suspect, Verified};
use crate::plan::{Plan, Record, Resolution, Status, TaskId};
use crate::report::{Bars, Folder, VerdictKind, Verdicts};

/// The default size of the sample (chosen: a spot check, not a second run).
const SAMPLE: usize = 5;

/// Arguments of `verify`.
#[derive(Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// How many tasks to make again (default 5), drawn by `--seed`.
    #[arg(long, value_name = "K", conflicts_with = "all", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Make every cached task again.
    #[arg(long)]
    all: bool,
    /// Only tasks of this stage; may be repeated. Downloads are made again only if named here.
    #[arg(long = "stage", value_name = "STAGE")]
    stages: Vec<String>,
    /// The seed of the sample.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads (default: the number of cores).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Use no network.
    #[arg(long)]
    offline: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A cached task that may be drawn for the sample.
struct Candidate<'a> {
    id: TaskId,
    resolution: &'a Resolution,
    record: &'a Record,
}

/// Makes cached tasks again and compares them with their records.
pub(super) fn run(arguments: &VerifyArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (experiment, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    for stage in &arguments.stages {
        session::check_stage(&experiment, stage)?;
    }
    let statuses = session::survey(&arguments.manifest, &plan, &project)?;
    let candidates = candidates(arguments, &plan, &statuses);
    if candidates.is_empty() {
        terminal::message("no cached task to make again: run the manifest first");
        return Ok(Exit::Failed);
    }
    handle_interrupts();
    let folder = Folder::of_verification(&project.root, &plan.experiment).map_err(CliError::Report)?;
    let verdicts = examine(arguments, environment, &project, &plan, &folder, &candidates)?;
    let file = folder.write_verdicts(&verdicts).map_err(CliError::Report)?;
    terminal::print(&if arguments.json {
        serde_json::to_string(&verdicts).expect("names are strings, numbers finite") + "\n"
    } else {
        format!("{}files: {}\n", verdicts.to_text(terminal::width(environment)), file.display())
    });
    let checked = verdicts.tasks.len() - verdicts.count(VerdictKind::Unchecked);
    let wanted = verdicts.sample.unwrap_or(usize::MAX).min(candidates.len());
    Ok(if is_cancelled() {
        Exit::Interrupted
    } else if verdicts.count(VerdictKind::Differs) > 0 {
        Exit::Differs
    } else if verdicts.count(VerdictKind::Failed) > 0 {
        Exit::Failed
    } else if checked < wanted {
        terminal::message(&format!(
            "{checked} of {wanted} tasks could be checked: `patchflow run M --restore` makes evicted inputs again"
        ));
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// The selected cached tasks, one for each key, in the order in which the sample draws them.
fn candidates<'a>(arguments: &VerifyArguments, plan: &Plan, statuses: &'a [Status]) -> Vec<Candidate<'a>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (index, status) in statuses.iter().enumerate() {
        let (Some(resolution), Some(record)) = (&status.resolution, &status.record) else { continue };
        let task = &plan.tasks[index];
        let is_selected = if arguments.stages.is_empty() {
            task.spec.about().is_verified
        } else {
            arguments.stages.contains(&task.stage)
        };
        if is_selected && seen.insert(resolution.key) {
            found.push(Candidate { id: TaskId(index), resolution, record });
        }
    }
    // The order depends only on keys and seed, not on names or the order of the manifest.
    found.sort_by_key(|candidate| {
        let mut text = arguments.seed.to_le_bytes().to_vec();
        text.extend_from_slice(candidate.resolution.key.as_bytes());
        Digest::of_bytes(&text)
    });
    found
}

fn examine(
    arguments: &VerifyArguments,
    environment: &Environment,
    project: &Project,
    plan: &Plan,
    folder: &Folder,
    candidates: &[Candidate<'_>],
) -> Result<Verdicts, CliError> {
    let sample = (!arguments.all).then(|| arguments.sample.map_or(SAMPLE, |sample| sample as usize));
    let path = environment.folder.join(&arguments.manifest.manifest);
    let mut verdicts = Verdicts {
        manifest: path.strip_prefix(&project.root).unwrap_or(&path).display().to_string(),
        started: jiff::Timestamp::now().to_string(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        patchflow: env!("CARGO_PKG_VERSION"),
        seed: arguments.seed,
        sample,
        kinds: BTreeMap::new(),
        tasks: Vec::new(),
    };
    for candidate in candidates {
        verdicts.kinds.entry(plan.tasks[candidate.id.0].spec.kind().name()).or_default().cached += 1;
    }
    let suspects =
        candidates.iter().map(|&Candidate { id, resolution, record }| Suspect { id, resolution, record });
    let mut report = |verified: &Verified| {
        if let Some(of) = candidates.iter().find(|candidate| candidate.id == verified.id) {
            verdicts.add(plan, of.record, of.resolution.key.to_string(), verified);
            tracing::info!(
                "{} made again in {:.1} s",
                super::log::title(plan, verified.id),
                verified.seconds
            );
        }
    };
    let bars = (!arguments.json).then(|| {
        Bars::new(super::log::titles(plan), sample.unwrap_or(candidates.len()).min(candidates.len()))
    });
    let listener = |event: Event| {
        if let Some(bars) = &bars {
            bars.show(&event);
        }
    };
    let options = options(arguments, environment, project, folder, &listener);
    let count = sample.unwrap_or(usize::MAX);
    engine::verify(plan, &project.cache, &options, suspects, count, &mut report).map_err(CliError::Engine)?;
    Ok(verdicts)
}

fn options<'a>(
    arguments: &VerifyArguments,
    environment: &Environment,
    project: &Project,
    folder: &Folder,
    listener: &'a (dyn Fn(Event) + Sync),
) -> Options<'a> {
    Options {
        threads: session::threads(arguments.threads, &project.config),
        keep_going: true,
        is_offline: arguments.offline,
        search_device: project.config.search_device(),
        rehash: session::rehash(&arguments.manifest),
        folder: folder.relative().to_owned(),
        logs: folder.logs(),
        environment: environment.variables.clone(),
        ..Options::new(project.root.clone(), &CANCELLED, listener)
    }
}
