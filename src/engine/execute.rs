//! Executes one task whose lease is held: checks its inputs, runs its stage in a scratch folder, publishes.
//!
//! It must not decide what runs next, nor write to the terminal; the scheduler does the one, listeners the
//! other. Only this file commits to the store.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use super::items::TaskItems;
use super::{Event, Options, hardware};
use crate::artifacts::{ArtifactError, File, Files};
use crate::kernels::backbone::{Backend, Device, Target, libtorch_version, simd_level};
use crate::plan::{
    BackboneProvenance, Output, Outputs, PlanError, Provenance, Record, Resolution, ResolvedInput, Task,
    TaskId,
};
use crate::stages::{Context, Inputs, Kind, Progress, Spec, StageError};
use crate::store::{Digest, Published, Scratch, Store, StoreError, Tree, full_disk_help};

/// Why a task did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The stage failed.
    #[error("{0}")]
    Stage(#[source] StageError),
    /// The store failed.
    #[error("the cache failed")]
    Store(#[source] StoreError),
    /// The inputs or the key could not be found.
    #[error(transparent)]
    Plan(PlanError),
    /// A source was edited while the stage read it.
    #[error("`{file}` changed while the stage read it")]
    SourceChanged {
        /// The first such file.
        file: String,
    },
    /// The program itself is at fault.
    #[error("internal error: {message}")]
    Panic {
        /// What it said.
        message: String,
    },
    /// What the task reads is gone from the cache, and could not be made again.
    #[error("`{stage}` could not be made again: {message}")]
    Remake {
        /// The stage that failed.
        stage: String,
        /// How.
        message: String,
    },
    /// The log cannot be written.
    #[error("cannot write the log `{}`", path.display())]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A stage gave other bytes than the record says, so that what was built on the record cannot go on.
    #[error("`{stage}` is not deterministic: it gave other bytes than its record says")]
    Nondeterministic {
        /// The stage.
        stage: String,
    },
}

impl Failure {
    /// What to do about it, where that is known.
    pub fn help(&self) -> Option<String> {
        if let Some(path) = full_disk(self) {
            return Some(full_disk_help(&path));
        }
        match self {
            Self::Stage(error) => error.help().map(str::to_owned),
            Self::Store(error) => error.help(),
            Self::Plan(error) => error.help(),
            Self::SourceChanged { .. } => Some("run again when nothing writes to the source".to_owned()),
            Self::Panic { .. } => Some("please report it with the task's log".to_owned()),
            Self::Remake { .. } => None,
            Self::Log { .. } => Some("check the folder's permissions and free space".to_owned()),
            Self::Nondeterministic { .. } => Some("run again: the new bytes are recorded now".to_owned()),
        }
    }

    /// Whether the user's wish to stop is the cause.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Stage(StageError::Cancelled))
    }
}

/// The file that could not be written where the disk is full, wherever in the causes that is said.
fn full_disk(error: &(dyn std::error::Error + 'static)) -> Option<PathBuf> {
    let is_full = |source: &std::io::Error| {
        matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = if let Some(StoreError::Write { path, source }) = error.downcast_ref() {
            Some((path, source))
        } else if let Some(ArtifactError::Io { path, source, .. }) = error.downcast_ref() {
            Some((path, source))
        } else if let Some(StageError::Io { path, source, .. }) = error.downcast_ref() {
            Some((path, source))
        } else if let Some(Failure::Log { path, source }) = error.downcast_ref() {
            Some((path, source))
        } else {
            None
        };
        if let Some((path, _)) = found.filter(|(_, source)| is_full(source)) {
            return Some(path.clone());
        }
        // A transparent error shows the causes of what it wraps, and not the wrapped error itself.
        cause = match error.downcast_ref() {
            Some(StageError::Artifact(inner)) => Some(inner),
            _ => error.source(),
        };
    }
    None
}

/// How an execution ended.
pub(super) enum Executed {
    /// Outputs are published; an earlier record of the key may have had others.
    Done { outputs: Outputs, seconds: f64, differs: bool },
    /// Inputs must be made again first: their producers, each with a file that is gone.
    InputsLost(Vec<(TaskId, String)>),
    /// It failed.
    Failed { failure: Failure, seconds: f64 },
}

/// One execution.
pub(super) struct Execution<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a Options<'a>,
    pub(super) pool: &'a rayon::ThreadPool,
    pub(super) experiment: &'a str,
    pub(super) id: TaskId,
    pub(super) task: &'a Task,
    pub(super) resolution: &'a Resolution,
    /// Whether an earlier record is to be replaced (the task was forced or is made again).
    pub(super) replaces: bool,
    /// Whether single items are made anew as well.
    pub(super) is_forced: bool,
}

impl Execution<'_> {
    /// Runs the task to its end. No panic of a stage gets past here.
    pub(super) fn run(&self) -> Executed {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| self.try_run(started)));
        let failed = |failure| Executed::Failed { failure, seconds: started.elapsed().as_secs_f64() };
        match result {
            Ok(Ok(executed)) => executed,
            Ok(Err(failure)) => failed(failure),
            Err(panic) => {
                let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
                failed(Failure::Panic { message: message.unwrap_or_else(|| "no message".to_owned()) })
            }
        }
    }

    fn try_run(&self, started: Instant) -> Result<Executed, Failure> {
        // What is published below stays for this run's readers, and so does an earlier record's output.
        self.store.hold(&self.resolution.key);
        let lost = self.lost_inputs().map_err(Failure::Store)?;
        if !lost.is_empty() {
            return Ok(Executed::InputsLost(lost));
        }
        let log = Log::create(&log_path(self.options, self.task, &self.resolution.key))?;
        let reporter = Reporter { log: &log, options: self.options, task: self.id.0 };
        let scratch = self.store.scratch(&self.task.stage).map_err(Failure::Store)?;
        let kind = self.task.spec.kind();
        let items = TaskItems::new(self.store, kind.name(), self.task.spec.version(), !self.is_forced);
        let result = self.run_stage(&scratch, &items, &reporter);
        if let Err(error) = result {
            log.line(&format!("failed: {}", chain(&error)));
            return self.failed(error);
        }
        self.check_sources()?;
        let seconds = started.elapsed().as_secs_f64();
        let (outputs, differs) = self.commit(&scratch, items, seconds).map_err(Failure::Store)?;
        // A folder that cannot be removed is only space; the next run of this key uses it again.
        let _ = self.store.remove_work(&self.resolution.key);
        log.line(&format!("done in {seconds:.3} s"));
        Ok(Executed::Done { outputs, seconds, differs })
    }

    /// What a stage's error means. An input may have been taken away under its hands, by someone who deletes
    /// in the cache or collects where locks do not work: then it is made again like one that was gone before.
    fn failed(&self, error: StageError) -> Result<Executed, Failure> {
        if !matches!(error, StageError::Cancelled) {
            let lost = self.lost_inputs().map_err(Failure::Store)?;
            if !lost.is_empty() {
                return Ok(Executed::InputsLost(lost));
            }
        }
        Err(Failure::Stage(error))
    }

    /// Publishes the outputs and the record. No collection comes between: what the outputs share with
    /// objects that were there already is there when the record names it.
    fn commit(
        &self,
        scratch: &Scratch,
        items: TaskItems<'_>,
        seconds: f64,
    ) -> Result<(Outputs, bool), StoreError> {
        let _pause = self.store.pause()?;
        let outputs = self.publish(scratch, items)?;
        self.record(outputs, seconds)
    }

    /// Inputs that lie in the store but are gone or damaged there.
    fn lost_inputs(&self) -> Result<Vec<(TaskId, String)>, StoreError> {
        let mut lost = Vec::new();
        for input in self.resolution.inputs.iter().filter(|input| input.source.is_none()) {
            if let Some(first) = self.store.check(&input.tree)?.first() {
                lost.push((input.producer, first.path.clone()));
            }
        }
        Ok(lost)
    }

    fn run_stage(
        &self,
        scratch: &Scratch,
        items: &TaskItems<'_>,
        reporter: &Reporter<'_>,
    ) -> Result<(), StageError> {
        let work = self
            .store
            .work_folder(&self.resolution.key)
            .map_err(|error| StageError::kernel("cannot make the stage's work folder", error))?;
        let context = Context {
            seed: self.task.seed.unwrap_or_default(),
            threads: self.options.threads,
            progress: reporter,
            items,
            cancelled: self.options.cancelled,
            is_offline: self.options.is_offline,
            work: &work,
            project: &self.options.project,
            environment: &self.options.environment,
        };
        let inputs = self.inputs();
        let run = || self.task.spec.run(&inputs, scratch.path(), &context);
        // What mostly waits must not hold one of the pool's few threads.
        let waits = matches!(self.task.spec.kind(), Kind::Command | Kind::Download);
        if waits { run() } else { self.pool.install(run) }
    }

    fn inputs(&self) -> Inputs {
        let files = |input: &ResolvedInput| {
            Files::new(input.tree.entries().iter().map(|entry| {
                let path = match &input.source {
                    Some(source) => source.path_of(entry),
                    None => self.store.object_path(&entry.digest),
                };
                let (digest, is_executable) = (entry.digest.to_string(), entry.executable);
                let file = File { path, digest, size_bytes: entry.size, is_executable };
                (entry.path.clone(), file)
            }))
        };
        Inputs(self.resolution.inputs.iter().map(|input| (input.role.clone(), files(input))).collect())
    }

    /// Refuses a result that was made of files other than those that were hashed.
    fn check_sources(&self) -> Result<(), Failure> {
        for source in self.resolution.inputs.iter().filter_map(|input| input.source.as_ref()) {
            let changed = source.changed_since().map_err(Failure::Store)?;
            if let Some(file) = changed.into_iter().next() {
                return Err(Failure::SourceChanged { file: source.root.join(file).display().to_string() });
            }
        }
        Ok(())
    }

    /// Publishes objects, then listings.
    fn publish(&self, scratch: &Scratch, items: TaskItems<'_>) -> Result<BTreeMap<String, Tree>, StoreError> {
        let mut placed = items.into_placed();
        let mut outputs = BTreeMap::new();
        for (name, _) in self.task.spec.outputs() {
            let folder = scratch.path().join(&name);
            let written = if folder.is_dir() { self.store.publish_tree(&folder)? } else { Tree::default() };
            let mut entries = written.entries().to_vec();
            entries.extend(placed.remove(&name).unwrap_or_default());
            let tree = Tree::new(entries)?;
            self.store.put_tree(&tree)?;
            outputs.insert(name, tree);
        }
        // Listings of the inputs stay beside the record, so that `explain` can name files.
        for input in &self.resolution.inputs {
            self.store.put_tree(&input.tree)?;
        }
        Ok(outputs)
    }

    /// Writes the record, or adopts the one that another process wrote first; tells whether an earlier one
    /// had other outputs.
    fn record(&self, trees: BTreeMap<String, Tree>, seconds: f64) -> Result<(Outputs, bool), StoreError> {
        let digests: BTreeMap<String, Digest> =
            trees.iter().map(|(name, tree)| (name.clone(), tree.digest())).collect();
        let provenance = Provenance {
            stage: self.task.stage.clone(),
            experiment: self.experiment.to_owned(),
            seconds,
            finished: jiff::Timestamp::now().to_string(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            simd: simd_level().to_owned(),
            patchflow: env!("CARGO_PKG_VERSION").to_owned(),
            backbone: match &self.task.spec {
                Spec::Extract(spec) => Some(backbone_provenance(spec.target)),
                _ => None,
            },
        };
        let mut record = Record::new(self.resolution.preimage.clone(), digests, provenance);
        let key = &self.resolution.key;
        let ours = || {
            let output = |(name, tree): (String, Tree)| (name, Output { tree: tree.into(), source: None });
            trees.into_iter().map(output).collect()
        };
        if self.replaces {
            let old = self.store.record(key)?.and_then(|bytes| Record::from_bytes(&bytes));
            let differs = old.as_ref().is_some_and(|old| old.outputs != record.outputs);
            if let Some(old) = old {
                record.others = old.others;
                if differs {
                    record.others.push(old.outputs);
                } else {
                    record.provenance.seconds = seconds.max(old.provenance.seconds);
                }
            }
            self.store.replace_record(key, &record.to_bytes())?;
            return Ok((ours(), differs));
        }
        if let Published::Theirs(bytes) = self.store.publish_record(key, &record.to_bytes())? {
            if let Some(theirs) = self.adopt(&bytes)? {
                let digests = theirs.iter().map(|(name, output)| (name.clone(), output.tree.digest()));
                let differs = digests.collect::<BTreeMap<_, _>>() != record.outputs;
                return Ok((theirs, differs));
            }
            self.store.replace_record(key, &record.to_bytes())?;
        }
        Ok((ours(), false))
    }

    fn adopt(&self, bytes: &[u8]) -> Result<Option<Outputs>, StoreError> {
        let Some(record) = Record::from_bytes(bytes) else { return Ok(None) };
        let mut outputs = Outputs::new();
        for (name, digest) in record.outputs {
            let Some(tree) = self.store.tree(&digest)? else { return Ok(None) };
            outputs.insert(name, Output { tree, source: None });
        }
        Ok(Some(outputs))
    }
}

fn backbone_provenance(target: Target) -> BackboneProvenance {
    let Target { backend, device, arithmetic } = target;
    let device_name = match device {
        Device::Cpu => hardware::processor(),
        // CUDA may number the cards in another order than the driver: only cards that are alike are named.
        Device::Cuda(_) => {
            let mut names = hardware::graphics_cards();
            names.dedup();
            if names.len() == 1 { names.remove(0) } else { String::new() }
        }
    };
    BackboneProvenance {
        backend: backend.name().to_owned(),
        device: device.to_string(),
        device_name,
        precision: arithmetic.name().to_owned(),
        libtorch: libtorch_version().filter(|_| backend == Backend::Torch).map(str::to_owned),
    }
}

/// Where a task's log is written.
pub fn log_path(options: &Options<'_>, task: &Task, key: &Digest) -> PathBuf {
    let safe: String = (task.name.chars())
        .map(|letter| if letter.is_alphanumeric() || "-_.".contains(letter) { letter } else { '_' })
        .collect();
    options.logs.join(format!("{safe}-{}.log", &key.to_string()[..8]))
}

/// An error with its causes, joined by colons.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// The log of one task.
struct Log {
    file: Mutex<std::fs::File>,
}

impl Log {
    fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::Log { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let open = std::fs::OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: Mutex::new(open.map_err(failed)?) })
    }

    fn line(&self, line: &str) {
        if let Ok(mut file) = self.file.lock() {
            // A log that cannot be written must not fail a task that can.
            let _ = writeln!(file, "{line}");
        }
    }
}

struct Reporter<'a> {
    log: &'a Log,
    options: &'a Options<'a>,
    task: usize,
}

impl Progress for Reporter<'_> {
    fn report(&self, done: u64, total: u64, unit: &'static str) {
        (self.options.listener)(Event::TaskProgress { task: self.task, done, total, unit });
    }

    fn log(&self, line: &str) {
        self.log.line(line);
    }
}
