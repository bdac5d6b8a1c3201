//! Runs cached tasks again in a clean folder and compares what they give with their records. Nothing is published:
//! neither outputs nor single items, and no record is touched.
//!
//! A task's inputs are those that its record was made of, from the cache, so that each verdict is about that task
//! alone. Bytes are compared by digest; if a kind declares a tolerance, files that differ are compared as numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::executor::{
    Execution, LoadedInput, LostInput, RunContext, StageFolders, Unit, backbone_provenance, guarded,
};
use super::failure::Failure;
use super::log::Log;
use super::scratch_items::ScratchItems;
use super::{EngineError, Event, Options};
use crate::artifacts::{File, feature_set};
use crate::cache::{Cache, CacheError, Change, Tree, TreeEntry, difference, read_tree};
use crate::kernels::backbone::simd_level;
use crate::plan::{BackboneProvenance, Plan, Record, Resolution, TaskId};

/// The result of verifying one task.
#[derive(Debug)]
pub enum Verdict {
    /// Every byte is as recorded.
    Same,
    /// Bytes differ, but numbers differ by no more than the kind allows.
    Close {
        /// The largest relative difference of a file, `‖new - old‖ / ‖old‖`.
        difference: f64,
    },
    /// The outputs differ by more than the kind allows.
    Differs {
        /// The first file that differs, as `<output>/<path>`.
        file: String,
        /// How it differs, as words for the user.
        how: &'static str,
    },
    /// It gave something else, as its description allows on another machine, and the record was made on another one.
    OtherMachine {
        /// The first file, as `<output>/<path>`.
        file: String,
        /// How it differs.
        how: &'static str,
        /// How the machines differ.
        why: String,
    },
    /// The task failed.
    Failed(Failure),
    /// The task could not run again, or could not be compared.
    Unchecked {
        /// What is missing from the cache (an input, or the tree of an output), as a message for the user.
        why: String,
    },
}

/// A cached task that is to run again.
pub struct Suspect<'a> {
    /// The task.
    pub id: TaskId,
    /// Its inputs and key.
    pub resolution: &'a Resolution,
    /// Its record.
    pub record: &'a Record,
}

/// A task that ran again.
#[derive(Debug)]
pub struct Verified {
    /// The task.
    pub id: TaskId,
    /// The result of the comparison.
    pub verdict: Verdict,
    /// Seconds that it ran.
    pub seconds: f64,
}

/// The outputs of a task that ran again, and the path of each file.
struct NewOutputs {
    outputs: BTreeMap<String, Tree>,
    files: BTreeMap<String, PathBuf>,
}

/// Runs tasks again one by one, in order, until `count` of them have run; calls `report` after each.
pub fn verify<'a>(
    plan: &Plan,
    cache: &Cache,
    options: &Options<'_>,
    suspects: impl IntoIterator<Item = Suspect<'a>>,
    count: usize,
    report: &mut dyn FnMut(&Verified),
) -> Result<(), EngineError> {
    let context = RunContext::new(cache, options)?;
    let mut ran = 0;
    for Suspect { id, resolution, record } in suspects {
        if ran >= count {
            break;
        }
        context.inputs.add(resolution);
        let unit = Unit { is_forced: true, ..Unit::new(plan, id, resolution, options) };
        (options.listener)(started(&unit));
        let began = Instant::now();
        let execution = Execution::new(&unit, &context);
        let verdict = guarded(|| examine(&execution, record)).unwrap_or_else(Verdict::Failed);
        let was_stopped = matches!(&verdict, Verdict::Failed(failure) if failure.is_cancelled());
        if was_stopped {
            break;
        }
        ran += usize::from(!matches!(verdict, Verdict::Unchecked { .. }));
        let verified = Verified { id, verdict, seconds: began.elapsed().as_secs_f64() };
        let succeeded = matches!(verified.verdict, Verdict::Same | Verdict::Close { .. });
        let (name, seconds) = (unit.name, verified.seconds);
        (options.listener)(Event::RemakeFinished { task: id, name, succeeded, seconds });
        report(&verified);
    }
    Ok(())
}

fn started(unit: &Unit) -> Event {
    Event::TaskStarted {
        task: unit.task,
        name: unit.name.clone(),
        values: String::new(),
        stage: unit.stage.clone(),
        kind: unit.spec.kind().name(),
        key: unit.key.to_string(),
    }
}

fn examine(execution: &Execution<'_>, record: &Record) -> Result<Verdict, Failure> {
    let Execution { unit, context } = execution;
    let cache = context.cache;
    let inputs = execution.load_inputs()?;
    if let Some(LostInput { file, .. }) = execution.lost(&inputs)?.into_iter().next() {
        return Ok(Verdict::Unchecked { why: format!("its input `{file}` is gone from the cache") });
    }
    let scratch = cache.scratch(&unit.stage).map_err(Failure::Cache)?;
    let made = make(execution, &inputs, scratch.path())?;
    let tolerance = unit.spec.about().tolerance;
    let mut largest: Option<f64> = None;
    for (name, recorded) in &record.outputs {
        let Some(old) = cache.tree(recorded).map_err(Failure::Cache)? else {
            return Ok(Verdict::Unchecked {
                why: format!("the tree of its `{name}` is gone from the cache"),
            });
        };
        let new = made.outputs.get(name).cloned().unwrap_or_default();
        let measure = |path: &str| {
            let file = made.files.get(&format!("{name}/{path}"))?;
            relative_difference(cache, old.get(path)?, file)
        };
        match judge(&old, &new, tolerance, &measure) {
            Ok(found) => largest = found.into_iter().chain(largest).reduce(f64::max),
            Err((path, how)) => {
                let file = format!("{name}/{path}");
                return Ok(match other_machine(unit, record) {
                    Some(why) => Verdict::OtherMachine { file, how, why },
                    None => Verdict::Differs { file, how },
                });
            }
        }
    }
    Ok(largest.map_or(Verdict::Same, |difference| Verdict::Close { difference }))
}

/// Returns how the machine of a record differs from this one; `None` if it does not, or if the result of the stage does
/// not depend on it.
fn other_machine(unit: &Unit, record: &Record) -> Option<String> {
    let about = unit.spec.about();
    if !about.depends_on_machine {
        return None;
    }
    let (simd, old) = (&record.provenance.simd, record.provenance.backbone.as_ref());
    machine_difference(simd, old, about.compute_target.map(backbone_provenance).as_ref())
}

/// Returns the first difference between the machine of a record, with the instructions `simd`, and this one.
fn machine_difference(
    simd: &str,
    old: Option<&BackboneProvenance>,
    here: Option<&BackboneProvenance>,
) -> Option<String> {
    let version = |of: &BackboneProvenance| of.libtorch.clone().unwrap_or_else(|| "?".to_owned());
    if simd != simd_level() {
        return Some(format!("made with the instructions {simd}, here {}", simd_level()));
    }
    let (old, here) = old.zip(here)?;
    if old.device_name != here.device_name {
        Some(format!("made on {}, here on {}", old.device_name, here.device_name))
    } else if old.libtorch != here.libtorch {
        Some(format!("made by libtorch {}, here by {}", version(old), version(here)))
    } else {
        None
    }
}

/// Compares two trees. Returns the largest difference of the files whose bytes differ, `None` if all bytes are equal;
/// or, as an error, the first file that differs by more than the tolerance and how. `measure` returns the relative
/// difference of a file of both trees, if it holds numbers.
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
fn make(execution: &Execution<'_>, inputs: &[LoadedInput], scratch: &Path) -> Result<NewOutputs, Failure> {
    let [output, work, kept] = ["output", "work", "kept"].map(|name| scratch.join(name));
    for folder in [&output, &work, &kept] {
        std::fs::create_dir(folder)
            .map_err(|source| Failure::Cache(CacheError::Write { path: folder.clone(), source }))?;
    }
    let log = Log::create(&execution.log_path())?;
    let items = ScratchItems::new(&kept);
    execution.make(&StageFolders { output: &output, work: &work, items: &items, log: &log }, inputs)?;
    gather(execution.unit, &output, items).map_err(Failure::Cache)
}

fn gather(unit: &Unit, output: &Path, items: ScratchItems) -> Result<NewOutputs, CacheError> {
    let of_items = items.into_outputs();
    let mut made = NewOutputs { outputs: BTreeMap::new(), files: BTreeMap::new() };
    for (name, _) in unit.spec.outputs() {
        let folder = output.join(&name);
        let written = if folder.is_dir() { read_tree(&folder)? } else { Tree::default() };
        let mut entries = written.entries().to_vec();
        for entry in &entries {
            made.files.insert(format!("{name}/{}", entry.path), folder.join(&entry.path));
        }
        for (full_path, (entry, file)) in &of_items {
            let Some(path) = full_path.strip_prefix(&name).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            entries.push(TreeEntry { path: path.to_owned(), ..entry.clone() });
            made.files.insert(full_path.clone(), file.clone());
        }
        made.outputs.insert(name, Tree::new(entries)?);
    }
    Ok(made)
}

/// Returns the relative difference of two files that hold numbers; `None` if they do not, or if the recorded file is
/// lost.
fn relative_difference(cache: &Cache, old: &TreeEntry, new: &Path) -> Option<f64> {
    let file = |path: PathBuf, size_bytes: u64| File {
        path,
        digest: Some(old.digest),
        size_bytes,
        is_executable: false,
    };
    // Read through the cache first, so that a damaged object is not compared.
    cache.objects().read(&old.digest).ok()?;
    let size = std::fs::metadata(new).ok()?.len();
    let old_file = file(cache.objects().path(&old.digest), old.size);
    feature_set::relative_difference(&old_file, &file(new.to_owned(), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Digest;

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
    fn another_machine_is_one_with_other_instructions_processor_or_libtorch() {
        let here = BackboneProvenance {
            backend: "torch".to_owned(),
            device: "cpu".to_owned(),
            device_name: "EPYC".to_owned(),
            precision: "f32".to_owned(),
            libtorch: Some("2.13".to_owned()),
        };
        let of = |simd: &str, old: BackboneProvenance| machine_difference(simd, Some(&old), Some(&here));
        assert_eq!(of(simd_level(), here.clone()), None);
        assert_eq!(machine_difference(simd_level(), None, None), None);
        assert!(of("other", here.clone()).unwrap().contains("instructions other, here"));
        let card = BackboneProvenance { device_name: "Xeon".to_owned(), ..here.clone() };
        assert_eq!(of(simd_level(), card).unwrap(), "made on Xeon, here on EPYC");
        let older = BackboneProvenance { libtorch: Some("2.12".to_owned()), ..here.clone() };
        assert_eq!(of(simd_level(), older).unwrap(), "made by libtorch 2.12, here by 2.13");
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
