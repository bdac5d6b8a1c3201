//! `patchflow lock`.

use std::collections::BTreeMap;

use clap::Args;

use super::error::CliError;
use super::session;
use super::{Environment, Exit, ManifestArguments, hints, terminal};
use crate::cache::{Cache, CacheError, Digest};
use crate::plan::{Lock, Plan, Record, Status, TaskId, lock_path};
use crate::text::counted;

/// Arguments of `lock`.
#[derive(Args)]
pub(super) struct LockArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
}

/// Writes the lock file of a table whose tasks are all cached.
pub(super) fn run(arguments: &LockArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (_, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    let statuses = session::survey(&arguments.manifest, &plan, &project)?;
    let lock =
        Lock::of(&plan, &statuses, &|record| metrics(record, &project.cache)).map_err(CliError::Lock)?;
    warn_of_others(&plan, &statuses);
    let path = lock_path(&environment.folder.join(&arguments.manifest.manifest));
    lock.write(&path).map_err(CliError::Lock)?;
    let pinned = keep_from_collection(&plan.experiment, &lock, &project.cache);
    let shown = path.strip_prefix(&project.root).unwrap_or(&path);
    let tasks = counted(lock.tasks.len(), "task");
    let variants = counted(lock.variants.len(), "variant");
    let about = format!("{}: {tasks}, {variants}", shown.display());
    match pinned {
        Ok(()) => {
            terminal::print(&format!("{about}; their objects are pinned as `lock-{}`\n", plan.experiment));
        }
        // The lock is as good without pins, which the cache's owner can set.
        Err(error) if error.is_write_refused() => {
            terminal::show_chain("warning: the objects are not pinned", &error, Some(hints::UNPINNED));
            terminal::print(&format!("{about}\n"));
        }
        Err(error) => return Err(CliError::Cache(error)),
    }
    Ok(Exit::Done)
}

/// Warns of tasks that have produced different bytes for the same key: their lock can be met only while the cache keeps
/// their objects.
fn warn_of_others(plan: &Plan, statuses: &[Status]) {
    for (index, status) in statuses.iter().enumerate() {
        if status.record.as_ref().is_some_and(|record| !record.others.is_empty()) {
            let title = super::log::title(plan, TaskId(index));
            terminal::message(&format!(
                "warning: {title} has given other bytes for equal inputs; the last are locked"
            ));
        }
    }
}

fn metrics(record: &Record, cache: &Cache) -> Option<BTreeMap<String, f64>> {
    let scores = cache.tree(record.outputs.get("scores")?).ok()??;
    let metrics = session::metrics(cache, &scores)?;
    Some(metrics.named().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Pins the locked outputs, so that `cache gc` keeps them until `cache unpin`.
fn keep_from_collection(experiment: &str, lock: &Lock, cache: &Cache) -> Result<(), CacheError> {
    let keys: Vec<Digest> = lock.keys().into_iter().collect();
    cache.housekeeping().pin(&format!("lock-{experiment}"), &keys)
}
