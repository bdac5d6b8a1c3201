//! From events and outputs to what a person sees and keeps: progress, tables, the run's folder.
//!
//! ```text
//! runs/<experiment>/<run id>/
//!   run.json                      how the run was asked for, written when it begins
//!   summary.json                  the same, the plan's totals, every task's end, every variant's metrics
//!   table.md  table.csv  table.tex
//!   differences.md  differences.csv   paired over the repeats, where there are any
//!   events.ndjson                 one event a line
//!   logs/<task>-<key>.log         of each task that ran
//!   variants/<variant>/…          links to the outputs of its targets
//! runs/<experiment>/latest        the newest whole run that ended well
//! runs/<experiment>/verify/<id>/  verdict.json and logs of a verification
//! ```

mod compare;
mod differences;
mod events;
mod folder;
mod history;
mod profile;
mod progress;
mod statistics;
mod summary;
mod table;
mod users;
mod verdicts;

pub use compare::{Comparison, Shown};
pub use differences::{Difference, Differences, differences};
pub use events::EventLog;
pub use folder::{Folder, ReportError};
pub use history::{HistoryError, PastRun, Standing, find_run, past_runs};
pub use profile::Profile;
pub use progress::Bars;
pub use statistics::{Interval, Summary, paired, summarise};
pub use summary::{RunRequest, RunSummary, TaskSummary, VariantSummary};
pub use table::{Cell, Table, variant_table};
pub use users::users_of_keys;
pub use verdicts::{KindVerdicts, TaskVerdict, Verdicts};
