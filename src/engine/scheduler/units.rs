//! Makes units of tasks, and handles the ends of units.

use super::Scheduler;
use crate::cache::{Lease, PushOrder};
use crate::engine::executor::{Executed, LostInput, Unit, UnitEnd};
use crate::engine::state::SchedulerEvent;
use crate::engine::{Outcome, Workers};
use crate::plan::{Outputs, TaskId};
use crate::stages::Role;

impl Scheduler<'_> {
    /// Gives a task to the executor.
    pub(super) fn execute(&mut self, task: TaskId, lease: Lease) {
        let resolution = self.state.resolution(task).expect("a running task has a key");
        let is_restoring = self.state.is_restoring(task);
        let is_forced = self.state.is_forced(task) && !is_restoring;
        // A record that is there but did not answer (its shown objects are gone) is replaced as well.
        let is_replacing = is_restoring
            || self.state.is_forced(task)
            || self.cache.records().get(&resolution.key).ok().flatten().is_some();
        let work = self.sizes.workload(task, &|upstream| self.state.outputs(upstream)).work();
        let unit = Unit {
            is_forced,
            is_replacing,
            memory_bytes: self.state.demand(task).map_or(0, |demand| demand.memory),
            work,
            ..Unit::new(self.plan, task, resolution, self.options)
        };
        self.context.inputs.add(resolution);
        self.executor.start(unit, lease);
    }

    /// Reports the end of a unit to the state.
    pub(super) fn ended(&mut self, end: UnitEnd) {
        let UnitEnd { task, executed } = end;
        let event = match executed {
            Executed::Done { outputs, seconds, differs } => {
                self.push(task, &outputs);
                if self.options.workers != Workers::Threads {
                    // A worker process emits no events.
                    self.repeat_warnings(task);
                }
                let refused = self.refused_outputs(task, &outputs);
                SchedulerEvent::Executed { task, outputs, seconds, differs, refused }
            }
            Executed::Recorded { outputs } => self.answered(task, Outcome::Hit, outputs),
            Executed::InputsLost(lost) => {
                SchedulerEvent::InputsLost { task, lost: self.producers(task, lost) }
            }
            Executed::Failed { failure, seconds } => SchedulerEvent::Failed { task, failure, seconds },
        };
        self.state.handle(event);
    }

    /// Returns the tasks that made the lost inputs, each with the lost file.
    fn producers(&self, task: TaskId, lost: Vec<LostInput>) -> Vec<(TaskId, String)> {
        let inputs = self.state.resolution(task).map(|resolution| &resolution.inputs);
        let producer =
            |role: &Role| inputs?.iter().find(|input| input.role == *role).map(|input| input.producer);
        lost.into_iter().filter_map(|LostInput { role, file }| Some((producer(&role)?, file))).collect()
    }

    fn push(&self, task: TaskId, outputs: &Outputs) {
        if let Some(key) = self.state.key(task) {
            let trees = outputs.values().map(|output| output.tree.digest()).collect();
            // The queue is closed if nothing is pushed.
            let _ = self.pushes.send(PushOrder { key, trees });
        }
    }
}
