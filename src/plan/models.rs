//! The record that predicts a task: the nearest of its kind.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::Provenance;
use super::estimate::Unknown;
use super::graph::Task;
use super::history::{Earlier, History, field_distance};
use super::record::Record;
use crate::stages::{Estimates, Spec, Work};

/// Least share of new items at which a record predicts a whole run: below it, the fixed cost dominates.
const MOSTLY_FRESH: f64 = 0.5;

/// The ratio of two works beyond which one task does not predict the other (chosen: costs that the formulas do not
/// know, such as caches of the processor, change within it by less than the bound of an estimate).
const FARTHEST_RATIO: f64 = 10.0;

/// The name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The records that estimates are computed from, looked up once for equal fields and works.
#[derive(Debug, Default)]
pub struct Models {
    history: History,
    /// The record for the fields, the stage and the bits of the work: its index among those of the kind.
    found: HashMap<(Spec, String, Option<u64>), Result<usize, Unknown>>,
}

impl Models {
    /// Estimates from the records of `history`.
    pub fn new(history: History) -> Self {
        Self { history, found: HashMap::new() }
    }

    /// Returns the peak memory of a task with inputs of `input_bytes`, or `None` without a record.
    pub fn peak_bytes(&mut self, task: &Task, input_bytes: u64) -> Option<u64> {
        let made = &self.nearest(task, None).ok()?.provenance;
        let factor = if made.input_bytes == 0 { 1.0 } else { input_bytes as f64 / made.input_bytes as f64 };
        made.peak_bytes.map(|bytes| (bytes as f64 * factor.max(1.0)) as u64)
    }

    /// Returns the nearest record of the task's kind whose seconds cover all of its work; with a work, only of those that
    /// predict it.
    pub(super) fn nearest(&mut self, task: &Task, work: Option<Work>) -> Result<&Record, Unknown> {
        let name = (task.spec.clone(), task.stage.clone(), work.map(|work| work.seconds.to_bits()));
        let earlier = self.history.of_kind(task.spec.kind().name());
        let index = *self.found.entry(name).or_insert_with(|| nearest(earlier, task, work));
        index.map(|index| &earlier[index].record)
    }
}

/// How well a record predicts a task: better ones are greater.
struct Rank<'a> {
    is_here: bool,
    is_mostly_fresh: bool,
    /// Fields that differ, plus doublings or halvings of the work.
    distance: f64,
    is_same_stage: bool,
    finished: &'a str,
}

impl Rank<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        (self.is_here, self.is_mostly_fresh)
            .cmp(&(other.is_here, other.is_mostly_fresh))
            .then(other.distance.total_cmp(&self.distance))
            .then((self.is_same_stage, self.finished).cmp(&(other.is_same_stage, other.finished)))
    }
}

/// Finds the nearest of the records of a task's kind.
fn nearest(earlier: &[Earlier], task: &Task, work: Option<Work>) -> Result<usize, Unknown> {
    let here = host();
    let mut best: Option<(Rank<'_>, usize)> = None;
    let mut is_other_size = false;
    for (index, Earlier { record, .. }) in
        earlier.iter().enumerate().filter(|(_, earlier)| is_alike(earlier, task))
    {
        let doublings = match work.map(|work| doublings(record, work)) {
            None => 0.0,
            Some(None) => continue,
            Some(Some(doublings)) if doublings > FARTHEST_RATIO.log2() => {
                is_other_size = true;
                continue;
            }
            Some(Some(doublings)) => doublings,
        };
        let Provenance { stage, fresh_share, finished, host, .. } = &record.provenance;
        let rank = Rank {
            is_here: *host == here,
            is_mostly_fresh: *fresh_share >= MOSTLY_FRESH,
            distance: field_distance(&record.preimage.spec, task.spec.key_fields()) as f64 + doublings,
            is_same_stage: *stage == task.stage,
            finished,
        };
        if best.as_ref().is_none_or(|(best, _)| rank.compare(best).is_ge()) {
            best = Some((rank, index));
        }
    }
    let unknown = if is_other_size { Unknown::OtherSize } else { Unknown::NoRecord };
    best.map(|(_, index)| index).ok_or(unknown)
}

/// Whether a record's task does the same kind of work, and its seconds cover all of it.
fn is_alike(Earlier { record, .. }: &Earlier, task: &Task) -> bool {
    let (then, now) = (&record.preimage.spec, task.spec.key_fields());
    let compared: &[&str] = match task.spec.about().estimates {
        Estimates::OfKind => &[],
        Estimates::WithEqual(fields) => fields,
    };
    record.provenance.fresh_share > 0.0 && compared.iter().all(|&field| then.get(field) == now.get(field))
}

/// Returns how often the work of a record's task must be doubled or halved to give `work`; `None` if its work is
/// unknown, or of other formulas.
fn doublings(record: &Record, work: Work) -> Option<f64> {
    let then = record.provenance.work.filter(|then| then.formulas == work.formulas)?;
    Some((work.seconds / then.seconds).log2().abs()).filter(|doublings| doublings.is_finite())
}
