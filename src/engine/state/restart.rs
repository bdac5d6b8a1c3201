//! Starting over: a task that ran again to restore lost objects gave other bytes than its record names.
//!
//! The recorded bytes are gone for good, as when the remote's life cycle took them, and this machine makes others (a
//! stage that is not deterministic, or another processor). Its record names the new bytes from now on. Tasks that read
//! the old ones may have ended, run or wait, so that the run lets the running ones end and then looks at every task
//! again: what does not depend on the new bytes is a hit, and the table is made of one result of each task.

use std::collections::HashMap;

use super::admission::{Admission, StartQueue};
use super::{RunState, TaskEnd, TaskState, limits};
use crate::cache::Digest;
use crate::engine::Outcome;
use crate::plan::{Outputs, Queue, TaskId};

/// How a task ended before the run started over.
#[derive(Debug, Clone)]
pub(super) struct EarlierEnd {
    key: Option<Digest>,
    outcome: Outcome,
    seconds: f64,
}

impl RunState<'_> {
    /// Takes other bytes than the recorded ones as the outputs of a task. It is called once for each task, as starting
    /// over could otherwise go on for ever.
    pub(super) fn take_other_outputs(&mut self, task: TaskId, end: TaskEnd, outputs: &Outputs) {
        let is_reported = end.outcome == Outcome::Executed;
        let end = TaskEnd { outcome: Outcome::Executed, outputs: Some(outputs.clone()), ..end };
        if !is_reported {
            self.emit_end(task, &end);
        }
        self.tasks[task.0] = TaskState::Done(end);
        self.is_starting_over = true;
    }

    /// Starts over, if that is wanted and nothing runs any more.
    pub(in crate::engine) fn start_over(&mut self) -> bool {
        if !self.is_starting_over || self.is_stopping {
            return false;
        }
        self.is_starting_over = false;
        for (task, earlier) in self.tasks.iter_mut().zip(&mut self.earlier) {
            // A task that was to restore its objects has ended before; one that has not ended since the run last started
            // over keeps its end of that time.
            let end = match std::mem::replace(task, TaskState::Waiting) {
                TaskState::Done(end) => Some(end),
                state => state.into_earlier(),
            };
            if let Some(TaskEnd { outcome, outputs, key, seconds, .. }) = end {
                *earlier = outputs.map(|_| EarlierEnd { key, outcome, seconds });
            }
        }
        self.queue = Queue::of(self.plan);
        self.equals = HashMap::new();
        self.starts = StartQueue::default();
        self.admission = Admission::new(limits(self.options));
        true
    }

    /// A task's end, as the run before it started over would have it: a task that ran before, and whose record answers
    /// it now, was executed by this run. Says whether the end was reported already.
    pub(super) fn with_earlier(&self, task: TaskId, end: TaskEnd) -> (TaskEnd, bool) {
        let Some(earlier) = self.earlier[task.0].as_ref().filter(|earlier| earlier.key == end.key) else {
            return (end, false);
        };
        let (outcome, seconds) = (earlier.outcome, earlier.seconds);
        let end = if end.outcome.is_hit() { TaskEnd { outcome, seconds, ..end } } else { end };
        let is_reported = outcome == end.outcome;
        (end, is_reported)
    }

    /// Whether this run has executed a task before it started over.
    pub(super) fn was_executed(&self, task: TaskId) -> bool {
        self.earlier[task.0].as_ref().is_some_and(|earlier| earlier.outcome == Outcome::Executed)
    }
}
