//! `patchflow plan`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::error::CliError;
use super::forecast::{self, BudgetArguments, Forecast};
use super::session;
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::cache::Cache;
use crate::plan::{Cost, EqualValues, Plan, Sizes, State, Status, TaskId, equal_values, warnings};
use crate::report::{Column, TextTable};
use crate::text::counted;

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
        let table = to_table(&plan, &statuses, &forecast).draw(terminal::width(environment));
        let totals = terminal::prose(&totals(&plan, &statuses, &forecast), 2, environment);
        terminal::print(&format!("{table}\n{totals}"));
    }
    session::show_remote_warnings(&project.cache);
    forecast.check(&arguments.budget)?;
    Ok(Exit::Done)
}

/// The most warnings of tasks that are shown without `--json` (chosen).
const MOST_WARNINGS: usize = 12;

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

    /// The lines with the warnings of tasks.
    fn lines(&self, plan: &Plan) -> Vec<String> {
        let all = self.warnings.iter().enumerate();
        let all = all.flat_map(|(index, of_task)| of_task.iter().map(move |warning| (index, warning)));
        let line = |(index, warning): (usize, &String)| {
            let of = session::of_values(&plan.values_of(TaskId(index)));
            format!("warning: `{}`{of}: {warning}", plan.tasks[index].name)
        };
        let mut lines: Vec<String> = all.clone().take(MOST_WARNINGS).map(line).collect();
        let more = all.count() - lines.len();
        if more > 0 {
            lines.push(format!("{}: `--json` has all", counted(more, "more warning")));
        }
        lines
    }

    fn show(&self, plan: &Plan) {
        self.lines(plan).iter().for_each(|line| terminal::message(line));
        session::warn_of_equal_values(&self.equal_values);
    }
}

fn states(statuses: &[Status]) -> BTreeMap<&'static str, usize> {
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
            "states": states(statuses),
            "estimate": forecast.to_json(),
        },
    })
}

fn to_table(plan: &Plan, statuses: &[Status], forecast: &Forecast) -> TextTable {
    let mut table = TextTable::new([
        ("task", Column::Text),
        ("axis values", Column::Text),
        ("kind", Column::Spare),
        ("state", Column::Word),
        ("variants", Column::Number),
        ("key", Column::Spare),
        ("takes", Column::Number),
        ("why", Column::Text),
    ]);
    for (index, (task, status)) in plan.tasks.iter().zip(statuses).enumerate() {
        let key = status.resolution.as_ref().map(|resolution| resolution.key.to_string()[..12].to_owned());
        let state = if status.state() == State::Unknown { "upstream" } else { status.state().name() };
        table.add([
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
    table
}

/// The sentences under the table.
fn totals(plan: &Plan, statuses: &[Status], forecast: &Forecast) -> String {
    format!(
        "{}, {} ({} without sharing): {}\n{}",
        counted(plan.variants.len(), "variant"),
        counted(plan.tasks.len(), "distinct task"),
        plan.unshared,
        totals_text(&states(statuses)),
        forecast.to_text(),
    )
}

/// `14 cached, 2 to run`: the states that some task has.
fn totals_text(totals: &BTreeMap<&str, usize>) -> String {
    let words = [
        ("hit", "cached"),
        ("remote_hit", "in the remote"),
        ("miss", "to run"),
        ("unknown", "waiting for outputs"),
        ("in_flight", "in another process"),
    ];
    let counts = words.iter().map(|(state, word)| (totals[state], word)).filter(|(count, _)| *count > 0);
    counts.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing;

    #[test]
    fn a_plan_of_many_tasks_shows_some_warnings_and_counts_the_others() {
        let plan = testing::plan(&[&[] as &[usize]; 20]);
        let foreseen = |count: usize| Foreseen {
            warnings: vec![vec!["few".to_owned()]; count],
            equal_values: Vec::new(),
        };
        assert_eq!(foreseen(12).lines(&plan).len(), 12);
        let lines = foreseen(20).lines(&plan);
        assert_eq!((lines.len(), lines[11].as_str()), (13, "warning: `11`: few"));
        assert_eq!(lines[12], "8 more warnings: `--json` has all");
    }
}
