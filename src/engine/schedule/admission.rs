//! Which wanted task starts next, and whether it fits beside those that run.
//!
//! Tasks start in the order of the chains that wait for them, the longest first, so that a run ends early and no
//! core idles at its end. A task starts beside others only while the memory and threads of all fit the limits: the
//! first that does not fit waits, and none passes it, so that a large task is not put off for ever. A task
//! alone always starts. None of this can change a result.

use std::collections::BTreeMap;

use crate::plan::{Models, Plan, Resolution, Task, by_chain, input_bytes, typical_seconds};

/// What may be used at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Tasks.
    pub(super) jobs: usize,
    /// Threads that tasks declare.
    pub(super) threads: usize,
    /// Bytes of memory; none where nobody knows.
    pub(super) memory: Option<u64>,
}

/// What a task uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    threads: usize,
    memory: u64,
}

/// Tasks that want to start, in the order of the chains that wait for them.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    by_place: BTreeMap<usize, (usize, Demand)>,
    /// The place of each task in that order, once a task wanted to start.
    places: Vec<usize>,
}

impl Wanted {
    /// Adds a task.
    pub(super) fn insert(&mut self, task: usize, demand: Demand, plan: &Plan, models: &mut Models) {
        if self.places.is_empty() {
            let order = by_chain(plan, &typical_seconds(plan, models));
            self.places = vec![0; order.len()];
            order.iter().enumerate().for_each(|(place, &task)| self.places[task] = place);
        }
        self.by_place.insert(self.places[task], (task, demand));
    }

    /// The first task after that place, or the first of all: its place, its number, what it will use.
    pub(super) fn next(&self, after: Option<usize>) -> Option<(usize, usize, Demand)> {
        let from = after.map_or(0, |place| place + 1);
        self.by_place.range(from..).next().map(|(&place, &(task, demand))| (place, task, demand))
    }

    /// Takes the task of a place out.
    pub(super) fn remove(&mut self, place: usize) {
        self.by_place.remove(&place);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }
}

/// The running tasks.
pub(super) struct Admission {
    limits: Limits,
    running: BTreeMap<usize, Demand>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, running: BTreeMap::new() }
    }

    /// Whether any task may start at all.
    pub(super) fn has_room(&self) -> bool {
        self.running.len() < self.limits.jobs
    }

    /// Whether a task fits beside those that run.
    pub(super) fn admits(&self, demand: Demand) -> bool {
        let sum = |of: fn(&Demand) -> u64| self.running.values().map(of).sum::<u64>();
        let threads = sum(|demand| demand.threads as u64) + demand.threads as u64;
        let memory = sum(|demand| demand.memory).saturating_add(demand.memory);
        self.running.is_empty()
            || self.has_room()
                && threads <= self.limits.threads.max(self.limits.jobs) as u64
                && self.limits.memory.is_none_or(|limit| memory <= limit)
    }

    pub(super) fn start(&mut self, task: usize, demand: Demand) {
        self.running.insert(task, demand);
    }

    pub(super) fn end(&mut self, task: usize) {
        self.running.remove(&task);
    }

    /// How many run.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }
}

/// What a task will use: as a record of its kind says, else as the kind declares.
pub(super) fn demand(task: &Task, resolution: &Resolution, models: &mut Models) -> Demand {
    let input = input_bytes(resolution);
    let about = task.spec.about();
    let memory = match models.peak_bytes(task, input) {
        // A record cannot lower what the manifest declares.
        Some(peak) => peak.max(about.memory_bytes),
        None => task.spec.estimated_memory(input),
    };
    Demand { threads: about.threads, memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(jobs: usize, memory: Option<u64>) -> Admission {
        Admission::new(Limits { jobs, threads: 4, memory })
    }

    #[test]
    fn a_task_alone_always_starts_and_others_only_where_they_fit() {
        let demand = |threads, memory| Demand { threads, memory };
        let mut admission = admission(3, Some(100));
        assert!(admission.admits(demand(8, 1000)));
        admission.start(0, demand(1, 60));
        assert!(admission.admits(demand(3, 40)) && !admission.admits(demand(3, 41)));
        assert!(!admission.admits(demand(4, 0)));
        admission.start(1, demand(1, 10));
        admission.start(2, demand(1, 10));
        assert!(!admission.has_room() && !admission.admits(demand(1, 1)));
        admission.end(0);
        assert!(admission.admits(demand(1, 1)));
    }

    #[test]
    fn wanted_tasks_come_in_the_order_of_their_places() {
        let demand = Demand { threads: 1, memory: 0 };
        let mut wanted = Wanted { places: vec![2, 0, 1], ..Wanted::default() };
        for task in [0, 1, 2] {
            wanted.by_place.insert(wanted.places[task], (task, demand));
        }
        let (mut after, mut order) = (None, Vec::new());
        while let Some((place, task, _)) = wanted.next(after) {
            order.push(task);
            after = Some(place);
        }
        assert_eq!(order, [1, 2, 0]);
        wanted.remove(0);
        assert_eq!(wanted.next(None), Some((1, 2, demand)));
    }

    #[test]
    fn without_a_limit_memory_does_not_count() {
        let mut admission = admission(2, None);
        admission.start(0, Demand { threads: 1, memory: u64::MAX });
        assert!(admission.admits(Demand { threads: 1, memory: u64::MAX }));
    }
}
