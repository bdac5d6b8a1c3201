//! `--profile`: where a run's time went, as a Chrome trace (Perfetto, `chrome://tracing`).
//!
//! Each execution is a complete event (`ph: X`, µs since the run began) on the lowest free lane, so that there are as
//! many lanes as tasks ran at once. Lane 0 holds instants: cached tasks, and waits for other processes. The format is
//! Google's "Trace Event Format".

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use super::ReportError;
use crate::engine::{Event, Outcome};
use crate::plan::TaskId;

/// The process id in traces: a run is one process.
const PROCESS: u32 = 1;

/// Records the events of a run as a trace.
pub struct Profile {
    path: PathBuf,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    experiment: String,
    /// Executions that are still running, by task.
    open: BTreeMap<TaskId, Open>,
    /// Number of lanes used so far.
    lanes: usize,
    events: Vec<Value>,
}

struct Open {
    lane: usize,
    began: f64,
    name: String,
    kind: &'static str,
    arguments: Value,
}

impl Profile {
    /// Starts the clock and creates the file, so that an unwritable path is reported before anything runs.
    pub fn begin(path: &Path) -> Result<Self, ReportError> {
        let profile = Self { path: path.to_owned(), began: Instant::now(), state: Mutex::default() };
        profile.write()?;
        Ok(profile)
    }

    /// Writes the trace. Executions that are still running are drawn as if they ended now.
    pub fn write(&self) -> Result<(), ReportError> {
        let failed = |source| ReportError::Write { path: self.path.clone(), source };
        fs::write(&self.path, self.to_json() + "\n").map_err(failed)
    }

    /// Records one event.
    pub fn note(&self, event: &Event) {
        if matches!(event, Event::TaskProgress { .. }) {
            return;
        }
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::RunStarted { experiment, .. } => state.experiment.clone_from(experiment),
            Event::TaskStarted { task, name, stage, kind, key, .. } => {
                state.open(*task, name, kind, now, json!({ "stage": stage, "key": key }));
            }
            Event::TaskStalled { task, .. } => state.close(*task, now, "stalled", None),
            Event::RemakeFinished { task, succeeded, .. } => {
                state.close(*task, now, if *succeeded { "remade" } else { "failed" }, None);
            }
            Event::TaskFinished { task, name, kind, outcome, variants, key, .. } => {
                let variants = variants.join(" ");
                if matches!(outcome, Outcome::Hit | Outcome::RemoteHit | Outcome::Merged) {
                    let arguments = json!({ "key": key, "variants": variants, "outcome": outcome });
                    state.mark(name, kind, now, &arguments);
                }
                state.close(*task, now, word(*outcome), Some(variants));
            }
            Event::TaskWaiting { name, holder, .. } => {
                state.mark(name, "wait", now, &json!({ "holder": holder }));
            }
            _ => {}
        }
    }

    fn to_json(&self) -> String {
        let now = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for task in state.open.keys().copied().collect::<Vec<_>>() {
            state.close(task, now, "unfinished", None);
        }
        let thread = |lane: usize| {
            let name = if lane == 0 { "cache".to_owned() } else { format!("worker {lane}") };
            json!({ "ph": "M", "name": "thread_name", "pid": PROCESS, "tid": lane, "args": { "name": name } })
        };
        let process = json!({
            "ph": "M", "name": "process_name", "pid": PROCESS,
            "args": { "name": format!("patchflow {}", state.experiment) },
        });
        let names = std::iter::once(process).chain((0..=state.lanes).map(thread));
        let events: Vec<Value> = names.chain(state.events.iter().cloned()).collect();
        json!({ "displayTimeUnit": "ms", "traceEvents": events }).to_string()
    }

    /// Returns the microseconds since the start.
    fn now(&self) -> f64 {
        self.began.elapsed().as_nanos() as f64 / 1000.0
    }
}

impl State {
    fn open(&mut self, task: TaskId, name: &str, kind: &'static str, began: f64, arguments: Value) {
        let is_free = |lane: &usize| self.open.values().all(|open| open.lane != *lane);
        // Each running execution holds one lane, so one of these lanes is free.
        let lane = (1..=self.open.len() + 1).find(is_free).unwrap_or(1);
        self.lanes = self.lanes.max(lane);
        self.open.insert(task, Open { lane, began, name: name.to_owned(), kind, arguments });
    }

    fn close(&mut self, task: TaskId, now: f64, outcome: &str, variants: Option<String>) {
        let Some(Open { lane, began, name, kind, mut arguments }) = self.open.remove(&task) else { return };
        arguments["outcome"] = outcome.into();
        if let Some(variants) = variants {
            arguments["variants"] = variants.into();
        }
        self.events.push(json!({
            "ph": "X", "name": name, "cat": kind, "pid": PROCESS, "tid": lane,
            "ts": began, "dur": now - began, "args": arguments,
        }));
    }

    fn mark(&mut self, name: &str, kind: &str, now: f64, arguments: &Value) {
        self.events.push(json!({
            "ph": "i", "s": "t", "name": name, "cat": kind, "pid": PROCESS, "tid": 0,
            "ts": now, "args": arguments,
        }));
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Executed => "executed",
        Outcome::Hit => "hit",
        Outcome::RemoteHit => "remote_hit",
        Outcome::Merged => "merged",
        Outcome::Failed => "failed",
        Outcome::Blocked => "blocked",
    }
}
