//! Finished tasks that run again, because a reader found their objects lost or damaged.

use std::collections::BTreeSet;

use super::{Action, Attempt, Demand, RunState, TaskEnd, TaskState};
use crate::engine::{Event, Failure};
use crate::plan::{Outputs, Resolution, TaskId};

impl RunState<'_> {
    /// Lets a task wait until the producers of its lost inputs have restored them.
    pub(super) fn stall(&mut self, task: TaskId, lost: Vec<(TaskId, String)>) {
        self.admission.end(task);
        let TaskState::Running(attempt) = self.take(task) else { return };
        let name = self.plan.tasks[task.0].name.clone();
        self.emit(Event::TaskStalled { task, name });
        let mut producers = BTreeSet::new();
        for (producer, file) in lost {
            // A task that is not done is being restored for another reader.
            if producers.insert(producer) && matches!(self.tasks[producer.0], TaskState::Done(_)) {
                self.remake(producer, file);
            }
        }
        self.tasks[task.0] = TaskState::Stalled(attempt, producers);
    }

    /// Lets a finished task run again, because this file of its outputs is lost.
    pub(super) fn remake(&mut self, task: TaskId, file: String) {
        let of = &self.plan.tasks[task.0];
        self.emit(Event::TaskRemade {
            name: of.name.clone(),
            stage: of.stage.clone(),
            kind: of.spec.kind().name(),
            file,
        });
        self.actions.push_back(Action::Restore(task));
    }

    pub(super) fn restorable(&mut self, task: TaskId, resolution: Resolution, demand: Demand) {
        if let TaskState::Done(end) = self.take(task) {
            let attempt = Attempt { resolution, demand, earlier: Some(end), is_reported: false };
            self.enqueue(task, Box::new(attempt));
        }
    }

    /// A task has restored its objects: tasks that stalled on it go on if the bytes are the same as before. If they are
    /// others, the run starts over with them ([`Self::take_other_outputs`]). Without `outputs`, another task or process
    /// has restored them.
    pub(super) fn restored(&mut self, task: TaskId, outputs: Option<&Outputs>, seconds: f64) {
        self.dequeue(task);
        let Some(end) = self.take(task).into_earlier() else { return };
        let other = outputs.filter(|new| !end.outputs.as_ref().is_some_and(|old| is_same(old, new)));
        let end = TaskEnd { seconds: end.seconds + seconds, ..end };
        self.emit_remade(task, true, seconds);
        let Some(outputs) = other else {
            self.remade += usize::from(seconds > 0.0);
            self.tasks[task.0] = TaskState::Done(end);
            for reader in self.stalled_on(task) {
                self.resume(reader, task);
            }
            return;
        };
        self.emit_nondeterministic(task);
        if self.remade_otherwise.insert(task) {
            self.take_other_outputs(task, end, outputs);
            return;
        }
        self.tasks[task.0] = TaskState::Done(end);
        for reader in self.stalled_on(task) {
            let stage = self.plan.tasks[task.0].stage.clone();
            self.fail(reader, Failure::Nondeterministic { stage }, 0.0);
        }
    }

    /// Gives a task that ran again its earlier end, and emits whether its objects are restored.
    pub(super) fn end_restoring(&mut self, task: TaskId, end: TaskEnd, succeeded: bool, seconds: f64) {
        self.emit_remade(task, succeeded, seconds);
        self.tasks[task.0] = TaskState::Done(TaskEnd { seconds: end.seconds + seconds, ..end });
    }

    fn emit_remade(&mut self, task: TaskId, succeeded: bool, seconds: f64) {
        let name = self.plan.tasks[task.0].name.clone();
        self.emit(Event::RemakeFinished { task, name, succeeded, seconds });
    }

    /// Returns the tasks that wait for `producer` to restore its objects.
    pub(super) fn stalled_on(&self, producer: TaskId) -> Vec<TaskId> {
        let is_stalled = |state: &TaskState| matches!(state, TaskState::Stalled(_, producers) if producers.contains(&producer));
        (0..self.tasks.len()).map(TaskId).filter(|task| is_stalled(&self.tasks[task.0])).collect()
    }

    /// Queues a stalled task again if it waited for `producer` alone.
    fn resume(&mut self, task: TaskId, producer: TaskId) {
        if let TaskState::Stalled(attempt, mut producers) = self.take(task) {
            producers.remove(&producer);
            if producers.is_empty() {
                self.enqueue(task, attempt);
            } else {
                self.tasks[task.0] = TaskState::Stalled(attempt, producers);
            }
        }
    }
}

fn is_same(old: &Outputs, new: &Outputs) -> bool {
    old.len() == new.len()
        && old.iter().zip(new).all(|(old, new)| old.0 == new.0 && old.1.tree.digest() == new.1.tree.digest())
}
