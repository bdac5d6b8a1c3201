//! The ready queue: which tasks can start, as pure data. No clock, no I/O, no thread.
//!
//! The scheduler takes ready tasks in the plan's order; the estimate of a run takes them by the length of the chains
//! behind them.

use std::collections::BTreeSet;

use super::graph::{Plan, TaskId};

/// Tasks that wait for upstream tasks, and those that are ready.
#[derive(Debug)]
pub struct Queue {
    /// For each task, its direct readers.
    readers: Vec<Vec<TaskId>>,
    /// For each task, the number of upstream tasks that are not finished.
    missing: Vec<usize>,
    /// For each task, its rank among ready tasks; the lowest is taken first.
    ranks: Vec<usize>,
    ready: BTreeSet<(usize, TaskId)>,
}

impl Queue {
    /// Creates the queue of a plan's tasks; ready tasks are taken in the plan's order.
    pub fn of(plan: &Plan) -> Self {
        let order: Vec<TaskId> = (0..plan.tasks.len()).map(TaskId).collect();
        Self::ordered(plan, &order)
    }

    /// Creates the queue of a plan's tasks; ready tasks are taken in the given order, which holds all tasks.
    pub fn ordered(plan: &Plan, order: &[TaskId]) -> Self {
        let upstream: Vec<Vec<TaskId>> = (0..order.len()).map(|index| plan.upstream(TaskId(index))).collect();
        Self::new(&upstream, ranks(order))
    }

    fn new(upstream: &[Vec<TaskId>], ranks: Vec<usize>) -> Self {
        let mut readers = vec![Vec::new(); upstream.len()];
        let mut ready = BTreeSet::new();
        for (index, of_task) in upstream.iter().enumerate() {
            for other in of_task {
                readers[other.0].push(TaskId(index));
            }
            if of_task.is_empty() {
                ready.insert((ranks[index], TaskId(index)));
            }
        }
        Self { readers, missing: upstream.iter().map(Vec::len).collect(), ranks, ready }
    }

    /// Takes the ready task of the lowest rank.
    pub fn pop(&mut self) -> Option<TaskId> {
        self.ready.pop_first().map(|(_, task)| task)
    }

    /// Returns the ready tasks, by rank.
    pub fn ready(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.ready.iter().map(|&(_, task)| task)
    }

    /// Marks a task as finished: readers that waited for it alone become ready.
    pub fn finish(&mut self, task: TaskId) {
        for &reader in &self.readers[task.0] {
            self.missing[reader.0] -= 1;
            if self.missing[reader.0] == 0 {
                self.ready.insert((self.ranks[reader.0], reader));
            }
        }
    }

    /// Returns all direct and indirect readers of a task.
    pub fn downstream(&self, task: TaskId) -> BTreeSet<TaskId> {
        let mut found = BTreeSet::new();
        let mut left = vec![task];
        while let Some(next) = left.pop() {
            for &reader in &self.readers[next.0] {
                if found.insert(reader) {
                    left.push(reader);
                }
            }
        }
        found
    }
}

/// Returns the rank of each task in an order of all tasks.
pub fn ranks(order: &[TaskId]) -> Vec<usize> {
    let mut ranks = vec![0; order.len()];
    order.iter().enumerate().for_each(|(rank, task)| ranks[task.0] = rank);
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A diamond: 1 and 2 read 0, 3 reads both.
    fn diamond(ranks: Vec<usize>) -> Queue {
        let upstream = [vec![], vec![TaskId(0)], vec![TaskId(0)], vec![TaskId(1), TaskId(2)]];
        Queue::new(&upstream, ranks)
    }

    #[test]
    fn a_task_is_ready_when_all_its_upstream_tasks_are_finished() {
        let mut queue = diamond(vec![0, 1, 2, 3]);
        assert_eq!((queue.pop(), queue.pop()), (Some(TaskId(0)), None));
        queue.finish(TaskId(0));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(TaskId(1)), Some(TaskId(2)), None));
        queue.finish(TaskId(2));
        assert_eq!(queue.pop(), None);
        queue.finish(TaskId(1));
        assert_eq!(queue.pop(), Some(TaskId(3)));
        assert_eq!(queue.downstream(TaskId(0)), BTreeSet::from([1, 2, 3].map(TaskId)));
    }

    #[test]
    fn ready_tasks_are_taken_by_rank() {
        let mut queue = diamond(ranks(&[3, 2, 1, 0].map(TaskId)));
        assert_eq!(queue.pop(), Some(TaskId(0)));
        queue.finish(TaskId(0));
        assert_eq!(queue.ready().collect::<Vec<_>>(), [2, 1].map(TaskId));
        assert_eq!((queue.pop(), queue.pop()), (Some(TaskId(2)), Some(TaskId(1))));
    }
}
