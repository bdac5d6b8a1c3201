//! Estimates of seconds, memory and bytes, from the records of earlier tasks of the same kind.
//!
//! A record predicts a task by the ratio of their works ([`Workload`]), which follow from the sizes of their inputs.
//! The sizes of inputs that do not exist yet are carried through the plan's graph ([`Sizes`]). A record is used only
//! if the works differ by less than ten times ([`Models`]): beyond it, and where a size is unknown, there is no estimate, and
//! [`Unknown`] says why. [`Basis`] and [`Estimate::bound`] say how good an estimate is. Estimates cannot change a result.
//!
//! [`Workload`]: crate::stages::Workload

use super::graph::{Plan, TaskId};
use super::makespan::Load;
use super::models::host;
use super::resolve::{Outputs, Resolution};
use super::sizes::Sizes;
use super::survey::{State, Status};
use super::{Models, Reason, Record};
use crate::cache::{Cache, Change, difference};
use crate::stages::{Spec, Work};

/// Seconds that any task may take for reasons of its own, such as a busy disk (chosen): a shorter one is not scaled down
/// below itself, and the time of a short one says less about another.
const FIXED_SECONDS: f64 = 0.05;

/// The factor by which the time may differ from an estimate that is scaled from another task, on a machine that is as busy
/// as then (measured: `measured.rs`).
const BOUND: f64 = 2.0;

/// The same, from a task of another machine (chosen).
const OTHER_MACHINE_BOUND: f64 = 4.0;

/// The same, from the same task (chosen: other tasks run beside it).
const SAME_TASK_BOUND: f64 = 1.5;

/// The most by which a bound is widened for a short task (chosen).
const MOST_WIDENED: f64 = 10.0;

/// The estimated cost of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The factor by which the seconds may be higher or lower.
    pub bound: f64,
    /// The factor by which the bytes of the outputs may be higher or lower.
    pub bytes_bound: f64,
    /// Processor seconds, if they were measured.
    pub cpu_seconds: Option<f64>,
    /// Peak memory of the whole process, if it was measured.
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
    /// Another task of the kind on this machine; the inputs exist.
    Scaled {
        /// Stage of that task.
        stage: String,
        /// The work divided by that of that task.
        factor: f64,
    },
    /// Another task of the kind; the inputs do not exist yet, or it ran on another machine.
    Guess {
        /// Stage of that task.
        stage: String,
        /// The expected work divided by that of that task.
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

/// Why a task has no estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unknown {
    /// No task of the kind has run that does the same kind of work.
    NoRecord,
    /// Such tasks have run, but their work was more than ten times smaller or larger.
    OtherSize,
    /// Its inputs do not exist yet, and nothing says how large they will be.
    UnknownInputs,
    /// Its time depends on the network.
    Network,
}

impl Unknown {
    /// Returns the name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRecord => "no_record",
            Self::OtherSize => "other_size",
            Self::UnknownInputs => "unknown_inputs",
            Self::Network => "network",
        }
    }
}

/// What a run would spend on a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Cost {
    /// Nothing: it would not run.
    Nothing,
    /// About this much.
    Known(Estimate),
    /// Something unknown.
    Unknown(Unknown),
}

impl Cost {
    /// Returns the estimate; `None` if the task would not run or its cost is unknown.
    pub fn known(&self) -> Option<&Estimate> {
        match self {
            Self::Known(estimate) => Some(estimate),
            Self::Nothing | Self::Unknown(_) => None,
        }
    }
}

impl Estimate {
    /// Returns the fewest seconds within the bound.
    pub fn seconds_at_least(&self) -> f64 {
        self.seconds / self.bound
    }

    /// Returns the most seconds within the bound.
    pub fn seconds_at_most(&self) -> f64 {
        self.seconds * self.bound
    }

    /// Returns the seconds `factor` times as high, with the cores that the task uses. Without a measurement, other tasks
    /// ran at the same time, and the task had its part of the cores.
    pub fn load(&self, factor: f64, jobs: usize, cores: usize) -> Load {
        let share = cores as f64 / jobs.clamp(1, cores.max(1)) as f64;
        let used = self.cpu_seconds.map_or(share, |cpu| cpu / self.seconds.max(f64::MIN_POSITIVE));
        Load { seconds: self.seconds * factor, cores: used.min(cores as f64) }
    }
}

/// Returns the bytes of all inputs; an artifact under two roles counts twice, as it is read twice.
pub fn input_bytes(resolution: &Resolution) -> u64 {
    resolution.inputs.iter().map(|input| input.tree.total_size()).sum()
}

/// Estimates every task, in the plan's order.
///
/// An item-wise stage makes only the new items: its seconds are scaled by the share of input files that differ from
/// those of the record, if the tree of that record's input is in the cache.
pub fn estimate(plan: &Plan, statuses: &[Status], models: &mut Models, cache: &Cache) -> Vec<Cost> {
    let mut estimator = Estimator {
        plan,
        statuses,
        models,
        cache,
        sizes: Sizes::new(plan, cache),
        shares: vec![1.0; plan.tasks.len()],
    };
    (0..plan.tasks.len()).map(|index| estimator.cost(TaskId(index))).collect()
}

struct Estimator<'a> {
    plan: &'a Plan,
    statuses: &'a [Status],
    models: &'a mut Models,
    cache: &'a Cache,
    sizes: Sizes<'a>,
    /// The share of new items of each task.
    shares: Vec<f64>,
}

impl Estimator<'_> {
    fn cost(&mut self, id: TaskId) -> Cost {
        let status = &self.statuses[id.0];
        match (status.state(), &status.reason, &status.record) {
            (State::Hit | State::RemoteHit, ..) | (_, Reason::EqualTo { .. }, _) => return Cost::Nothing,
            (.., Some(record)) => {
                return Cost::Known(scaled(record, [1.0; 2], SAME_TASK_BOUND, Basis::Itself));
            }
            (.., None) => {}
        }
        match self.predict(id) {
            Ok(estimate) => {
                let statuses = self.statuses;
                self.sizes.expect_bytes(id, estimate.output_bytes, &|id| outputs(statuses, id));
                Cost::Known(estimate)
            }
            Err(unknown) => Cost::Unknown(unknown),
        }
    }

    /// Estimates a task from that of another.
    fn predict(&mut self, id: TaskId) -> Result<Estimate, Unknown> {
        let (task, statuses) = (&self.plan.tasks[id.0], self.statuses);
        let outputs = |id: TaskId| outputs(statuses, id);
        let inputs = self.sizes.inputs(id, &outputs);
        let workload = task.spec.workload(&inputs);
        let unpredicted = if task.inputs.is_empty() { Unknown::Network } else { Unknown::UnknownInputs };
        let work = workload.work().ok_or(unpredicted)?;
        let record = self.models.nearest(task, Some(work))?;
        let now = statuses[id.0].resolution.as_ref();
        let mut estimate = of_record(record, work, now.is_some());
        if task.spec.about().is_item_wise {
            let upstream = self.plan.upstream(id).into_iter().map(|id| self.shares[id.0]);
            let inherited = upstream.fold(f64::NAN, f64::max);
            let inherited = if inherited.is_nan() { 1.0 } else { inherited };
            let share = now.map_or(inherited, |now| fresh_share(record, now, &task.spec, self.cache));
            self.shares[id.0] = share;
            estimate.seconds *= share;
            estimate.cpu_seconds = estimate.cpu_seconds.map(|seconds| seconds * share);
        }
        Ok(estimate)
    }
}

fn outputs(statuses: &[Status], id: TaskId) -> Option<&Outputs> {
    statuses[id.0].outputs.as_ref()
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
    let seconds = |record: &Record| scaled(record, [1.0; 2], 1.0, Basis::Itself).seconds;
    plan.tasks.iter().map(|task| models.nearest(task, None).map_or(1.0, seconds)).collect()
}

/// Scales a record to a work.
fn of_record(record: &Record, work: Work, are_inputs_made: bool) -> Estimate {
    let made = &record.provenance;
    let (stage, then) = (made.stage.clone(), made.work.unwrap_or(work));
    let factor = work.seconds / then.seconds;
    let written = work.numbers.zip(then.numbers).map(|(now, then)| now / then);
    let is_here = made.host == host();
    let basis = if are_inputs_made && is_here {
        Basis::Scaled { stage, factor }
    } else {
        Basis::Guess { stage, factor }
    };
    let bound = if is_here { BOUND } else { OTHER_MACHINE_BOUND };
    scaled(record, [factor, written.unwrap_or(factor)], bound, basis)
}

/// Scales a record: its seconds by the first factor, its outputs by the second.
fn scaled(record: &Record, [factor, written]: [f64; 2], bound: f64, basis: Basis) -> Estimate {
    let made = &record.provenance;
    let share = made.fresh_share.max(f64::MIN_POSITIVE);
    let whole = made.seconds / share;
    let seconds = (whole * factor).max(whole.min(FIXED_SECONDS));
    let bytes_bound = if matches!(basis, Basis::Guess { .. }) { BOUND } else { 1.0 };
    Estimate {
        seconds,
        bound: bound * (1.0 + FIXED_SECONDS / whole.max(FIXED_SECONDS / MOST_WIDENED)),
        bytes_bound,
        cpu_seconds: made.cpu_seconds.map(|cpu| cpu / made.seconds.max(f64::MIN_POSITIVE) * seconds),
        // Memory is bounded by the batch or grows with the input: take the larger.
        peak_bytes: made.peak_bytes.map(|bytes| (bytes as f64 * written.max(1.0)) as u64),
        output_bytes: (made.output_bytes as f64 * written) as u64,
        basis,
    }
}

#[cfg(test)]
mod measured;
#[cfg(test)]
mod tests;
