//! How tasks end, and what their ends mean for other tasks.

use std::time::Duration;

use super::{RunState, TaskState};
use crate::cache::Digest;
use crate::engine::failure::Failure;
use crate::engine::{Event, Outcome, OutcomeCounts, log_path};
use crate::error_chain::error_chain;
use crate::plan::{Outputs, TaskId};
use crate::stages::StageError;

/// How one task of a run ended.
#[derive(Debug)]
pub struct TaskEnd {
    /// The outcome.
    pub outcome: Outcome,
    /// Its outputs, if it ended well.
    pub outputs: Option<Outputs>,
    /// Its key, if it was found.
    pub key: Option<Digest>,
    /// Seconds that it ran.
    pub seconds: f64,
    /// What went wrong.
    pub failure: Option<Failure>,
}

impl TaskEnd {
    fn done(outcome: Outcome, outputs: Outputs, key: Option<Digest>, seconds: f64) -> Self {
        Self { outcome, outputs: Some(outputs), key, seconds, failure: None }
    }

    fn failed(failure: Failure, key: Option<Digest>, seconds: f64) -> Self {
        let outcome = if failure.is_cancelled() { Outcome::Blocked } else { Outcome::Failed };
        Self { outcome, outputs: None, key, seconds, failure: Some(failure) }
    }

    fn blocked(key: Option<Digest>) -> Self {
        Self { outcome: Outcome::Blocked, outputs: None, key, seconds: 0.0, failure: None }
    }
}

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// How each task ended, in the plan's order.
    pub tasks: Vec<TaskEnd>,
    /// Finished tasks that ran again to restore lost objects.
    pub remade: usize,
    /// Whether the user stopped the run.
    pub is_interrupted: bool,
    /// Wall-clock time of the run.
    pub duration: Duration,
}

impl Run {
    /// Counts how many tasks ended in each way.
    pub fn counts(&self) -> OutcomeCounts {
        self.tasks.iter().map(|task| task.outcome).collect()
    }
}

impl RunState<'_> {
    /// Ends a task well, and the equal tasks that follow it.
    pub(super) fn succeed(&mut self, task: TaskId, outcome: Outcome, outputs: &Outputs, seconds: f64) {
        let key = self.key(task);
        self.end(task, TaskEnd::done(outcome, outputs.clone(), key, seconds));
        self.queue.finish(task);
        for follower in self.take_followers(task) {
            self.follow(follower, outcome, Some(outputs.clone()));
        }
    }

    /// Ends a task that waited for an equal one (its leader), as the leader ended: with these outputs, or badly if
    /// `None`.
    pub(super) fn follow(&mut self, task: TaskId, of_leader: Outcome, outputs: Option<Outputs>) {
        let key = self.key(task);
        if let Some(outputs) = outputs {
            let outcome = if of_leader.is_hit() { of_leader } else { Outcome::Merged };
            self.end(task, TaskEnd::done(outcome, outputs, key, 0.0));
            self.queue.finish(task);
        } else {
            self.end(task, TaskEnd::blocked(key));
            self.block_downstream(task);
        }
    }

    /// Ends a task badly. If it ran to restore its objects, its earlier end stays, and the tasks that stalled on it fail.
    pub(super) fn fail(&mut self, task: TaskId, failure: Failure, seconds: f64) {
        let mut failing = vec![(task, failure, seconds)];
        while let Some((task, failure, seconds)) = failing.pop() {
            self.dequeue(task);
            self.admission.end(task);
            if !self.is_restoring(task) {
                self.fail_first(task, failure, seconds);
            } else if let Some(end) = self.take(task).into_earlier() {
                self.end_restoring(task, end, false, seconds);
                let readers = self.stalled_on(task).into_iter().rev();
                failing.extend(readers.map(|reader| (reader, self.failure_of_reader(task, &failure), 0.0)));
            }
        }
    }

    fn fail_first(&mut self, task: TaskId, failure: Failure, seconds: f64) {
        let end = TaskEnd::failed(failure, self.key(task), seconds);
        let outcome = end.outcome;
        self.end(task, end);
        for follower in self.take_followers(task) {
            self.follow(follower, outcome, None);
        }
        self.block_downstream(task);
        self.is_stopping |= !self.options.keep_going;
    }

    /// Returns the failure of a task that needs objects which `producer` could not restore.
    fn failure_of_reader(&self, producer: TaskId, failure: &Failure) -> Failure {
        if failure.is_cancelled() {
            return Failure::Stage(StageError::Cancelled);
        }
        Failure::Remake { stage: self.plan.tasks[producer.0].name.clone(), message: error_chain(failure) }
    }

    fn block_downstream(&mut self, task: TaskId) {
        for reader in self.queue.downstream(task) {
            if self.tasks[reader.0].end().is_none() {
                self.end(reader, TaskEnd::blocked(None));
            }
        }
    }

    fn take_followers(&mut self, leader: TaskId) -> Vec<TaskId> {
        let equals = self.key(leader).and_then(|key| self.equals.get_mut(&key));
        let equals = equals.filter(|equals| equals.leader == leader);
        equals.map(|equals| std::mem::take(&mut equals.followers)).unwrap_or_default()
    }

    fn end(&mut self, task: TaskId, end: TaskEnd) {
        let (end, is_reported) = self.with_earlier(task, end);
        if !is_reported {
            self.emit_end(task, &end);
        }
        self.tasks[task.0] = TaskState::Done(end);
    }

    pub(super) fn emit_end(&mut self, task: TaskId, end: &TaskEnd) {
        let of = &self.plan.tasks[task.0];
        let has_run = matches!(end.outcome, Outcome::Executed | Outcome::Failed);
        let log = end.key.filter(|_| has_run).map(|key| log_path(self.options, of, &key));
        self.emit(Event::TaskFinished {
            task,
            name: of.name.clone(),
            stage: of.stage.clone(),
            kind: of.spec.kind().name(),
            key: end.key.map(|key| key.to_string()),
            outcome: end.outcome,
            seconds: end.seconds,
            variants: of.variants.iter().map(|&variant| self.plan.variants[variant].id.clone()).collect(),
            error: end.failure.as_ref().map(|failure| error_chain(failure)),
            log,
        });
    }

    /// Ends all tasks that have not ended; only events are left to emit.
    pub(in crate::engine) fn close(&mut self) {
        self.is_stopping = true;
        for task in (0..self.tasks.len()).map(TaskId) {
            if self.is_restoring(task) {
                if let Some(end) = self.take(task).into_earlier() {
                    self.tasks[task.0] = TaskState::Done(end);
                }
            } else if self.tasks[task.0].end().is_none() {
                self.end(task, TaskEnd::blocked(self.key(task)));
            }
        }
    }

    /// Returns the finished run. Every task must have ended.
    pub(in crate::engine) fn into_run(self, is_interrupted: bool, duration: Duration) -> Run {
        let ends = self.tasks.into_iter().map(|state| match state {
            TaskState::Done(end) => end,
            _ => TaskEnd::blocked(None),
        });
        Run { tasks: ends.collect(), remade: self.remade, is_interrupted, duration }
    }
}
