//! What is checked before anything runs: the budget, what this machine can run, the lock.

use super::RunArguments;
use crate::cli::Environment;
use crate::cli::error::CliError;
use crate::cli::forecast::Forecast;
use crate::cli::session::{self, Project};
use crate::plan::{
    EqualValues, Lock, LockedResult, Plan, PlanExtent, Sizes, Status, TaskId, check_locked, equal_values,
    lock_path,
};

/// Surveys the tasks if a check needs their states, or if a survey prefetches many records at once, which the run then finds
/// in the cache; else returns no states.
pub(super) fn survey_if_needed(
    arguments: &RunArguments,
    environment: &Environment,
    project: &Project,
    plan: &Plan,
) -> Result<Vec<Status>, CliError> {
    let is_needed = !arguments.budget.budget.is_empty()
        || arguments.locked
        || project.cache.prefers_batches()
        || has_unavailable_task(plan, environment);
    if is_needed { session::survey(&arguments.manifest, plan, project) } else { Ok(Vec::new()) }
}

/// The values of axes that make no difference, by what is known before the run.
pub(super) fn expected_equal_values(plan: &Plan, statuses: &[Status], project: &Project) -> Vec<EqualValues> {
    let outputs = |task: TaskId| statuses.get(task.0)?.outputs.as_ref();
    equal_values(plan, &mut Sizes::new(plan, &project.cache), &outputs)
}

/// Refuses a run that exceeds a budget, or of which that cannot be said.
pub(super) fn check_budget(
    arguments: &RunArguments,
    project: &Project,
    plan: &Plan,
    statuses: &[Status],
) -> Result<(), CliError> {
    if arguments.budget.budget.is_empty() {
        return Ok(());
    }
    let forecast = Forecast::new(plan, statuses, project, session::jobs(arguments.jobs, project));
    forecast.check(&arguments.budget)
}

/// Whether this build or machine cannot run one of the tasks.
fn has_unavailable_task(plan: &Plan, environment: &Environment) -> bool {
    plan.tasks.iter().any(|task| task.spec.preflight(&environment.variables).is_err())
}

/// Refuses the whole run if one of the tasks that would run cannot run here. This includes tasks whose key is not known
/// yet: their inputs are new, so a hit is unlikely. With `--keep-going` nothing is refused.
pub(super) fn check_preflight(
    arguments: &RunArguments,
    environment: &Environment,
    plan: &Plan,
    statuses: &[Status],
) -> Result<(), CliError> {
    if arguments.keep_going {
        return Ok(());
    }
    for (task, status) in plan.tasks.iter().zip(statuses) {
        let would_run = !status.state().is_hit() || arguments.force.contains(&task.stage);
        if let Some(source) = task.spec.preflight(&environment.variables).err().filter(|_| would_run) {
            return Err(CliError::CannotRun { task: task.name.clone(), source });
        }
    }
    Ok(())
}

/// With `--locked`, reads the pins of the lock file, and refuses the run if a key or output that is already known differs.
pub(super) fn pins(
    arguments: &RunArguments,
    environment: &Environment,
    project: &Project,
    plan: &Plan,
    statuses: &[Status],
) -> Result<Option<Vec<LockedResult>>, CliError> {
    if !arguments.locked {
        return Ok(None);
    }
    let lock = Lock::read(&lock_path(&environment.folder.join(&arguments.manifest.manifest)));
    let is_part = arguments.manifest.only.is_some() || !arguments.manifest.targets.is_empty();
    let extent = if is_part { PlanExtent::Part } else { PlanExtent::Whole };
    let results = lock.and_then(|lock| lock.results(plan, extent)).map_err(CliError::Lock)?;
    check_locked(plan, statuses, &results, &project.cache).map_err(CliError::Lock)?;
    Ok(Some(results))
}
