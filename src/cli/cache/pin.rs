//! `patchflow cache pin` and `unpin`.

use clap::Args;

use crate::cache::Digest;
use crate::cli::error::CliError;
use crate::cli::session;
use crate::cli::{Environment, Exit, ManifestArguments, terminal};
use crate::text::counted;

/// Arguments of `cache pin`.
#[derive(Args)]
pub(super) struct PinArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// Name of the pin (default: the experiment's).
    #[arg(long)]
    name: Option<String>,
}

/// Arguments of `cache unpin`.
#[derive(Args)]
pub(super) struct UnpinArguments {
    /// The pin; `cache info` shows all of them.
    name: String,
}

/// Pins the cached results of a manifest.
pub(super) fn pin(arguments: &PinArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (_, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    let statuses = session::survey(&arguments.manifest, &plan, &project)?;
    let has_record = statuses.iter().filter(|status| status.record.is_some());
    let mut keys: Vec<Digest> =
        has_record.filter_map(|status| Some(status.resolution.as_ref()?.key)).collect();
    keys.sort_unstable();
    keys.dedup();
    let name = arguments.name.as_deref().unwrap_or(&plan.experiment);
    let before = project.cache.housekeeping().pins().into_iter().find(|pin| pin.name == name);
    project.cache.housekeeping().pin(name, &keys).map_err(CliError::Cache)?;
    if let Some(before) = before.filter(|pin| pin.keys != keys) {
        terminal::message(&format!(
            "`{name}` no longer pins {} that it pinned before (`--name` makes a separate pin)",
            counted(before.keys.iter().filter(|key| !keys.contains(key)).count(), "record")
        ));
    }
    // A local source is a hit without a record.
    let open = statuses.iter().filter(|status| status.record.is_none() && !status.state().is_hit()).count();
    terminal::print(&format!("pinned {} as `{name}`\n", counted(keys.len(), "record")));
    if open > 0 {
        terminal::message(&format!(
            "not run yet and not pinned: {}; run and pin again",
            counted(open, "task")
        ));
    }
    Ok(Exit::Done)
}

/// Removes a pin.
pub(super) fn unpin(arguments: &UnpinArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    if project.cache.housekeeping().unpin(&arguments.name).map_err(CliError::Cache)? {
        return Ok(Exit::Done);
    }
    Err(CliError::UnknownPin { name: arguments.name.clone() })
}
