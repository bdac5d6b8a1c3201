//! `patchflow cache push` and `cache pull`: the remote that a team's machines share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::run::{CANCELLED, handle_interrupts};
use crate::cli::session::{self, CliError, Project};
use crate::cli::{Environment, Exit, ManifestArguments, amounts, terminal};
use crate::engine;
use crate::store::{Digest, Fetched, Pushed, Remote, StoreError, StoredRecord, Tree};

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

/// A result: its key, and the listings of its outputs.
type Shared = (Digest, Vec<Digest>);

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
) -> Result<Vec<Shared>, CliError> {
    let arguments = ManifestArguments {
        manifest: manifest.to_owned(),
        sets: arguments.sets.clone(),
        only: arguments.only.clone(),
        targets: Vec::new(),
        paranoid: false,
    };
    let (_, plan) = session::load(&arguments, &project.root, environment)?;
    let statuses = session::survey(&arguments, &plan, project)?;
    let mut results: Vec<Shared> = statuses
        .into_iter()
        .filter_map(|status| Some((status.resolution?.key, status.record?.outputs.into_values().collect())))
        .collect();
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
    if CANCELLED.load(std::sync::atomic::Ordering::Relaxed) {
        return Exit::Interrupted;
    }
    if failed > 0 {
        terminal::tell(&format!("{failed} results were left out: `{}` failed", remote.address()));
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
            .filter_map(|record| Some((record.key, engine::describe(&record)?.trees)))
            .filter(|(_, trees)| !trees.is_empty())
            .collect(),
    };
    if arguments.dry_run {
        let keys: Vec<Digest> = results.iter().map(|(key, _)| *key).collect();
        remote.ask(&keys, &CANCELLED);
        let new = keys.iter().filter(|key| remote.record(key).is_none()).count();
        terminal::print(&format!("{new} of {} results would go to {}\n", keys.len(), remote.address()));
        return Ok(exit(remote, 0, &project));
    }
    let (bar, mut all, mut failed) = (bar("pushing", results.len()), Pushed::default(), 0);
    for (key, trees) in &results {
        if CANCELLED.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        match project.store.push(key, trees) {
            Some(pushed) => all.add(pushed),
            None => failed += 1,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let Pushed { records, known, incomplete, bytes } = all;
    let evicted =
        if incomplete > 0 { format!(", {incomplete} left out (evicted here)") } else { String::new() };
    terminal::print(&format!(
        "{records} results ({}) put into {}, {known} were there{evicted}\n",
        amounts::bytes(bytes),
        remote.address()
    ));
    Ok(exit(remote, failed, &project))
}

/// Pulls.
pub(super) fn pull(arguments: &ShareArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = open(arguments, environment)?;
    let (store, Some(remote)) = (&project.store, project.store.remote()) else {
        return Err(CliError::NoRemote);
    };
    let keys: Vec<Digest> = match &arguments.manifest {
        Some(manifest) => {
            of_manifest(manifest, arguments, &project, environment)?.into_iter().map(|(key, _)| key).collect()
        }
        None => remote.keys().unwrap_or_default(),
    };
    remote.ask(&keys, &CANCELLED);
    let (bar, mut all, mut records, mut failed) = (bar("pulling", keys.len()), Fetched::default(), 0, 0);
    for key in &keys {
        if CANCELLED.load(std::sync::atomic::Ordering::Relaxed) {
            break;
        }
        let there = remote.record(key);
        let here = store.record(key).map_err(CliError::Store)?;
        let Some(bytes) = here.clone().or_else(|| there.map(|bytes| bytes.to_vec())) else { continue };
        let stored = StoredRecord { key: *key, bytes, used: std::time::SystemTime::now() };
        let Some(trees) = engine::describe(&stored).map(|described| described.trees) else { continue };
        match pull_one(&project, &stored, &trees, here.is_none(), arguments.dry_run)
            .map_err(CliError::Store)?
        {
            Some(fetched) => {
                records += usize::from(here.is_none());
                all.add(fetched);
            }
            None => failed += 1,
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let would = if arguments.dry_run { " would be" } else { "" };
    terminal::print(&format!(
        "{records} results and {} objects ({}){would} taken from {}\n",
        all.objects,
        amounts::bytes(all.bytes),
        remote.address()
    ));
    Ok(exit(remote, failed, &project))
}

/// Takes one result; none where the remote lacks a part of it.
fn pull_one(
    project: &Project,
    record: &StoredRecord,
    trees: &[Digest],
    is_new: bool,
    is_dry_run: bool,
) -> Result<Option<Fetched>, StoreError> {
    let store = &project.store;
    let found: Vec<Option<Arc<Tree>>> =
        trees.iter().map(|digest| store.tree_anywhere(digest)).collect::<Result<_, _>>()?;
    let Some(found) = found.into_iter().collect::<Option<Vec<Arc<Tree>>>>() else { return Ok(None) };
    if is_new && !is_dry_run {
        store.adopt(&record.key, &record.bytes, &found)?;
    }
    let mut all = Fetched::default();
    for tree in &found {
        let missing: BTreeSet<Digest> = store.missing(tree)?.into_iter().collect();
        if is_dry_run {
            let sizes = tree.entries().iter().filter(|entry| missing.contains(&entry.digest));
            all.add(Fetched { objects: missing.len(), bytes: sizes.map(|entry| entry.size).sum() });
            continue;
        }
        store.hold(&record.key);
        all.add(store.fetch(tree, &missing, &CANCELLED)?);
        if !store.missing(tree)?.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(all))
}
