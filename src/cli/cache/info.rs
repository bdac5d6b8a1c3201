//! `patchflow cache info`. Writes nothing.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::cache::{Described, Group, Pin, Space, StoredRecord, Usage};
use crate::cli::error::CliError;
use crate::cli::session::{self, Project};
use crate::cli::{Environment, Exit, amounts, terminal};
use crate::engine;
use crate::report::{self, Column, TextTable};
use crate::text::counted;

/// Shown for records that name no experiment and that no latest run uses.
const NO_EXPERIMENT: &str = "(none)";

/// Arguments of `cache info`.
#[derive(Args)]
pub(super) struct InfoArguments {
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Shows the space in use.
pub(super) fn run(arguments: &InfoArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let usage = take_stock(&project)?;
    let pins = project.cache.housekeeping().pins();
    if arguments.json {
        terminal::print(&format!("{}\n", to_json(&project, &usage, &pins)));
    } else {
        terminal::print(&to_text(&project, &usage, &pins, terminal::width(environment)));
    }
    Ok(Exit::Done)
}

/// Attributes records to the experiments that made them, and to those whose latest run in this project uses them.
/// Per-image records count with the tasks that hold them.
fn take_stock(project: &Project) -> Result<Usage, CliError> {
    let users = report::users_of_keys(&project.root);
    let describe = |record: &StoredRecord| {
        let described = engine::describe(record)?;
        let is_item = described.trees.is_empty();
        let mut experiments = described.experiments;
        experiments.extend(users.get(&record.key).into_iter().flatten().cloned());
        experiments.sort();
        experiments.dedup();
        if experiments.is_empty() && !is_item {
            experiments.push(NO_EXPERIMENT.to_owned());
        }
        Some(Described { experiments, ..described })
    };
    project.cache.housekeeping().usage(&describe).map_err(CliError::Cache)
}

fn by_kind(usage: &Usage) -> BTreeMap<&str, Group> {
    usage.groups(|holding| std::slice::from_ref(&holding.kind))
}

fn by_experiment(usage: &Usage) -> BTreeMap<&str, Group> {
    usage.groups(|holding| &holding.experiments)
}

fn unreferenced(usage: &Usage) -> Space {
    let mut space = Space::default();
    usage.unreferenced().for_each(|object| space.add(object.disk));
    space
}

fn linked(usage: &Usage) -> Space {
    let mut space = Space::default();
    usage.objects.iter().filter(|object| object.is_linked).for_each(|object| space.add(object.disk));
    space
}

/// The space of a group as JSON.
pub(super) fn space_json(space: Space) -> Value {
    json!({ "files": space.files, "bytes": space.bytes })
}

fn groups_json(groups: &BTreeMap<&str, Group>) -> Value {
    let one = |(name, group): (&&str, &Group)| {
        let group = json!({
            "records": group.records,
            "items": group.items,
            "objects": group.objects.files,
            "bytes": group.objects.bytes,
            "own_bytes": group.own.bytes,
            "evicted": group.missing,
            "seconds": group.seconds,
        });
        ((*name).to_owned(), group)
    };
    Value::Object(groups.iter().map(one).collect())
}

fn to_json(project: &Project, usage: &Usage, pins: &[Pin]) -> Value {
    let areas: BTreeMap<&str, Value> =
        usage.areas.iter().map(|(name, space)| (*name, space_json(*space))).collect();
    let pins: BTreeMap<&str, usize> = pins.iter().map(|pin| (pin.name.as_str(), pin.keys.len())).collect();
    json!({
        "folder": project.cache.root(),
        "bytes": usage.bytes(),
        "areas": areas,
        "kinds": groups_json(&by_kind(usage)),
        "experiments": groups_json(&by_experiment(usage)),
        "unreferenced": space_json(unreferenced(usage)),
        "linked": space_json(linked(usage)),
        "pins": pins,
    })
}

fn table(first: &str, groups: &BTreeMap<&str, Group>) -> TextTable {
    let numbers = ["tasks", "images", "objects", "bytes", "exclusive", "evicted", "took"];
    let numbers = numbers.map(|title| (title, Column::Number));
    let mut table = TextTable::new([(first, Column::Text)].into_iter().chain(numbers));
    for (name, group) in groups {
        table.add([
            (*name).to_owned(),
            group.records.to_string(),
            group.items.to_string(),
            group.objects.files.to_string(),
            amounts::bytes(group.objects.bytes),
            amounts::bytes(group.own.bytes),
            group.missing.to_string(),
            amounts::seconds(group.seconds),
        ]);
    }
    table
}

fn to_text(project: &Project, usage: &Usage, pins: &[Pin], width: usize) -> String {
    let mut lines =
        vec![format!("{}: {} on disk", project.cache.root().display(), amounts::bytes(usage.bytes()))];
    let names = [
        ("objects", "objects"),
        ("records", "records of tasks"),
        ("items", "records of single images"),
        ("trees", "trees"),
        ("tmp", "being written"),
        ("work", "of unfinished tasks"),
        ("quarantine", "damaged, in quarantine"),
    ];
    for (area, word) in names {
        let space = usage.areas.get(area).copied().unwrap_or_default();
        if space.files > 0 || area == "objects" {
            lines.push(line(word, space));
        }
    }
    lines.push(line("held by no record", unreferenced(usage)));
    lines.push(line("also in a run's folder", linked(usage)));
    lines.extend(
        pins.iter().map(|pin| format!("  pin `{}`: {}", pin.name, counted(pin.keys.len(), "record"))),
    );
    if !usage.holdings.is_empty() {
        lines.push(table("kind", &by_kind(usage)).draw(width));
        lines.push(table("experiment", &by_experiment(usage)).draw(width));
    }
    lines.join("\n") + "\n"
}

fn line(word: &str, space: Space) -> String {
    format!("  {word}: {}, {}", counted(space.files as usize, "file"), amounts::bytes(space.bytes))
}
