//! What the stages of a plan have warned of, or will warn of by the sizes of their inputs.

use super::Notice;
use super::graph::{Plan, TaskId};
use super::sizes::Sizes;
use super::survey::Status;

/// Returns the warnings of each task, in the plan's order: those of its record, or those that its stage expects.
pub fn warnings(plan: &Plan, statuses: &[Status], sizes: &mut Sizes<'_>) -> Vec<Vec<String>> {
    let of_task = |(index, status): (usize, &Status)| match &status.record {
        Some(record) => texts(&record.provenance.notices),
        None if status.outputs.is_some() || !plan.tasks[index].spec.about().foresees => Vec::new(),
        None => sizes.workload(TaskId(index), &|id| statuses[id.0].outputs.as_ref()).warnings,
    };
    statuses.iter().enumerate().map(of_task).collect()
}

fn texts(notices: &[Notice]) -> Vec<String> {
    let warnings = notices.iter().filter(|notice| notice.is_warning);
    warnings.map(|notice| notice.text.clone()).collect()
}
