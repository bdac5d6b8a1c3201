//! The runs of a project, read back from `runs/`. A folder that is damaged or was left by a run that was
//! killed is told as what it is; nothing in it can fail the listing of the others.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::summary::{RunRequest, RunSummary};
use crate::cache::{Liveness, ProcessIdentity};

/// The metric by which `runs` names a run's best variant.
const HEADLINE: &str = "image_auroc";

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It ended well.
    Ok,
    /// A task failed.
    Failed,
    /// The user stopped it.
    Interrupted,
    /// Its process still works.
    Running,
    /// It left no summary: its process was killed, or works on another machine.
    Incomplete,
    /// Its summary cannot be read.
    Damaged,
}

impl Standing {
    /// Its word in tables.
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

/// A variant and the headline metric that it reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The variant.
    pub variant: String,
    /// The metric's name.
    pub metric: &'static str,
    /// Its value.
    pub value: f64,
}

/// A run of the past.
#[derive(Clone, Debug, Serialize)]
pub struct PastRun {
    /// The experiment's name.
    pub experiment: String,
    /// The run's id.
    pub id: String,
    /// When it began (RFC 3339); empty where nothing says.
    pub started: String,
    /// The manifest; empty where nothing says.
    pub manifest: String,
    /// How it stands.
    pub outcome: Standing,
    /// Tasks that ran.
    pub executed: usize,
    /// Tasks answered by records.
    pub cached: usize,
    /// Wall-clock seconds; none of a run without an end.
    pub seconds: Option<f64>,
    /// The variant of the highest image AUROC; the first of equals.
    pub best: Option<Best>,
    /// Its folder.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Why a run cannot be found or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No run has that name.
    #[error("no run `{name}`")]
    Unknown {
        /// What was typed.
        name: String,
        /// Its project's folder of runs.
        runs: PathBuf,
    },
    /// Several runs have names that begin so.
    #[error("`{name}` is the beginning of several runs: {found}")]
    Ambiguous {
        /// What was typed.
        name: String,
        /// The runs, joined by commas.
        found: String,
    },
    /// It left no summary.
    #[error("the run `{}` left no summary: it did not come to its end", folder.display())]
    NoSummary {
        /// Its folder.
        folder: PathBuf,
    },
    /// Its summary is no summary.
    #[error("cannot read `{}`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl HistoryError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Unknown { runs, .. } => {
                format!("`patchflow runs` lists the runs in `{}`", runs.display())
            }
            Self::Ambiguous { .. } => "type more of it".to_owned(),
            Self::NoSummary { .. } => "run the manifest again: what was finished is kept".to_owned(),
            Self::Damaged { .. } => "name another run".to_owned(),
        }
    }
}

/// The runs of a project, of one experiment or of all, the newest first.
pub fn past_runs(project: &Path, experiment: Option<&str>) -> Vec<PastRun> {
    let mut runs: Vec<PastRun> = named(project, experiment)
        .iter()
        .filter_map(|(experiment, id, folder)| read(experiment, id, folder))
        .collect();
    // Ids tell the second, the request what came first within it.
    runs.sort_by_cached_key(|run| {
        let second = run.id.get(..15).unwrap_or_default().to_owned();
        Reverse((second, run.started.parse::<jiff::Timestamp>().ok(), run.id.clone()))
    });
    runs
}

/// The folders of runs, each with its experiment and id, the newest first; none of them is opened.
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

/// Folders, not links to them, in order of name.
fn names_of_folders(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// A run's folder; none for a folder that no run made.
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
        best: None,
        folder: folder.to_owned(),
    };
    match summary(folder) {
        Ok(summary) => Some(PastRun {
            executed: summary.count("executed"),
            cached: summary.count("hits"),
            seconds: Some(summary.seconds),
            best: best(&summary),
            ..run(summary.run.clone(), standing(&summary))
        }),
        Err(HistoryError::NoSummary { .. }) => {
            let request = request(folder);
            if request.is_none() && !folder.join("events.ndjson").is_file() {
                return None;
            }
            let request = request.unwrap_or_default();
            let works = request.process.as_ref().map(ProcessIdentity::liveness) == Some(Liveness::Alive);
            let outcome = if works { Standing::Running } else { Standing::Incomplete };
            let (executed, cached) = counted(folder);
            Some(PastRun { executed, cached, ..run(request, outcome) })
        }
        Err(_) => Some(run(request(folder).unwrap_or_default(), Standing::Damaged)),
    }
}

fn standing(summary: &RunSummary) -> Standing {
    if summary.interrupted {
        Standing::Interrupted
    } else if summary.count("failed") > 0 || summary.count("planned") == 0 {
        Standing::Failed
    } else {
        Standing::Ok
    }
}

fn best(summary: &RunSummary) -> Option<Best> {
    let mut best: Option<Best> = None;
    for variant in &summary.variants {
        let Some(&value) = variant.metrics.get(HEADLINE) else { continue };
        if best.as_ref().is_none_or(|best| value > best.value) {
            best = Some(Best { variant: variant.id.clone(), metric: HEADLINE, value });
        }
    }
    best
}

fn request(folder: &Path) -> Option<RunRequest> {
    serde_json::from_slice(&fs::read(folder.join("run.json")).ok()?).ok()
}

/// The tasks that ran and those that were answered, as far as the events of a run without an end tell.
fn counted(folder: &Path) -> (usize, usize) {
    let Ok(text) = fs::read(folder.join("events.ndjson")) else { return (0, 0) };
    let events = text.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    let outcomes: Vec<Value> = events.map(|mut event: Value| event["outcome"].take()).collect();
    let count = |word| outcomes.iter().filter(|outcome| **outcome == word).count();
    (count("executed"), count("hit"))
}

/// Reads the summary of the run in that folder.
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

/// Finds a run by what a person types: `latest`, `EXPERIMENT/latest`, an id or the beginning of one, the same
/// after `EXPERIMENT/`, or the path of its folder, seen from `current`.
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
