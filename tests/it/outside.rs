//! What comes from outside decides nothing: the environment, a full disk, names and sizes in manifests, a remote.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::Project;

const TINY: &str = r#"
[experiment]
name = "tiny"
[stages.a]
kind = "command"
run = ["sh", "-c", "echo 1 > outputs/o/f"]
outputs = { o = "files" }
"#;

fn tiny() -> Project {
    let project = Project::empty();
    project.write("m.toml", TINY);
    project
}

fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("patchflow"));
    command.args(arguments).current_dir(project.path("")).env("XDG_CACHE_HOME", project.path(".user-cache"));
    command
}

#[test]
fn variables_that_are_not_utf8_end_no_command_and_are_passed_on() {
    let project = Project::empty();
    project.write(
        "m.toml",
        "[stages.a]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"printf %s \\\"$ODD\\\" > outputs/o/f\"]\n\
         env = [\"ODD\"]\noutputs = { o = \"files\" }\n",
    );
    let odd = OsStr::from_bytes(b"a\xffb");
    for name in
        ["ODD", "RUST_LOG", "HTTP_PROXY", "PATCHFLOW_PYTHON", "LANG", "PATCHFLOW_TEST_LEASES", "TMPDIR"]
    {
        let output = command(&project, &["plan", "m.toml"]).env(name, odd).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let home = project.path("").join(odd);
    let mut in_odd_home = command(&project, &["run", "m.toml"]);
    let output =
        in_odd_home.env_remove("XDG_CACHE_HOME").env("HOME", &home).env("ODD", odd).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(home.join(".cache/patchflow/stat.sqlite").exists(), "a folder that is not UTF-8 is used");
    assert_eq!(std::fs::read(project.path("runs/m/latest/variants/default/a/f")).unwrap(), b"a\xffb");
}

#[test]
fn what_cannot_be_written_to_stdout_is_no_success() {
    let project = tiny();
    let first = project.run("m.toml", &[]);
    let run = Path::new(first.folder()).file_name().unwrap().to_str().unwrap().to_owned();
    project.run("m.toml", &[]);
    let commands: &[&[&str]] = &[
        &["plan", "m.toml"],
        &["plan", "m.toml", "--json"],
        &["run", "m.toml"],
        &["run", "m.toml", "--json"],
        &["explain", "m.toml", "a"],
        &["explain", "m.toml", "a", "--json"],
        &["graph", "m.toml"],
        &["lock", "m.toml"],
        &["log", "m.toml", "a"],
        &["runs"],
        &["runs", "--json"],
        &["compare", &run, &run, "--json"],
        &["cache", "info"],
        &["cache", "info", "--json"],
        &["cache", "gc", "--dry-run", "--json"],
        &["cache", "verify"],
        &["cache", "push", "--remote", "remote"],
        &["cache", "pull", "--remote", "remote"],
        &["verify", "m.toml"],
        &["doctor"],
        &["doctor", "--json"],
        &["completions", "bash"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ];
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for arguments in commands {
        let output = command(&project, arguments).stdout(full()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("standard output") && !text.contains("panicked"), "{arguments:?}: {text}");
        // Messages that cannot be written change nothing.
        let output = command(&project, arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
    let output = command(&project, &["plan", "nowhere.toml"]).stderr(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let mut child = command(&project, &["graph", "m.toml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "a closed pipe, as of `head`, is no error");
}

/// A text in quotes, as JSON and TOML write it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

#[test]
fn names_of_inputs_and_outputs_are_names() {
    let project = Project::empty();
    project.write("mine/data.txt", "precious");
    let absolute = project.path("mine");
    let absolute = absolute.to_str().unwrap();
    let outputs = |name: &str| {
        format!(
            "[stages.a]\nkind = \"command\"\nrun = [\"true\"]\noutputs = {{ {} = \"files\" }}\n",
            quoted(name)
        )
    };
    let inputs = |name: &str| {
        format!(
            "{TINY}[stages.b]\nkind = \"command\"\nrun = [\"true\"]\ninputs = {{ {} = \"a\" }}\noutputs = {{ o = \"files\" }}\n",
            quoted(name)
        )
    };
    for name in [absolute, "../x", "..", ".", ".sandbox", "a/b", "a b", "", "a\\b", "x\u{1b}"] {
        for manifest in [outputs(name), inputs(name)] {
            project.write("m.toml", &manifest);
            let said = project.fails(&["run", "m.toml"], 2);
            assert!(said.contains("bad_name") && !said.contains('\u{1b}'), "{name:?}: {said}");
        }
    }
    project.write("m.toml", &outputs("a").replace("\"a\" = \"files\"", "a = \"files\", A = \"files\""));
    assert!(project.fails(&["plan", "m.toml"], 2).contains("letter case"));
    assert_eq!(std::fs::read_to_string(project.path("mine/data.txt")).unwrap(), "precious");
    assert!(!project.path("runs").exists());
}

/// A chain of command stages.
fn chain(length: usize) -> String {
    let mut text = String::new();
    for stage in 0..length {
        let input =
            if stage == 0 { String::new() } else { format!("inputs = {{ i = \"s{}\" }}\n", stage - 1) };
        let _ = write!(
            text,
            "[stages.s{stage}]\nkind = \"command\"\nrun = [\"true\"]\n{input}outputs = {{ a = \"files\" }}\n"
        );
    }
    text
}

#[test]
fn a_chain_of_any_length_is_planned_and_a_cycle_of_any_length_is_shown() {
    let project = Project::empty();
    project.write("m.toml", &chain(6000));
    let plan = project.json(&["plan", "m.toml"]);
    assert_eq!(plan["tasks"].as_array().unwrap().len(), 6000);
    assert!(project.stdout(&["graph", "m.toml"]).contains("s5999"));
    let cycle =
        chain(6000).replacen("run = [\"true\"]\n", "run = [\"true\"]\ninputs = { i = \"s5999\" }\n", 1);
    project.write("m.toml", &cycle);
    let said = project.fails(&["plan", "m.toml"], 2);
    assert!(said.contains("stage::cycle") && said.contains("more") && said.len() < 20_000, "{}", said.len());
}

#[test]
fn a_mistake_that_is_repeated_is_shown_once_with_its_count() {
    let project = Project::empty();
    let wrong = |field: &str| chain(5_000).replace("outputs", &format!("{field} = 1\noutputs"));
    project.write("m.toml", &wrong("ouput"));
    let started = Instant::now();
    let said = project.fails(&["plan", "m.toml"], 2);
    assert!(said.contains("and 4999 more times") && said.len() < 5_000, "{said}");
    // Unknown names differ, and are counted as well.
    project.write("m.toml", &chain(5_000).replace("\"s", "\"t"));
    let said = project.fails(&["plan", "m.toml"], 2);
    assert!(said.contains("and 4899 more errors") && said.len() < 200_000, "{}", said.len());
    // As whole values, integers of an axis are not strings.
    let values: Vec<String> = (0..5_000).map(|value| value.to_string()).collect();
    let stage = "[stages.s]\nkind = \"command\"\nrun = [\"echo\", \"${x}\"]\noutputs = { o = \"files\" }\n";
    project.write("m.toml", &format!("[grid.axes]\nx = [{}]\n{stage}", values.join(",")));
    let said = project.fails(&["plan", "m.toml"], 2);
    assert!(said.contains("and 4999 more") && said.len() < 50_000, "{}", said.len());
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
}

#[test]
fn sizes_in_a_manifest_are_checked_before_work_is_done() {
    let project = Project::empty();
    let axis = |name: &str, count: usize| {
        let values: Vec<String> = (0..count).map(|value| value.to_string()).collect();
        format!("{name} = [{}]\n", values.join(","))
    };
    let stage =
        "[stages.s]\nkind = \"command\"\nrun = [\"echo\", \"${a} ${b}\"]\noutputs = { o = \"files\" }\n";
    project.write("m.toml", &format!("[grid.axes]\n{}{}{stage}", axis("a", 2000), axis("b", 2000)));
    let started = Instant::now();
    assert!(project.fails(&["plan", "m.toml"], 2).contains("more than 1000000 combinations"));
    let many = chain(40).replace("[\"true\"]", "[\"echo\", \"${a} ${b}\"]");
    project.write("m.toml", &format!("[grid.axes]\n{}{}{many}", axis("a", 1000), axis("b", 1000)));
    assert!(project.fails(&["plan", "m.toml"], 2).contains("grid::too_large"));
    for depth in 0..40 {
        project.write(&format!("i{depth}.toml"), &format!("include = [\"i{}.toml\"]\n", depth + 1));
    }
    project.write("i40.toml", TINY);
    assert!(project.fails(&["plan", "i0.toml"], 2).contains("nested more than"));
    for level in 0..20 {
        let next = level + 1;
        project
            .write(&format!("d{level}.toml"), &format!("include = [\"d{next}.toml\", \"d{next}.toml\"]\n"));
    }
    project.write("d20.toml", TINY);
    assert!(project.fails(&["plan", "d0.toml"], 2).contains("more than 1000 files"));
    project.write("huge.toml", &format!("include = [\"{}\"]\n", "/dev/zero"));
    assert!(project.fails(&["plan", "huge.toml"], 2).contains("cannot read"));
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
}

const RANDOM: &str = r#"
[experiment]
name = "random"
[stages.a]
kind = "command"
run = ["sh", "-c", "date +%N > outputs/o/f"]
outputs = { o = "files" }
[stages.b]
kind = "command"
run = ["sh", "-c", "cat inputs/x/f > outputs/o/f"]
inputs = { x = "a" }
outputs = { o = "files" }
"#;

#[test]
fn a_record_whose_objects_expired_and_whose_stage_gives_other_bytes_is_made_here() {
    let shared = tempfile::tempdir().unwrap();
    let machine = |manifest: &str| {
        let project = Project::empty();
        project.write("m.toml", manifest);
        project.write("patchflow.toml", &format!("remote = {:?}\n", shared.path().to_str().unwrap()));
        project
    };
    machine(RANDOM).run("m.toml", &[]);
    for area in ["objects", "packs"] {
        let _ = std::fs::remove_dir_all(shared.path().join("v1").join(area));
    }
    let changed = RANDOM.replace("cat inputs", "cat  inputs");
    let b = machine(&changed);
    let report = b.run("m.toml", &["--target", "a", "--target", "b"]);
    assert_eq!((report.executed(), report.last["failed"].as_u64()), (2, Some(0)), "{:?}", report.last);
    let shown = |stage: &str| {
        std::fs::read_to_string(b.path(report.folder()).join("variants/default").join(stage).join("f"))
            .unwrap()
    };
    assert_eq!(shown("a"), shown("b"), "one table, one result of each task");
    assert_eq!(b.run("m.toml", &[]).executed(), 0);
    // And the remote has it whole for the next.
    let c = machine(&changed);
    assert_eq!(c.run("m.toml", &[]).executed(), 0);
}

/// Results of [`many`].
const RESULTS: usize = 48;

/// A manifest with [`RESULTS`] tasks, each with files for a pack and an object.
fn many() -> String {
    let values: Vec<String> = (0..RESULTS).map(|value| value.to_string()).collect();
    format!(
        "[experiment]\nname = \"many\"\n[grid.axes]\nx = [{}]\n[stages.first]\nkind = \"command\"\n\
         run = [\"sh\", \"-c\", \"for i in 1 2 3 4 5; do echo ${{x}} $i > outputs/o/$i; done; \
         head -c 400000 /dev/zero > outputs/o/z; echo ${{x}} >> outputs/o/z\"]\noutputs = {{ o = \"files\" }}\n",
        values.join(", ")
    )
}

/// The files of a remote's area, by name as one digest. A push may be under way.
fn names(remote: &Path, area: &str) -> BTreeSet<String> {
    let walk = walkdir::WalkDir::new(remote.join("v1").join(area)).into_iter().flatten();
    let name = |entry: walkdir::DirEntry| {
        let mut parts = entry.path().iter().rev().map(|part| part.to_str().unwrap().to_owned());
        let (name, shard) = (parts.next().unwrap(), parts.next().unwrap());
        shard + &name
    };
    walk.filter(|entry| entry.file_type().is_file() && !entry.path().to_str().unwrap().contains('#'))
        .map(name)
        .collect()
}

#[test]
fn a_pusher_that_is_killed_leaves_no_record_without_its_objects() {
    let rounds =
        std::env::var("PATCHFLOW_TEST_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(6);
    let source = Project::empty();
    source.write("m.toml", &many());
    source.run("m.toml", &[]);
    let whole = tempfile::tempdir().unwrap();
    source.succeeds(&["cache", "push", "--remote", whole.path().to_str().unwrap()]);
    let mut partial = 0;
    for round in 0..rounds {
        let remote = tempfile::tempdir().unwrap();
        let mut child = command(&source, &["cache", "push", "--remote", remote.path().to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A moment at which so many records, or in the first round objects, are there.
        let (area, count) = if round == 0 { ("objects", 1) } else { ("records", RESULTS * round / rounds) };
        while names(remote.path(), area).len() < count && child.try_wait().unwrap().is_none() {}
        std::thread::sleep(Duration::from_micros(700 * (round as u64 % 7)));
        child.kill().unwrap();
        child.wait().unwrap();
        let records = names(remote.path(), "records");
        partial += usize::from(!records.is_empty() && records.len() < RESULTS);
        // Another machine takes every record that is there, and finds all of its objects.
        let reader = Project::empty();
        reader.write("m.toml", &many());
        let (code, said) = reader.ends(&["cache", "pull", "--remote", remote.path().to_str().unwrap()]);
        assert_eq!(code, Some(0), "round {round}: {said}");
        assert!(said.starts_with(&format!("{} result", records.len())), "round {round}: {said}");
        assert_eq!(reader.run("m.toml", &[]).executed() as usize, RESULTS - records.len(), "round {round}");
        // And the next push completes it.
        source.succeeds(&["cache", "push", "--remote", remote.path().to_str().unwrap()]);
        for area in ["records", "trees", "packs", "objects"] {
            assert_eq!(names(remote.path(), area), names(whole.path(), area), "round {round}: {area}");
        }
    }
    assert!(partial > 0, "no kill met a push that was under way");
}
