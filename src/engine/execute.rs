//! Executes one task whose lease is held: checks its inputs, runs its stage in a scratch folder, publishes.
//!
//! It must not decide what runs next, nor write to the terminal; the scheduler does the one, listeners the
//! other. Only this file commits to the store.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::failure::Failure;
use super::items::TaskItems;
use super::log::Log;
use super::usage::{Meter, Usage};
use super::{Event, Options, hardware};
use crate::artifacts::{File, Files};
use crate::cache::{Cache, Digest, Publication, Published, Scratch, StoreError, Tree};
pub(super) use crate::error_chain::error_chain as chain;
use crate::kernels::backbone::{Backend, Device, Target, libtorch_version, simd_level};
use crate::plan::{
    BackboneProvenance, KeptLog, Output, Outputs, Provenance, Record, Resolution, ResolvedInput, Task,
    TaskId, input_bytes,
};
use crate::stages::{Context, Inputs, Items, Progress, StageError};

/// How an execution ended.
pub(super) enum Executed {
    /// Outputs are published; an earlier record of the key may have had others.
    Done { outputs: Outputs, seconds: f64, differs: bool },
    /// Inputs must be made again first: their producers, each with a file that is gone.
    InputsLost(Vec<(TaskId, String)>),
    /// It failed.
    Failed { failure: Failure, seconds: f64 },
}

/// Where a stage runs.
pub(super) struct Place<'a> {
    /// The empty folder that it writes into.
    pub(super) output: &'a Path,
    /// Its own files that survive a stop.
    pub(super) work: &'a Path,
    /// The memory of single items.
    pub(super) items: &'a dyn Items,
    /// What it says.
    pub(super) log: &'a Log,
}

/// What an execution took, and what it said.
struct Effort {
    seconds: f64,
    usage: Usage,
    fresh_share: f64,
    log: Option<KeptLog>,
}

/// One execution.
pub(super) struct Execution<'a> {
    pub(super) store: &'a Cache,
    pub(super) options: &'a Options<'a>,
    pub(super) pool: &'a rayon::ThreadPool,
    pub(super) meter: &'a Meter,
    pub(super) experiment: &'a str,
    pub(super) id: TaskId,
    pub(super) task: &'a Task,
    pub(super) resolution: &'a Resolution,
    /// Whether an earlier record is to be replaced (the task was forced or is made again).
    pub(super) replaces: bool,
    /// Whether single items are made anew as well.
    pub(super) is_forced: bool,
    /// The whole outputs of all that it reads, where a remote may have them.
    pub(super) upstream: &'a [Arc<Tree>],
}

impl Execution<'_> {
    /// Runs the task to its end. No panic of a stage gets past here.
    pub(super) fn run(&self) -> Executed {
        let started = Instant::now();
        guarded(|| self.try_run(started))
            .unwrap_or_else(|failure| Executed::Failed { failure, seconds: started.elapsed().as_secs_f64() })
    }

    fn try_run(&self, started: Instant) -> Result<Executed, Failure> {
        // What is published below stays for this run's readers, and so does an earlier record's output.
        self.store.leases().hold(&self.resolution.key);
        let lost = self.materialise_inputs().map_err(Failure::Store)?;
        if !lost.is_empty() {
            return Ok(Executed::InputsLost(lost));
        }
        let measured = self.meter.start();
        let log = Log::create(&log_path(self.options, self.task, &self.resolution.key))?;
        let scratch = self.store.scratch(&self.task.stage).map_err(Failure::Store)?;
        let work = self.store.workdir(&self.resolution.key);
        let kind = self.task.spec.kind();
        let items = TaskItems::new(
            self.store,
            (kind.name(), self.task.spec.about().version),
            !self.is_forced,
            self.options.cancelled,
            &log,
        );
        if let Err(failure) =
            self.make(&Place { output: scratch.path(), work: work.path(), items: &items, log: &log })
        {
            return self.failed(failure);
        }
        let fresh_share = items.fresh_share();
        let seconds = started.elapsed().as_secs_f64();
        // The log is no result: where it cannot be kept, the record goes without.
        let kept = KeptLog::keep(log.kept(), self.store);
        let effort = Effort { seconds, usage: measured.usage(), fresh_share, log: kept };
        let (outputs, differs) = self.commit(&scratch, items, effort).map_err(Failure::Store)?;
        // A folder that cannot be removed is only space; the next run of this key uses it again.
        let _ = work.remove();
        log.note(&format!("done in {seconds:.3} s"));
        Ok(Executed::Done { outputs, seconds, differs })
    }

    /// Runs the stage in that place; nothing is committed.
    pub(super) fn make(&self, place: &Place<'_>) -> Result<(), Failure> {
        let result = self.run_stage(place);
        if let Err(error) = &result {
            place.log.note(&format!("failed: {}", chain(error)));
        }
        result.map_err(Failure::Stage)?;
        self.check_sources()
    }

    /// What a stage's error means. An input may have been taken away under its hands, by someone who deletes
    /// in the cache or collects where locks do not work: then it is made again like one that was gone before.
    fn failed(&self, failure: Failure) -> Result<Executed, Failure> {
        if matches!(failure, Failure::Stage(_)) && !failure.is_cancelled() {
            let lost = self.lost_inputs().map_err(Failure::Store)?;
            if !lost.is_empty() {
                return Ok(Executed::InputsLost(lost));
            }
        }
        Err(failure)
    }

    /// Publishes the outputs and the record. No collection comes between: what the outputs share with
    /// objects that were there already is there when the record names it.
    fn commit(
        &self,
        scratch: &Scratch,
        items: TaskItems<'_>,
        effort: Effort,
    ) -> Result<(Outputs, bool), StoreError> {
        let publication = self.store.publication()?;
        let outputs = self.publish(&publication, scratch, items)?;
        let provenance = self.provenance(&outputs, effort);
        self.record(&publication, outputs, provenance)
    }

    /// Makes the inputs present; returns those that are gone or damaged, with their producers.
    fn materialise_inputs(&self) -> Result<Vec<(TaskId, String)>, StoreError> {
        let mut lost = Vec::new();
        for input in self.resolution.inputs.iter().filter(|input| input.source.is_none()) {
            if let Some(first) = self.store.materialise(&input.tree, self.upstream)?.first() {
                lost.push((input.producer, first.path.clone()));
            }
        }
        Ok(lost)
    }

    /// Inputs that lie in the store but are gone or damaged there.
    pub(super) fn lost_inputs(&self) -> Result<Vec<(TaskId, String)>, StoreError> {
        let mut lost = Vec::new();
        for input in self.resolution.inputs.iter().filter(|input| input.source.is_none()) {
            if let Some(first) = self.store.objects().check(&input.tree)?.first() {
                lost.push((input.producer, first.path.clone()));
            }
        }
        Ok(lost)
    }

    fn run_stage(&self, place: &Place<'_>) -> Result<(), StageError> {
        let reporter = Reporter { log: place.log, options: self.options, task: self.id.0 };
        let context = Context {
            seed: self.task.seed.unwrap_or_default(),
            threads: self.options.threads,
            progress: &reporter,
            items: place.items,
            cancelled: self.options.cancelled,
            is_offline: self.options.is_offline,
            search_device: self.options.search_device,
            work: place.work,
            project: &self.options.project,
            environment: &self.options.environment,
        };
        let inputs = self.inputs();
        let run = || self.task.spec.run(&inputs, place.output, &context);
        if self.task.spec.about().is_blocking { run() } else { self.pool.install(run) }
    }

    fn inputs(&self) -> Inputs {
        let files = |input: &ResolvedInput| {
            Files::new(input.tree.entries().iter().map(|entry| {
                let path = match &input.source {
                    Some(source) => source.path_of(entry),
                    None => self.store.objects().path(&entry.digest),
                };
                let (digest, is_executable) = (Some(entry.digest), entry.executable);
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
    fn publish(
        &self,
        publication: &Publication<'_>,
        scratch: &Scratch,
        items: TaskItems<'_>,
    ) -> Result<BTreeMap<String, Tree>, StoreError> {
        let mut placed = items.into_placed();
        let mut outputs = BTreeMap::new();
        for (name, _) in self.task.spec.outputs() {
            let folder = scratch.path().join(&name);
            let written =
                if folder.is_dir() { publication.publish_folder(&folder)? } else { Tree::default() };
            let mut entries = written.entries().to_vec();
            entries.extend(placed.remove(&name).unwrap_or_default());
            let tree = Tree::new(entries)?;
            publication.publish_tree(&tree)?;
            outputs.insert(name, tree);
        }
        // Listings of the inputs stay beside the record, so that `explain` can name files.
        for input in &self.resolution.inputs {
            publication.publish_tree(&input.tree)?;
        }
        Ok(outputs)
    }

    fn provenance(&self, outputs: &BTreeMap<String, Tree>, effort: Effort) -> Provenance {
        let Effort { seconds, usage, fresh_share, log } = effort;
        Provenance {
            stage: self.task.stage.clone(),
            experiment: self.experiment.to_owned(),
            seconds,
            cpu_seconds: usage.cpu_seconds,
            peak_bytes: usage.peak_bytes,
            input_bytes: input_bytes(self.resolution),
            output_bytes: outputs.values().map(Tree::total_size).sum(),
            fresh_share,
            finished: jiff::Timestamp::now().to_string(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            simd: simd_level().to_owned(),
            patchflow: env!("CARGO_PKG_VERSION").to_owned(),
            backbone: self.task.spec.about().target.map(backbone_provenance),
            log,
        }
    }

    /// Writes the record, or adopts the one that another process wrote first; tells whether an earlier one
    /// had other outputs.
    fn record(
        &self,
        publication: &Publication<'_>,
        trees: BTreeMap<String, Tree>,
        provenance: Provenance,
    ) -> Result<(Outputs, bool), StoreError> {
        let digests: BTreeMap<String, Digest> =
            trees.iter().map(|(name, tree)| (name.clone(), tree.digest())).collect();
        let mut record = Record::new(self.resolution.preimage.clone(), digests, provenance);
        let key = &self.resolution.key;
        let ours = || {
            let output = |(name, tree): (String, Tree)| (name, Output { tree: tree.into(), source: None });
            trees.into_iter().map(output).collect()
        };
        if self.replaces {
            let old = self.store.records().get(key)?.and_then(|bytes| Record::from_bytes(&bytes));
            let differs = old.as_ref().is_some_and(|old| old.outputs != record.outputs);
            if let Some(old) = old {
                record.others = old.others;
                if differs {
                    record.others.push(old.outputs);
                } else if old.provenance.seconds > record.provenance.seconds {
                    // Single items were found again: what all of it takes is known from before.
                    record.provenance.seconds = old.provenance.seconds;
                    record.provenance.fresh_share = old.provenance.fresh_share;
                }
            }
            publication.replace_record(key, &record.to_bytes())?;
            return Ok((ours(), differs));
        }
        if let Published::Theirs(bytes) = publication.publish_record(key, &record.to_bytes())? {
            if let Some(theirs) = self.adopt(&bytes)? {
                let digests = theirs.iter().map(|(name, output)| (name.clone(), output.tree.digest()));
                let differs = digests.collect::<BTreeMap<_, _>>() != record.outputs;
                return Ok((theirs, differs));
            }
            publication.replace_record(key, &record.to_bytes())?;
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

/// Runs something of which no panic gets past here.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Failure::Panic { message: message.unwrap_or_else(|| "no message".to_owned()) })
    })
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
