//! `patchflow cache`: what it shows, takes, keeps and mends.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::project::{Project, Report};

/// Takes whatever can go.
const ALL: [&str; 6] = ["cache", "gc", "--max-size", "0", "--grace", "0s"];

/// The object of a file that a run shows.
fn object_of(project: &Project, report: &Report, shown: &str) -> PathBuf {
    let bytes = std::fs::read(project.path(report.folder()).join("variants").join(shown)).unwrap();
    project.objects().into_iter().find(|path| std::fs::read(path).unwrap() == bytes).unwrap()
}

#[test]
fn a_table_of_evicted_features_is_still_a_table_of_hits() {
    let project = Project::small();
    let first = project.run("m.toml", &[]);
    let bytes = project.results(&first);
    let before = project.json(&["cache", "info"]);
    assert!(before["kinds"]["extract"]["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(before["experiments"]["small"]["bytes"], before["areas"]["objects"]["bytes"]);
    assert_eq!(before["unreferenced"]["files"], 0);

    let dry = project.json(&[&ALL[..], &["--dry-run"]].concat());
    assert_eq!(project.json(&["cache", "info"]), before, "a dry run takes nothing");
    let mut taken = project.json(&ALL);
    assert!(taken["freed"].as_u64() > Some(0) && taken["kinds"]["extract"]["objects"].as_u64() > Some(0));
    taken["dry_run"] = true.into();
    assert_eq!(taken, dry, "and shows what would be removed");
    let after = project.json(&["cache", "info"]);
    assert_eq!(after["bytes"], taken["after"]);
    assert_eq!(after["areas"]["records"], before["areas"]["records"]);
    if before["linked"]["files"] == 0 {
        return; // A file system that shares blocks: the run's folder has files of its own.
    }
    // Removing what the run's folder shares would free nothing.
    assert_eq!(after["areas"]["objects"], after["linked"]);

    let again = project.run("m.toml", &[]);
    assert_eq!((again.executed(), again.last["remade"].as_u64()), (0, Some(0)));
    assert_eq!(project.results(&again), bytes);
}

#[test]
fn everything_that_went_is_made_again_to_the_same_bytes() {
    let project = Project::small();
    let bytes = project.results(&project.run("m.toml", &[]));
    std::fs::remove_dir_all(project.path("runs")).unwrap();
    project.json(&ALL);
    assert!(project.objects().is_empty());
    let again = project.run("m.toml", &[]);
    assert!(again.kinds("executed").iter().all(|kind| kind == "evaluate"), "{:?}", again.kinds("executed"));
    assert!(again.last["remade"].as_u64() > Some(0), "what they read is made again");
    assert_eq!(project.results(&again), bytes);
}

#[test]
fn a_run_and_two_collectors_at_once_are_safe() {
    let project = Project::small();
    let quiet = project.results(&project.run("m.toml", &[]));
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let (code, text) = project.ends(&ALL);
                    assert!(code == Some(0) || code == Some(4) && text.contains("is collecting"), "{text}");
                }
            });
        }
        let report = std::panic::catch_unwind(|| project.run("m.toml", &[]));
        done.store(true, Ordering::SeqCst);
        let report = report.unwrap();
        assert_eq!(report.last["remade"], 0, "what a run has made or found stays until its end");
        assert_eq!(project.results(&report), quiet);
    });
    assert_eq!(project.ends(&["cache", "verify"]).0, Some(0));
}

#[test]
fn what_goes_while_a_stage_runs_is_made_again() {
    let project = Project::empty();
    project.write(
        "m.toml",
        r#"
        [stages.a]
        kind = "command"
        run = ["sh", "-c", "echo once > outputs/x/f"]
        outputs = { x = "files" }
        [stages.b]
        kind = "command"
        run = ["sh", "vandal.sh"]
        inputs = { x = "a", script = "script" }
        outputs = { y = "files" }
        [stages.script]
        kind = "download"
        path = "script"
        "#,
    );
    // The first time it takes its own input away from the cache, and fails as a reader of it would.
    let vandal = format!(
        "if [ ! -e {0}/seen ]; then touch {0}/seen; rm -rf {0}/cache/v1/objects; exit 1; fi\ncp inputs/x/f outputs/y/f\n",
        project.path("").display().to_string().trim_end_matches('/')
    );
    project.write("script/vandal.sh", &vandal);
    project.edit("\"vandal.sh\"", "\"inputs/script/vandal.sh\"");
    let report = project.run("m.toml", &[]);
    assert_eq!((report.executed(), report.last["remade"].as_u64()), (2, Some(1)));
    assert_eq!(report.last["failed"], 0);
}

#[test]
fn damage_is_named_by_its_stage_and_made_again_by_whoever_reads_it() {
    let project = Project::small();
    let report = project.run("m.toml", &[]);
    let bytes = project.results(&report);
    let damage = |shown: &str| {
        let object = object_of(&project, &report, shown);
        std::fs::remove_file(&object).unwrap();
        std::fs::write(object, "damaged").unwrap();
    };
    damage("bank=single,augment=none/metrics.json");
    let (exit, text) = project.ends(&["cache", "verify"]);
    assert_eq!(exit, Some(3));
    assert!(text.contains("of evaluate `result` in small"), "{text}");
    let again = project.run("m.toml", &[]);
    assert_eq!((again.kinds("executed"), project.results(&again)), (vec!["evaluate".to_owned()], bytes));

    // An object that no task of a run reads, as its readers are hits.
    let features = project.json(&["plan", "m.toml"]);
    let features =
        features["tasks"].as_array().unwrap().iter().find(|task| task["kind"] == "extract").unwrap();
    assert_eq!(features["state"], "hit");
    let largest = project.objects().into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    std::fs::remove_file(&largest).unwrap();
    std::fs::write(&largest, "damaged").unwrap();
    let (exit, text) = project.ends(&["cache", "verify", "--repair", "m.toml"]);
    assert_eq!(exit, Some(0), "{text}");
    assert!(largest.metadata().unwrap().len() > 100);
    assert_eq!(project.ends(&["cache", "verify"]).0, Some(0));
    assert_eq!(project.run("m.toml", &["--restore"]).executed(), 0, "all is there");
}

#[test]
fn what_a_manifest_does_not_make_is_not_repaired_by_it() {
    let project = Project::empty();
    let made =
        "[stages.a]\nkind = \"command\"\nrun = [\"touch\", \"outputs/x/f\"]\noutputs = { x = \"files\" }\n";
    project.write("m.toml", made);
    project
        .write("other.toml", &made.replace("touch\", \"outputs/x/f", "cp\", \"/dev/null\", \"outputs/x/g"));
    project.run("m.toml", &[]);
    let object = project.path("cache/v1/objects/ab");
    std::fs::create_dir_all(&object).unwrap();
    std::fs::write(object.join("0".repeat(62)), "nobody's").unwrap();
    let (exit, text) = project.ends(&["cache", "verify", "--repair", "other.toml"]);
    assert_eq!(exit, Some(3));
    assert!(text.contains("held by no record") && text.contains("so not repaired"), "{text}");
}

#[test]
fn a_pin_keeps_what_a_manifest_made() {
    let project = Project::small();
    let (_, text) = project.ends(&["cache", "pin", "m.toml"]);
    assert!(text.contains("pinned 0 records") && text.contains("not run yet and not pinned: "), "{text}");
    project.run("m.toml", &[]);
    assert_eq!(project.ends(&["cache", "pin", "m.toml", "--name", "../x"]).0, Some(2));
    let (exit, text) = project.ends(&["cache", "pin", "m.toml"]);
    assert!(exit == Some(0) && !text.contains("have not run"), "{text}");
    assert_eq!(project.json(&["cache", "info"])["pins"]["small"], 13);
    let taken = project.json(&ALL);
    assert_eq!(taken["kinds"], serde_json::json!({}), "every object is an output of the pinned tasks");
    assert_eq!(project.ends(&["cache", "unpin", "small"]).0, Some(0));
    assert_eq!(project.ends(&["cache", "unpin", "small"]).0, Some(2));
    assert!(project.json(&ALL)["kinds"]["extract"]["objects"].as_u64() > Some(0));
}

#[test]
fn what_was_used_within_the_grace_period_stays_and_is_said() {
    let project = Project::small();
    project.run("m.toml", &["--target", "images"]);
    let (exit, text) = project.ends(&["cache", "gc", "--max-size", "1kB"]);
    assert!(exit == Some(0) && text.contains("nothing to remove"), "{text}");
    assert!(text.contains("--grace 0s"), "{text}");
    for wrong in [["--max-size", "5 parsecs"], ["--grace", "soon"]] {
        assert_eq!(project.ends(&[&["cache", "gc"][..], &wrong].concat()).0, Some(2));
    }
}

#[test]
fn taking_stock_makes_no_cache() {
    let project = Project::empty();
    for arguments in [&["cache", "info"][..], &ALL, &["cache", "gc", "--dry-run"]] {
        assert_eq!(project.ends(arguments).0, Some(0));
    }
    assert!(!project.path("cache").exists());
}

/// Needs the right to mount: `cargo test --release --test it -- --ignored full_disk`.
#[test]
#[ignore = "mounts a small file system, which needs root"]
fn a_full_disk_is_a_clear_error_and_leaves_the_cache_intact() {
    let project = Project::empty();
    let quickstart = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/quickstart.toml");
    std::fs::copy(quickstart, project.path("m.toml")).unwrap();
    let cache = project.path("cache");
    std::fs::create_dir(&cache).unwrap();
    let call = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).arg(&cache).status().unwrap();
        assert!(status.success(), "{program}");
    };
    call("mount", &["-t", "tmpfs", "-o", "size=3m", "tmpfs"]);
    let result = std::panic::catch_unwind(|| {
        let (exit, text) = project.ends(&["run", "m.toml"]);
        assert_eq!(exit, Some(1), "{text}");
        for word in ["No space left on device", "bytes free", "cache gc --max-size", "cache/v1/"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(project.ends(&["cache", "verify"]).0, Some(0));
        call("mount", &["-o", "remount,size=300m"]);
        assert_eq!(project.run("m.toml", &[]).last["failed"], 0);
        assert_eq!(project.ends(&["cache", "verify"]).0, Some(0));
    });
    call("umount", &[]);
    result.unwrap();
}

/// Two tasks that are shown; the second removes the cache the first time that it runs.
const REMOVES: &str = r#"
[experiment]
name = "removed"
[stages.first]
kind = "command"
run = ["sh", "-c", "echo first > outputs/o/n"]
outputs = { o = "files" }
[stages.shown]
kind = "command"
run = ["cp", "inputs/first/n", "outputs/o/n"]
inputs = { first = "first" }
outputs = { o = "files" }
[stages.last]
kind = "command"
run = ["sh", "-c", "[ -e $MARK ] || { touch $MARK; $REMOVE $CACHE $GONE; }; cat inputs/shown/n inputs/first/n > outputs/o/n"]
inputs = { shown = "shown", first = "first" }
outputs = { o = "files" }
env = ["MARK", "CACHE", "REMOVE", "GONE"]
"#;

#[test]
fn a_cache_that_is_deleted_or_moved_while_a_task_runs_fails_no_run() {
    for remove in ["rm -rf", "mv"] {
        let project = Project::empty();
        project.write("m.toml", REMOVES);
        let text = |name: &str| project.path(name).to_str().unwrap().to_owned();
        let (mark, cache, gone) = (text("mark"), text("cache"), text("gone"));
        let variables = [("MARK", &*mark), ("CACHE", &*cache), ("REMOVE", remove), ("GONE", &*gone)];
        let output = project.call_with(&["run", "m.toml", "--json"], &variables);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report = crate::project::report_of(&output);
        let results: Vec<Vec<u8>> = project.results(&report).into_values().collect();
        assert!(results.contains(&b"first\nfirst\n".to_vec()), "{remove}: {results:?}");
        assert!(project.path("mark").exists() && project.objects().len() >= 2);
        assert_eq!(project.succeeds(&["cache", "verify"]).status.code(), Some(0));
    }
}

#[test]
fn a_killed_run_leaves_nothing_once_another_has_run() {
    let project = Project::empty();
    let manifest = "[experiment]\nname = \"killed\"\n[stages.wait]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \
                    \"echo $$ > $MARK; exec sleep 60\"]\noutputs = { o = \"files\" }\nenv = [\"MARK\"]\n";
    project.write("m.toml", manifest);
    let mark = project.path("mark");
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("patchflow"))
        .args(["run", "m.toml"])
        .current_dir(project.path(""))
        .env("MARK", &mark)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !std::fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let sleeper: i32 = std::fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    let leases = || crate::project::files(&project.path("cache/v1/leases"));
    let left = |leases: &[PathBuf]| leases.iter().filter(|name| name.to_string_lossy().len() > 20).count();
    assert_eq!(left(&leases()), 2, "its lease and the list of what it used: {:?}", leases());
    project.write(
        "other.toml",
        "[experiment]\nname = \"other\"\n[stages.a]\nkind = \"command\"\n\
        run = [\"sh\", \"-c\", \"echo > outputs/o/n\"]\noutputs = { o = \"files\" }\n",
    );
    project.run("other.toml", &[]);
    assert_eq!(left(&leases()), 0, "{:?}", leases());
    assert_eq!(crate::project::files(&project.path("cache/v1/tmp")), Vec::<PathBuf>::new());
    let sleeper = rustix::process::Pid::from_raw(sleeper).unwrap();
    let _ = rustix::process::kill_process(sleeper, rustix::process::Signal::KILL);
}
