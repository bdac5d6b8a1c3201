//! `patchflow explain`.

use clap::Args;
use serde_json::{Value, json};

use super::error::CliError;
use super::session;
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::plan::{Explanation, Plan, between, explain};

/// Arguments of `explain`.
#[derive(Args)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// The stage.
    stage: String,
    /// Explain instead why two variants do not share its task: `bank=dual bank=single`.
    #[arg(long, num_args = 2, value_names = ["VARIANT", "VARIANT"], conflicts_with = "json")]
    between: Vec<String>,
    #[arg(long, value_name = "ADDRESS", help = session::remote_help())]
    remote: Option<String>,
    /// Print one JSON object: each task with its state, reason and cause.
    #[arg(long)]
    json: bool,
}

/// Explains why a stage would run.
pub(super) fn run(arguments: &ExplainArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let project = session::with_remote(project, arguments.remote.as_deref(), false, environment)?;
    let (experiment, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    session::check_stage(&experiment, &arguments.stage)?;
    let statuses = session::survey(&arguments.manifest, &plan, &project)?;
    session::show_remote_warnings(&project.cache);
    if let [one, other] = arguments.between.as_slice() {
        let variants = find_pair(&plan, one, other)?;
        let [one, other] = variants.map(|variant| &plan.variants[variant].id);
        terminal::print(&format!("{one} and {other}:\n"));
        for pair in between(&plan, &statuses, &project.cache, &arguments.stage, variants) {
            terminal::print(&terminal::prose(&format!("{pair}\n"), 2, environment));
        }
        return Ok(Exit::Done);
    }
    let explanations = explain(&plan, &statuses, &project.cache, &arguments.stage);
    if arguments.json {
        terminal::print(&format!("{:#}\n", to_json(&plan, &arguments.stage, &explanations)));
        return Ok(Exit::Done);
    }
    if explanations.is_empty() {
        terminal::message(&format!("no variant needs `{}`", arguments.stage));
    }
    let mut shown = Vec::new();
    for explanation in explanations {
        let line = explanation.to_string();
        if !shown.contains(&line) {
            terminal::print(&terminal::prose(&format!("{line}\n"), 2, environment));
            shown.push(line);
        }
    }
    Ok(Exit::Done)
}

fn to_json(plan: &Plan, stage: &str, explanations: &[Explanation]) -> Value {
    let tasks = explanations.iter().map(|explanation| {
        json!({
            "task": explanation.task,
            "values": explanation.values,
            "state": explanation.reason.state().name(),
            "reason": explanation.reason.sentence(),
            "cause": explanation.reason,
        })
    });
    json!({ "experiment": plan.experiment, "stage": stage, "tasks": tasks.collect::<Vec<_>>() })
}

/// Finds two variants: the first with the values of `one` and, among those with the values of `other`, the one that
/// agrees with it on the most axes.
fn find_pair(plan: &Plan, one: &str, other: &str) -> Result<[usize; 2], CliError> {
    let matching = |text: &str| -> Result<Vec<usize>, CliError> {
        let wanted: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        let has = |variant: usize, part: &&str| {
            let values = &plan.variants[variant].values;
            values.iter().any(|(axis, value)| format!("{axis}={value}") == **part)
        };
        let found: Vec<usize> = (0..plan.variants.len())
            .filter(|&variant| wanted.iter().all(|part| has(variant, part)))
            .collect();
        if found.is_empty() {
            let ids: Vec<&str> = plan.variants.iter().map(|variant| variant.id.as_str()).collect();
            let help = crate::stages::fields::suggestion(text, &ids);
            return Err(CliError::UnknownVariant { name: text.to_owned(), help });
        }
        Ok(found)
    };
    let first = matching(one)?[0];
    let agreement = |variant: usize| {
        let values = plan.variants[variant].values.iter().zip(&plan.variants[first].values);
        values.filter(|(one, other)| one == other).count()
    };
    let second = matching(other)?.into_iter().rev().max_by_key(|&variant| agreement(variant));
    Ok([first, second.unwrap_or(first)])
}
