//! Progress bars on stderr: one for the run, and one for each running task with its remaining time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::{Event, Outcome};
use crate::plan::TaskId;
use crate::text::on_one_line;

/// Progress bars driven by a run's events; hidden if stderr is not a terminal.
pub struct Bars {
    bars: MultiProgress,
    state: Mutex<State>,
}

struct State {
    run: ProgressBar,
    tasks: HashMap<TaskId, ProgressBar>,
}

impl Bars {
    /// Bars on stderr.
    pub fn new() -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let run =
            bars.add(ProgressBar::new(0).with_style(style("{bar:30} {pos}/{len} tasks  {elapsed}  {msg}")));
        Self { bars, state: Mutex::new(State { run, tasks: HashMap::new() }) }
    }

    /// Updates the bars for one event.
    pub fn show(&self, event: &Event) {
        let Ok(mut state) = self.state.lock() else { return };
        match event {
            Event::RunStarted { tasks, .. } => state.run.set_length(*tasks as u64),
            Event::TaskStarted { task, name, .. } => {
                let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix}  {elapsed}"));
                let bar = self.bars.insert_before(&state.run, bar);
                if let Some(old) = state.tasks.remove(task) {
                    old.finish_and_clear();
                }
                bar.set_prefix(name.clone());
                bar.enable_steady_tick(Duration::from_millis(200));
                state.tasks.insert(*task, bar);
            }
            Event::TaskProgress { task, done, total, step_name } => {
                if let Some(bar) = state.tasks.get(task) {
                    if bar.length() != Some(*total) {
                        bar.set_length(*total);
                        bar.set_style(style(&format!(
                            "{{spinner}} {{prefix}} {{bar:20}} {{pos}}/{{len}} {step_name}s  {{per_sec}}  {{eta}} left"
                        )));
                    }
                    bar.set_position(*done);
                }
            }
            Event::TaskWarning { name, message, .. } => {
                let _ = self.bars.println(format!("warning: `{name}`: {}", on_one_line(message)));
            }
            Event::TaskWaiting { name, holder, .. } => {
                let _ =
                    self.bars.println(format!("waiting for `{name}`: {} is making it", on_one_line(holder)));
            }
            Event::TaskRemade { name, file, .. } => {
                let _ = self.bars.println(format!(
                    "making `{name}` again: `{}` is gone or damaged in the cache",
                    on_one_line(file)
                ));
            }
            Event::RemakeFinished { task, .. } | Event::TaskStalled { task, .. } => {
                if let Some(bar) = state.tasks.remove(task) {
                    bar.finish_and_clear();
                }
            }
            Event::Nondeterministic { name, .. } => {
                let _ =
                    self.bars.println(format!("warning: `{name}` produced different bytes for equal inputs"));
            }
            Event::TaskFinished { task, outcome, .. } => {
                if let Some(bar) = state.tasks.remove(task) {
                    bar.finish_and_clear();
                }
                state.run.inc(1);
                if *outcome == Outcome::Failed {
                    state.run.set_message("a task failed");
                }
            }
            Event::Pushed { records, .. } => {
                state.run.set_message(format!("{records} results pushed to the remote"));
            }
            Event::RunFinished { .. } => {
                state.run.finish_and_clear();
            }
        }
    }
}

impl Default for Bars {
    fn default() -> Self {
        Self::new()
    }
}

fn style(template: &str) -> ProgressStyle {
    // Templates are constants of this file. If one cannot be parsed, the default bar is used.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
