//! The scheduler: one thread owns the state of every task; workers own the task that they run.
//!
//! A task whose upstream is done is resolved to its key. A record answers it, or an equal task of this run
//! does, or it is executed under a lease of its key, so that it runs once however many processes want it.
//! While another process holds the lease, the task waits here without holding a worker. An execution that
//! finds its inputs' objects gone or damaged comes back, and the tasks that made them are made again first.

mod admission;
mod ending;
mod locked;
mod remake;
mod share;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use self::admission::{Admission, Limits, Wanted};
use super::execute::{Executed, Execution};
use super::failure::Failure;
use super::queue::Queue;
use super::usage::Meter;
use super::{EngineError, Event, Options, Outcome};
use crate::cache::{Cache, Digest, Lease, PushOrder, Tree};
use crate::plan::{History, Models, Outputs, Plan, Resolution, Resolver, TaskId};

/// Time between two looks at leases that others hold, and at the user's wish to stop.
const POLL: Duration = Duration::from_millis(20);

/// How one task of a run ended.
#[derive(Debug)]
pub struct TaskEnd {
    /// The outcome.
    pub outcome: Outcome,
    /// Its outputs, where it ended well.
    pub outputs: Option<Outputs>,
    /// Its key, where it came to be known.
    pub key: Option<Digest>,
    /// Seconds that it ran.
    pub seconds: f64,
    /// What went wrong.
    pub failure: Option<Failure>,
}

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// How each task ended, in the plan's order.
    pub tasks: Vec<TaskEnd>,
    /// Finished tasks that were made again for a reader.
    pub remade: usize,
    /// Whether the user stopped it.
    pub is_interrupted: bool,
    /// Wall-clock time.
    pub duration: Duration,
}

impl Run {
    /// How many tasks ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.tasks.iter().filter(|task| task.outcome == outcome).count()
    }
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, store: &Cache, options: &Options<'_>) -> Result<Run, EngineError> {
    let started = Instant::now();
    let threads = options.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| EngineError::Threads { threads, source })?;
    (options.listener)(Event::RunStarted {
        experiment: plan.experiment.clone(),
        tasks: plan.tasks.len(),
        variants: plan.variants.len(),
    });
    let (ended, ends) = channel();
    let meter = Meter::default();
    let (pushes, pusher) = store.pusher();
    std::thread::scope(|scope| {
        // The pusher ends when the last sender is dropped: this one and those of the workers.
        let pushes = pushes;
        scope.spawn(move || {
            pusher.run(options.cancelled, |pushed| {
                (options.listener)(Event::Pushed { records: pushed.records, bytes: pushed.bytes });
            });
        });
        let mut scheduler = Scheduler::new(plan, store, options);
        let start = |work: Work| {
            let (ended, pool, meter, pushes) = (ended.clone(), &pool, &meter, pushes.clone());
            scope.spawn(move || work.run(plan, store, options, pool, meter, (&ended, &pushes)));
        };
        scheduler.schedule(&start, &ends)?;
        Ok(scheduler.finish(started.elapsed()))
    })
}

/// What a worker is given.
struct Work {
    id: TaskId,
    resolution: Resolution,
    replaces: bool,
    is_forced: bool,
    lease: Lease,
    /// The whole outputs of all that it reads, where they can be fetched.
    upstream: Vec<Arc<Tree>>,
}

/// What a worker gives back.
struct End {
    id: TaskId,
    resolution: Resolution,
    executed: Executed,
}

impl Work {
    fn run(
        self,
        plan: &Plan,
        store: &Cache,
        options: &Options<'_>,
        pool: &rayon::ThreadPool,
        meter: &Meter,
        (ended, pushes): (&Sender<End>, &Sender<PushOrder>),
    ) {
        let Self { id, resolution, replaces, is_forced, lease, upstream } = self;
        let task = &plan.tasks[id.0];
        let experiment = plan.experiment.as_str();
        let execution = Execution {
            store,
            options,
            pool,
            meter,
            experiment,
            id,
            task,
            resolution: &resolution,
            replaces,
            is_forced,
            upstream: &upstream,
        };
        let executed = execution.run();
        // Given back before the end is told, so that an equal task of another process need not wait.
        drop(lease);
        if let Executed::Done { outputs, .. } = &executed {
            let trees = outputs.values().map(|output| output.tree.digest()).collect();
            // The queue is closed if nothing is pushed.
            let _ = pushes.send(PushOrder { key: resolution.key, trees });
        }
        // The scheduler is gone only where it failed; then nobody waits for this end.
        let _ = ended.send(End { id, resolution, executed });
    }
}

#[derive(Debug)]
enum State {
    /// Waits for upstream, or for its turn.
    Pending,
    /// Has a key and no record: waits for a lease and a worker.
    Wanted,
    /// A worker has it.
    Running,
    /// Waits for an equal task of this run.
    Follows,
    /// Waits until lost inputs are made again.
    Stalled,
    /// At its end.
    Ended,
}

struct Scheduler<'a> {
    plan: &'a Plan,
    store: &'a Cache,
    options: &'a Options<'a>,
    resolver: Resolver<'a>,
    queue: Queue,
    states: Vec<State>,
    ends: Vec<Option<TaskEnd>>,
    outputs: Vec<Option<Outputs>>,
    resolutions: BTreeMap<usize, Resolution>,
    /// The first task of this run with a key.
    leaders: HashMap<Digest, usize>,
    followers: BTreeMap<usize, Vec<usize>>,
    /// Tasks that want a lease and a worker.
    wanted: Wanted,
    /// Tasks that were told to wait for another process.
    told: BTreeSet<usize>,
    /// Tasks whose records the remote was asked for.
    asked: BTreeSet<usize>,
    /// Tasks being made again, each with those that stalled on it.
    remaking: BTreeMap<usize, BTreeSet<usize>>,
    remade: usize,
    admission: Admission,
    /// What the cache's records tell of tasks like these, once it was needed.
    models: Option<Models>,
    stops: bool,
}

impl<'a> Scheduler<'a> {
    fn new(plan: &'a Plan, store: &'a Cache, options: &'a Options<'a>) -> Self {
        let count = plan.tasks.len();
        let upstream: Vec<Vec<usize>> =
            (0..count).map(|index| plan.upstream(TaskId(index)).iter().map(|id| id.0).collect()).collect();
        Self {
            plan,
            store,
            options,
            resolver: Resolver::new(store, &options.project, options.rehash),
            queue: Queue::new(&upstream),
            states: (0..count).map(|_| State::Pending).collect(),
            ends: (0..count).map(|_| None).collect(),
            outputs: vec![None; count],
            resolutions: BTreeMap::new(),
            leaders: HashMap::new(),
            followers: BTreeMap::new(),
            wanted: Wanted::default(),
            told: BTreeSet::new(),
            asked: BTreeSet::new(),
            remaking: BTreeMap::new(),
            remade: 0,
            admission: Admission::new(Limits {
                jobs: options.jobs,
                threads: options.threads,
                memory: options.memory,
            }),
            models: None,
            stops: false,
        }
    }

    fn schedule(&mut self, start: &impl Fn(Work), ends: &Receiver<End>) -> Result<(), EngineError> {
        loop {
            while !self.stops
                && let Some(task) = self.queue.pop()
            {
                self.ask_ahead(task)?;
                self.look_up(task)?;
            }
            self.dispatch(start)?;
            if self.queue.has_ready() && !self.stops {
                continue;
            }
            if self.admission.running() == 0 && (self.wanted.is_empty() || self.stops) {
                return Ok(());
            }
            match ends.recv_timeout(POLL) {
                Ok(end) => self.ended(end)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if self.options.cancelled.load(Ordering::Relaxed) {
                self.stops = true;
            }
        }
    }

    /// Finds a ready task's key, and what answers it.
    fn look_up(&mut self, index: usize) -> Result<(), EngineError> {
        let task = &self.plan.tasks[index];
        let resolved = self.resolver.resolve(self.plan, TaskId(index), &self.outputs);
        let source = self.resolver.source_outputs(&task.stage, &task.spec);
        let (resolution, source) = match (resolved, source) {
            (Ok(resolution), Ok(source)) => (resolution, source),
            (Err(error), _) | (_, Err(error)) => {
                self.end_badly(index, Failure::Plan(error), 0.0);
                return Ok(());
            }
        };
        let key = resolution.key;
        if let Some(failure) = self.refused_key(index, &key) {
            self.end_badly(index, failure, 0.0);
            return Ok(());
        }
        if let Some(outputs) = source {
            self.resolutions.insert(index, resolution);
            self.end_well(index, Outcome::Hit, outputs, 0.0);
            return Ok(());
        }
        self.resolutions.insert(index, resolution);
        let leader = *self.leaders.entry(key).or_insert(index);
        if leader != index {
            match &self.ends[leader] {
                None => {
                    self.states[index] = State::Follows;
                    self.followers.entry(leader).or_default().push(index);
                }
                Some(end)
                    if matches!(end.outcome, Outcome::Hit | Outcome::RemoteHit) && self.is_forced(index) =>
                {
                    self.leaders.insert(key, index);
                    self.want(index);
                }
                Some(end) => {
                    let (outcome, outputs) = (end.outcome, end.outputs.clone());
                    self.follow(index, outcome, outputs);
                }
            }
            return Ok(());
        }
        if !self.is_forced(index)
            && let Some((outcome, outputs)) = self.recorded(index, &key)?
        {
            self.end_as_hit(index, outcome, outputs);
            return Ok(());
        }
        self.want(index);
        Ok(())
    }

    fn is_forced(&self, index: usize) -> bool {
        self.options.force.contains(&self.plan.tasks[index].stage)
    }

    /// Lets a task wait for a lease and a worker.
    fn want(&mut self, index: usize) {
        self.states[index] = State::Wanted;
        let models = self.models.get_or_insert_with(|| Models::new(History::load(self.store)));
        let demand = admission::demand(&self.plan.tasks[index], &self.resolutions[&index], models);
        self.wanted.insert(index, demand, self.plan, models);
    }

    /// Gives wanted tasks to workers, as far as leases and the limits allow.
    fn dispatch(&mut self, start: &impl Fn(Work)) -> Result<(), EngineError> {
        let mut after = None;
        while let Some((place, index, demand)) = self.wanted.next(after) {
            if self.stops || !self.admission.admits(demand) {
                return Ok(());
            }
            after = Some(place);
            let key = self.resolutions[&index].key;
            let Some(lease) = self.store.leases().take(&key).map_err(EngineError::Store)? else {
                self.tell_waiting(index, &key);
                continue;
            };
            self.wanted.remove(place);
            let is_remade = self.remaking.contains_key(&index);
            let is_forced = self.is_forced(index);
            if is_remade && self.ends[index].is_some() && self.is_intact(index)? {
                // Another task or process has made it meanwhile.
                let outputs = self.outputs[index].clone().unwrap_or_default();
                self.remade_well(index, &outputs, 0.0);
                continue;
            }
            // Another process or machine may have made it between the look-up and the lease.
            if !is_remade && !is_forced {
                self.store.recheck(&key);
            }
            if !is_remade
                && !is_forced
                && let Some((outcome, outputs)) = self.recorded(index, &key)?
            {
                self.end_as_hit(index, outcome, outputs);
                continue;
            }
            self.admission.start(index, demand);
            self.start(index, lease, is_remade || is_forced, start);
        }
        Ok(())
    }

    fn start(&mut self, index: usize, lease: Lease, replaces: bool, start: &impl Fn(Work)) {
        let task = &self.plan.tasks[index];
        let resolution = self.resolutions[&index].clone();
        (self.options.listener)(Event::TaskStarted {
            task: index,
            name: task.name.clone(),
            values: self.plan.values_of(TaskId(index)),
            stage: task.stage.clone(),
            kind: task.spec.kind().name(),
            key: resolution.key.to_string(),
        });
        self.states[index] = State::Running;
        // A record that is there but was no answer (its shown objects are gone) is replaced as well.
        let replaces = replaces || self.store.records().get(&resolution.key).ok().flatten().is_some();
        let is_forced = self.is_forced(index) && self.ends[index].is_none();
        let upstream = self.upstream(index);
        start(Work { id: TaskId(index), resolution, replaces, is_forced, lease, upstream });
    }

    fn tell_waiting(&mut self, index: usize, key: &Digest) {
        if self.told.insert(index) {
            let holder = self.store.leases().holder(key).map_or_else(
                || "another process".to_owned(),
                |holder| format!("process {} on {}", holder.process.pid, holder.process.host),
            );
            let name = self.plan.tasks[index].name.clone();
            (self.options.listener)(Event::TaskWaiting { task: index, name, holder });
        }
    }

    fn ended(&mut self, end: End) -> Result<(), EngineError> {
        let End { id: TaskId(index), resolution, executed } = end;
        self.admission.end(index);
        match executed {
            Executed::Done { outputs, seconds, .. }
                if self.remaking.contains_key(&index) && self.ends[index].is_some() =>
            {
                self.remade_well(index, &outputs, seconds);
            }
            Executed::Done { outputs, seconds, differs } => {
                self.remaking.remove(&index);
                if differs {
                    self.tell_nondeterministic(index, &resolution.key);
                }
                match self.refused_outputs(index, &outputs) {
                    Some(failure) => self.end_badly(index, failure, seconds),
                    None => self.end_well(index, Outcome::Executed, outputs, seconds),
                }
            }
            Executed::InputsLost(lost) => self.remake(index, &lost)?,
            Executed::Failed { failure, seconds } => self.end_badly(index, failure, seconds),
        }
        Ok(())
    }
}
