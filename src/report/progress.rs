//! Progress bars on stderr: one for the run, and one for each running task with its remaining time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::engine::{Event, Outcome};
use crate::plan::TaskId;
use crate::text::counted;
use crate::text::on_one_line;

/// The bar of the run, of a task, and of a task that says how far it is. The message is shortened if the line would be too
/// long, the numbers are not.
const RUN: &str = "{bar:20} {pos} of {len} tasks  {time}  {wide_msg}";
const BEGUN: &str = "{spinner} {wide_msg}  {time}";
const COUNTED: &str = "{spinner} {wide_msg} {bar:10} {prefix}";

/// Steps of a task over time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    since: Instant,
    done: u64,
    /// The steps at the last call: fewer are those of another part of the task.
    last: u64,
}

impl Pace {
    /// Measures from a moment at which some steps were done.
    pub fn from(since: Instant, done: u64) -> Self {
        Self { since, done, last: done }
    }

    /// Says how fast it goes and how long the rest takes: `14 images/s, 3 min left`; empty before the second step. Measures
    /// anew when the steps begin anew, as those of `augment`: first of a training, then of the samples.
    pub fn text(&mut self, now: Instant, done: u64, total: u64, step_name: &str) -> String {
        if done < self.last {
            *self = Self::from(now, done);
        }
        self.last = done;
        let seconds = (now - self.since).as_secs_f64();
        let since = done.saturating_sub(self.done);
        if since == 0 || seconds <= 0.0 {
            return String::new();
        }
        let rate = since as f64 / seconds;
        let left = total.saturating_sub(done) as f64 / rate;
        format!("{}, {} left", rate_text(rate, step_name), left_text(left))
    }
}

/// `14 images/s`, `0.3 images/s`, `12 MB/s`.
fn rate_text(rate: f64, step_name: &str) -> String {
    match (step_name, rate) {
        ("byte", _) => format!("{:.1} MB/s", rate / 1e6),
        (_, 10.0..) => format!("{rate:.0} {step_name}s/s"),
        _ => format!("{rate:.1} {step_name}s/s"),
    }
}

fn left_text(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// `30 of 200 images`, `1.5 of 20.0 MB`.
fn done_text(done: u64, total: u64, step_name: &str) -> String {
    if step_name == "byte" {
        return format!("{:.1} of {:.1} MB", done as f64 / 1e6, total as f64 / 1e6);
    }
    format!("{done} of {total} {step_name}s")
}

/// Progress bars driven by a run's events; hidden if stderr is not a terminal.
pub struct Bars {
    drawn: MultiProgress,
    /// The name of each task with its axis values.
    titles: Vec<String>,
    state: Mutex<State>,
}

struct State {
    run: ProgressBar,
    tasks: HashMap<TaskId, TaskBar>,
}

struct TaskBar {
    bar: ProgressBar,
    pace: Option<Pace>,
}

impl Bars {
    /// Bars on stderr for the tasks of a plan with these titles, of which `count` will end.
    pub fn new(titles: Vec<String>, count: usize) -> Self {
        let drawn = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let run = ProgressBar::new(count as u64);
        let run = drawn.add(run.with_style(style(RUN)));
        Self { drawn, titles, state: Mutex::new(State { run, tasks: HashMap::new() }) }
    }

    /// Updates the bars for one event.
    pub fn show(&self, event: &Event) {
        let Ok(mut state) = self.state.lock() else { return };
        match event {
            Event::TaskStarted { task, .. } => self.start(&mut state, *task),
            Event::TaskProgress { task, done, total, step_name } => {
                if let Some(task) = state.tasks.get_mut(task) {
                    task.advance(*done, *total, step_name);
                }
            }
            Event::RemakeFinished { task, .. } | Event::TaskStalled { task, .. } => state.end(*task),
            Event::TaskFinished { task, outcome, .. } => {
                state.end(*task);
                state.run.inc(1);
                if *outcome == Outcome::Failed {
                    state.run.set_message("a task failed");
                }
            }
            Event::Pushed { records, .. } => {
                state.run.set_message(format!("{} pushed to the remote", counted(*records, "result")));
            }
            Event::RunFinished { .. } => state.run.finish_and_clear(),
            Event::TaskNote { .. }
            | Event::TaskWarning { .. }
            | Event::TaskWaiting { .. }
            | Event::TaskRemade { .. }
            | Event::Nondeterministic { .. } => {
                // Lines above the bars. A failure to write them is no reason to end.
                let _ = self.drawn.println(self.line(event));
            }
            Event::RunStarted { .. } => {}
        }
    }

    /// The line of an event that is shown above the bars.
    fn line(&self, event: &Event) -> String {
        match event {
            Event::TaskNote { task, message, .. } => {
                format!("{}: {}", self.titles[task.0], on_one_line(message))
            }
            Event::TaskWarning { task, message, .. } => {
                format!("warning: {}: {}", self.titles[task.0], on_one_line(message))
            }
            Event::TaskWaiting { task, holder, .. } => {
                format!("waiting for {}: {} is making it", self.titles[task.0], on_one_line(holder))
            }
            Event::TaskRemade { name, file, .. } => {
                format!("making `{name}` again: `{}` is gone or damaged in the cache", on_one_line(file))
            }
            Event::Nondeterministic { name, .. } => {
                format!("warning: `{name}` produced different bytes for equal inputs")
            }
            _ => String::new(),
        }
    }

    fn start(&self, state: &mut State, task: TaskId) {
        state.end(task);
        let bar = ProgressBar::new_spinner().with_style(style(BEGUN));
        let bar = self.drawn.insert_before(&state.run, bar);
        bar.set_message(self.titles[task.0].clone());
        bar.enable_steady_tick(Duration::from_millis(200));
        state.tasks.insert(task, TaskBar { bar, pace: None });
    }
}

impl State {
    fn end(&mut self, task: TaskId) {
        if let Some(task) = self.tasks.remove(&task) {
            task.bar.finish_and_clear();
        }
    }
}

impl TaskBar {
    fn advance(&mut self, done: u64, total: u64, step_name: &str) {
        let now = Instant::now();
        if self.pace.is_none() {
            self.pace = Some(Pace::from(now, done));
            self.bar.set_style(style(COUNTED));
        }
        self.bar.set_length(total);
        let pace = self.pace.as_mut().map(|pace| pace.text(now, done, total, step_name)).unwrap_or_default();
        let comma = if pace.is_empty() { "" } else { ", " };
        self.bar.set_prefix(format!("{}{comma}{pace}", done_text(done, total, step_name)));
        self.bar.set_position(done);
    }
}

fn style(template: &str) -> ProgressStyle {
    // Templates are constants of this file. If one cannot be parsed, the default bar is used.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("time", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = text.write_str(&left_text(state.elapsed().as_secs_f64()));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_says_what_a_person_would() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let mut pace = Pace::from(now, 32);
        assert_eq!(pace.text(at(0), 32, 640, "image"), "");
        assert_eq!(pace.text(at(10), 172, 592, "image"), "14 images/s, 30 s left");
        assert_eq!(pace.text(at(200), 3, 100, "pick"), "", "other steps");
        assert_eq!(pace.text(at(300), 33, 333, "pick"), "0.3 picks/s, 17 min left");
        assert_eq!(Pace::from(now, 0).text(at(2), 5_000_000, 25_000_000, "byte"), "2.5 MB/s, 8 s left");
        assert_eq!(done_text(1_500_000, 20_000_000, "byte"), "1.5 of 20.0 MB");
        assert_eq!(done_text(30, 200, "image"), "30 of 200 images");
    }

    /// A template that cannot be parsed would show a default bar, without a name.
    #[test]
    fn every_template_is_valid() {
        for template in [RUN, BEGUN, COUNTED] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
