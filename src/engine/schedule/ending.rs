//! How tasks end, and what their ends mean for others.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Run, Scheduler, State, TaskEnd};
use crate::engine::execute::{chain, log_path};
use crate::engine::failure::Failure;
use crate::engine::{Event, Outcome};
use crate::plan::Outputs;
use crate::stages::StageError;

impl Scheduler<'_> {
    /// Ends a task that a record answers.
    pub(super) fn end_as_hit(&mut self, index: usize, outcome: Outcome, outputs: Outputs) {
        match self.refused_outputs(index, &outputs) {
            Some(failure) => self.end_badly(index, failure, 0.0),
            None => self.end_well(index, outcome, outputs, 0.0),
        }
    }

    pub(super) fn end_well(&mut self, index: usize, outcome: Outcome, outputs: Outputs, seconds: f64) {
        self.outputs[index] = Some(outputs.clone());
        let key = self.resolutions.get(&index).map(|resolution| resolution.key);
        for follower in self.followers.remove(&index).unwrap_or_default() {
            self.follow(follower, outcome, Some(outputs.clone()));
        }
        self.end(index, TaskEnd { outcome, outputs: Some(outputs), key, seconds, failure: None });
        self.queue.finish(index);
    }

    /// Ends a task as the equal task that it followed.
    pub(super) fn follow(&mut self, index: usize, of_leader: Outcome, outputs: Option<Outputs>) {
        let key = self.resolutions.get(&index).map(|resolution| resolution.key);
        if let Some(outputs) = outputs {
            let is_hit = matches!(of_leader, Outcome::Hit | Outcome::RemoteHit);
            let outcome = if is_hit { of_leader } else { Outcome::Merged };
            self.end_well(index, outcome, outputs, 0.0);
            return;
        }
        self.end(
            index,
            TaskEnd { outcome: Outcome::Blocked, outputs: None, key, seconds: 0.0, failure: None },
        );
        self.block_downstream(index);
    }

    pub(super) fn end_badly(&mut self, index: usize, failure: Failure, seconds: f64) {
        let outcome = if failure.is_cancelled() { Outcome::Blocked } else { Outcome::Failed };
        let stalled = self.remaking.remove(&index).unwrap_or_default();
        if let Some(end) = &mut self.ends[index] {
            // Made again and failed: it was announced as done, and those that need its objects fail.
            self.states[index] = State::Ended;
            end.seconds += seconds;
            let (stage, message) = (self.plan.tasks[index].name.clone(), chain(&failure));
            self.tell_remade(index, false, seconds);
            for task in stalled {
                let failure = if failure.is_cancelled() {
                    Failure::Stage(StageError::Cancelled)
                } else {
                    Failure::Remake { stage: stage.clone(), message: message.clone() }
                };
                if matches!(self.states[task], State::Stalled) {
                    self.end_badly(task, failure, 0.0);
                }
            }
            return;
        }
        let key = self.resolutions.get(&index).map(|resolution| resolution.key);
        self.end(index, TaskEnd { outcome, outputs: None, key, seconds, failure: Some(failure) });
        for follower in self.followers.remove(&index).unwrap_or_default() {
            self.follow(follower, outcome, None);
        }
        self.block_downstream(index);
        self.stops |= !self.options.keep_going;
    }

    pub(super) fn block_downstream(&mut self, index: usize) {
        for task in self.queue.downstream(index) {
            if self.ends[task].is_none() {
                let end = TaskEnd {
                    outcome: Outcome::Blocked,
                    outputs: None,
                    key: None,
                    seconds: 0.0,
                    failure: None,
                };
                self.end(task, end);
            }
        }
    }

    pub(super) fn end(&mut self, index: usize, end: TaskEnd) {
        self.states[index] = State::Ended;
        let task = &self.plan.tasks[index];
        let ran = matches!(end.outcome, Outcome::Executed | Outcome::Failed) && end.key.is_some();
        let log = end.key.filter(|_| ran).map(|key| log_path(self.options, task, &key));
        (self.options.listener)(Event::TaskFinished {
            task: index,
            name: task.name.clone(),
            stage: task.stage.clone(),
            kind: task.spec.kind().name(),
            key: end.key.map(|key| key.to_string()),
            outcome: end.outcome,
            seconds: end.seconds,
            variants: task.variants.iter().map(|&variant| self.plan.variants[variant].id.clone()).collect(),
            error: end.failure.as_ref().map(|failure| chain(failure)),
            log,
        });
        self.ends[index] = Some(end);
    }

    /// Ends what never came to run.
    pub(super) fn finish(mut self, duration: Duration) -> Run {
        for index in 0..self.ends.len() {
            if self.ends[index].is_none() {
                let key = self.resolutions.get(&index).map(|resolution| resolution.key);
                let end =
                    TaskEnd { outcome: Outcome::Blocked, outputs: None, key, seconds: 0.0, failure: None };
                self.end(index, end);
            }
        }
        Run {
            tasks: self.ends.into_iter().flatten().collect(),
            remade: self.remade,
            is_interrupted: self.options.cancelled.load(Ordering::Relaxed),
            duration,
        }
    }
}
