//! Finished tasks that are made again, because a reader found their objects gone or damaged.

use super::{Scheduler, State};
use crate::cache::Digest;
use crate::engine::failure::Failure;
use crate::engine::{EngineError, Event};
use crate::plan::{Outputs, TaskId};

impl Scheduler<'_> {
    /// Whether every object of a finished task's outputs is there.
    pub(super) fn is_intact(&self, index: usize) -> Result<bool, EngineError> {
        for output in self.outputs[index].iter().flat_map(Outputs::values) {
            if !self.store.objects().check(&output.tree).map_err(EngineError::Store)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the producers of lost inputs again, and then the task.
    pub(super) fn remake(&mut self, index: usize, lost: &[(TaskId, String)]) -> Result<(), EngineError> {
        self.states[index] = State::Stalled;
        let name = self.plan.tasks[index].name.clone();
        (self.options.listener)(Event::TaskStalled { task: index, name });
        for (TaskId(producer), file) in lost {
            let waiting = self.remaking.entry(*producer).or_default();
            let is_new = waiting.is_empty();
            waiting.insert(index);
            if !is_new || !matches!(self.states[*producer], State::Ended) {
                continue;
            }
            let task = &self.plan.tasks[*producer];
            (self.options.listener)(Event::TaskRemade {
                name: task.name.clone(),
                stage: task.stage.clone(),
                kind: task.spec.kind().name(),
                file: file.clone(),
            });
            let resolution = self.resolver.resolve(self.plan, TaskId(*producer), &self.outputs)?;
            // The files could not be fetched before.
            self.store.mark_incomplete(&resolution.key);
            self.resolutions.insert(*producer, resolution);
            self.want(*producer);
        }
        Ok(())
    }

    /// A task was made again: those that stalled on it go on, if it gave the same bytes.
    pub(super) fn remade_well(&mut self, index: usize, outputs: &Outputs, seconds: f64) {
        self.remade += usize::from(seconds > 0.0);
        self.states[index] = State::Ended;
        self.tell_remade(index, true, seconds);
        let same = self.outputs[index].as_ref().is_some_and(|old| {
            old.len() == outputs.len()
                && old.iter().zip(outputs).all(|(a, b)| a.0 == b.0 && a.1.tree.digest() == b.1.tree.digest())
        });
        if let Some(end) = &mut self.ends[index] {
            end.seconds += seconds;
        }
        let stalled = self.remaking.remove(&index).unwrap_or_default();
        if same {
            for task in stalled {
                let waits = self.remaking.values().any(|others| others.contains(&task));
                if !waits && matches!(self.states[task], State::Stalled) {
                    self.want(task);
                }
            }
            return;
        }
        let stage = self.plan.tasks[index].stage.clone();
        let key = self.resolutions[&index].key;
        self.tell_nondeterministic(index, &key);
        for task in stalled {
            self.end_badly(task, Failure::Nondeterministic { stage: stage.clone() }, 0.0);
        }
    }

    pub(super) fn tell_nondeterministic(&self, index: usize, key: &Digest) {
        let name = self.plan.tasks[index].name.clone();
        (self.options.listener)(Event::Nondeterministic { name, key: key.to_string() });
    }

    pub(super) fn tell_remade(&self, index: usize, succeeded: bool, seconds: f64) {
        let name = self.plan.tasks[index].name.clone();
        (self.options.listener)(Event::RemakeFinished { task: index, name, succeeded, seconds });
    }
}
