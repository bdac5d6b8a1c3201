//! The state of every task of a run, and the only place where it changes.
//!
//! [`RunState::handle`] takes one event and changes states; [`RunState::next_action`] says what to do next. Neither
//! does I/O, waits or starts a thread: the scheduler performs the actions and reports what came of them as events.
//!
//! ```text
//! Waiting ── Resolved ──> Keyed ── Recorded ─────────────────────────────> Done
//!                           │  └── NotRecorded ──> Queued ── Leased ──> Running ── Executed, Failed ──> Done
//!                           │                        ^ <── InputsLost: Stalled until the producers are restored
//!                           └─ an equal task leads ──> Following ── its leader ends ──> Done
//! Done ── Restorable: its objects are lost ──> Queued, with its earlier end
//! ```

mod admission;
mod ending;
mod remake;
mod restart;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};

use self::admission::{Admission, StartQueue};
pub(super) use self::admission::{Demand, Limits};
pub use self::ending::{Run, TaskEnd};
use self::restart::EarlierEnd;
use super::{Event, Failure, Options, Outcome};
use crate::cache::{Digest, Lease};
use crate::plan::{Outputs, Plan, Queue, Resolution, TaskId};

/// An execution of a task that is queued or under way.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Key and inputs.
    pub(super) resolution: Resolution,
    /// What the execution uses.
    demand: Demand,
    /// How the task ended before, if it runs again to restore its objects.
    pub(super) earlier: Option<TaskEnd>,
    /// Whether it was reported that another process holds the lease.
    is_reported: bool,
}

/// The state of one task, with all data that belongs to that state.
#[derive(Debug)]
pub(super) enum TaskState {
    /// Waits for upstream tasks.
    Waiting,
    /// Its key is known; its record is being looked up.
    Keyed(Box<Resolution>),
    /// Takes the outputs of this equal task of the run when that ends.
    Following(TaskId),
    /// Has no record: waits for its lease, and to be admitted.
    Queued(Box<Attempt>),
    /// An executor has it.
    Running(Box<Attempt>),
    /// Came back because objects of its inputs are lost: waits until these tasks have restored them.
    Stalled(Box<Attempt>, BTreeSet<TaskId>),
    /// Ended.
    Done(TaskEnd),
}

/// Something that happened to a task, or to the run.
#[derive(Debug)]
pub(super) enum SchedulerEvent {
    /// The key was found; `source` are the outputs of a local source, which never executes.
    Resolved { task: TaskId, resolution: Box<Resolution>, source: Option<Outputs> },
    /// The task's key has a record.
    Recorded { task: TaskId, outcome: Outcome, outputs: Outputs },
    /// The task's key has no record.
    NotRecorded { task: TaskId, demand: Demand },
    /// Another process holds the lease.
    LeaseHeld { task: TaskId },
    /// The lease is held, and the key still has no record.
    Leased { task: TaskId, lease: Lease },
    /// An execution succeeded; `differs` if an earlier record had other outputs, `refused` if the lock file does not
    /// allow these.
    Executed { task: TaskId, outputs: Outputs, seconds: f64, differs: bool, refused: Option<Failure> },
    /// An execution found objects of its inputs lost: their producers, each with one lost file.
    InputsLost { task: TaskId, lost: Vec<(TaskId, String)> },
    /// A finished task's objects are lost that the run's folder shows; the first file.
    OutputsLost { task: TaskId, file: String },
    /// The task failed, in its execution or before.
    Failed { task: TaskId, failure: Failure, seconds: f64 },
    /// A finished task can run again to restore its objects.
    Restorable { task: TaskId, resolution: Box<Resolution>, demand: Demand },
    /// All objects of a task that was to be restored are there again.
    Restored { task: TaskId },
    /// Time has passed: leases may have been given back.
    Polled,
    /// The user wants to stop.
    Cancelled,
}

/// What the scheduler is to do next. It reports an event when done, if not noted otherwise.
#[derive(Debug)]
pub(super) enum Action {
    /// Find the task's key.
    Resolve(TaskId),
    /// Look up the task's record.
    LookUp(TaskId),
    /// Try to take the task's lease, and look up its record again.
    TakeLease(TaskId),
    /// Give the task to an executor, whose event comes when the task has ended.
    Execute { task: TaskId, lease: Lease },
    /// Find the key of a finished task again, so that it can restore its objects.
    Restore(TaskId),
    /// Report who holds the task's lease. No event follows.
    ReportHolder(TaskId),
    /// Emit an event of the run. No event follows.
    Emit(Event),
}

/// Equal tasks of a run: they have the same key.
struct Equals {
    leader: TaskId,
    followers: Vec<TaskId>,
}

/// The states of all tasks.
pub(super) struct RunState<'a> {
    plan: &'a Plan,
    options: &'a Options<'a>,
    tasks: Vec<TaskState>,
    /// Tasks by the upstream tasks that they wait for.
    queue: Queue,
    /// Index of the tasks whose key is known, by key.
    equals: HashMap<Digest, Equals>,
    /// Index of the queued tasks, by rank.
    starts: StartQueue,
    /// Index of the running tasks.
    admission: Admission,
    actions: VecDeque<Action>,
    /// Whether nothing more is started.
    is_stopping: bool,
    remade: usize,
    /// Whether all tasks are looked at again, once nothing runs.
    is_starting_over: bool,
    /// Tasks that gave other bytes than recorded when they ran again.
    remade_otherwise: BTreeSet<TaskId>,
    /// How each task ended before the run started over.
    earlier: Vec<Option<EarlierEnd>>,
}

impl<'a> RunState<'a> {
    /// All tasks of a plan wait.
    pub(super) fn new(plan: &'a Plan, options: &'a Options<'a>) -> Self {
        Self {
            plan,
            options,
            tasks: plan.tasks.iter().map(|_| TaskState::Waiting).collect(),
            queue: Queue::of(plan),
            equals: HashMap::new(),
            starts: StartQueue::default(),
            admission: Admission::new(limits(options)),
            actions: VecDeque::new(),
            is_stopping: false,
            remade: 0,
            is_starting_over: false,
            remade_otherwise: BTreeSet::new(),
            earlier: vec![None; plan.tasks.len()],
        }
    }

    /// Returns what to do next; `None` if there is nothing to do until the next event.
    pub(super) fn next_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.is_stopping || self.is_starting_over {
            return None;
        }
        if let Some(task) = self.queue.pop() {
            return Some(Action::Resolve(task));
        }
        let (task, demand) = self.starts.candidate()?;
        self.admission.admits(demand).then_some(Action::TakeLease(task))
    }

    /// Whether no event can come any more: nothing runs, and nothing is left to start unless the run starts over
    /// ([`Self::start_over`]).
    pub(super) fn is_over(&self) -> bool {
        self.admission.is_idle() && (self.is_stopping || self.is_starting_over || self.starts.is_empty())
    }

    /// Whether nothing more is started.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Changes the states of tasks as an event says.
    pub(super) fn handle(&mut self, event: SchedulerEvent) {
        match event {
            SchedulerEvent::Resolved { task, resolution, source } => self.resolved(task, resolution, source),
            SchedulerEvent::Recorded { task, outcome, outputs } => self.recorded(task, outcome, &outputs),
            SchedulerEvent::NotRecorded { task, demand } => self.not_recorded(task, demand),
            SchedulerEvent::LeaseHeld { task } => self.lease_held(task),
            SchedulerEvent::Leased { task, lease } => self.leased(task, lease),
            SchedulerEvent::Executed { task, outputs, seconds, differs, refused } => {
                self.executed(task, &outputs, seconds, differs, refused);
            }
            SchedulerEvent::InputsLost { task, lost } => self.stall(task, lost),
            SchedulerEvent::OutputsLost { task, file } => self.remake(task, file),
            SchedulerEvent::Failed { task, failure, seconds } => self.fail(task, failure, seconds),
            SchedulerEvent::Restorable { task, resolution, demand } => {
                self.restorable(task, *resolution, demand);
            }
            SchedulerEvent::Restored { task } => self.restored(task, None, 0.0),
            SchedulerEvent::Polled => self.starts.rewind(),
            SchedulerEvent::Cancelled => self.is_stopping = true,
        }
    }

    fn resolved(&mut self, task: TaskId, resolution: Box<Resolution>, source: Option<Outputs>) {
        let key = resolution.key;
        self.tasks[task.0] = TaskState::Keyed(resolution);
        if let Some(outputs) = source {
            self.succeed(task, Outcome::Hit, &outputs, 0.0);
            return;
        }
        let is_forced = self.is_forced(task);
        let equals = self.equals.entry(key).or_insert_with(|| Equals { leader: task, followers: Vec::new() });
        let leader = equals.leader;
        match self.tasks[leader.0].end() {
            _ if leader == task => self.actions.push_back(Action::LookUp(task)),
            None => {
                equals.followers.push(task);
                self.tasks[task.0] = TaskState::Following(leader);
            }
            Some(end) if end.outcome.is_hit() && is_forced => {
                // The leader did not run, and this task must.
                equals.leader = task;
                self.actions.push_back(Action::LookUp(task));
            }
            Some(end) => {
                let (outcome, outputs) = (end.outcome, end.outputs.clone());
                self.follow(task, outcome, outputs);
            }
        }
    }

    fn recorded(&mut self, task: TaskId, outcome: Outcome, outputs: &Outputs) {
        self.dequeue(task);
        self.admission.end(task);
        self.succeed(task, outcome, outputs, 0.0);
    }

    fn not_recorded(&mut self, task: TaskId, demand: Demand) {
        if let TaskState::Keyed(resolution) = self.take(task) {
            let attempt = Attempt { resolution: *resolution, demand, earlier: None, is_reported: false };
            self.enqueue(task, Box::new(attempt));
        }
    }

    fn lease_held(&mut self, task: TaskId) {
        if let TaskState::Queued(attempt) = &mut self.tasks[task.0] {
            self.starts.skip(attempt.demand);
            if !std::mem::replace(&mut attempt.is_reported, true) {
                self.actions.push_back(Action::ReportHolder(task));
            }
        }
    }

    fn leased(&mut self, task: TaskId, lease: Lease) {
        self.dequeue(task);
        if let TaskState::Queued(attempt) = self.take(task) {
            self.admission.start(task, attempt.demand);
            let of = &self.plan.tasks[task.0];
            self.emit(Event::TaskStarted {
                task,
                name: of.name.clone(),
                values: self.plan.values_of(task),
                stage: of.stage.clone(),
                kind: of.spec.kind().name(),
                key: attempt.resolution.key.to_string(),
            });
            self.actions.push_back(Action::Execute { task, lease });
            self.tasks[task.0] = TaskState::Running(attempt);
        }
    }

    fn executed(
        &mut self,
        task: TaskId,
        outputs: &Outputs,
        seconds: f64,
        differs: bool,
        refused: Option<Failure>,
    ) {
        self.admission.end(task);
        let is_restoring = self.is_restoring(task);
        if differs && !is_restoring {
            self.emit_nondeterministic(task);
        }
        match refused {
            Some(failure) => self.fail(task, failure, seconds),
            None if is_restoring => self.restored(task, Some(outputs), seconds),
            None => self.succeed(task, Outcome::Executed, outputs, seconds),
        }
    }

    fn enqueue(&mut self, task: TaskId, attempt: Box<Attempt>) {
        self.starts.insert(task, attempt.demand);
        self.tasks[task.0] = TaskState::Queued(attempt);
    }

    fn dequeue(&mut self, task: TaskId) {
        if let TaskState::Queued(attempt) = &self.tasks[task.0] {
            self.starts.remove(attempt.demand);
        }
    }

    /// Takes the state of a task out, to be replaced by the next one.
    fn take(&mut self, task: TaskId) -> TaskState {
        std::mem::replace(&mut self.tasks[task.0], TaskState::Waiting)
    }

    fn emit(&mut self, event: Event) {
        self.actions.push_back(Action::Emit(event));
    }

    fn emit_nondeterministic(&mut self, task: TaskId) {
        let name = self.plan.tasks[task.0].name.clone();
        let key = self.key(task).map(|key| key.to_string()).unwrap_or_default();
        self.emit(Event::Nondeterministic { name, key });
    }
}

/// What all running tasks together may use.
fn limits(options: &Options<'_>) -> Limits {
    Limits { jobs: options.jobs, threads: options.threads, memory: options.memory }
}

/// What the scheduler asks of the states.
impl RunState<'_> {
    /// Returns the ready tasks that were not taken yet.
    pub(super) fn ready(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.queue.ready()
    }

    /// Returns the outputs of a task that has ended well, also while it runs again to restore them.
    pub(super) fn outputs(&self, task: TaskId) -> Option<&Outputs> {
        self.tasks[task.0].end()?.outputs.as_ref()
    }

    /// Returns key and inputs of a task that is not done; `None` before they are known.
    pub(super) fn resolution(&self, task: TaskId) -> Option<&Resolution> {
        match &self.tasks[task.0] {
            TaskState::Keyed(resolution) => Some(resolution),
            state => state.attempt().map(|attempt| &attempt.resolution),
        }
    }

    /// Returns what a task uses while it runs, if it is queued or under way.
    pub(super) fn demand(&self, task: TaskId) -> Option<Demand> {
        self.tasks[task.0].attempt().map(|attempt| attempt.demand)
    }

    /// Returns the key of a task, if it is known.
    pub(super) fn key(&self, task: TaskId) -> Option<Digest> {
        match &self.tasks[task.0] {
            TaskState::Waiting => None,
            TaskState::Keyed(resolution) => Some(resolution.key),
            TaskState::Following(leader) => self.key(*leader),
            TaskState::Queued(attempt) | TaskState::Running(attempt) | TaskState::Stalled(attempt, _) => {
                Some(attempt.resolution.key)
            }
            TaskState::Done(end) => end.key,
        }
    }

    /// Returns whether a task runs again to restore its objects.
    pub(super) fn is_restoring(&self, task: TaskId) -> bool {
        self.tasks[task.0].attempt().is_some_and(|attempt| attempt.earlier.is_some())
    }

    /// Returns whether a task must run although it has a record.
    pub(super) fn is_forced(&self, task: TaskId) -> bool {
        self.options.force.contains(&self.plan.tasks[task.0].stage) && !self.was_executed(task)
    }
}

impl TaskState {
    /// Returns how the task has ended, also while it runs again to restore its objects.
    fn end(&self) -> Option<&TaskEnd> {
        match self {
            Self::Done(end) => Some(end),
            state => state.attempt()?.earlier.as_ref(),
        }
    }

    fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Queued(attempt) | Self::Running(attempt) | Self::Stalled(attempt, _) => Some(attempt),
            Self::Waiting | Self::Keyed(_) | Self::Following(_) | Self::Done(_) => None,
        }
    }

    /// Returns the earlier end of a task that runs again to restore its objects.
    fn into_earlier(self) -> Option<TaskEnd> {
        match self {
            Self::Queued(attempt) | Self::Running(attempt) | Self::Stalled(attempt, _) => attempt.earlier,
            Self::Waiting | Self::Keyed(_) | Self::Following(_) | Self::Done(_) => None,
        }
    }
}
