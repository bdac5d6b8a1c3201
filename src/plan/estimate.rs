//! Estimates of seconds, memory and bytes, from the records of earlier tasks of the same kind.
//!
//! The nearest record of the kind (fewest differing fields, then the newest) is scaled linearly with the bytes of the
//! inputs. If the inputs do not exist yet, the factor of the tasks that make them is used. Both are guesses, and
//! [`Basis`] distinguishes them; a kind without a record has no estimate. Estimates cannot change a result.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::graph::{Plan, Task, TaskId};
use super::history::{History, field_distance};
use super::queue::Queue;
use super::resolve::Resolution;
use super::survey::{State, Status};
use super::{Provenance, Record};
use crate::cache::{Cache, Change, difference};
use crate::stages::{Estimates, Spec};

/// Least share of new items at which a record predicts a whole run: below it, the fixed cost dominates.
const MOSTLY_FRESH: f64 = 0.5;

/// The estimated time, memory and output size of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Wall-clock seconds of the task.
    pub seconds: f64,
    /// Peak memory of the whole process in bytes; `None` if the record does not have it.
    pub peak_bytes: Option<u64>,
    /// Bytes of the outputs.
    pub output_bytes: u64,
    /// The record that it was computed from.
    pub basis: Basis,
}

/// The record that an estimate was computed from.
#[derive(Clone, Debug, PartialEq)]
pub enum Basis {
    /// The same task: it ran before, and its objects are gone.
    Itself,
    /// Another task of the kind; the size of the inputs is known.
    Scaled {
        /// Stage of that other task.
        stage: String,
        /// Bytes of the inputs divided by those of that task.
        factor: f64,
    },
    /// Another task of the kind; the inputs do not exist yet, so the factor is that of the tasks that make them.
    Guess {
        /// Stage of that other task.
        stage: String,
        /// The factor by which the seconds and bytes of its record are multiplied.
        factor: f64,
    },
}

impl Basis {
    /// Returns the name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::Scaled { .. } => "scaled",
            Self::Guess { .. } => "guess",
        }
    }
}

/// Returns the bytes of all inputs; an artifact under two roles counts twice, as it is read twice.
pub fn input_bytes(resolution: &Resolution) -> u64 {
    resolution.inputs.iter().map(|input| input.tree.total_size()).sum()
}

/// Estimates every task that would run, in the plan's order; `None` for hits and for tasks without a usable record.
///
/// An item-wise stage makes only the new items: its seconds are scaled by the share of input files that differ from
/// those of the nearest record, if the tree of that record's input is in the cache.
pub fn estimate(
    plan: &Plan,
    statuses: &[Status],
    models: &mut Models,
    cache: &Cache,
) -> Vec<Option<Estimate>> {
    let mut factors = vec![1.0_f64; plan.tasks.len()];
    let mut shares = vec![1.0_f64; plan.tasks.len()];
    let mut estimates = Vec::with_capacity(plan.tasks.len());
    for (index, (task, status)) in plan.tasks.iter().zip(statuses).enumerate() {
        estimates.push(match (status.state(), &status.record) {
            (State::Hit | State::RemoteHit, _) => None,
            (_, Some(record)) => Some(scaled(record, 1.0, Basis::Itself)),
            (_, None) => {
                let upstream = plan.upstream(TaskId(index));
                let most = |of: &[f64]| {
                    let most = upstream.iter().map(|id| of[id.0]).fold(f64::NAN, f64::max);
                    if most.is_nan() { 1.0 } else { most }
                };
                let (inherited, inherited_share) = (most(&factors), most(&shares));
                factors[index] = inherited;
                models.nearest(task).map(|record| {
                    let inputs = status.resolution.as_ref().map(input_bytes);
                    let (mut estimate, factor) = of_record(record, inputs, inherited);
                    factors[index] = factor;
                    if task.spec.about().is_item_wise {
                        let known =
                            status.resolution.as_ref().map(|now| fresh_share(record, now, &task.spec, cache));
                        shares[index] = known.unwrap_or(inherited_share);
                        estimate.seconds *= shares[index];
                    }
                    estimate
                })
            }
        });
    }
    estimates
}

/// Returns the share of input files that the record's task had not seen; 1 if its fields or roles differ.
fn fresh_share(record: &Record, now: &Resolution, spec: &Spec, cache: &Cache) -> f64 {
    if record.preimage.spec != *spec.key_fields() {
        return 1.0;
    }
    let share = now.inputs.iter().map(|input| {
        let then = record.preimage.inputs.iter().find(|then| then.role == input.role.to_string())?;
        let then = cache.tree(&then.digest).ok()??;
        let is_new = |change: &Change| !matches!(change, Change::Removed { .. });
        let new = difference(&then, &input.tree).iter().filter(|change| is_new(change)).count();
        Some(new as f64 / input.tree.len().max(1) as f64)
    });
    share.map(|share| share.unwrap_or(1.0)).fold(0.0, f64::max)
}

/// Estimates the seconds of every task before its inputs are known, to order a run: 1 s without a record, so that
/// the length of a chain decides.
pub fn typical_seconds(plan: &Plan, models: &mut Models) -> Vec<f64> {
    let seconds = |record: &Record| scaled(record, 1.0, Basis::Itself).seconds;
    plan.tasks.iter().map(|task| models.nearest(task).map_or(1.0, seconds)).collect()
}

/// Scales a record to `inputs` bytes or, if these are unknown, by the factor `inherited` from upstream tasks. Returns
/// the estimate and the factor.
fn of_record(record: &Record, inputs: Option<u64>, inherited: f64) -> (Estimate, f64) {
    let stage = record.provenance.stage.clone();
    let (factor, basis) = match (inputs, record.provenance.input_bytes) {
        (None, _) => (inherited, Basis::Guess { stage, factor: inherited }),
        (Some(_), 0) => (1.0, Basis::Scaled { stage, factor: 1.0 }),
        (Some(now), then) => {
            let factor = now as f64 / then as f64;
            (factor, Basis::Scaled { stage, factor })
        }
    };
    (scaled(record, factor, basis), factor)
}

/// The records that estimates are computed from, looked up once for equal fields.
#[derive(Debug, Default)]
pub struct Models {
    history: History,
    /// Index of the record among those of its kind, by the fields and name of a stage; `None` if no record fits.
    found: HashMap<(Spec, String), Option<usize>>,
}

impl Models {
    /// Creates estimates from the records of `history`.
    pub fn new(history: History) -> Self {
        Self { history, found: HashMap::new() }
    }

    /// Returns the peak memory of a task with inputs of `input_bytes`, or `None` without a record.
    pub fn peak_bytes(&mut self, task: &Task, input_bytes: u64) -> Option<u64> {
        let (estimate, _) = of_record(self.nearest(task)?, Some(input_bytes), 1.0);
        estimate.peak_bytes
    }

    /// Returns the nearest record of the task's kind whose seconds cover all of its work.
    fn nearest(&mut self, task: &Task) -> Option<&Record> {
        let (kind, fields) = (task.spec.kind().name(), task.spec.key_fields());
        let name = (task.spec.clone(), task.stage.clone());
        let earlier = self.history.of_kind(kind);
        let index = *self.found.entry(name).or_insert_with(|| {
            let made = |index: usize| &earlier[index].record.provenance;
            let far = |index: usize| field_distance(&earlier[index].record.preimage.spec, fields);
            let is_alike = |index: usize| {
                task.spec.about().estimates == Estimates::OfKind
                    || made(index).stage == task.stage
                    || far(index) == 0
            };
            let usable = (0..earlier.len()).filter(|&index| made(index).fresh_share > 0.0 && is_alike(index));
            let rank = |index: usize| {
                let Provenance { stage, fresh_share, finished, .. } = made(index);
                (Reverse(far(index)), *fresh_share >= MOSTLY_FRESH, *stage == task.stage, finished)
            };
            usable.max_by(|&a, &b| rank(a).cmp(&rank(b)))
        });
        index.map(|index| &earlier[index].record)
    }
}

fn scaled(record: &Record, factor: f64, basis: Basis) -> Estimate {
    let made = &record.provenance;
    Estimate {
        seconds: made.seconds / made.fresh_share.max(f64::MIN_POSITIVE) * factor,
        // Memory is bounded by the batch or grows with the input: take the larger.
        peak_bytes: made.peak_bytes.map(|bytes| (bytes as f64 * factor.max(1.0)) as u64),
        output_bytes: (made.output_bytes as f64 * factor) as u64,
        basis,
    }
}

/// Returns for each task the seconds from its start to the end of the longest chain of tasks that wait for it.
///
/// The task with the longest chain should start first (critical path, Kelley and Walker 1959).
fn chains(plan: &Plan, seconds: &[f64]) -> Vec<f64> {
    let mut longest = seconds.to_vec();
    for index in (0..plan.tasks.len()).rev() {
        for upstream in plan.upstream(TaskId(index)) {
            longest[upstream.0] = longest[upstream.0].max(seconds[upstream.0] + longest[index]);
        }
    }
    longest
}

/// Returns the seconds until the last task ends if `jobs` run at once, the longest chain first (list scheduling,
/// Graham 1969: at most twice the optimum).
pub fn makespan(plan: &Plan, seconds: &[f64], jobs: usize) -> f64 {
    let mut queue = Queue::ordered(plan, &by_chain(plan, seconds));
    let (mut running, mut clock): (Vec<(f64, TaskId)>, f64) = (Vec::new(), 0.0);
    loop {
        while running.len() < jobs.max(1)
            && let Some(task) = queue.pop()
        {
            running.push((clock + seconds[task.0], task));
        }
        let next = (0..running.len()).min_by(|&a, &b| running[a].0.total_cmp(&running[b].0));
        let Some(next) = next else { return clock };
        let (end, finished) = running.swap_remove(next);
        clock = end;
        queue.finish(finished);
    }
}

/// Returns all tasks by the length of the chain that waits for them, longest first; ties in the plan's order.
pub fn by_chain(plan: &Plan, seconds: &[f64]) -> Vec<TaskId> {
    let chains = chains(plan, seconds);
    let mut order: Vec<TaskId> = (0..plan.tasks.len()).map(TaskId).collect();
    order.sort_by(|a, b| chains[b.0].total_cmp(&chains[a.0]).then(a.cmp(b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::plan;

    #[test]
    fn the_longest_chain_starts_first() {
        // 0 -> 2 -> 3 takes 1 + 1 + 5, 1 takes 4, 4 takes 1.
        let plan = plan(&[&[], &[], &[0], &[2], &[]]);
        let seconds = [1.0, 4.0, 1.0, 5.0, 1.0];
        assert_eq!(chains(&plan, &seconds), [7.0, 4.0, 6.0, 5.0, 1.0]);
        assert_eq!(by_chain(&plan, &seconds), [0, 2, 3, 1, 4].map(TaskId));
    }

    #[test]
    fn a_makespan_lies_between_the_longest_chain_and_the_sum() {
        let plan = plan(&[&[], &[], &[0], &[2], &[]]);
        let seconds = [1.0, 4.0, 1.0, 5.0, 1.0];
        let of_jobs = [1, 2, 8].map(|jobs| makespan(&plan, &seconds, jobs));
        assert!(
            of_jobs.iter().zip([12.0, 7.0, 7.0]).all(|(found, expected)| (found - expected).abs() < 1e-12),
            "{of_jobs:?}"
        );
        assert!(makespan(&self::plan(&[]), &[], 2).abs() < 1e-12);
    }
}
