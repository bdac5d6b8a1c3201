//! The runs of a project, read back from `runs/`. Damaged folders and those of killed runs are listed as such and are
//! not errors.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::groups::{VariantGroup, groups};
use super::statistics::Summary;
use super::summary::{RunRequest, RunSummary};
use crate::cache::{Liveness, ProcessIdentity};

/// The metric of the groups of variants that `runs` shows.
const HEADLINE: &str = "image_auroc";

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It succeeded.
    Ok,
    /// A task failed.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// Its process is alive.
    Running,
    /// It has no summary: its process was killed, or runs on another machine.
    Incomplete,
    /// Its summary cannot be read.
    Damaged,
}

impl RunStatus {
    /// Returns the name in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
        }
    }
}

/// A group of variants, which differ only in repeats, and the headline metric that it reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupResult {
    /// The axis values that the variants share.
    pub group: String,
    /// Name of the metric.
    pub metric: &'static str,
    /// Mean over the repeats.
    pub mean: f64,
    /// Sample standard deviation over the repeats; `None` for one.
    pub deviation: Option<f64>,
    /// Number of repeats with the metric.
    pub repeats: usize,
}

/// A run found in `runs/`.
#[derive(Clone, Debug, Serialize)]
pub struct PastRun {
    /// The experiment's name.
    pub experiment: String,
    /// The run's id: its time and process.
    pub id: String,
    /// When it began (RFC 3339); empty if unknown.
    pub started: String,
    /// Path of the manifest; empty if unknown.
    pub manifest: String,
    /// How the run ended, or that it has not.
    pub outcome: RunStatus,
    /// Number of tasks that ran.
    pub executed: usize,
    /// Number of tasks whose results were cached.
    pub cached: usize,
    /// Wall-clock seconds; `None` if the run did not finish.
    pub seconds: Option<f64>,
    /// The groups of variants that have an image AUROC, the highest mean first; as in the manifest among equals.
    pub groups: Vec<GroupResult>,
    /// The run's folder.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Why a run cannot be found or read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum HistoryError {
    /// No run in the folder `runs` has that name.
    #[error("no run `{name}`")]
    Unknown { name: String, runs: PathBuf },
    /// No experiment of that name has run; `known` are those that have.
    #[error("no experiment `{name}` has run in `{}`", runs.display())]
    UnknownExperiment { name: String, runs: PathBuf, known: Vec<String> },
    /// Several run names begin with `name`; `found` lists them.
    #[error("`{name}` is the beginning of several runs: {found}")]
    Ambiguous { name: String, found: String },
    /// The run has no summary.
    #[error("the run `{}` has no summary: it did not finish", folder.display())]
    NoSummary { folder: PathBuf },
    /// The summary of the run cannot be read.
    #[error("cannot read `{}`", path.display())]
    Damaged {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Lists the runs of one experiment, or of all, the newest first.
///
/// # Errors
/// [`HistoryError::UnknownExperiment`] if no experiment of that name has run.
pub fn past_runs(project: &Path, experiment: Option<&str>) -> Result<Vec<PastRun>, HistoryError> {
    let runs = project.join("runs");
    if let Some(name) = experiment {
        let known = names_of_folders(&runs);
        if !known.iter().any(|known| known == name) {
            return Err(HistoryError::UnknownExperiment { name: name.to_owned(), runs, known });
        }
    }
    let mut runs: Vec<PastRun> = named(project, experiment)
        .iter()
        .filter_map(|(experiment, id, folder)| read(experiment, id, folder))
        .collect();
    // The id holds the second of the start; the request orders runs within a second.
    runs.sort_by_cached_key(|run| {
        let second = run.id.get(..15).unwrap_or_default().to_owned();
        Reverse((second, run.started.parse::<jiff::Timestamp>().ok(), run.id.clone()))
    });
    Ok(runs)
}

/// Lists the folders of runs, each with its experiment and id, newest first, without opening them.
fn named(project: &Path, experiment: Option<&str>) -> Vec<(String, String, PathBuf)> {
    let runs = project.join("runs");
    let experiments = match experiment {
        Some(name) => vec![name.to_owned()],
        None => names_of_folders(&runs),
    };
    let mut found = Vec::new();
    for experiment in experiments {
        let folder = runs.join(&experiment);
        let ids = names_of_folders(&folder).into_iter();
        found.extend(ids.map(|id| (experiment.clone(), id.clone(), folder.join(id))));
    }
    // Ids begin with the local time of the start.
    found.sort_by(|a, b| (&b.1, &b.0).cmp(&(&a.1, &a.0)));
    found
}

/// Returns the names of the folders (not of links to folders) in a folder, sorted.
fn names_of_folders(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Reads a run's folder; `None` if it is not the folder of a run.
fn read(experiment: &str, id: &str, folder: &Path) -> Option<PastRun> {
    let run = |request: RunRequest, outcome| PastRun {
        experiment: experiment.to_owned(),
        id: id.to_owned(),
        started: request.started,
        manifest: request.manifest,
        outcome,
        executed: 0,
        cached: 0,
        seconds: None,
        groups: Vec::new(),
        folder: folder.to_owned(),
    };
    match summary(folder) {
        Ok(summary) => Some(PastRun {
            executed: summary.tasks.outcomes.executed,
            cached: summary.tasks.outcomes.hits,
            seconds: Some(summary.seconds),
            groups: results(&summary),
            ..run(summary.run.clone(), status(&summary))
        }),
        Err(HistoryError::NoSummary { .. }) => {
            let request = request(folder);
            if request.is_none() && !folder.join("events.ndjson").is_file() {
                return None;
            }
            let request = request.unwrap_or_default();
            let is_alive = request.process.as_ref().map(ProcessIdentity::liveness) == Some(Liveness::Alive);
            let outcome = if is_alive { RunStatus::Running } else { RunStatus::Incomplete };
            let (executed, cached) = counted(folder);
            Some(PastRun { executed, cached, ..run(request, outcome) })
        }
        Err(_) => Some(run(request(folder).unwrap_or_default(), RunStatus::Damaged)),
    }
}

fn status(summary: &RunSummary) -> RunStatus {
    if summary.interrupted {
        RunStatus::Interrupted
    } else if summary.tasks.outcomes.failed > 0 || summary.tasks.planned == 0 {
        RunStatus::Failed
    } else {
        RunStatus::Ok
    }
}

fn results(summary: &RunSummary) -> Vec<GroupResult> {
    let result = |group: &VariantGroup<'_>| {
        let Summary { mean, deviation, n } = group.metric(HEADLINE)?;
        let group = group.name.clone();
        Some(GroupResult { group, metric: HEADLINE, mean, deviation, repeats: n })
    };
    let mut results: Vec<GroupResult> = groups(summary).iter().filter_map(result).collect();
    results.sort_by(|a, b| b.mean.total_cmp(&a.mean));
    results
}

fn request(folder: &Path) -> Option<RunRequest> {
    serde_json::from_slice(&fs::read(folder.join("run.json")).ok()?).ok()
}

/// Counts the executed and the cached tasks in the events of a run without a summary.
fn counted(folder: &Path) -> (usize, usize) {
    let Ok(text) = fs::read(folder.join("events.ndjson")) else { return (0, 0) };
    let events = text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let outcomes: Vec<Value> = events.map(|mut event: Value| event["outcome"].take()).collect();
    let count = |word| outcomes.iter().filter(|outcome| **outcome == word).count();
    (count("executed"), count("hit"))
}

/// Reads the summary of the run in a folder.
pub(super) fn summary(folder: &Path) -> Result<RunSummary, HistoryError> {
    let path = folder.join("summary.json");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(HistoryError::NoSummary { folder: folder.to_owned() });
        }
        Err(source) => return Err(HistoryError::Damaged { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|error| HistoryError::Damaged { path, source: error.into() })
}

/// Finds a run by its name: `latest`, an id or the beginning of one, each optionally after `EXPERIMENT/`; or the path
/// of its folder, relative to `current`.
pub fn find_run(project: &Path, current: &Path, name: &str) -> Result<(PathBuf, RunSummary), HistoryError> {
    let as_path = current.join(name);
    if as_path.join("summary.json").is_file() {
        let summary = summary(&as_path)?;
        return Ok((as_path, summary));
    }
    let runs = project.join("runs");
    let (experiment, id) = match name.trim_end_matches('/').rsplit_once('/') {
        Some((experiment, id)) => (Some(experiment.strip_prefix("runs/").unwrap_or(experiment)), id),
        None => (None, name),
    };
    let mut found = named(project, experiment);
    if id == "latest" {
        let is_latest = |experiment: &str, id: &str| {
            let link = fs::read_link(runs.join(experiment).join("latest"));
            link.is_ok_and(|target| target == Path::new(id))
        };
        found.retain(|(experiment, id, _)| is_latest(experiment, id));
        found.truncate(1);
    } else if let Some(exact) = found.iter().position(|run| run.1 == id) {
        found = vec![found.swap_remove(exact)];
    } else {
        found.retain(|run| !id.is_empty() && run.1.starts_with(id));
    }
    match found.as_slice() {
        [] => Err(HistoryError::Unknown { name: name.to_owned(), runs }),
        [(_, _, folder)] => Ok((folder.clone(), summary(folder)?)),
        several => {
            let names: Vec<String> =
                several.iter().map(|(experiment, id, _)| format!("{experiment}/{id}")).collect();
            Err(HistoryError::Ambiguous { name: name.to_owned(), found: names.join(", ") })
        }
    }
}
