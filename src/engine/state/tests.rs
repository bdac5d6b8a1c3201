//! Transitions of the state. Leases are taken in an empty cache; nothing else is I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::cache::{Cache, Digest, StatIndex, Tree, TreeEntry};
use crate::kernels::random::Rng;
use crate::plan::testing::plan;
use crate::plan::{Output, Preimage};

static CANCELLED: AtomicBool = AtomicBool::new(false);

fn options(jobs: usize, keep_going: bool) -> Options<'static> {
    Options { jobs, keep_going, ..Options::new("project".into(), &CANCELLED, &|_| {}) }
}

/// Returns outputs of one file with this content.
fn outputs(content: &str) -> Outputs {
    let entry = TreeEntry {
        path: "file".to_owned(),
        digest: Digest::of_bytes(content.as_bytes()),
        size: 1,
        executable: false,
    };
    let tree = Arc::new(Tree::new(vec![entry]).unwrap());
    Outputs::from([("files".to_owned(), Output { tree, source: None })])
}

/// A run's state, and the events that it has emitted.
struct Fixture<'a> {
    state: RunState<'a>,
    cache: Cache,
    _folder: tempfile::TempDir,
    events: Vec<Event>,
}

impl<'a> Fixture<'a> {
    fn new(plan: &'a Plan, options: &'a Options<'a>) -> Self {
        // In memory where the system has such a file system: a lease costs a sync.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let cache = Cache::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
        Self { state: RunState::new(plan, options), cache, _folder: folder, events: Vec::new() }
    }

    /// Returns the next action other than emitting an event.
    fn next(&mut self) -> Option<Action> {
        loop {
            match self.state.next_action()? {
                Action::Emit(event) => self.events.push(event),
                action => return Some(action),
            }
        }
    }

    fn handle(&mut self, event: SchedulerEvent) {
        self.state.handle(event);
    }

    fn resolved(&mut self, task: usize, key: &str) {
        let key = Digest::of_bytes(key.as_bytes());
        let preimage = Preimage {
            kind: "test".to_owned(),
            version: 1,
            spec: BTreeMap::new(),
            seed: None,
            inputs: Vec::new(),
        };
        let resolution = Box::new(Resolution { key, preimage, inputs: Vec::new() });
        self.handle(match self.state.tasks[task] {
            TaskState::Done(_) => {
                SchedulerEvent::Restorable { task: TaskId(task), resolution, demand: demand(task) }
            }
            _ => SchedulerEvent::Resolved { task: TaskId(task), resolution, source: None },
        });
    }

    fn leased(&mut self, task: TaskId) {
        let lease =
            self.cache.leases().take(&Digest::of_bytes(task.0.to_string().as_bytes())).unwrap().unwrap();
        self.handle(SchedulerEvent::Leased { task, lease });
    }

    /// Performs actions until `task` runs; keys are the tasks' indices.
    fn start(&mut self, task: usize) {
        loop {
            match self.next().expect("the task starts") {
                Action::Resolve(task) | Action::Restore(task) => self.resolved(task.0, &task.0.to_string()),
                Action::LookUp(task) => {
                    self.handle(SchedulerEvent::NotRecorded { task, demand: demand(task.0) });
                }
                Action::TakeLease(task) => self.leased(task),
                Action::Execute { task: started, .. } if started == TaskId(task) => return,
                Action::Execute { .. } | Action::ReportHolder(_) | Action::Emit(_) => {}
            }
        }
    }

    fn executed(&mut self, task: usize, content: &str, seconds: f64) {
        let (task, outputs) = (TaskId(task), outputs(content));
        self.handle(SchedulerEvent::Executed { task, outputs, seconds, differs: false, refused: None });
    }

    /// Runs a task to its end.
    fn run(&mut self, task: usize) {
        self.start(task);
        self.executed(task, "as before", 1.0);
    }

    /// Ends the next task by a record of the remote.
    fn recorded(&mut self, task: usize) {
        self.answer(task, Outcome::RemoteHit, "as before");
    }

    /// Ends the next task by a local record with this content.
    fn answered(&mut self, task: usize, content: &str) {
        self.answer(task, Outcome::Hit, content);
    }

    fn answer(&mut self, task: usize, outcome: Outcome, content: &str) {
        while let Some(action) = self.next() {
            match action {
                Action::Resolve(next) => self.resolved(next.0, &next.0.to_string()),
                Action::LookUp(next) if next == TaskId(task) => break,
                other => panic!("{other:?}"),
            }
        }
        self.handle(SchedulerEvent::Recorded { task: TaskId(task), outcome, outputs: outputs(content) });
    }

    fn lost(&mut self, task: usize, producers: &[usize]) {
        let lost = producers.iter().map(|&producer| (TaskId(producer), "file".to_owned())).collect();
        self.handle(SchedulerEvent::InputsLost { task: TaskId(task), lost });
    }

    fn fail(&mut self, task: usize) {
        let failure = Failure::Panic { message: "on purpose".to_owned() };
        self.handle(SchedulerEvent::Failed { task: TaskId(task), failure, seconds: 0.0 });
    }

    /// Ends the run. Returns the outcome of each task, the run, and its events.
    fn outcomes(mut self) -> (Vec<Outcome>, Run, Vec<Event>) {
        self.state.close();
        assert!(self.next().is_none());
        let run = self.state.into_run(false, std::time::Duration::ZERO);
        (run.tasks.iter().map(|end| end.outcome).collect(), run, self.events)
    }
}

fn demand(rank: usize) -> Demand {
    Demand { rank, threads: 1, memory: 0 }
}

fn is_nondeterministic(event: &Event) -> bool {
    matches!(event, Event::Nondeterministic { .. })
}

fn is_other(found: &Outputs) -> bool {
    found["files"].tree.digest() == outputs("other")["files"].tree.digest()
}

fn finished(events: &[Event]) -> Vec<TaskId> {
    let task = |event: &Event| match event {
        Event::TaskFinished { task, .. } => Some(*task),
        _ => None,
    };
    events.iter().filter_map(task).collect()
}

#[test]
fn an_equal_task_takes_the_outputs_of_its_leader() {
    let (plan, options) = (plan(&[&[], &[], &[1]]), options(2, false));
    let mut fixture = Fixture::new(&plan, &options);
    for task in [0, 1] {
        assert!(matches!(fixture.next(), Some(Action::Resolve(TaskId(next))) if next == task));
        fixture.resolved(task, "equal");
        if task == 0 {
            assert!(matches!(fixture.next(), Some(Action::LookUp(TaskId(0)))));
            fixture.handle(SchedulerEvent::NotRecorded { task: TaskId(0), demand: demand(0) });
        }
    }
    fixture.start(0);
    fixture.executed(0, "x", 1.0);
    assert!(matches!(fixture.next(), Some(Action::Resolve(TaskId(2)))), "its reader is ready");
    let (outcomes, ..) = fixture.outcomes();
    assert_eq!(outcomes, [Outcome::Executed, Outcome::Merged, Outcome::Blocked]);
}

#[test]
fn a_failure_blocks_readers_and_equal_tasks_and_stops_what_has_not_started() {
    let (plan, options) = (plan(&[&[], &[0], &[], &[]]), options(1, false));
    let mut fixture = Fixture::new(&plan, &options);
    fixture.next();
    fixture.resolved(0, "equal");
    fixture.next();
    fixture.handle(SchedulerEvent::NotRecorded { task: TaskId(0), demand: demand(0) });
    fixture.next();
    fixture.resolved(2, "equal");
    fixture.start(0);
    fixture.fail(0);
    assert!(fixture.next().is_none() && fixture.state.is_over(), "task 3 does not start");
    let (outcomes, ..) = fixture.outcomes();
    let expected = [Outcome::Failed, Outcome::Blocked, Outcome::Blocked, Outcome::Blocked];
    assert_eq!(outcomes, expected);
}

#[test]
fn lost_inputs_are_restored_once_for_all_readers_which_then_go_on() {
    let (plan, options) = (plan(&[&[], &[0], &[0]]), options(2, false));
    let mut fixture = Fixture::new(&plan, &options);
    fixture.run(0);
    fixture.start(1);
    fixture.start(2);
    fixture.lost(1, &[0, 0]);
    assert!(matches!(fixture.next(), Some(Action::Restore(TaskId(0)))));
    fixture.resolved(0, "0");
    fixture.lost(2, &[0]);
    assert!(fixture.state.outputs(TaskId(0)).is_some(), "its outputs stay known");
    fixture.run(0);
    for task in [1, 2] {
        fixture.run(task);
    }
    let (outcomes, run, events) = fixture.outcomes();
    assert_eq!(outcomes, [Outcome::Executed; 3]);
    assert_eq!((run.remade, run.tasks[0].seconds), (1, 2.0));
    assert_eq!(finished(&events), [0, 1, 2].map(TaskId));
    let remade = events.iter().filter(|event| matches!(event, Event::TaskRemade { .. })).count();
    assert_eq!(remade, 1);
}

#[test]
fn objects_that_another_process_restored_are_enough() {
    let (plan, options) = (plan(&[&[], &[0]]), options(2, false));
    let mut fixture = Fixture::new(&plan, &options);
    fixture.run(0);
    fixture.start(1);
    fixture.lost(1, &[0]);
    assert!(matches!(fixture.next(), Some(Action::Restore(TaskId(0)))));
    fixture.resolved(0, "0");
    assert!(matches!(fixture.next(), Some(Action::TakeLease(TaskId(0)))));
    fixture.handle(SchedulerEvent::Restored { task: TaskId(0) });
    fixture.run(1);
    let (outcomes, run, _) = fixture.outcomes();
    assert_eq!((outcomes, run.remade), (vec![Outcome::Executed; 2], 0));
}

#[test]
fn a_task_that_cannot_be_restored_fails_its_readers_alone() {
    let (plan, options) = (plan(&[&[], &[0], &[1]]), options(2, true));
    let mut fixture = Fixture::new(&plan, &options);
    fixture.run(0);
    fixture.run(1);
    fixture.start(2);
    fixture.lost(2, &[1]);
    fixture.start(1);
    fixture.lost(1, &[0]);
    fixture.start(0);
    fixture.fail(0);
    let (outcomes, run, events) = fixture.outcomes();
    assert_eq!(outcomes, [Outcome::Executed, Outcome::Executed, Outcome::Failed]);
    assert_eq!(
        run.tasks[2].failure.as_ref().unwrap().to_string(),
        "`1` could not be made again: `0` could not be made again: internal error: on purpose"
    );
    assert_eq!(finished(&events), [0, 1, 2].map(TaskId), "each task ends once");
}

#[test]
fn other_bytes_than_before_start_the_run_over_with_them() {
    let (plan, options) = (plan(&[&[], &[], &[0], &[0]]), options(4, true));
    let mut fixture = Fixture::new(&plan, &options);
    fixture.recorded(0);
    fixture.start(3);
    for task in [1, 3] {
        fixture.executed(task, "as before", 1.0);
    }
    fixture.lost(2, &[0]);
    fixture.start(0);
    fixture.executed(0, "other", 1.0);
    assert!(fixture.next().is_none() && fixture.state.is_over());
    assert!(fixture.state.start_over() && !fixture.state.start_over(), "once");
    // The record of 0 names the new bytes now, that of 1 answers, and the readers of 0 run.
    fixture.answered(0, "other");
    fixture.answered(1, "as before");
    for reader in [2, 3] {
        fixture.run(reader);
    }
    let (outcomes, run, events) = fixture.outcomes();
    assert_eq!(outcomes, [Outcome::Executed; 4]);
    assert!(is_other(run.tasks[0].outputs.as_ref().unwrap()) && run.remade == 0);
    assert!(events.iter().any(is_nondeterministic));
    let ends: Vec<usize> = finished(&events).iter().map(|task| task.0).collect();
    assert_eq!(ends, [0, 1, 3, 0, 2], "what ends as before is not reported again");
}

#[test]
fn a_task_that_gives_ever_new_bytes_fails_its_readers_in_the_end() {
    let (plan, options) = (plan(&[&[], &[0]]), options(2, true));
    let mut fixture = Fixture::new(&plan, &options);
    fixture.run(0);
    for (round, content) in ["other", "yet another"].into_iter().enumerate() {
        fixture.start(1);
        fixture.lost(1, &[0]);
        fixture.start(0);
        fixture.executed(0, content, 1.0);
        assert_eq!(fixture.state.start_over(), round == 0);
        if round == 0 {
            fixture.answered(0, content);
        }
    }
    let (outcomes, ..) = fixture.outcomes();
    assert_eq!(outcomes, [Outcome::Executed, Outcome::Failed]);
}

#[test]
fn a_held_lease_is_reported_once_and_lets_the_next_task_start() {
    let (plan, options) = (plan(&[&[], &[]]), options(2, false));
    let mut fixture = Fixture::new(&plan, &options);
    for task in [0, 1] {
        fixture.next();
        fixture.resolved(task, &task.to_string());
        fixture.next();
        fixture.handle(SchedulerEvent::NotRecorded { task: TaskId(task), demand: demand(task) });
    }
    let held = |fixture: &mut Fixture<'_>| {
        assert!(matches!(fixture.next(), Some(Action::TakeLease(TaskId(0)))));
        fixture.handle(SchedulerEvent::LeaseHeld { task: TaskId(0) });
    };
    held(&mut fixture);
    assert!(matches!(fixture.next(), Some(Action::ReportHolder(TaskId(0)))));
    fixture.start(1);
    assert!(fixture.next().is_none() && !fixture.state.is_over(), "task 0 is tried again later");
    fixture.handle(SchedulerEvent::Polled);
    held(&mut fixture);
    assert!(fixture.next().is_none());
}

#[test]
fn whatever_happens_each_task_ends_once() {
    for seed in 0..300 {
        let mut random = Rng::new(seed, "schedule");
        let upstream: Vec<Vec<usize>> =
            (0..12_usize).map(|task| (0..task).filter(|_| random.below(4) == 0).collect()).collect();
        let upstream: Vec<&[usize]> = upstream.iter().map(Vec::as_slice).collect();
        let (plan, options) = (plan(&upstream), options(1 + random.below(3), random.below(2) == 0));
        let mut fixture = Fixture::new(&plan, &options);
        let mut running = BTreeSet::new();
        loop {
            while let Some(action) = fixture.next() {
                answer(&mut fixture, &action, &mut running, &mut random);
            }
            if fixture.state.is_over() {
                if fixture.state.start_over() {
                    continue;
                }
                break;
            }
            fixture.handle(SchedulerEvent::Polled);
            if running.is_empty() {
                continue;
            }
            let task = *running.iter().nth(random.below(running.len())).unwrap();
            running.remove(&task);
            let producers: Vec<usize> = plan.upstream(TaskId(task)).iter().map(|id| id.0).collect();
            match random.below(8) {
                0 if random.below(3) == 0 => fixture.fail(task),
                1 | 2 if !producers.is_empty() => fixture.lost(task, &producers),
                3 => fixture.executed(task, "other", 1.0),
                _ => fixture.executed(task, "x", 1.0),
            }
        }
        let (outcomes, _, events) = fixture.outcomes();
        // A task whose end changes when the run starts over is reported again.
        let mut last = BTreeMap::new();
        for event in &events {
            if let Event::TaskFinished { task, outcome, .. } = event {
                let before = last.insert(task.0, *outcome);
                assert!(before.is_none() || events.iter().any(is_nondeterministic), "seed {seed}");
            }
        }
        assert_eq!(last.into_values().collect::<Vec<_>>(), outcomes, "seed {seed}");
    }
}

fn answer(fixture: &mut Fixture<'_>, action: &Action, running: &mut BTreeSet<usize>, random: &mut Rng) {
    match *action {
        // Some tasks are equal to others.
        Action::Resolve(task) => fixture.resolved(task.0, &(task.0 / (1 + random.below(2))).to_string()),
        Action::Restore(task) => fixture.resolved(task.0, &task.0.to_string()),
        Action::LookUp(task) if random.below(4) == 0 => {
            fixture.handle(SchedulerEvent::Recorded { task, outcome: Outcome::Hit, outputs: outputs("x") });
        }
        Action::LookUp(task) => fixture.handle(SchedulerEvent::NotRecorded { task, demand: demand(task.0) }),
        Action::TakeLease(task) if random.below(4) == 0 => fixture.handle(SchedulerEvent::LeaseHeld { task }),
        Action::TakeLease(task) => fixture.leased(task),
        Action::Execute { task, .. } => {
            running.insert(task.0);
        }
        Action::ReportHolder(_) | Action::Emit(_) => {}
    }
}
