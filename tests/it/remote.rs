//! Two machines and a remote between them: what one has made, the other takes.

use std::path::{Path, PathBuf};

use crate::project::{Project, files};

const MANIFEST: &str = r#"
[experiment]
name = "shared"
[grid.axes]
x = [1, 2, 3]
[stages.first]
kind = "command"
run = ["sh", "-c", "for i in $(seq 200); do echo $i > outputs/o/$i; done"]
outputs = { o = "files" }
[stages.second]
kind = "command"
run = ["sh", "-c", "cat inputs/first/1 inputs/first/200 > outputs/o/n; echo ${x} >> outputs/o/n"]
inputs = { first = "first" }
outputs = { o = "files" }
"#;

/// A project of its own with a cache of its own, whose remote is the folder `shared`.
fn machine(shared: &Path, more: &str) -> Project {
    let project = Project::empty();
    project.write("m.toml", MANIFEST);
    project.write("patchflow.toml", &format!("remote = {:?}\n{more}", shared.to_str().unwrap()));
    project
}

fn objects(project: &Project) -> usize {
    files(&project.path("cache/v1/objects")).len()
}

fn result(project: &Project, folder: &str) -> PathBuf {
    project.path(folder).join("variants/x=1/second/n")
}

#[test]
fn what_one_machine_made_another_shows_without_executing_and_fetches_what_it_reads() {
    let shared = tempfile::tempdir().unwrap();
    let (a, b) = (machine(shared.path(), ""), machine(shared.path(), ""));
    let first = a.run("m.toml", &[]);
    assert_eq!(first.executed(), 4);

    let plan = b.json(&["plan", "m.toml"]);
    assert_eq!(plan["totals"]["states"]["remote_hit"], 4, "{plan}");
    assert!(!b.path("cache/v1/records").exists(), "plan keeps nothing");
    let explained = b.json(&["explain", "m.toml", "second"]);
    let causes: Vec<&str> = explained["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|task| task["cause"]["kind"].as_str().unwrap())
        .collect();
    assert_eq!(causes, ["recorded_remotely"; 3], "explain sees what plan sees: {explained}");
    let without = b.stdout(&["explain", "m.toml", "first", "--remote", "off"]);
    assert!(without.contains("would run"), "{without}");

    let second = b.run("m.toml", &[]);
    assert_eq!((second.executed(), second.kinds("remote_hit").len()), (0, 4));
    let text = std::fs::read_to_string(result(&b, second.folder())).unwrap();
    assert_eq!(text, "1\n200\n1\n");
    assert_eq!(objects(&b), 3, "only what the run's folder shows");
    assert_eq!(b.run("m.toml", &[]).kinds("hit").len(), 4);

    // A further variant reads the two hundred files of the first stage, which are fetched and not made.
    b.write("m.toml", &MANIFEST.replace("[1, 2, 3]", "[1, 2, 3, 4]"));
    let third = b.run("m.toml", &[]);
    assert_eq!((third.executed(), third.kinds("hit").len()), (1, 4));
    assert!(third.events.iter().all(|line| line["event"] != "task_remade"));
    assert_eq!(objects(&b), 3 + 200 + 1);

    // And goes back: the first machine takes it.
    a.write("m.toml", &MANIFEST.replace("[1, 2, 3]", "[1, 2, 3, 4]"));
    let fourth = a.run("m.toml", &[]);
    assert_eq!((fourth.executed(), fourth.kinds("remote_hit").len()), (0, 1));
}

#[test]
fn a_damaged_remote_a_reader_and_a_dead_one_end_well() {
    let shared = tempfile::tempdir().unwrap();
    let a = machine(shared.path(), "");
    a.run("m.toml", &[]);
    let before = files(shared.path());
    let damage = |area: &str| {
        for file in files(&shared.path().join("v1").join(area)) {
            std::fs::write(shared.path().join("v1").join(area).join(file), b"damaged").unwrap();
        }
    };
    damage("objects");
    let b = machine(shared.path(), "remote_mode = \"read-only\"\n");
    b.write("m.toml", &MANIFEST.replace("[1, 2, 3]", "[1, 2, 3, 4]"));
    let report = b.run("m.toml", &[]);
    // The shown results cannot be fetched and are made; their input comes from packs that are sound.
    assert_eq!((report.executed(), report.kinds("remote_hit").len()), (4, 1));
    assert_eq!(files(shared.path()), before, "a reader puts nothing there");

    // Who may write puts what it had to make there anew, for the next.
    let c = machine(shared.path(), "");
    assert_eq!(c.run("m.toml", &[]).executed(), 3);
    let d = machine(shared.path(), "");
    assert_eq!(d.run("m.toml", &[]).kinds("remote_hit").len(), 4);
}

/// The lines of a command's stderr that are about the remote.
fn warnings(project: &Project, arguments: &[&str]) -> Vec<String> {
    let said = String::from_utf8(project.succeeds(arguments).stderr).unwrap();
    said.lines().filter(|line| line.contains("the remote")).map(str::to_owned).collect()
}

#[test]
fn a_remote_that_cannot_be_reached_costs_one_warning() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let project = Project::empty();
    project.write("m.toml", MANIFEST);
    let dead = format!("http://127.0.0.1:{port}/cache");
    let started = std::time::Instant::now();
    let said = warnings(&project, &["run", "m.toml", "--remote", &dead]);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    assert!(said.len() == 1 && said[0].contains("does not answer"), "{said:?}");
    assert_eq!(project.run("m.toml", &["--remote", &dead, "--offline"]).kinds("hit").len(), 4);
    assert!(warnings(&project, &["run", "m.toml", "--remote", &dead, "--offline"]).is_empty());

    let said = warnings(&project, &["run", "m.toml", "--remote", "not/mounted"]);
    assert!(said.len() == 1 && said[0].contains("is mounted"), "{said:?}");
    assert!(!project.path("not").exists());
    project.fails(&["run", "m.toml", "--remote", "ftp://host/cache"], 2);
}

#[test]
fn what_was_evicted_is_fetched_and_not_made_and_the_plan_says_so() {
    let shared = tempfile::tempdir().unwrap();
    let a = machine(shared.path(), "");
    a.run("m.toml", &[]);
    let evict = || std::fs::remove_dir_all(a.path("cache/v1/objects")).unwrap();
    let states = |arguments: &[&str]| -> serde_json::Value {
        a.json(&[&["plan", "m.toml"], arguments].concat())["totals"]["states"].clone()
    };
    evict();
    assert_eq!(states(&[])["hit"], 4);
    let without = states(&["--remote", "off"]);
    assert_eq!((&without["hit"], &without["miss"]), (&0.into(), &4.into()));
    let report = a.run("m.toml", &[]);
    assert_eq!((report.executed(), report.kinds("hit").len()), (0, 4));
    assert_eq!(objects(&a), 3, "only what the run's folder shows");

    evict();
    let repaired = a.stdout(&["cache", "verify", "--repair", "m.toml"]);
    assert!(repaired.contains("0 executed, 4 cached"), "{repaired}");
    assert_eq!(objects(&a), 203);
}

#[test]
fn a_cache_is_pushed_and_pulled_as_a_whole_and_repaired_from_there() {
    let shared = tempfile::tempdir().unwrap();
    let address = shared.path().to_str().unwrap();
    let a = Project::empty();
    a.write("m.toml", MANIFEST);
    a.run("m.toml", &[]);
    let would = a.stdout(&["cache", "push", "--dry-run", "--remote", address]);
    assert!(would.starts_with("4 of 4 results (716 B at most) would go to "), "{would}");
    let pushed = a.stdout(&["cache", "push", "--remote", address]);
    assert!(pushed.starts_with("4 results (") && pushed.contains(", 0 were there"), "{pushed}");
    assert!(a.stdout(&["cache", "push", "--remote", address]).contains(", 4 were there"));

    let b = Project::empty();
    b.write("m.toml", MANIFEST);
    let pulled = b.stdout(&["cache", "pull", "--remote", address]);
    assert!(pulled.starts_with("4 results and 203 objects"), "{pulled}");
    assert_eq!(b.run("m.toml", &[]).kinds("hit").len(), 4);

    let victim = b.path("cache/v1/objects").join(&files(&b.path("cache/v1/objects"))[0]);
    std::fs::remove_file(&victim).unwrap();
    b.write("patchflow.toml", &format!("remote = {address:?}\n"));
    let repaired = b.stdout(&["cache", "pull", "m.toml"]);
    assert!(repaired.starts_with("0 results and 1 object ("), "{repaired}");
    assert!(victim.exists());
}

#[test]
fn a_relative_remote_starts_where_it_was_written() {
    let project = Project::empty();
    project.write("inner/patchflow.toml", "remote = \"../of_file\"");
    project.write("inner/sub/m.toml", MANIFEST);
    let run = |more: &[&str]| {
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_patchflow"))
            .args([&["run", "m.toml"], more].concat())
            .current_dir(project.path("inner/sub"))
            .env("XDG_CACHE_HOME", project.path(".user-cache"))
            .output()
            .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    };
    run(&["--remote", "../of_command_line"]);
    assert!(project.path("inner/of_command_line/v1").is_dir() && !project.path("of_file").exists());
    std::fs::remove_dir_all(project.path("inner/cache")).unwrap();
    run(&[]);
    assert!(project.path("of_file/v1").is_dir());
}
