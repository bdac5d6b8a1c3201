//! `patchflow cache gc`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use super::info::space_json;
use crate::cache::{Collected, Collection, KeepReason, Share, Space};
use crate::cli::error::CliError;
use crate::cli::session;
use crate::cli::{Environment, Exit, amounts, terminal};
use crate::engine;
use crate::report::{Column, TextTable};

/// Arguments of `cache gc`.
#[derive(Args)]
pub(super) struct GcArguments {
    /// Evict the objects that are cheapest to make again, until the cache takes no more than this: `50GB`, `800MiB`.
    #[arg(long, value_name = "SIZE", value_parser = amounts::parse_bytes)]
    max_size: Option<u64>,
    /// Show what would be removed, and remove nothing.
    #[arg(long)]
    dry_run: bool,
    /// Keep objects that were made or used within this time.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = amounts::parse_duration)]
    grace: Duration,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Removes objects.
pub(super) fn run(arguments: &GcArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let collection = Collection {
        max_bytes: arguments.max_size,
        grace: arguments.grace,
        is_dry_run: arguments.dry_run,
        now: SystemTime::now(),
    };
    let collected =
        project.cache.housekeeping().collect(&collection, &engine::describe).map_err(CliError::Cache)?;
    if arguments.json {
        terminal::print(&format!("{}\n", to_json(&collection, &collected)));
    } else {
        let text = to_text(&collection, &collected, terminal::width(environment));
        terminal::print(&terminal::prose(&text, 2, environment));
    }
    if let Some(most) = arguments.max_size.filter(|most| collected.after > *most) {
        terminal::message(&too_much(most, arguments.grace, &collected));
    }
    Ok(Exit::Done)
}

fn seconds(collected: &Collected) -> f64 {
    collected.evicted.values().fold(0.0, |sum, share| sum + share.seconds)
}

fn kept_name(reason: KeepReason) -> &'static str {
    match reason {
        KeepReason::Pinned => "pinned",
        KeepReason::InUse => "in_use",
        KeepReason::Linked => "linked",
        KeepReason::Recent => "recent",
    }
}

fn to_json(collection: &Collection, collected: &Collected) -> Value {
    let kinds: BTreeMap<&str, Value> = (collected.evicted.iter())
        .map(|(kind, Share { objects, seconds })| {
            let share = json!({ "objects": objects.files, "bytes": objects.bytes, "seconds": seconds });
            (kind.as_str(), share)
        })
        .collect();
    let leftovers: BTreeMap<&str, Value> =
        collected.leftovers.iter().map(|(area, space)| (*area, space_json(*space))).collect();
    let kept: BTreeMap<&str, Value> =
        collected.kept.iter().map(|(reason, space)| (kept_name(*reason), space_json(*space))).collect();
    json!({
        "dry_run": collection.is_dry_run,
        "max_size": collection.max_bytes,
        "before": collected.before,
        "after": collected.after,
        "freed": collected.before - collected.after,
        "seconds": seconds(collected),
        "kinds": kinds,
        "unreferenced": space_json(collected.unreferenced),
        "leftovers": leftovers,
        "kept": kept,
    })
}

fn to_text(collection: &Collection, collected: &Collected, width: usize) -> String {
    let numbers = ["files", "bytes", "to make again"].map(|title| (title, Column::Number));
    let mut table = TextTable::new([("kind", Column::Text)].into_iter().chain(numbers));
    let mut row = |name: &str, space: Space, seconds: String| {
        if space.files > 0 {
            table.add([name.to_owned(), space.files.to_string(), amounts::bytes(space.bytes), seconds]);
        }
    };
    for (kind, share) in &collected.evicted {
        row(kind, share.objects, amounts::seconds(share.seconds));
    }
    row("(held by no record)", collected.unreferenced, String::new());
    let words = [("tmp", "(half written)"), ("work", "(of finished tasks)"), ("quarantine", "(damaged)")];
    for (area, word) in words {
        row(word, collected.leftovers.get(area).copied().unwrap_or_default(), String::new());
    }
    let would = if collection.is_dry_run { "would be " } else { "" };
    let total = format!(
        "{} {would}freed: {} before, {} after; making it again would take {}\n",
        amounts::bytes(collected.before - collected.after),
        amounts::bytes(collected.before),
        amounts::bytes(collected.after),
        amounts::seconds(seconds(collected)),
    );
    if table.is_empty() {
        format!("nothing to remove\n{total}")
    } else {
        format!("{}\n{total}", table.draw(width))
    }
}

/// Explains why the cap was not reached.
fn too_much(most: u64, grace: Duration, collected: &Collected) -> String {
    let reason = |(reason, space): (&KeepReason, &Space)| {
        let why = match reason {
            KeepReason::Pinned => "pinned".to_owned(),
            KeepReason::InUse => "used by a running process".to_owned(),
            KeepReason::Linked => "also in a run's folder, so that removing it would free nothing".to_owned(),
            KeepReason::Recent => format!(
                "used within the last {} (`--grace 0s` evicts it as well)",
                amounts::seconds(grace.as_secs_f64())
            ),
        };
        format!("\n  {}: {why}", amounts::bytes(space.bytes))
    };
    let reasons: String = collected.kept.iter().map(reason).collect();
    let objects: u64 = collected.kept.values().map(|space| space.bytes).sum();
    let rest = amounts::bytes(collected.after.saturating_sub(objects));
    format!("more than {} stays:{reasons}\n  {rest}: records, trees, unfinished work", amounts::bytes(most))
}
