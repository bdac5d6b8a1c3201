//! The folder of a run. `report/mod.rs` lists its files.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use super::differences::Differences;
use super::latest;
use super::summary::{RunRequest, RunSummary};
use super::table::ResultTable;
use super::table_warnings::TableWarnings;
use crate::cache::{Cache, CacheError, Digest, Tree};
use crate::engine::Run;
use crate::plan::{Plan, TaskId};

/// An error while a run's folder is written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message names them")]
pub enum ReportError {
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A name in an output leads out of the run's folder.
    #[error("`{}` is not inside the run's folder `{}`; nothing was linked", path.display(), folder.display())]
    Outside { path: PathBuf, folder: PathBuf },
    /// An output cannot be read from the cache.
    #[error("cannot show an output of the run")]
    Cache(#[source] CacheError),
}

/// A run's folder: its absolute path, and its path from the project's root.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    relative: PathBuf,
}

impl Folder {
    /// Creates `runs/<experiment>/<time>-<process>/` in the project.
    pub fn create(project: &Path, experiment: &str) -> Result<Self, ReportError> {
        Self::create_in(project, &Path::new("runs").join(experiment))
    }

    /// Creates `runs/<experiment>/verify/<time>-<process>/`, which is not listed as a run.
    pub fn of_verification(project: &Path, experiment: &str) -> Result<Self, ReportError> {
        Self::create_in(project, &Path::new("runs").join(experiment).join("verify"))
    }

    fn create_in(project: &Path, of_experiment: &Path) -> Result<Self, ReportError> {
        let stamp = jiff::ZonedDateTime::now().strftime("%Y%m%d-%H%M%S").to_string();
        let id = format!("{stamp}-{}", std::process::id());
        let parent = project.join(of_experiment);
        latest::create_folders(&parent).map_err(writing(&parent))?;
        for attempt in 0.. {
            let name = if attempt == 0 { id.clone() } else { format!("{id}-{attempt}") };
            let relative = of_experiment.join(name);
            let path = project.join(&relative);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, relative }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(ReportError::Write { path, source }),
            }
        }
        unreachable!("some number is free")
    }

    /// Returns the absolute path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the folder relative to the project's root.
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    /// Returns the folder of the task logs.
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Creates `events.ndjson`.
    pub fn events(&self) -> Result<File, ReportError> {
        let path = self.path.join("events.ndjson");
        File::create(&path).map_err(writing(&path))
    }

    /// Removes the folder of a run that could not begin.
    pub fn discard(self) {
        // If that fails, an empty folder stays, which does no harm.
        let _ = fs::remove_dir_all(&self.path);
    }

    /// Links the outputs of every variant's targets and evaluations.
    pub fn link_variants(&self, plan: &Plan, run: &Run, cache: &Cache) -> Result<(), ReportError> {
        let mut links = Vec::new();
        for variant in &plan.variants {
            let shown: &[TaskId] = &variant.shown;
            let folder = self.path.join("variants").join(&variant.id);
            let is_plain = shown.len() == 1 && plan.tasks[shown[0].0].spec.about().is_target;
            for &id in shown {
                let folder = if is_plain { folder.clone() } else { folder.join(&plan.tasks[id.0].stage) };
                let Some(outputs) = &run.tasks[id.0].outputs else { continue };
                for (name, output) in outputs {
                    let folder = if outputs.len() == 1 { folder.clone() } else { folder.join(name) };
                    self.link_tree(&output.tree, &folder, &mut links)?;
                }
            }
        }
        self.link_pictures(plan, run, cache, &mut links)?;
        cache.objects().link_all(&links).map_err(ReportError::Cache)
    }

    /// Links the pictures of upstream stages that are in the cache. Missing pictures are not made again.
    fn link_pictures(
        &self,
        plan: &Plan,
        run: &Run,
        cache: &Cache,
        links: &mut Vec<(Digest, PathBuf)>,
    ) -> Result<(), ReportError> {
        for (task, end) in plan.tasks.iter().zip(&run.tasks).filter(|(task, _)| !task.is_shown) {
            for output in end.outputs.iter().flat_map(|outputs| outputs.values()) {
                let shown =
                    output.tree.filter(|entry| task.spec.about().pictures.contains(&entry.path.as_str()));
                if shown.is_empty()
                    || !cache.objects().missing(&shown).map_err(ReportError::Cache)?.is_empty()
                {
                    continue;
                }
                for &variant in &task.variants {
                    let variant = self.path.join("variants").join(&plan.variants[variant].id);
                    self.link_tree(&shown, &variant.join(&task.stage), links)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a link for each file of an output, and creates the folders for them.
    fn link_tree(
        &self,
        tree: &Tree,
        folder: &Path,
        links: &mut Vec<(Digest, PathBuf)>,
    ) -> Result<(), ReportError> {
        let files: Vec<(Digest, PathBuf)> =
            tree.entries().iter().map(|entry| (entry.digest, folder.join(&entry.path))).collect();
        self.check_inside(folder)?;
        files.iter().try_for_each(|(_, path)| self.check_inside(path))?;
        fs::create_dir_all(folder).map_err(writing(folder))?;
        for parent in files.iter().filter_map(|(_, path)| path.parent()).filter(|parent| *parent != folder) {
            fs::create_dir_all(parent).map_err(writing(parent))?;
        }
        links.extend(files);
        Ok(())
    }

    /// Checks that a path lies in the run's folder. The manifest and the gate of the cache let no other name pass; what
    /// is written outside would be the user's files, so that it is checked where it is written as well.
    fn check_inside(&self, path: &Path) -> Result<(), ReportError> {
        let inner = path.strip_prefix(&self.path);
        if inner.is_ok_and(|inner| inner.components().all(|part| matches!(part, Component::Normal(_)))) {
            return Ok(());
        }
        Err(ReportError::Outside { path: path.to_owned(), folder: self.path.clone() })
    }

    /// Writes `run.json`, so that a run that is killed later is still listed with its request.
    pub fn begin(&self, request: &RunRequest) -> Result<(), ReportError> {
        let path = self.path.join("run.json");
        fs::write(&path, to_json(request)).map_err(writing(&path))
    }

    /// Writes the verdicts of a verification.
    pub fn write_verdicts(&self, verdicts: &impl serde::Serialize) -> Result<PathBuf, ReportError> {
        let path = self.path.join("verdict.json");
        fs::write(&path, to_json(verdicts)).map_err(writing(&path))?;
        Ok(self.relative.join("verdict.json"))
    }

    /// Writes the tables and the summary.
    pub fn write(
        &self,
        summary: &RunSummary,
        table: &ResultTable,
        differences: &Differences,
    ) -> Result<(), ReportError> {
        let json = to_json(summary);
        let with_warnings = table.to_markdown() + &TableWarnings::new(summary).to_markdown();
        let mut files: Vec<(&str, Vec<u8>)> = vec![
            ("summary.json", json),
            ("table.md", with_warnings.into_bytes()),
            ("table.csv", table.to_csv().into_bytes()),
            ("table.tex", table.to_latex().into_bytes()),
        ];
        if !differences.0.is_empty() {
            files.push(("differences.md", differences.to_markdown().into_bytes()));
            files.push(("differences.csv", differences.to_csv().into_bytes()));
        }
        for (name, bytes) in files {
            let path = self.path.join(name);
            fs::write(&path, bytes).map_err(writing(&path))?;
        }
        Ok(())
    }

    /// Points `latest` at this run. Call it only for runs without failures.
    pub fn point_latest(&self) -> Result<(), ReportError> {
        let (Some(name), Some(parent)) = (self.path.file_name(), self.path.parent()) else { return Ok(()) };
        latest::point(parent, name).map_err(writing(&parent.join("latest")))
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("names are strings, numbers finite");
    json.push(b'\n');
    json
}

fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> ReportError {
    let path = path.to_owned();
    move |source| ReportError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_is_linked_outside_the_runs_folder() {
        let project = tempfile::tempdir().unwrap();
        let folder = Folder::create(project.path(), "e").unwrap();
        let digest = Digest::of_bytes(b"x");
        let entry = crate::cache::TreeEntry { path: "a/b".to_owned(), digest, size: 1, executable: false };
        let tree = Tree::new(vec![entry]).unwrap();
        let mut links = Vec::new();
        for outside in ["../x", "/etc", "a/../../..", "variants/../../x"] {
            let error = folder.link_tree(&tree, &folder.path().join(outside), &mut links).unwrap_err();
            assert!(matches!(error, ReportError::Outside { .. }), "{outside}: {error}");
        }
        assert!(links.is_empty() && std::fs::read_dir(folder.path()).unwrap().next().is_none());
        folder.link_tree(&tree, &folder.path().join("variants/v"), &mut links).unwrap();
        assert_eq!(links[0].1, folder.path().join("variants/v/a/b"));
    }

    /// As in containers: runs with equal process ids, in one second, in one shared project.
    #[test]
    fn runs_with_equal_process_ids_have_folders_of_their_own() {
        let project = tempfile::tempdir().unwrap();
        let folders: BTreeSet<PathBuf> = std::thread::scope(|scope| {
            let run = || {
                let folder = Folder::create(project.path(), "b").unwrap();
                folder.point_latest().unwrap();
                folder.path().to_owned()
            };
            let runs: Vec<_> = (0..16).map(|_| scope.spawn(run)).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert_eq!(folders.len(), 16);
        let latest = project.path().join("runs/b/latest").canonicalize().unwrap();
        assert!(folders.iter().any(|folder| folder.canonicalize().unwrap() == latest));
    }
}
