//! The scheduler: one thread that performs the actions of the [`RunState`] and reports what came of them to it.
//!
//! A task whose upstream tasks are done is resolved to its key. Its outputs come from the key's record or from an
//! equal task of this run, or it is executed under a lease of its key, so that it runs once however many processes
//! need it. While another process holds the lease, the task stays queued and takes no worker. An execution that finds
//! objects of its inputs lost comes back, and the tasks that made them run again first.

mod locked;
mod lookup;
mod prefetch;
mod units;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use super::executor::{Executor, Processes, RunContext, Threads, UnitEnd};
use super::state::{Action, Demand, Run, RunState, SchedulerEvent};
use super::{EngineError, Event, Options, Workers};
use crate::cache::{Cache, PushOrder};
use crate::plan::{
    History, Models, Plan, Resolution, Resolver, Sizes, TaskId, by_chain, input_bytes, ranks, typical_seconds,
};

/// Interval at which leases that other processes hold are polled, and whether the user wants to stop.
const POLL: Duration = Duration::from_millis(20);

/// Time between two barriers of a run (chosen: a power cut costs a few seconds of work, and the disk is asked seldom).
const GROUP: Duration = Duration::from_secs(5);

/// Runs a plan to its end.
pub fn run(plan: &Plan, cache: &Cache, options: &Options<'_>) -> Result<Run, EngineError> {
    let started = Instant::now();
    let context = RunContext::new(cache, options)?;
    (options.listener)(Event::RunStarted {
        experiment: plan.experiment.clone(),
        tasks: plan.tasks.len(),
        variants: plan.variants.len(),
    });
    let (ends, ended) = channel();
    let (pushes, pusher) = cache.pusher();
    let run = std::thread::scope(|scope| {
        let _removing = context.remove_in_background(scope);
        let flushing = flush_in_groups(scope, cache, options.cancelled);
        scope.spawn(move || {
            pusher.run(options.cancelled, |pushed| {
                (options.listener)(Event::Pushed { records: pushed.records, bytes: pushed.bytes });
            });
        });
        let executor: Box<dyn Executor> = match &options.workers {
            Workers::Threads => Box::new(Threads::new(scope, &context, ends)),
            Workers::Processes { program } => Box::new(Processes::new(scope, &context, program, ends)),
        };
        let scheduler = Scheduler::new(plan, &context, &*executor, pushes);
        let run = scheduler.run(&ended, started);
        drop(flushing);
        run
    })?;
    (options.listener)(Event::RunFinished {
        outcomes: run.counts(),
        remade: run.remade,
        interrupted: run.is_interrupted,
        seconds: run.duration.as_secs_f64(),
        folder: options.folder.clone(),
    });
    Ok(run)
}

/// Flushes the cache every [`GROUP`] on a thread that nothing waits for, until the sender is dropped; then once more if
/// the run took longer than that. The work of a shorter run is not worth waiting for the disk, and a user who stops a
/// run does not wait.
fn flush_in_groups<'scope>(
    scope: &'scope Scope<'scope, '_>,
    cache: &'scope Cache,
    cancelled: &'scope AtomicBool,
) -> Sender<()> {
    let (running, end) = channel();
    scope.spawn(move || {
        let started = Instant::now();
        while end.recv_timeout(GROUP) == Err(RecvTimeoutError::Timeout) {
            cache.flush_or_note();
        }
        if started.elapsed() > GROUP && !cancelled.load(Ordering::Relaxed) {
            cache.flush_or_note();
        }
    });
    running
}

struct Scheduler<'a> {
    plan: &'a Plan,
    context: &'a RunContext<'a>,
    cache: &'a Cache,
    options: &'a Options<'a>,
    state: RunState<'a>,
    resolver: Resolver<'a>,
    costs: Costs<'a>,
    sizes: Sizes<'a>,
    executor: &'a dyn Executor,
    /// Tasks whose records were already prefetched.
    prefetched: BTreeSet<TaskId>,
    /// Whether the objects that the run's folder shows were looked at.
    has_shown: bool,
    pushes: Sender<PushOrder>,
}

impl<'a> Scheduler<'a> {
    fn new(
        plan: &'a Plan,
        context: &'a RunContext<'a>,
        executor: &'a dyn Executor,
        pushes: Sender<PushOrder>,
    ) -> Self {
        let RunContext { cache, options, .. } = *context;
        Self {
            plan,
            context,
            cache,
            options,
            state: RunState::new(plan, options),
            resolver: Resolver::new(cache, &options.project, options.rehash),
            costs: Costs { plan, cache, known: None },
            sizes: Sizes::new(plan, cache),
            executor,
            prefetched: BTreeSet::new(),
            has_shown: false,
            pushes,
        }
    }

    fn run(mut self, ended: &Receiver<UnitEnd>, started: Instant) -> Result<Run, EngineError> {
        loop {
            self.perform_all()?;
            if self.state.is_over() {
                if self.state.start_over() || !self.has_shown && self.remake_shown()? {
                    continue;
                }
                break;
            }
            match ended.recv_timeout(POLL) {
                Ok(end) => self.ended(end),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.state.handle(SchedulerEvent::Polled);
            if self.options.cancelled.load(Ordering::Relaxed) {
                self.state.handle(SchedulerEvent::Cancelled);
            }
        }
        self.state.close();
        self.perform_all()?;
        let is_interrupted = self.options.cancelled.load(Ordering::Relaxed);
        Ok(self.state.into_run(is_interrupted, started.elapsed()))
    }

    fn perform_all(&mut self) -> Result<(), EngineError> {
        while let Some(action) = self.state.next_action() {
            if let Some(event) = self.perform(action)? {
                self.state.handle(event);
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<Option<SchedulerEvent>, EngineError> {
        match action {
            Action::Resolve(task) => {
                self.prefetch(task)?;
                Ok(Some(self.resolve(task)))
            }
            Action::LookUp(task) => self.look_up(task).map(Some),
            Action::TakeLease(task) => self.take_lease(task).map(Some),
            Action::Restore(task) => self.restore(task).map(Some),
            Action::Execute { task, lease } => {
                self.execute(task, lease);
                Ok(None)
            }
            Action::ReportHolder(task) => {
                self.report_holder(task);
                Ok(None)
            }
            Action::Emit(event) => {
                (self.options.listener)(event);
                Ok(None)
            }
        }
    }
}

/// Estimates what tasks use, from the records of similar tasks. The records are read when the first task must run.
struct Costs<'a> {
    plan: &'a Plan,
    cache: &'a Cache,
    /// The estimates from records, and the rank of each task among queued tasks; `None` before the records are read.
    known: Option<(Models, Vec<usize>)>,
}

impl Costs<'_> {
    fn demand(&mut self, task: TaskId, resolution: &Resolution) -> Demand {
        let Self { plan, cache, known } = self;
        let (models, ranks) = known.get_or_insert_with(|| {
            let mut models = Models::new(History::load(cache));
            let ranks = ranks(&by_chain(plan, &typical_seconds(plan, &mut models)));
            (models, ranks)
        });
        let of = &plan.tasks[task.0];
        let input = input_bytes(resolution);
        let about = of.spec.about();
        let memory = match models.peak_bytes(of, input) {
            // A record cannot lower what the manifest declares.
            Some(peak) => peak.max(about.memory_bytes),
            None => of.spec.estimated_memory(input),
        };
        Demand { rank: ranks[task.0], threads: about.threads, memory }
    }
}
