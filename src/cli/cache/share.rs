//! `patchflow cache push` and `cache pull`: copying results to and from a shared remote.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cache::{
    Cache, CacheError, Digest, Fetched, Lookup, Origin, PushOrder, Pushed, Sharing, Tree, Wanted,
};
use crate::cli::error::CliError;
use crate::cli::interrupt::{handle_interrupts, is_cancelled};
use crate::cli::session::{self, Project};
use crate::cli::{Environment, Exit, ManifestArguments, amounts, terminal};
use crate::engine;
use crate::plan::{Record, Status};
use crate::text::counted;

/// Arguments of `cache push` and `cache pull`.
#[derive(Args)]
pub(super) struct ShareArguments {
    /// Only the tasks of this manifest (default: everything).
    manifest: Option<PathBuf>,
    /// Override a value of the manifest: `grid.axes.backbone=resnet18`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Only the variants with these values: `bank=dual,augment=none`.
    #[arg(long, value_name = "AXIS=VALUE,…")]
    only: Option<String>,
    #[arg(long, value_name = "ADDRESS", help = session::remote_help())]
    remote: Option<String>,
    /// Show what would be copied, and copy nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `cache push`.
#[derive(Args)]
pub(super) struct PushArguments {
    #[command(flatten)]
    share: ShareArguments,
    /// Also read what the remote has of these results, and replace what is damaged.
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
}

/// A result of the manifest or of the cache: its key, and the tree of each output by name.
type SharedResult = (Digest, BTreeMap<String, Digest>);

/// The number of results that are pulled together, so that their packs share requests.
const TOGETHER: usize = 64;

fn open(arguments: &ShareArguments, environment: &Environment) -> Result<Project, CliError> {
    let project = session::open_project(environment)?;
    let project = session::with_remote(project, arguments.remote.as_deref(), false, environment)?;
    if project.cache.sharing().is_none() {
        return Err(CliError::NoRemote);
    }
    handle_interrupts();
    Ok(project)
}

/// The tasks of the manifest with a record, here or in the remote.
fn of_manifest(
    manifest: &Path,
    arguments: &ShareArguments,
    project: &Project,
    environment: &Environment,
) -> Result<Vec<SharedResult>, CliError> {
    let arguments = ManifestArguments {
        sets: arguments.sets.clone(),
        only: arguments.only.clone(),
        ..ManifestArguments::of(manifest.to_owned())
    };
    let (_, plan) = session::load(&arguments, &project.root, environment)?;
    let statuses = session::survey(&arguments, &plan, project)?;
    let result = |status: Status| Some((status.resolution?.key, status.record?.outputs));
    let mut results: Vec<SharedResult> = statuses.into_iter().filter_map(result).collect();
    results.sort_unstable();
    results.dedup();
    Ok(results)
}

fn bar(word: &str, count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{word} {{bar:30}} {{pos}}/{{len}} results  {{eta}} left"))
    {
        bar.set_style(style);
    }
    bar
}

/// The exit code, depending on whether the command finished, was interrupted, or lost its remote.
fn exit(remote: &Sharing<'_>, failed: usize, project: &Project) -> Exit {
    session::show_remote_warnings(&project.cache);
    if is_cancelled() {
        return Exit::Interrupted;
    }
    if failed > 0 {
        let results = if failed == 1 { "1 result was" } else { &format!("{failed} results were") };
        terminal::message(&format!(
            "{results} left out, because `{}` lacks or refuses some of the files",
            remote.address()
        ));
        return Exit::Failed;
    }
    Exit::Done
}

/// Copies results to the remote.
pub(super) fn push(arguments: &PushArguments, environment: &Environment) -> Result<Exit, CliError> {
    let PushArguments { share: arguments, verify } = arguments;
    let project = open(arguments, environment)?;
    let Some(remote) = project.cache.sharing() else { return Err(CliError::NoRemote) };
    let results: Vec<PushOrder> = match &arguments.manifest {
        Some(manifest) => {
            let results = of_manifest(manifest, arguments, &project, environment)?.into_iter();
            results.map(|(key, outputs)| PushOrder { key, trees: outputs.into_values().collect() }).collect()
        }
        None => project
            .cache
            .records()
            .iter()
            .filter_map(|record| Some(PushOrder { key: record.key, trees: engine::describe(&record)?.trees }))
            .filter(|order| !order.trees.is_empty())
            .collect(),
    };
    if arguments.dry_run {
        return would_push(&results, &remote, &project);
    }
    if *verify {
        let reading = ProgressBar::new_spinner().with_message("reading what the remote has");
        remote.verify::<Record>(&results, |files| reading.inc(files as u64)).map_err(CliError::Cache)?;
        reading.finish_and_clear();
    }
    let (bar, mut all) = (bar("pushing", results.len()), Pushed::default());
    remote.push(&results, |pushed| {
        all.add(pushed);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let Pushed { records, known, completed, incomplete, unfit, failed, bytes } = all;
    let further = [
        (completed, "were there in part and are whole now"),
        (incomplete, "left out (evicted here)"),
        (unfit, "left out (names of files that other machines refuse)"),
    ];
    let further: Vec<String> = further
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!(", {count} {what}"))
        .collect();
    let further = further.concat();
    terminal::print(&format!(
        "{} ({}) pushed to {}, {known} were there{further}\n",
        counted(records, "result"),
        amounts::bytes(bytes),
        remote.address()
    ));
    Ok(exit(&remote, failed, &project))
}

/// Shows what a push would copy. Bytes are counted as if the remote held no part of these results.
fn would_push(results: &[PushOrder], remote: &Sharing<'_>, project: &Project) -> Result<Exit, CliError> {
    let keys: Vec<Digest> = results.iter().map(|order| order.key).collect();
    let absent: BTreeSet<Digest> = remote.absent(&keys).into_iter().collect();
    let new: Vec<&PushOrder> = results.iter().filter(|order| absent.contains(&order.key)).collect();
    let trees: BTreeSet<&Digest> = new.iter().flat_map(|order| &order.trees).collect();
    let mut objects = BTreeSet::new();
    for digest in trees {
        let tree = project.cache.tree(digest).map_err(CliError::Cache)?;
        let entries = tree.iter().flat_map(|tree| tree.entries());
        objects.extend(entries.map(|entry| (entry.digest, entry.size)));
    }
    let bytes: u64 = objects.iter().map(|(_, size)| size).sum();
    terminal::print(&format!(
        "{} of {} ({} at most) would go to {}\n",
        new.len(),
        counted(results.len(), "result"),
        amounts::bytes(bytes),
        remote.address()
    ));
    Ok(exit(remote, 0, project))
}

/// Copies results from the remote.
pub(super) fn pull(arguments: &ShareArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = open(arguments, environment)?;
    let Some(remote) = project.cache.sharing() else { return Err(CliError::NoRemote) };
    let results: Vec<Wanted> = match &arguments.manifest {
        Some(manifest) => {
            let results = of_manifest(manifest, arguments, &project, environment)?.into_iter();
            results.map(|(key, outputs)| Wanted::named(key, outputs.into_keys())).collect()
        }
        None => match remote.keys() {
            Some(keys) => keys.into_iter().map(Wanted::any).collect(),
            None if is_cancelled() => return Ok(Exit::Interrupted),
            None => {
                session::show_remote_warnings(&project.cache);
                return Err(CliError::Unlisted { address: remote.address().to_owned() });
            }
        },
    };
    let (bar, mut all) = (bar("pulling", results.len()), Pulled::default());
    for some in results.chunks(TOGETHER) {
        if is_cancelled() {
            break;
        }
        all.take(&project.cache, some, arguments.dry_run).map_err(CliError::Cache)?;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    let would = if arguments.dry_run { " would be" } else { "" };
    terminal::print(&format!(
        "{} and {} ({}){would} taken from {}\n",
        counted(all.records, "result"),
        counted(all.fetched.objects, "object"),
        amounts::bytes(all.fetched.bytes),
        remote.address()
    ));
    Ok(exit(&remote, all.failed, &project))
}

/// Totals of a pull.
#[derive(Default)]
struct Pulled {
    /// Results that were not in the local cache.
    records: usize,
    /// Fetched objects.
    fetched: Fetched,
    /// Results that the remote holds only in part.
    failed: usize,
}

impl Pulled {
    /// Pulls some results, or counts what would be pulled.
    fn take(&mut self, cache: &Cache, wanted: &[Wanted], is_dry_run: bool) -> Result<(), CacheError> {
        let mut results: Vec<Vec<Arc<Tree>>> = Vec::new();
        let answers = cache.lookup_many::<Record>(wanted)?;
        for (wanted, answer) in wanted.iter().zip(answers) {
            let found = match answer {
                Lookup::Found(found) => found,
                Lookup::Incomplete => {
                    self.failed += 1;
                    continue;
                }
                Lookup::Absent => continue,
            };
            let is_new = found.origin == Origin::Remote;
            if is_new && !is_dry_run {
                cache.publication()?.adopt(wanted, &found)?;
            }
            self.records += usize::from(is_new);
            if !is_dry_run {
                cache.leases().hold(&wanted.key);
            }
            results.push(found.trees);
        }
        let wholes: Vec<Arc<Tree>> = results.iter().flatten().cloned().collect();
        if is_dry_run {
            return self.count_missing(cache, &wholes);
        }
        self.fetched.add(cache.fetch_missing(&wholes)?);
        for trees in &results {
            let mut is_whole = true;
            for tree in trees {
                is_whole &= cache.objects().missing(tree)?.is_empty();
            }
            self.failed += usize::from(!is_whole);
        }
        Ok(())
    }

    /// Counts what would be fetched.
    fn count_missing(&mut self, cache: &Cache, wholes: &[Arc<Tree>]) -> Result<(), CacheError> {
        let mut wanted = BTreeMap::new();
        for tree in wholes {
            let missing: BTreeSet<Digest> = cache.objects().missing(tree)?.into_iter().collect();
            let entries = tree.entries().iter().filter(|entry| missing.contains(&entry.digest));
            wanted.extend(entries.map(|entry| (entry.digest, entry.size)));
        }
        self.fetched.add(Fetched { objects: wanted.len(), bytes: wanted.values().sum() });
        Ok(())
    }
}
