//! Makes cached tasks again in a clean folder and compares what they give with their records. Nothing is
//! published: neither outputs nor single items, and no record is touched.
//!
//! A task's inputs are those that its record was made of, from the cache, so that each verdict is of that task
//! alone. Bytes are compared by digest; where a kind declares a tolerance, files that differ are compared as
//! numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::execute::{Execution, Place, guarded, log_path};
use super::failure::Failure;
use super::log::Log;
use super::loose::LooseItems;
use super::usage::Meter;
use super::{EngineError, Event, Options};
use crate::artifacts::File;
use crate::artifacts::feature_set::{Block, read_block};
use crate::cache::{Cache, Change, Digest, StoreError, Tree, TreeEntry, difference, read_tree};
use crate::plan::{Plan, Record, Resolution, Task, TaskId};

/// What came of one task.
#[derive(Debug)]
pub enum Verdict {
    /// Every byte is the recorded one.
    Same,
    /// Bytes differ, and numbers by no more than the kind allows.
    Close {
        /// The largest relative difference of a file, `‖new - old‖ / ‖old‖`.
        difference: f64,
    },
    /// It gave something else.
    Differs {
        /// The first file, as `<output>/<path>`.
        file: String,
        /// How it differs.
        how: &'static str,
    },
    /// It failed.
    Failed(Failure),
    /// It could not be made again.
    Unchecked {
        /// Why.
        why: String,
    },
}

/// A task to make again.
pub struct Suspect<'a> {
    /// The task.
    pub id: TaskId,
    /// Its inputs and key.
    pub resolution: &'a Resolution,
    /// Its record.
    pub record: &'a Record,
}

/// A task that was made again.
#[derive(Debug)]
pub struct Verified {
    /// The task.
    pub id: TaskId,
    /// What came of it.
    pub verdict: Verdict,
    /// Seconds that it ran.
    pub seconds: f64,
}

/// What a task gave, and where each file lies.
struct Made {
    outputs: BTreeMap<String, Tree>,
    files: BTreeMap<String, PathBuf>,
}

/// Makes tasks again one by one, in order, until `count` of them have run; `told` hears of each at once.
pub fn verify<'a>(
    plan: &Plan,
    store: &Cache,
    options: &Options<'_>,
    suspects: impl IntoIterator<Item = Suspect<'a>>,
    count: usize,
    told: &mut dyn FnMut(&Verified),
) -> Result<Vec<Verified>, EngineError> {
    let threads = options.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| EngineError::Threads { threads, source })?;
    let (mut verified, mut ran, meter) = (Vec::new(), 0, Meter::default());
    for Suspect { id, resolution, record } in suspects {
        if ran >= count {
            break;
        }
        let task = &plan.tasks[id.0];
        let execution = Execution {
            store,
            options,
            pool: &pool,
            meter: &meter,
            experiment: &plan.experiment,
            id,
            task,
            resolution,
            replaces: false,
            is_forced: true,
            upstream: &[],
        };
        tell_start(options, task, id, resolution);
        let began = Instant::now();
        let verdict = guarded(|| examine(&execution, record)).unwrap_or_else(Verdict::Failed);
        let was_stopped = matches!(&verdict, Verdict::Failed(failure) if failure.is_cancelled());
        if was_stopped {
            break;
        }
        ran += usize::from(!matches!(verdict, Verdict::Unchecked { .. }));
        let one = Verified { id, verdict, seconds: began.elapsed().as_secs_f64() };
        let succeeded = matches!(one.verdict, Verdict::Same | Verdict::Close { .. });
        let (name, seconds) = (task.name.clone(), one.seconds);
        (options.listener)(Event::RemakeFinished { task: id.0, name, succeeded, seconds });
        told(&one);
        verified.push(one);
    }
    Ok(verified)
}

/// Says that a task starts, for whoever shows how far it has come.
fn tell_start(options: &Options<'_>, task: &Task, TaskId(index): TaskId, resolution: &Resolution) {
    (options.listener)(Event::TaskStarted {
        task: index,
        name: task.name.clone(),
        values: String::new(),
        stage: task.stage.clone(),
        kind: task.spec.kind().name(),
        key: resolution.key.to_string(),
    });
}

fn examine(execution: &Execution<'_>, record: &Record) -> Result<Verdict, Failure> {
    let store = execution.store;
    if let Some((_, file)) = execution.lost_inputs().map_err(Failure::Store)?.into_iter().next() {
        return Ok(Verdict::Unchecked { why: format!("its input `{file}` is gone from the cache") });
    }
    let scratch = store.scratch(&execution.task.stage).map_err(Failure::Store)?;
    let made = make(execution, scratch.path())?;
    let tolerance = execution.task.spec.about().tolerance;
    let mut largest: Option<f64> = None;
    for (name, recorded) in &record.outputs {
        let Some(old) = store.tree(recorded).map_err(Failure::Store)? else {
            return Ok(Verdict::Unchecked { why: format!("the listing of its `{name}` is gone") });
        };
        let new = made.outputs.get(name).cloned().unwrap_or_default();
        let measure = |path: &str| {
            let file = made.files.get(&format!("{name}/{path}"))?;
            distance(store, old.get(path)?, file)
        };
        match judge(&old, &new, tolerance, &measure) {
            Ok(found) => largest = found.into_iter().chain(largest).reduce(f64::max),
            Err((path, how)) => return Ok(Verdict::Differs { file: format!("{name}/{path}"), how }),
        }
    }
    Ok(largest.map_or(Verdict::Same, |difference| Verdict::Close { difference }))
}

/// The largest difference of files whose bytes differ, none where no bytes do; or the first file that differs by
/// more than the tolerance. `measure` gives the relative difference of a file of both, where it holds numbers.
fn judge(
    old: &Tree,
    new: &Tree,
    tolerance: Option<f64>,
    measure: &dyn Fn(&str) -> Option<f64>,
) -> Result<Option<f64>, (String, &'static str)> {
    let mut largest: Option<f64> = None;
    for change in difference(old, new) {
        let how = match &change {
            Change::Added { .. } => "is new",
            Change::Removed { .. } => "is missing",
            Change::Changed { .. } => "has other bytes",
        };
        let is_changed = matches!(change, Change::Changed { .. });
        let allowed = tolerance.filter(|_| is_changed);
        match allowed.and_then(|allowed| Some((measure(change.path())?, allowed))) {
            Some((distance, allowed)) if distance <= allowed => {
                largest = Some(largest.map_or(distance, |largest| largest.max(distance)));
            }
            Some(_) => return Err((change.path().to_owned(), "differs by more than its kind allows")),
            None => return Err((change.path().to_owned(), how)),
        }
    }
    Ok(largest)
}

/// Runs the stage in the clean folder `scratch`.
fn make(execution: &Execution<'_>, scratch: &Path) -> Result<Made, Failure> {
    let [output, work, kept] = ["output", "work", "kept"].map(|name| scratch.join(name));
    for folder in [&output, &work, &kept] {
        std::fs::create_dir(folder)
            .map_err(|source| Failure::Store(StoreError::Write { path: folder.clone(), source }))?;
    }
    let log = Log::create(&log_path(execution.options, execution.task, &execution.resolution.key))?;
    let items = LooseItems::new(&kept);
    execution.make(&Place { output: &output, work: &work, items: &items, log: &log })?;
    gather(execution, &output, items).map_err(Failure::Store)
}

fn gather(execution: &Execution<'_>, output: &Path, items: LooseItems) -> Result<Made, StoreError> {
    let placed = items.into_placed();
    let mut made = Made { outputs: BTreeMap::new(), files: BTreeMap::new() };
    for (name, _) in execution.task.spec.outputs() {
        let folder = output.join(&name);
        let written = if folder.is_dir() { read_tree(&folder)? } else { Tree::default() };
        let mut entries = written.entries().to_vec();
        for entry in &entries {
            made.files.insert(format!("{name}/{}", entry.path), folder.join(&entry.path));
        }
        for (place, (entry, file)) in &placed {
            let Some(path) = place.strip_prefix(&name).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            entries.push(TreeEntry { path: path.to_owned(), ..entry.clone() });
            made.files.insert(place.clone(), file.clone());
        }
        made.outputs.insert(name, Tree::new(entries)?);
    }
    Ok(made)
}

/// `‖new - old‖ / ‖old‖` of two blocks of features; none where either is no such block, the recorded one is
/// gone, or their shapes differ.
fn distance(store: &Cache, old: &TreeEntry, new: &Path) -> Option<f64> {
    let file = |path: PathBuf, size_bytes: u64, digest: &Digest| File {
        path,
        digest: Some(*digest),
        size_bytes,
        is_executable: false,
    };
    // Read through the store first, so that a damaged object is no measure.
    store.objects().read(&old.digest).ok()?;
    let before = read_block(&file(store.objects().path(&old.digest), old.size, &old.digest)).ok()?;
    let size = std::fs::metadata(new).ok()?.len();
    let after = read_block(&file(new.to_owned(), size, &old.digest)).ok()?;
    relative(&before, &after)
}

fn relative(old: &Block, new: &Block) -> Option<f64> {
    if (old.height, old.width, old.d) != (new.height, new.width, new.d) {
        return None;
    }
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&old, &new) in old.data.iter().zip(&new.data) {
        difference += (f64::from(new) - f64::from(old)).powi(2);
        norm += f64::from(old).powi(2);
    }
    let relative = if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() };
    // NaN is not close to anything.
    relative.is_finite().then_some(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_compared_by_their_norms() {
        let block = |data: &[f32]| Block { height: 1, width: 2, d: 1, data: data.to_vec() };
        let old = block(&[3.0, 4.0]);
        assert_eq!(relative(&old, &old), Some(0.0));
        assert_eq!(relative(&old, &block(&[3.0, 4.5])), Some(0.1));
        assert_eq!(relative(&old, &block(&[f32::NAN, 4.0])), None);
        assert_eq!(relative(&block(&[0.0, 0.0]), &old), None, "nothing is close to zero but zero");
        assert_eq!(relative(&old, &Block { width: 1, height: 2, ..old.clone() }), None);
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        let entry = |&(path, content): &(&str, &str)| TreeEntry {
            path: path.to_owned(),
            digest: Digest::of_bytes(content.as_bytes()),
            size: content.len() as u64,
            executable: false,
        };
        Tree::new(files.iter().map(entry).collect()).unwrap()
    }

    #[test]
    fn other_bytes_pass_only_as_numbers_within_the_tolerance() {
        let old = tree(&[("blocks/a", "1"), ("blocks/b", "2"), ("features.json", "x")]);
        let new = tree(&[("blocks/a", "1.1"), ("blocks/b", "2.1"), ("features.json", "x")]);
        let measure = |path: &str| match path {
            "blocks/a" => Some(0.0),
            "blocks/b" => Some(1e-5),
            _ => None,
        };
        assert_eq!(judge(&old, &old, None, &measure), Ok(None));
        assert_eq!(judge(&old, &new, Some(1e-4), &measure), Ok(Some(1e-5)));
        let first = |judged: Result<Option<f64>, (String, &'static str)>| judged.unwrap_err();
        assert_eq!(first(judge(&old, &new, None, &measure)), ("blocks/a".to_owned(), "has other bytes"));
        assert_eq!(
            first(judge(&old, &new, Some(1e-6), &measure)),
            ("blocks/b".to_owned(), "differs by more than its kind allows")
        );
        let other = tree(&[("blocks/a", "1"), ("blocks/b", "2"), ("features.json", "y")]);
        assert_eq!(first(judge(&old, &other, Some(1.0), &measure)).0, "features.json", "no numbers");
        let fewer = tree(&[("blocks/a", "1"), ("features.json", "x")]);
        assert_eq!(first(judge(&old, &fewer, Some(1.0), &measure)), ("blocks/b".to_owned(), "is missing"));
        assert_eq!(first(judge(&fewer, &old, Some(1.0), &measure)), ("blocks/b".to_owned(), "is new"));
    }
}
