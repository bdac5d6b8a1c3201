//! The log lines of a run: what starts, how far it is, how it ended. Shown with `-v`, or without a terminal for progress
//! bars.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::amounts;
use crate::engine::{Event, Outcome};
use crate::plan::{Plan, TaskId};
use crate::report::Pace;
use crate::text::on_one_line;

/// Time between two lines on the progress of one task (chosen).
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// Writes a run's events as log lines.
pub(super) struct RunLog {
    /// The name of each task with its axis values.
    titles: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Number of tasks that have ended.
    ended: usize,
    /// When each running task first said how far it is, and when a line last said it.
    begun: HashMap<TaskId, (Pace, Instant)>,
}

impl RunLog {
    pub(super) fn new(plan: &Plan) -> Self {
        let titles =
            (0..plan.tasks.len()).map(|index| super::log::quoted_title(plan, TaskId(index))).collect();
        Self { titles, state: Mutex::default() }
    }

    /// Writes the lines of an event.
    pub(super) fn write(&self, event: &Event) {
        match event {
            Event::TaskStarted { task, kind, key, .. } => {
                tracing::info!("{} {kind} {} starts, key {key:.12}", self.count(), self.title(*task));
            }
            Event::TaskProgress { task, done, total, step_name } => {
                self.progress(*task, *done, *total, step_name);
            }
            Event::TaskFinished { task, kind, outcome, seconds, .. } => {
                self.finished(*task, kind, *outcome, *seconds);
            }
            Event::TaskNote { task, message, .. } => {
                tracing::info!("{} {}: {}", self.count(), self.title(*task), on_one_line(message));
            }
            Event::TaskWarning { task, message, .. } => {
                tracing::warn!("{}: {}", self.title(*task), on_one_line(message));
            }
            Event::TaskWaiting { task, holder, .. } => {
                tracing::info!("{} waits: {} is making it", self.title(*task), on_one_line(holder));
            }
            Event::TaskRemade { name, file, .. } => {
                tracing::info!("`{name}` is made again: `{}` is gone or damaged", on_one_line(file));
            }
            Event::Nondeterministic { name, .. } => {
                tracing::warn!("`{name}` produced different bytes than before");
            }
            Event::RunStarted { .. }
            | Event::TaskStalled { .. }
            | Event::RemakeFinished { .. }
            | Event::Pushed { .. }
            | Event::RunFinished { .. } => {}
        }
    }

    fn title(&self, task: TaskId) -> &str {
        &self.titles[task.0]
    }

    /// `[3/16]`: the tasks that have ended.
    fn count(&self) -> String {
        let ended = self.state.lock().unwrap_or_else(PoisonError::into_inner).ended;
        format!("[{ended}/{}]", self.titles.len())
    }

    fn finished(&self, task: TaskId, kind: &str, outcome: Outcome, seconds: f64) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.ended += 1;
            state.begun.remove(&task);
        }
        let (count, title, time) = (self.count(), self.title(task), amounts::seconds(seconds));
        match outcome {
            Outcome::Hit | Outcome::RemoteHit | Outcome::Merged | Outcome::Blocked => {
                tracing::debug!("{count} {kind} {title} does not run");
            }
            Outcome::Executed => tracing::info!("{count} {kind} {title} done in {time}"),
            Outcome::Failed => tracing::info!("{count} {kind} {title} failed after {time}"),
        }
    }

    fn progress(&self, task: TaskId, done: u64, total: u64, step_name: &str) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (pace, last) = state.begun.entry(task).or_insert_with(|| (Pace::from(now, done), now));
        if now - *last < BETWEEN_LINES {
            return;
        }
        *last = now;
        let pace = pace.text(now, done, total, step_name);
        drop(state);
        let comma = if pace.is_empty() { "" } else { ", " };
        tracing::info!("{} {}: {done} of {total} {step_name}s{comma}{pace}", self.count(), self.title(task));
    }
}
