//! Which queued task starts next, and whether it fits beside the running ones.
//!
//! Tasks start by rank: those with the longest chain of readers behind them first, so that a run ends early and no
//! core idles at its end. A task starts beside others only if the memory and threads of all of them fit the limits:
//! the first that does not fit waits and none overtakes it, so that a large task does not starve. A task alone always
//! starts. None of this can change a result.

use std::collections::BTreeMap;

use crate::plan::TaskId;

/// The limits of what may run at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Limits {
    /// Number of tasks.
    pub(in crate::engine) jobs: usize,
    /// Sum of the threads that the tasks declare.
    pub(in crate::engine) threads: usize,
    /// Sum of the bytes of memory that the tasks use; `None` if the machine's memory is unknown, which means no
    /// limit.
    pub(in crate::engine) memory: Option<u64>,
}

/// What a task uses while it runs, and its rank among queued tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Demand {
    /// Rank among queued tasks; the lowest starts first. Unique per task.
    pub(in crate::engine) rank: usize,
    /// Number of threads that the task declares.
    pub(in crate::engine) threads: usize,
    /// Bytes of memory that the task is expected to use.
    pub(in crate::engine) memory: u64,
}

/// Queued tasks by rank, with a cursor for one pass over them.
#[derive(Debug, Default)]
pub(super) struct StartQueue {
    by_rank: BTreeMap<usize, (TaskId, Demand)>,
    /// The first rank that the current pass has not tried.
    cursor: usize,
}

impl StartQueue {
    /// Adds a task, and begins a new pass.
    pub(super) fn insert(&mut self, task: TaskId, demand: Demand) {
        self.by_rank.insert(demand.rank, (task, demand));
        self.rewind();
    }

    /// Removes a task.
    pub(super) fn remove(&mut self, demand: Demand) {
        self.by_rank.remove(&demand.rank);
    }

    /// Returns the next task of this pass.
    pub(super) fn candidate(&self) -> Option<(TaskId, Demand)> {
        self.by_rank.range(self.cursor..).next().map(|(_, &found)| found)
    }

    /// Skips a task for the rest of this pass.
    pub(super) fn skip(&mut self, demand: Demand) {
        self.cursor = demand.rank + 1;
    }

    /// Begins a new pass.
    pub(super) fn rewind(&mut self) {
        self.cursor = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }
}

/// The running tasks, and whether another fits.
pub(super) struct Admission {
    limits: Limits,
    running: BTreeMap<TaskId, Demand>,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, running: BTreeMap::new() }
    }

    /// Returns whether a task may start beside the running ones.
    pub(super) fn admits(&self, demand: Demand) -> bool {
        let sum = |of: fn(&Demand) -> u64| self.running.values().map(of).sum::<u64>();
        let threads = sum(|demand| demand.threads as u64) + demand.threads as u64;
        let memory = sum(|demand| demand.memory).saturating_add(demand.memory);
        self.running.is_empty()
            || self.running.len() < self.limits.jobs
                && threads <= self.limits.threads.max(self.limits.jobs) as u64
                && self.limits.memory.is_none_or(|limit| memory <= limit)
    }

    pub(super) fn start(&mut self, task: TaskId, demand: Demand) {
        self.running.insert(task, demand);
    }

    pub(super) fn end(&mut self, task: TaskId) {
        self.running.remove(&task);
    }

    /// Whether no task runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(jobs: usize, memory: Option<u64>) -> Admission {
        Admission::new(Limits { jobs, threads: 4, memory })
    }

    fn demand(threads: usize, memory: u64) -> Demand {
        Demand { rank: 0, threads, memory }
    }

    #[test]
    fn a_task_alone_always_starts_and_others_only_where_they_fit() {
        let mut admission = admission(3, Some(100));
        assert!(admission.admits(demand(8, 1000)));
        admission.start(TaskId(0), demand(1, 60));
        assert!(admission.admits(demand(3, 40)) && !admission.admits(demand(3, 41)));
        assert!(!admission.admits(demand(4, 0)));
        admission.start(TaskId(1), demand(1, 10));
        admission.start(TaskId(2), demand(1, 10));
        assert!(!admission.admits(demand(1, 1)));
        admission.end(TaskId(0));
        assert!(admission.admits(demand(1, 1)));
    }

    #[test]
    fn queued_tasks_are_tried_by_rank_once_in_each_pass() {
        let mut queue = StartQueue::default();
        let of = |rank| Demand { rank, threads: 1, memory: 0 };
        for (task, rank) in [(0, 2), (1, 0), (2, 1)] {
            queue.insert(TaskId(task), of(rank));
        }
        let mut order = Vec::new();
        while let Some((task, demand)) = queue.candidate() {
            order.push(task);
            queue.skip(demand);
        }
        assert_eq!(order, [1, 2, 0].map(TaskId));
        queue.remove(of(0));
        assert_eq!(queue.candidate(), None);
        queue.rewind();
        assert_eq!(queue.candidate(), Some((TaskId(2), of(1))));
    }

    #[test]
    fn without_a_limit_memory_does_not_count() {
        let mut admission = admission(2, None);
        admission.start(TaskId(0), demand(1, u64::MAX));
        assert!(admission.admits(demand(1, u64::MAX)));
    }
}
