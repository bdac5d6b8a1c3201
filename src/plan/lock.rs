//! `experiments/x.lock`: every key, output digest and metric of a table, so that a paper's numbers are pinned.
//!
//! ```toml
//! version = 1
//! patchflow = "0.1.0"
//! experiment = "x"
//! tasks = [                                       # sorted, one a line
//!   { stage = "model", values = { bank = "dual" }, key = "…", outputs = { model = "…" } },
//! ]
//! [variants."bank=dual"]                          # sorted; metrics of the variant, shortest exact decimals
//! image_auroc = 0.9414
//! ```
//! A task is identified by its name and by the axis values on which all of its variants agree; if another task of
//! the same name has these values as well, its `variants` are listed, too. `task` is present if the name is not that
//! of the stage (`extract` of several sets). The file holds no time, path or host.

mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::explain::{differences, explain};
use super::graph::{Plan, TaskId};
use super::reason::Difference;
use super::record::Record;
use super::survey::{State, Status};
use crate::cache::{Cache, Digest};

pub use task::LockedTask;

/// The version of the file format.
const VERSION: u32 = 1;

/// A lock file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    /// Version of the program that wrote it.
    pub patchflow: String,
    /// The experiment's name.
    pub experiment: String,
    /// The tasks, sorted.
    pub tasks: Vec<LockedTask>,
    /// The metrics of each variant, by name; empty for a variant without an `evaluate` stage.
    #[serde(default)]
    pub variants: BTreeMap<String, BTreeMap<String, f64>>,
}

/// What a lock file requires of one task of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedResult {
    /// The key that it must have.
    pub key: Digest,
    /// The digests that the trees of its outputs must have, by name.
    pub outputs: BTreeMap<String, Digest>,
}

/// Whether a plan covers all that was locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanExtent {
    /// The whole manifest: nothing of the lock may be missing.
    Whole,
    /// A part of it (`--only`, `--target`).
    Part,
}

/// Why a table cannot be locked, or a run is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum LockError {
    /// There is no lock file at `path`.
    #[error("there is no lock file `{}`", path.display())]
    Absent { path: PathBuf },
    /// The lock file cannot be read or written.
    #[error("cannot use the lock file `{}`", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is not a valid lock file.
    #[error("the lock file `{}` is damaged", path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The lock file has another format version.
    #[error("the lock file `{}` has version {version}, this program reads {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
    /// The cache does not hold the results of all tasks; `missing` names the others.
    #[error("not every task is in the cache; missing: {}", missing.join("; "))]
    Incomplete { missing: Vec<String> },
    /// The plan differs from the lock; `first` is the first difference, as `explain` would print it.
    #[error("not as locked: {first}")]
    Differs { first: String },
}

/// Returns the path of a manifest's lock file: `experiments/x.lock` beside `experiments/x.toml`.
pub fn lock_path(manifest: &Path) -> PathBuf {
    manifest.with_extension("lock")
}

impl Lock {
    /// Locks a plan whose every task is cached. `metrics` reads the metrics of a record, if it is of an evaluation.
    pub fn of(
        plan: &Plan,
        statuses: &[Status],
        metrics: &dyn Fn(&Record) -> Option<BTreeMap<String, f64>>,
    ) -> Result<Self, LockError> {
        let mut missing = Vec::new();
        let mut tasks = Vec::new();
        for (index, status) in statuses.iter().enumerate() {
            match (status.state(), &status.resolution, outputs_of(status)) {
                (State::Hit | State::RemoteHit, Some(resolution), Some(outputs)) => {
                    tasks.push(LockedTask::of(plan, TaskId(index), resolution.key, outputs));
                }
                _ => missing.push(format!("{} ({})", title(plan, TaskId(index)), status.reason)),
            }
        }
        if !missing.is_empty() {
            return Err(LockError::Incomplete { missing });
        }
        tasks.sort_by(|a, b| a.order().cmp(&b.order()));
        let variants = plan.variants.iter().map(|variant| {
            let mut records = variant.shown.iter().filter_map(|id| statuses[id.0].record.as_ref());
            (variant.id.clone(), records.find_map(metrics).unwrap_or_default())
        });
        Ok(Self {
            version: VERSION,
            patchflow: env!("CARGO_PKG_VERSION").to_owned(),
            experiment: plan.experiment.clone(),
            tasks,
            variants: variants.collect(),
        })
    }

    /// Reads a lock file.
    pub fn read(path: &Path) -> Result<Self, LockError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => LockError::Absent { path: path.to_owned() },
            _ => LockError::File { path: path.to_owned(), source },
        })?;
        let malformed = |source| LockError::Malformed { path: path.to_owned(), source: Box::new(source) };
        // Check the version first: a file of another version would only be reported as damaged.
        let table: toml::Table = text.parse().map_err(malformed)?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(version) if version != i64::from(VERSION) => {
                Err(LockError::Version { path: path.to_owned(), version: version as u32 })
            }
            _ => toml::from_str(&text).map_err(malformed),
        }
    }

    /// Writes the file atomically.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        let failed = |source| LockError::File { path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The mode of any new file: the umask is taken from it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        // Of a random name: in containers, process ids are equal.
        let mut fresh = tempfile::Builder::new()
            .prefix(".lock-")
            .permissions(mode)
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(failed)?;
        fresh.write_all(self.to_text().as_bytes()).map_err(failed)?;
        fresh.persist(path).map(drop).map_err(|error| failed(error.error))
    }

    /// Returns the keys of the locked tasks, whose objects garbage collection must keep.
    pub fn keys(&self) -> BTreeSet<Digest> {
        self.tasks.iter().map(|task| task.key).collect()
    }

    fn to_text(&self) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut text = format!(
            "# Written by `patchflow lock`, checked by `patchflow run --locked`.\nversion = {}\n\
             patchflow = {}\nexperiment = {}\ntasks = [\n",
            self.version,
            quoted(&self.patchflow),
            quoted(&self.experiment)
        );
        for task in &self.tasks {
            let _ = writeln!(text, "  {},", task.line(&quoted));
        }
        text += "]\n";
        for (variant, metrics) in &self.variants {
            let _ = writeln!(text, "\n[variants.{}]", quoted(variant));
            for (name, value) in metrics {
                let _ = writeln!(text, "{name} = {}", toml::Value::from(*value));
            }
        }
        text
    }

    /// Returns what the lock requires of a plan's tasks, in the plan's order. Fails if a variant or a task of the
    /// plan is not locked or, with [`PlanExtent::Whole`], if the lock has one that the plan lacks.
    pub fn results(&self, plan: &Plan, extent: PlanExtent) -> Result<Vec<LockedResult>, LockError> {
        let differs = |first: String| Err(LockError::Differs { first });
        if let Some(new) = plan.variants.iter().find(|variant| !self.variants.contains_key(&variant.id)) {
            return differs(format!("the variant `{}` is new", new.id));
        }
        let is_gone = |id: &&String| plan.variants.iter().all(|variant| variant.id != **id);
        if extent == PlanExtent::Whole
            && let Some(gone) = self.variants.keys().find(is_gone)
        {
            return differs(format!("the variant `{gone}` is gone"));
        }
        let mut found = BTreeSet::new();
        let mut results = Vec::new();
        for (index, task) in plan.tasks.iter().enumerate() {
            let variant = task.variants.first().map(|&variant| &plan.variants[variant]);
            let is_it = |locked: &LockedTask| {
                *locked.name() == task.name && variant.is_some_and(|variant| locked.holds(variant))
            };
            let Some(index) = self.tasks.iter().position(is_it) else {
                return differs(format!("{}: the task is new", title(plan, TaskId(index))));
            };
            found.insert(index);
            let LockedTask { key, outputs, .. } = &self.tasks[index];
            results.push(LockedResult { key: *key, outputs: outputs.clone() });
        }
        let is_left = |index: &usize| extent == PlanExtent::Whole && !found.contains(index);
        match (0..self.tasks.len()).find(is_left) {
            Some(index) => differs(format!("{}: the task is gone", self.tasks[index].title())),
            None => Ok(results),
        }
    }
}

/// Compares the keys and outputs that are known before a run with the lock; the error names the first difference.
pub fn check_locked(
    plan: &Plan,
    statuses: &[Status],
    locked: &[LockedResult],
    cache: &Cache,
) -> Result<(), LockError> {
    for (index, (status, locked)) in statuses.iter().zip(locked).enumerate() {
        let id = TaskId(index);
        let Some(resolution) = &status.resolution else { continue };
        if resolution.key != locked.key {
            let why = why(plan, id, statuses, locked, cache);
            return Err(LockError::Differs { first: format!("{}: {why}", title(plan, id)) });
        }
        let Some(outputs) = outputs_of(status) else { continue };
        if let Some(name) = differing_output(&outputs, locked) {
            let first = format!("{}: the cache holds another `{name}` for the locked key", title(plan, id));
            return Err(LockError::Differs { first });
        }
    }
    Ok(())
}

/// Returns the name of the first output whose digest is not the locked one.
pub fn differing_output<'a>(
    outputs: &'a BTreeMap<String, Digest>,
    locked: &'a LockedResult,
) -> Option<&'a str> {
    let names: BTreeSet<&String> = outputs.keys().chain(locked.outputs.keys()).collect();
    names.into_iter().find(|name| outputs.get(*name) != locked.outputs.get(*name)).map(String::as_str)
}

/// Explains why a key is not the locked one: what differs from the locked task or, if its record is gone, from the
/// nearest one.
fn why(plan: &Plan, id: TaskId, statuses: &[Status], locked: &LockedResult, cache: &Cache) -> String {
    let record = cache.records().get(&locked.key).ok().flatten().and_then(|bytes| Record::from_bytes(&bytes));
    if let (Some(record), Some(resolution)) = (record, &statuses[id.0].resolution) {
        let found = differences(&record.preimage, resolution, cache);
        let lines: Vec<String> =
            found.iter().map(|difference: &Difference| format!("\n    {difference}")).collect();
        return format!("differs from the lock in{}", lines.concat());
    }
    let task = &plan.tasks[id.0];
    let explained = explain(plan, statuses, cache, &task.stage)
        .into_iter()
        .find(|explanation| explanation.task == task.name && explanation.values == plan.values_of(id));
    let key = statuses[id.0].resolution.as_ref().map(|resolution| resolution.key.to_string());
    let keys = format!("key {:.12} instead of {:.12}", key.unwrap_or_default(), locked.key.to_string());
    match explained {
        Some(explanation) if !statuses[id.0].state().is_hit() => {
            format!("{keys}; {}", explanation.reason.sentence())
        }
        _ => format!("{keys} (the locked task is not in this cache)"),
    }
}

/// Returns the digests of the trees of a record's outputs, or of a local source; `None` if the task would run.
fn outputs_of(status: &Status) -> Option<BTreeMap<String, Digest>> {
    if let Some(record) = &status.record {
        return Some(record.outputs.clone());
    }
    let resolution = status.resolution.as_ref().filter(|_| status.state().is_hit())?;
    let source = resolution.preimage.inputs.iter().find(|input| input.role == "source")?;
    Some(BTreeMap::from([("files".to_owned(), source.digest)]))
}

fn title(plan: &Plan, id: TaskId) -> String {
    let name = &plan.tasks[id.0].name;
    match plan.values_of(id).as_str() {
        "" => name.clone(),
        values => format!("{name} ({values})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, values: &[(&str, &str)], variants: Option<&[&str]>) -> LockedTask {
        LockedTask {
            stage: name.split('[').next().unwrap().to_owned(),
            task: name.contains('[').then(|| name.to_owned()),
            values: values.iter().map(|&(axis, value)| (axis.to_owned(), value.to_owned())).collect(),
            variants: variants.map(|ids| ids.iter().map(|&id| id.to_owned()).collect()),
            key: Digest::of_bytes(name.as_bytes()),
            outputs: [("bank".to_owned(), Digest::of_bytes(b"out"))].into(),
        }
    }

    #[test]
    fn a_lock_survives_its_text_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let metrics: BTreeMap<String, f64> =
            [("aupro", 0.1 + 0.2), ("tiny", 1e-17), ("one", 1.0), ("zero", 0.0)]
                .map(|(name, value)| (name.to_owned(), value))
                .into();
        let lock = Lock {
            version: VERSION,
            patchflow: "0.1.0".to_owned(),
            experiment: "x \"y\"".to_owned(),
            tasks: vec![
                task("features[images]", &[("back bone", "r\\18\n")], None),
                task("model", &[], Some(&["a=1,b=\"2\"", "a=2"])),
            ],
            variants: [("a=1,b=\"2\"".to_owned(), metrics), ("a=2".to_owned(), BTreeMap::new())].into(),
        };
        lock.write(&path).unwrap();
        assert_eq!(Lock::read(&path).unwrap(), lock);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let lines = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().filter(|line| line.contains("key = ")).count(), 2, "one task a line");
    }

    #[test]
    fn what_is_no_lock_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        assert!(matches!(Lock::read(&path), Err(LockError::Absent { .. })));
        std::fs::write(&path, "version = 2\nnovel = 1\n").unwrap();
        assert!(matches!(Lock::read(&path), Err(LockError::Version { version: 2, .. })));
        std::fs::write(&path, "version = 1\ntasks = 3\n").unwrap();
        assert!(matches!(Lock::read(&path), Err(LockError::Malformed { .. })));
    }
}
