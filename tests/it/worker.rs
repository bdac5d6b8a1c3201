//! `patchflow worker`: a unit runs in another process from the cache alone, with the bytes of a local run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::project::{Project, files};

fn program() -> String {
    assert_cmd::cargo::cargo_bin("patchflow").display().to_string()
}

/// A local source and two stages that read it, one after the other. Both leave a line in `marks` when they run.
const CHAIN: &str = r#"
[stages.source]
kind = "download"
path = "data"
[stages.first]
kind = "command"
run = ["sh", "-c", "echo first >> $MARKS; cat inputs/source/a inputs/source/a > outputs/o/n"]
inputs = { source = "source" }
outputs = { o = "files" }
env = ["MARKS"]
[stages.second]
kind = "command"
run = ["sh", "-c", "echo second >> $MARKS; cat inputs/first/n inputs/first/n > outputs/o/n"]
inputs = { first = "first" }
outputs = { o = "files" }
env = ["MARKS"]
"#;

/// The chain, run by workers, with each sealed unit in `units/`.
struct Chain(Project);

impl Chain {
    fn run() -> Self {
        let project = Project::empty();
        project.write("m.toml", CHAIN);
        project.write("data/a", "word\n");
        std::fs::create_dir(project.path("units")).unwrap();
        project.write("keep.sh", &format!("#!/bin/sh\ntee units/$$.json | {} \"$@\"\n", program()));
        let script = project.path("keep.sh");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let chain = Self(project);
        let script = script.display().to_string();
        let run = chain
            .0
            .call_with(&["run", "m.toml", "--json", "--worker", &script], &[("MARKS", &chain.marks())]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(crate::project::report_of(&run).executed(), 2);
        assert_eq!(chain.marked(), ["first", "second"]);
        chain
    }

    fn marks(&self) -> String {
        self.0.path("marks").display().to_string()
    }

    fn marked(&self) -> Vec<String> {
        std::fs::read_to_string(self.0.path("marks")).unwrap().lines().map(str::to_owned).collect()
    }

    /// The sealed unit of a stage.
    fn unit(&self, stage: &str) -> Value {
        let folder = self.0.path("units");
        let read =
            |path: PathBuf| serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap();
        files(&folder).into_iter().map(read).find(|unit: &Value| unit["stage"] == stage).unwrap()
    }

    /// Gives a unit to a worker.
    fn work(&self, unit: &Value) -> Output {
        let mut child = Command::new(program())
            .args(["worker", "-"])
            .current_dir(self.0.path(""))
            .env("XDG_CACHE_HOME", self.0.path(".user-cache"))
            .env("MARKS", self.marks())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(unit.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// The exit code and the report of a worker.
    fn report(&self, unit: &Value) -> (Option<i32>, Value) {
        let output = self.work(unit);
        let report = serde_json::from_slice(&output.stdout);
        (
            output.status.code(),
            report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))),
        )
    }

    fn forget(&self, unit: &Value) {
        let (first, rest) = unit["key"].as_str().unwrap().split_at(2);
        std::fs::remove_file(self.0.path(Path::new("cache/v1/records").join(first).join(rest))).unwrap();
    }
}

#[test]
fn tasks_in_processes_of_their_own_give_the_same_bytes() {
    let project = Project::small();
    let local = project.run("m.toml", &[]);
    let (results, objects) = (project.results(&local), project.objects());
    for folder in ["cache", "runs"] {
        std::fs::remove_dir_all(project.path(folder)).unwrap();
    }
    let apart = project.run("m.toml", &["--worker", &program(), "--jobs", "2", "--threads", "1"]);
    assert_eq!(apart.executed(), local.executed());
    assert!(project.results(&apart) == results, "the table's files are the same");
    assert_eq!(project.objects(), objects, "and so is every object");
    let again = project.run("m.toml", &[]);
    assert_eq!(again.executed(), 0);
    let logs = files(&project.path(apart.folder()).join("logs"));
    assert_eq!(logs.len() as u64, apart.executed(), "each worker writes its log into the run's folder");
}

#[test]
fn a_unit_is_executed_once_and_then_a_hit() {
    let chain = Chain::run();
    for stage in ["first", "second"] {
        let unit = chain.unit(stage);
        let (code, hit) = chain.report(&unit);
        assert_eq!((code, &hit["outcome"]), (Some(0), &json!("hit")));
        chain.forget(&unit);
        let (code, executed) = chain.report(&unit);
        assert_eq!((code, &executed["outcome"]), (Some(0), &json!("executed")));
        assert_eq!(executed["outputs"], hit["outputs"], "the same bytes");
        assert_eq!(chain.report(&unit).1["outcome"], "hit");
    }
    assert_eq!(chain.marked(), ["first", "second", "first", "second"]);
    assert_eq!(chain.0.run("m.toml", &[]).executed(), 0);
}

#[test]
fn the_unit_of_another_build_and_one_that_was_changed_are_refused() {
    let chain = Chain::run();
    let unit = chain.unit("first");
    chain.forget(&unit);
    let refused = |change: &dyn Fn(&mut Value), reason: &str| {
        let mut unit = unit.clone();
        change(&mut unit);
        let output = chain.work(&unit);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{text}");
        assert!(text.contains(reason), "{text}");
    };
    refused(&|unit| unit["format"] = json!(2), "the unit has format 2, this build reads format 1");
    refused(&|unit| unit["patchflow"] = json!("0.0.1"), "the unit was made by patchflow 0.0.1");
    refused(&|unit| unit["preimage"]["version"] = json!(99), "the unit needs version 99 of `command`");
    refused(
        &|unit| unit["preimage"]["seed"] = json!(5),
        "the unit's key is not that of its fields and inputs",
    );
    refused(
        &|unit| unit["spec"]["fields"]["run"] = json!(["true"]),
        "the unit's key is not that of its fields and inputs",
    );
    refused(
        &|unit| unit["inputs"][0]["digest"] = unit["key"].clone(),
        "the unit's key is not that of its fields and inputs",
    );
    refused(&|unit| *unit = json!({}), "not a sealed unit");
    assert_eq!(chain.marked(), ["first", "second"], "nothing ran");
}

#[test]
fn a_source_that_was_edited_since_is_not_read() {
    let chain = Chain::run();
    let unit = chain.unit("first");
    assert_eq!(unit["inputs"][0]["source"], "data", "a source of the project is named from its root");
    chain.forget(&unit);
    chain.0.write("data/a", "other\n");
    let (code, report) = chain.report(&unit);
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("failed")));
    assert!(
        report["error"].as_str().unwrap().contains("data/a` has changed since the task was planned"),
        "{report}"
    );
}

#[test]
fn lost_inputs_are_reported_and_restored_by_a_run() {
    let chain = Chain::run();
    let unit = chain.unit("second");
    chain.forget(&unit);
    for object in chain.0.objects() {
        std::fs::remove_file(object).unwrap();
    }
    let (code, report) = chain.report(&unit);
    assert_eq!((code, &report["outcome"]), (Some(1), &json!("inputs_lost")));
    assert_eq!(report["lost"][0]["file"], "n");
    let run =
        chain.0.call_with(&["run", "m.toml", "--json", "--worker", &program()], &[("MARKS", &chain.marks())]);
    let report = crate::project::report_of(&run);
    assert_eq!((report.executed(), report.last["remade"].as_u64()), (1, Some(1)));
}

#[test]
fn a_failure_in_a_worker_is_shown_with_its_remedy() {
    let project = Project::empty();
    let stage = "[stages.a]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"echo why >&2; exit 3\"]\noutputs = { x = \"files\" }\n";
    project.write("m.toml", stage);
    let text = project.fails(&["run", "m.toml", "--worker", &program()], 1);
    assert!(text.contains("last lines on stderr:\n    why") && text.contains("exit status: 3"), "{text}");
    let text = project.fails(&["run", "m.toml", "--worker", "./no-such-program"], 1);
    assert!(text.contains("cannot run the worker `./no-such-program`"), "{text}");
}
