//! From events and outputs to what a person sees and keeps: progress, tables, the run's folder.
//!
//! ```text
//! runs/<experiment>/<run id>/
//!   summary.json                  the plan's totals, every variant's metrics, where each came from
//!   table.md  table.csv  table.tex
//!   events.ndjson                 one event a line
//!   logs/<task>-<key>.log         of each task that ran
//!   variants/<variant>/…          links to the outputs of its targets
//! runs/<experiment>/latest        the newest whole run that ended well
//! ```

mod events;
mod folder;
mod history;
mod progress;
mod statistics;
mod table;

pub use events::EventLog;
pub use folder::{Folder, ReportError, RunSummary};
pub use history::users_of_keys;
pub use progress::Bars;
pub use statistics::{Summary, summarise};
pub use table::{Cell, Table, variant_table};
