//! Presents a run: progress and tables for the terminal, and the files of its folder.
//!
//! ```text
//! runs/<experiment>/<run id>/
//!   run.json                      the request of the run, written when it begins
//!   summary.json                  the request, the plan's totals, every task's outcome, every variant's metrics
//!   table.md  table.csv  table.tex
//!   differences.md  differences.csv   paired over the repeats, if there are any
//!   events.ndjson                 one event a line
//!   logs/<task>-<key>.log         the log of each executed task
//!   variants/<variant>/…          links to the outputs of its targets
//! runs/<experiment>/latest        the newest run without failures
//! runs/<experiment>/verify/<id>/  verdict.json and logs of a verification
//! ```

mod compare;
mod differences;
mod events;
mod folder;
mod groups;
mod history;
mod latest;
mod profile;
mod progress;
mod statistics;
mod summary;
mod table;
mod table_warnings;
mod text_table;
mod users;
mod verdicts;

pub use compare::{Comparison, MetricsShown};
pub use differences::{Differences, PairedDifference, differences};
pub use events::EventLog;
pub use folder::{Folder, ReportError};
pub use history::{GroupResult, HistoryError, PastRun, RunStatus, find_run, past_runs};
pub use profile::Profile;
pub use progress::{Bars, Pace};
pub use statistics::{MeanInterval, Summary, paired, summarise};
pub use summary::{RunRequest, RunSummary, TaskCounts, TaskSummary, VariantSummary};
pub use table::{ResultCell, ResultTable, variant_table};
pub use table_warnings::TableWarnings;
pub use text_table::{Column, DEFAULT_WIDTH, TextTable, filled};
pub use users::users_of_keys;
pub use verdicts::{KindVerdicts, TaskVerdict, VerdictKind, Verdicts};
