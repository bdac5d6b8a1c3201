//! The ready queue: which tasks can start, as pure data. No clock, no I/O, no thread.

use std::collections::BTreeSet;

/// Tasks that wait for others; see the module.
pub(super) struct Queue {
    /// For each task, those that wait for it.
    readers: Vec<Vec<usize>>,
    /// For each task, how many it still waits for.
    missing: Vec<usize>,
    ready: BTreeSet<usize>,
}

impl Queue {
    /// A queue of tasks, each with those that it waits for.
    pub(super) fn new(upstream: &[Vec<usize>]) -> Self {
        let mut readers = vec![Vec::new(); upstream.len()];
        let mut ready = BTreeSet::new();
        for (task, of_task) in upstream.iter().enumerate() {
            for &other in of_task {
                readers[other].push(task);
            }
            if of_task.is_empty() {
                ready.insert(task);
            }
        }
        Self { readers, missing: upstream.iter().map(Vec::len).collect(), ready }
    }

    /// Takes the ready task of the lowest number.
    pub(super) fn pop(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    /// The tasks that can start, in order.
    pub(super) fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        self.ready.iter().copied()
    }

    /// Whether any task can start.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Says that a task is done: those that waited for it alone become ready.
    pub(super) fn finish(&mut self, task: usize) {
        for &reader in &self.readers[task] {
            self.missing[reader] -= 1;
            if self.missing[reader] == 0 {
                self.ready.insert(reader);
            }
        }
    }

    /// Everything that waits for a task, at any distance.
    pub(super) fn downstream(&self, task: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut left = vec![task];
        while let Some(next) = left.pop() {
            for &reader in &self.readers[next] {
                if found.insert(reader) {
                    left.push(reader);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_ready_when_all_that_it_reads_is_done() {
        let mut queue = Queue::new(&[vec![], vec![0], vec![0], vec![1, 2]]);
        assert_eq!((queue.pop(), queue.pop()), (Some(0), None));
        queue.finish(0);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(1), Some(2), None));
        queue.finish(2);
        assert_eq!(queue.pop(), None);
        queue.finish(1);
        assert_eq!(queue.pop(), Some(3));
        assert_eq!(queue.downstream(0), BTreeSet::from([1, 2, 3]));
    }
}
