//! Runs one unit whose lease is held: checks its inputs, runs its stage in a scratch folder, publishes the outputs.
//!
//! Outputs and records are published here and in [`super::commit`]; per-image records by `engine::items`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::commit::Effort;
use super::inputs::LoadedInput;
use super::{Executed, LostInput, RunContext, Unit};
use crate::cache::{CacheError, Scratch};
use crate::engine::failure::Failure;
use crate::engine::items::TaskItems;
use crate::engine::log::Log;
use crate::engine::{Event, Options};
use crate::error_chain::error_chain;
use crate::plan::{KeptLog, Notice, TaskId};
use crate::stages::{Context, Inputs, Items, Progress, StageError};

/// How often a unit begins whose cache is removed while it runs (chosen: who removes it again and again gets an error).
const ATTEMPTS: u32 = 3;

/// The folders and services that a stage is given.
pub(in crate::engine) struct StageFolders<'a> {
    /// The empty folder that it writes into.
    pub(in crate::engine) output: &'a Path,
    /// The folder for its own files, which is kept if the run is stopped, so that the next run can resume.
    pub(in crate::engine) work: &'a Path,
    /// The per-image records that it may reuse.
    pub(in crate::engine) items: &'a dyn Items,
    /// Its log.
    pub(in crate::engine) log: &'a Log,
}

/// One execution of a unit.
pub(in crate::engine) struct Execution<'a> {
    pub(in crate::engine) unit: &'a Unit,
    pub(in crate::engine) context: &'a RunContext<'a>,
}

impl<'a> Execution<'a> {
    pub(in crate::engine) fn new(unit: &'a Unit, context: &'a RunContext<'a>) -> Self {
        Self { unit, context }
    }

    /// Runs the unit to its end. No panic of a stage gets past here. If someone deletes or moves the cache meanwhile, the
    /// unit begins again.
    pub(in crate::engine) fn run(&self) -> Executed {
        let started = Instant::now();
        let mut attempt = 1;
        loop {
            match guarded(|| self.try_run(started)) {
                Ok(executed) => return executed,
                Err(Failure::CacheRemoved { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(failure) => {
                    return Executed::Failed { failure, seconds: started.elapsed().as_secs_f64() };
                }
            }
        }
    }

    fn try_run(&self, started: Instant) -> Result<Executed, Failure> {
        let Self { unit, context } = self;
        let cache = context.cache;
        // What is published below stays for this run's readers, and so does an earlier record's output.
        cache.leases().hold(&unit.key);
        let inputs = self.load_inputs()?;
        let lost = self.materialise(&inputs)?;
        if !lost.is_empty() {
            return Ok(Executed::InputsLost(lost));
        }
        let measured = context.meter.start();
        let log = Log::create(&self.log_path())?;
        let scratch = cache.scratch(&unit.stage).map_err(Failure::Cache)?;
        let work = cache.workdir(&unit.key);
        let kind = (unit.spec.kind().name(), unit.spec.about().version);
        let items = TaskItems::new(cache, kind, !unit.is_forced, context.options.cancelled, &log);
        let folders = StageFolders { output: scratch.path(), work: work.path(), items: &items, log: &log };
        if let Err(failure) = self.make(&folders, &inputs) {
            check_present(&scratch)?;
            return self.failed(failure, &inputs);
        }
        let fresh_share = items.fresh_share();
        let seconds = started.elapsed().as_secs_f64();
        // The log is no result: if it cannot be kept, the record goes without.
        let kept = KeptLog::keep(log.kept(), cache);
        let notices = log.notices();
        let effort = Effort { seconds, usage: measured.usage(), fresh_share, log: kept, notices };
        let committed = self.commit(&scratch, &items, &inputs, effort);
        let (outputs, differs) = committed.or_else(|error| {
            check_present(&scratch)?;
            Err(Failure::Cache(error))
        })?;
        context.discard(scratch);
        // A folder that cannot be removed only takes space; the next run of this key uses it again.
        let _ = work.remove();
        log.note(&format!("done in {seconds:.3} s"));
        Ok(Executed::Done { outputs, seconds, differs })
    }

    /// Returns the path of the unit's log.
    pub(in crate::engine) fn log_path(&self) -> PathBuf {
        self.context.options.project.join(&self.unit.log)
    }

    /// Loads the trees and sources of the inputs.
    pub(in crate::engine) fn load_inputs(&self) -> Result<Vec<LoadedInput>, Failure> {
        self.unit.inputs.iter().map(|input| LoadedInput::load(input, self.context)).collect()
    }

    /// Runs the stage in these folders; nothing is committed.
    pub(in crate::engine) fn make(
        &self,
        folders: &StageFolders<'_>,
        inputs: &[LoadedInput],
    ) -> Result<(), Failure> {
        let result = self.run_stage(folders, inputs);
        if let Err(error) = &result {
            folders.log.note(&format!("failed: {}", error_chain(error)));
        }
        result.map_err(Failure::Stage)?;
        check_sources(inputs)
    }

    /// Interprets the error of a stage. If an input was removed while the stage ran, by someone who deletes files of
    /// the cache or collects without working locks, the input is restored like one that was lost before.
    fn failed(&self, failure: Failure, inputs: &[LoadedInput]) -> Result<Executed, Failure> {
        if matches!(failure, Failure::Stage(_)) && !failure.is_cancelled() {
            let lost = self.lost(inputs)?;
            if !lost.is_empty() {
                return Ok(Executed::InputsLost(lost));
            }
        }
        Err(failure)
    }

    /// Fetches missing objects of inputs if a remote has them. Returns the inputs that are still incomplete.
    fn materialise(&self, inputs: &[LoadedInput]) -> Result<Vec<LostInput>, Failure> {
        lost(inputs, |input| input.materialise(self.context.cache))
    }

    /// Returns the inputs with objects that are lost or damaged in the local cache.
    pub(in crate::engine) fn lost(&self, inputs: &[LoadedInput]) -> Result<Vec<LostInput>, Failure> {
        lost(inputs, |input| input.lost(self.context.cache))
    }

    fn run_stage(&self, folders: &StageFolders<'_>, inputs: &[LoadedInput]) -> Result<(), StageError> {
        let Self { unit, context: RunContext { cache, options, pool, .. } } = self;
        let reporter = Reporter { log: folders.log, options, task: unit.task, name: &unit.name };
        let context = Context {
            seed: unit.preimage.seed.unwrap_or_default(),
            threads: options.threads,
            progress: &reporter,
            items: folders.items,
            cancelled: options.cancelled,
            is_offline: unit.is_offline,
            search_device: options.search_device,
            work: folders.work,
            project: &options.project,
            environment: &options.environment,
        };
        let files = inputs.iter().map(|input| (input.role.clone(), input.files(cache)));
        let inputs = Inputs(files.collect());
        let run = || unit.spec.run(&inputs, folders.output, &context);
        if unit.spec.about().is_blocking { run() } else { pool.install(run) }
    }
}

/// Fails if the folder that the stage wrote into is gone.
fn check_present(scratch: &Scratch) -> Result<(), Failure> {
    let path = scratch.path();
    if path.exists() { Ok(()) } else { Err(Failure::CacheRemoved { path: path.to_owned() }) }
}

fn lost(
    inputs: &[LoadedInput],
    check: impl Fn(&LoadedInput) -> Result<Option<String>, CacheError>,
) -> Result<Vec<LostInput>, Failure> {
    let mut lost = Vec::new();
    for input in inputs {
        let file = check(input).map_err(Failure::Cache)?;
        lost.extend(file.map(|file| LostInput { role: input.role.clone(), file }));
    }
    Ok(lost)
}

/// Fails if a source has changed since it was hashed, because the result would be stored under the digest of other
/// files.
fn check_sources(inputs: &[LoadedInput]) -> Result<(), Failure> {
    for source in inputs.iter().filter_map(|input| input.source.as_ref()) {
        let changed = source.changed_since().map_err(Failure::Cache)?;
        if let Some(file) = changed.into_iter().next() {
            return Err(Failure::SourceChanged { file: source.root.join(file).display().to_string() });
        }
    }
    Ok(())
}

/// Runs `work`; a panic becomes a failure.
pub(in crate::engine) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Failure::Panic { message: message.unwrap_or_else(|| "no message".to_owned()) })
    })
}

struct Reporter<'a> {
    log: &'a Log,
    options: &'a Options<'a>,
    task: TaskId,
    name: &'a str,
}

impl Progress for Reporter<'_> {
    fn report(&self, done: u64, total: u64, step_name: &'static str) {
        (self.options.listener)(Event::TaskProgress { task: self.task, done, total, step_name });
    }

    fn log(&self, line: &str) {
        self.log.line(line);
    }

    fn note(&self, line: &str) {
        self.log.notice(Notice { is_warning: false, text: line.to_owned() });
        let (name, message) = (self.name.to_owned(), line.to_owned());
        (self.options.listener)(Event::TaskNote { task: self.task, name, message });
    }

    fn warn(&self, line: &str) {
        self.log.notice(Notice { is_warning: true, text: line.to_owned() });
        let (name, message) = (self.name.to_owned(), line.to_owned());
        (self.options.listener)(Event::TaskWarning { task: self.task, name, message });
    }
}
