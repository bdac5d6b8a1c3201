//! A project in a temporary folder, and the program run in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

/// Small synthetic surfaces through every stage: 2 banks × 2 augmentations.
pub(crate) const SMALL: &str = r#"
[experiment]
name = "small"
seed = 1

[grid.axes]
bank = ["single", "dual"]
augment = ["none", "cutpaste"]

[stages.surfaces]
kind = "download"
path = "data"

[stages.images]
kind = "preprocess"
input = "surfaces"
layout = "ksdd2"

[stages.augmented]
kind = "augment"
images = "images"
method = "cutpaste"
count = 4
when = { augment = "cutpaste" }

[stages.features]
kind = "extract"
images = ["images", "augmented"]
backbone = "resnet18"
weights = "seeded"

[stages.normal_bank]
kind = "coreset"
features = "features"
select = { set = "images", split = "train", label = "normal" }
ratio = 0.2
min_size = 10

[stages.defect_bank]
kind = "coreset"
features = "features"
select = { split = "train", label = "defect", min_overlap = 0.1 }
ratio = 1.0

[stages.model]
kind = "fit"
bank = "${bank}"
normal = "normal_bank"
defect = "defect_bank"
features = "features"

[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "images"
bootstrap = 20
"#;

/// Makes the synthetic surfaces that `SMALL` reads.
pub(crate) const SURFACES: &str = r#"
[experiment]
name = "surfaces"
[stages.surfaces]
kind = "download"
synthetic = { kind = "surfaces", seed = 3, train_normal = 6, train_defect = 3, test_normal = 3, test_defect = 3, height = 96, width = 64 }
[stages.kept]
kind = "command"
run = ["cp", "-r", "inputs/surfaces/.", "outputs/kept"]
inputs = { surfaces = "surfaces" }
outputs = { kept = "files" }
"#;

/// A temporary project.
pub(crate) struct Project {
    folder: tempfile::TempDir,
}

/// What a run reported, from its NDJSON.
pub(crate) struct Report {
    pub(crate) events: Vec<Value>,
    pub(crate) last: Value,
}

impl Report {
    /// Kinds of the tasks with this outcome, sorted.
    pub(crate) fn kinds(&self, outcome: &str) -> Vec<String> {
        let mut kinds: Vec<String> = (self.events.iter())
            .filter(|event| event["event"] == "task_finished" && event["outcome"] == outcome)
            .map(|event| event["kind"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort();
        kinds
    }

    pub(crate) fn executed(&self) -> u64 {
        self.last["executed"].as_u64().unwrap()
    }

    pub(crate) fn folder(&self) -> &str {
        self.last["folder"].as_str().unwrap()
    }
}

impl Project {
    /// An empty project.
    pub(crate) fn empty() -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("patchflow.toml", "");
        project
    }

    /// A project with small synthetic data in `data/` and `SMALL` as `m.toml`.
    pub(crate) fn small() -> Self {
        let project = Self::empty();
        project.write("surfaces.toml", SURFACES);
        let report = project.run("surfaces.toml", &[]);
        let made = project.path(report.folder()).join("variants/default/kept");
        copy_folder(&made, &project.path("data"));
        std::fs::remove_dir_all(project.path("runs")).unwrap();
        std::fs::remove_dir_all(project.path("cache")).unwrap();
        project.write("m.toml", SMALL);
        project
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Replaces text in `m.toml`.
    pub(crate) fn edit(&self, old: &str, new: &str) {
        let text = std::fs::read_to_string(self.path("m.toml")).unwrap();
        assert!(text.contains(old), "{old}");
        self.write("m.toml", &text.replace(old, new));
    }

    /// Runs a command, whatever its exit code.
    pub(crate) fn call(&self, arguments: &[&str]) -> Output {
        self.call_with(arguments, &[])
    }

    /// Runs a command with environment variables, whatever its exit code.
    pub(crate) fn call_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        assert_cmd::Command::cargo_bin("patchflow")
            .unwrap()
            .args(arguments)
            .current_dir(self.folder.path())
            .env("XDG_CACHE_HOME", self.path(".user-cache"))
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    /// Runs a manifest that must succeed.
    pub(crate) fn run(&self, manifest: &str, arguments: &[&str]) -> Report {
        report_of(&self.succeeds(&[&["run", manifest, "--json"], arguments].concat()))
    }

    /// Runs a command that must succeed.
    pub(crate) fn succeeds(&self, arguments: &[&str]) -> Output {
        let output = self.call(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs a command that must succeed; returns its stdout.
    pub(crate) fn stdout(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.succeeds(arguments).stdout).unwrap()
    }

    /// Runs a command that must succeed with `--json`; returns what it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.stdout(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Runs a command that must end with this exit code and without a panic; returns its stderr.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.call(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// Runs a command; returns its exit code, and its stdout followed by its stderr.
    pub(crate) fn ends(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.call(arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The bytes of every file of every variant.
    pub(crate) fn results(&self, report: &Report) -> BTreeMap<PathBuf, Vec<u8>> {
        let folder = self.path(report.folder()).join("variants");
        files(&folder)
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(folder.join(&path)).unwrap()))
            .collect()
    }

    /// The paths of all objects in the cache.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let folder = self.path("cache/v1/objects");
        files(&folder).into_iter().map(|path| folder.join(path)).collect()
    }
}

/// Reads the NDJSON of a run.
pub(crate) fn report_of(output: &Output) -> Report {
    let text = String::from_utf8_lossy(&output.stdout);
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = events.last().cloned().unwrap_or_default();
    assert_eq!(last["event"], "run_finished", "{text}");
    Report { events, last }
}

/// Files below a folder, relative to it, sorted.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(folder)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(folder).unwrap().to_owned())
        .collect()
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(&path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        // Read and written, not copied: the mode of a file of the cache is read-only.
        std::fs::write(&target, std::fs::read(from.join(&path)).unwrap()).unwrap();
    }
}
