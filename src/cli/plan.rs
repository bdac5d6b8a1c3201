//! `patchflow plan`.

use std::collections::BTreeMap;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::error::CliError;
use super::forecast::{self, BudgetArguments, Forecast};
use super::session;
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::cache::Cache;
use crate::plan::{Cost, EqualValues, Plan, Sizes, State, Status, TaskId, equal_values, warnings};

/// Arguments of `plan`.
#[derive(Args)]
pub(super) struct PlanArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// Tasks at once, for the estimate (default: the number of cores).
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    #[command(flatten)]
    budget: BudgetArguments,
    #[arg(long, value_name = "ADDRESS", help = session::remote_help())]
    remote: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Shows what would run.
pub(super) fn run(arguments: &PlanArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let project = session::with_remote(project, arguments.remote.as_deref(), false, environment)?;
    let (_, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    session::warn_of_unneeded(&plan);
    let statuses = session::survey(&arguments.manifest, &plan, &project)?;
    let forecast = Forecast::new(&plan, &statuses, &project, session::jobs(arguments.jobs, &project));
    let foreseen = Foreseen::new(&plan, &statuses, &project.cache);
    if arguments.json {
        terminal::print(&format!("{}\n", to_json(&plan, &statuses, &forecast, &foreseen)));
    } else {
        foreseen.show(&plan);
        terminal::print(&to_text(&plan, &statuses, &forecast));
    }
    session::show_remote_warnings(&project.cache);
    forecast.check(&arguments.budget)?;
    Ok(Exit::Done)
}

/// What can be said of the results before they exist.
struct Foreseen {
    /// The warnings of each task.
    warnings: Vec<Vec<String>>,
    equal_values: Vec<EqualValues>,
}

impl Foreseen {
    fn new(plan: &Plan, statuses: &[Status], cache: &Cache) -> Self {
        let mut sizes = Sizes::new(plan, cache);
        let warnings = warnings(plan, statuses, &mut sizes);
        let outputs = |task: TaskId| statuses[task.0].outputs.as_ref();
        Self { warnings, equal_values: equal_values(plan, &mut sizes, &outputs) }
    }

    fn show(&self, plan: &Plan) {
        for (index, warning) in
            self.warnings.iter().enumerate().flat_map(|(index, all)| all.iter().map(move |one| (index, one)))
        {
            let of = session::of_values(&plan.values_of(TaskId(index)));
            terminal::message(&format!("warning: `{}`{of}: {warning}", plan.tasks[index].name));
        }
        session::warn_of_equal_values(&self.equal_values);
    }
}

fn totals(statuses: &[Status]) -> BTreeMap<&'static str, usize> {
    let mut totals =
        BTreeMap::from([("hit", 0), ("remote_hit", 0), ("in_flight", 0), ("miss", 0), ("unknown", 0)]);
    for status in statuses {
        *totals.entry(status.state().name()).or_default() += 1;
    }
    totals
}

fn to_json(plan: &Plan, statuses: &[Status], forecast: &Forecast, foreseen: &Foreseen) -> Value {
    let known = plan.tasks.iter().zip(statuses).zip(forecast.tasks.iter().zip(&foreseen.warnings));
    let tasks = known.map(|((task, status), (cost, warnings))| {
        let variants: Vec<&str> =
            task.variants.iter().map(|&variant| plan.variants[variant].id.as_str()).collect();
        json!({
            "stage": task.stage,
            "name": task.name,
            "kind": task.spec.kind().name(),
            "key": status.resolution.as_ref().map(|resolution| resolution.key.to_string()),
            "state": status.state().name(),
            "reason": status.reason.to_string(),
            "cause": status.reason,
            "variants": variants,
            "warnings": warnings,
            "estimate": forecast::task_json(cost),
            "no_estimate": match cost {
                Cost::Unknown(why) => Some(why.name()),
                Cost::Nothing | Cost::Known(_) => None,
            },
        })
    });
    let variants = plan.variants.iter().map(|variant| {
        let axes: BTreeMap<&str, &str> =
            variant.values.iter().map(|(axis, value)| (axis.as_str(), value.as_str())).collect();
        json!({ "id": variant.id, "axes": axes })
    });
    json!({
        "experiment": plan.experiment,
        "variants": variants.collect::<Vec<_>>(),
        "unneeded": plan.unneeded.stages,
        "equal_values": foreseen.equal_values,
        "tasks": tasks.collect::<Vec<_>>(),
        "totals": {
            "tasks": plan.tasks.len(),
            "unshared": plan.unshared,
            "states": totals(statuses),
            "estimate": forecast.to_json(),
        },
    })
}

fn to_text(plan: &Plan, statuses: &[Status], forecast: &Forecast) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["task", "of", "kind", "state", "variants", "key", "takes", "why"]);
    for (index, (task, status)) in plan.tasks.iter().zip(statuses).enumerate() {
        let key = status.resolution.as_ref().map(|resolution| resolution.key.to_string()[..12].to_owned());
        let state = if status.state() == State::Unknown { "upstream" } else { status.state().name() };
        table.add_row([
            task.name.clone(),
            plan.values_of(TaskId(index)),
            task.spec.kind().to_string(),
            state.to_owned(),
            task.variants.len().to_string(),
            key.unwrap_or_default(),
            forecast::task_text(&forecast.tasks[index]),
            status.reason.to_string(),
        ]);
    }
    let totals = totals(statuses);
    format!(
        "{table}\n{} variants, {} distinct tasks ({} without sharing): {} cached,{} {} to run, {} depend on \
         their outputs, {} in another process\n{}",
        plan.variants.len(),
        plan.tasks.len(),
        plan.unshared,
        totals["hit"],
        match totals["remote_hit"] {
            0 => String::new(),
            count => format!(" {count} in the remote,"),
        },
        totals["miss"],
        totals["unknown"],
        totals["in_flight"],
        forecast.to_text(),
    )
}
