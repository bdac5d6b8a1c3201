//! `patchflow graph`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use petgraph::dot::{Config, Dot};

use super::error::CliError;
use super::session;
use super::{Environment, Exit, ManifestArguments, terminal};
use crate::plan::{Plan, TaskId};

/// The language of a drawn graph.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Graphviz.
    Dot,
    /// Mermaid, which GitHub and many editors show.
    Mermaid,
}

/// Arguments of `graph`.
#[derive(Args)]
pub(super) struct GraphArguments {
    #[command(flatten)]
    manifest: ManifestArguments,
    /// The language.
    #[arg(long, value_enum, default_value = "dot")]
    format: Format,
}

/// Prints the graph of tasks.
pub(super) fn run(arguments: &GraphArguments, environment: &Environment) -> Result<Exit, CliError> {
    let project = session::open_project(environment)?;
    let (_, plan) = session::load(&arguments.manifest, &project.root, environment)?;
    terminal::print(&match arguments.format {
        Format::Dot => dot(&plan),
        Format::Mermaid => mermaid(&plan),
    });
    Ok(Exit::Done)
}

fn label(plan: &Plan, id: TaskId) -> String {
    let values = plan.values_of(id);
    if values.is_empty() {
        plan.tasks[id.0].name.clone()
    } else {
        format!("{}\\n{values}", plan.tasks[id.0].name)
    }
}

fn dot(plan: &Plan) -> String {
    let graph = plan.graph();
    let node =
        |_, (_, id): (_, &TaskId)| format!("label=\"{}\" shape=box", label(plan, *id).replace('"', "'"));
    let edge = |_, _| String::new();
    let drawn = Dot::with_attr_getters(&graph, &[Config::EdgeNoLabel, Config::NodeNoLabel], &edge, &node);
    format!("{drawn:?}")
}

fn mermaid(plan: &Plan) -> String {
    let mut text = String::from("flowchart LR\n");
    for index in 0..plan.tasks.len() {
        let label = label(plan, TaskId(index)).replace("\\n", "<br>").replace('"', "'");
        let _ = writeln!(text, "  t{index}[\"{label}\"]");
    }
    for index in 0..plan.tasks.len() {
        for upstream in plan.upstream(TaskId(index)) {
            let _ = writeln!(text, "  t{} --> t{index}", upstream.0);
        }
    }
    text
}
