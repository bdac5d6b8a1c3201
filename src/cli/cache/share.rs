//! `patchflow cache push` and `cache pull`: the remote that a team's machines share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::run::{CANCELLED, handle_interrupts};
use crate::cli::session::{self, CliError, Project};
use crate::cli::{Environment, Exit, ManifestArguments, amounts, terminal};
use crate::engine;
use crate::plan::Status;
use crate::store::{Digest, Fetched, PushOrder, Pushed, Remote, Store, StoreError, StoredRecord, Tree};

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
    /// The remote: a folder, s3://…, gs://…, az://…, http(s)://… (default: patchflow.toml's).
    #[arg(long, value_name = "ADDRESS")]
    remote: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Results that are taken together: their packs share the requests.
const TOGETHER: usize = 64;

fn open(arguments: &ShareArguments, environment: &Environment) -> Result<Project, CliError> {
    let project = session::open_project(environment)?;
    let project = session::with_remote(project, arguments.remote.as_deref(), false)?;
    if project.store.remote().is_none() {
        return Err(CliError::NoRemote);
    }
    handle_interrupts();
    Ok(project)
}

/// The tasks of the manifest that a record answers, here or there.
fn of_manifest(
    manifest: &Path,
    arguments: &ShareArguments,
    project: &Project,
    environment: &Environment,
) -> Result<Vec<PushOrder>, CliError> {
    let arguments = ManifestArguments {
        manifest: manifest.to_owned(),
        sets: arguments.sets.clone(),
        only: arguments.only.clone(),
        targets: Vec::new(),
        paranoid: false,
    };
    let (_, plan) = session::load(&arguments, &project.root, environment)?;
    let statuses = session::survey(&arguments, &plan, project)?;
    let order = |status: Status| {
        Some(PushOrder { key: status.resolution?.key, trees: status.record?.outputs.into_values().collect() })
    };
    let mut results: Vec<PushOrder> = statuses.into_iter().filter_map(order).collect();
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

/// The code of a command that went through all, was stopped, or whose remote gave up.
fn exit(remote: &Remote, failed: usize, project: &Project) -> Exit {
    session::show_remote_warnings(&project.store);
    if CANCELLED.load(Ordering::Relaxed) {
        return Exit::Interrupted;
    }
    if failed > 0 {
        let results = if failed == 1 { "1 result was" } else { &format!("{failed} results were") };
        terminal::tell(&format!("{results} left out, since `{}` lacks or refuses a part", remote.address()));
        return Exit::Failed;
    }
    Exit::Done
}

/// Pushes.
pub(super) fn push(arguments: &ShareArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = open(arguments, environment)?;
    let Some(remote) = project.store.remote() else { return Err(CliError::NoRemote) };
    let results = match &arguments.manifest {
        Some(manifest) => of_manifest(manifest, arguments, &project, environment)?,
        None => project
            .store
            .records()
            .filter_map(|record| Some(PushOrder { key: record.key, trees: engine::describe(&record)?.trees }))
            .filter(|order| !order.trees.is_empty())
            .collect(),
    };
    if arguments.dry_run {
        return would_push(&results, remote, &project);
    }
    let (bar, mut all) = (bar("pushing", results.len()), Pushed::default());
    project.store.push(&results, |pushed| {
        all.add(pushed);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let Pushed { records, known, incomplete, failed, bytes } = all;
    let evicted =
        if incomplete > 0 { format!(", {incomplete} left out (evicted here)") } else { String::new() };
    terminal::print(&format!(
        "{records} results ({}) put into {}, {known} were there{evicted}\n",
        amounts::bytes(bytes),
        remote.address()
    ));
    Ok(exit(remote, failed, &project))
}

/// Says what a push would do. Bytes count as if no part of a result were there.
fn would_push(results: &[PushOrder], remote: &Remote, project: &Project) -> Result<Exit, CliError> {
    let keys: Vec<Digest> = results.iter().map(|order| order.key).collect();
    remote.ask(&keys);
    let new: Vec<&PushOrder> = results.iter().filter(|order| remote.record(&order.key).is_none()).collect();
    let trees: BTreeSet<&Digest> = new.iter().flat_map(|order| &order.trees).collect();
    let mut objects = BTreeSet::new();
    for digest in trees {
        let tree = project.store.tree(digest).map_err(CliError::Store)?;
        let entries = tree.iter().flat_map(|tree| tree.entries());
        objects.extend(entries.map(|entry| (entry.digest, entry.size)));
    }
    let bytes: u64 = objects.iter().map(|(_, size)| size).sum();
    terminal::print(&format!(
        "{} of {} results ({} at most) would go to {}\n",
        new.len(),
        results.len(),
        amounts::bytes(bytes),
        remote.address()
    ));
    Ok(exit(remote, 0, project))
}

/// Pulls.
pub(super) fn pull(arguments: &ShareArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = open(arguments, environment)?;
    let Some(remote) = project.store.remote() else { return Err(CliError::NoRemote) };
    let keys: Vec<Digest> = match &arguments.manifest {
        Some(manifest) => {
            of_manifest(manifest, arguments, &project, environment)?.iter().map(|order| order.key).collect()
        }
        None => match remote.keys() {
            Some(keys) => keys,
            None if CANCELLED.load(Ordering::Relaxed) => return Ok(Exit::Interrupted),
            None => {
                session::show_remote_warnings(&project.store);
                return Err(CliError::Unlisted { address: remote.address().to_owned() });
            }
        },
    };
    let (bar, mut all) = (bar("pulling", keys.len()), Pulled::default());
    for some in keys.chunks(TOGETHER) {
        if CANCELLED.load(Ordering::Relaxed) {
            break;
        }
        all.take(&project.store, some, arguments.dry_run).map_err(CliError::Store)?;
        bar.inc(some.len() as u64);
    }
    bar.finish_and_clear();
    let would = if arguments.dry_run { " would be" } else { "" };
    terminal::print(&format!(
        "{} results and {} objects ({}){would} taken from {}\n",
        all.records,
        all.fetched.objects,
        amounts::bytes(all.fetched.bytes),
        remote.address()
    ));
    Ok(exit(remote, all.failed, &project))
}

/// What was pulled so far.
#[derive(Default)]
struct Pulled {
    /// Results that were not here.
    records: usize,
    /// Objects.
    fetched: Fetched,
    /// Results that the remote lacks a part of.
    failed: usize,
}

impl Pulled {
    /// Takes some results, or counts what would be taken.
    fn take(&mut self, store: &Store, keys: &[Digest], is_dry_run: bool) -> Result<(), StoreError> {
        let Some(remote) = store.remote() else { return Ok(()) };
        remote.ask(keys);
        let mut results = Vec::new();
        for key in keys {
            let here = store.record(key)?;
            let is_new = here.is_none();
            let Some(bytes) = here.or_else(|| remote.record(key).map(|bytes| bytes.to_vec())) else {
                continue;
            };
            let stored = StoredRecord { key: *key, bytes, used: SystemTime::now() };
            if let Some(described) = engine::describe(&stored) {
                results.push((stored, is_new, described.trees));
            }
        }
        store.ask_trees(&results.iter().flat_map(|(_, _, trees)| trees).copied().collect())?;
        let (mut wholes, mut wanted) = (Vec::new(), BTreeMap::new());
        for (record, is_new, trees) in &results {
            let found = trees.iter().map(|digest| store.tree_anywhere(digest));
            let found: Option<Vec<Arc<Tree>>> = found.collect::<Result<_, _>>()?;
            let Some(found) = found else {
                self.failed += 1;
                continue;
            };
            if *is_new && !is_dry_run {
                store.adopt(&record.key, &record.bytes, &found)?;
            }
            self.records += usize::from(*is_new);
            if !is_dry_run {
                store.hold(&record.key);
            }
            wholes.extend(found);
        }
        for tree in &wholes {
            let missing: BTreeSet<Digest> = store.missing(tree)?.into_iter().collect();
            let entries = tree.entries().iter().filter(|entry| missing.contains(&entry.digest));
            wanted.extend(entries.map(|entry| (entry.digest, entry.size)));
        }
        if is_dry_run {
            self.fetched.add(Fetched { objects: wanted.len(), bytes: wanted.values().sum() });
            return Ok(());
        }
        let trees: Vec<&Tree> = wholes.iter().map(|tree| &**tree).collect();
        self.fetched.add(store.fetch(&trees, &wanted.into_keys().collect())?);
        for tree in trees {
            self.failed += usize::from(!store.missing(tree)?.is_empty());
        }
        Ok(())
    }
}
