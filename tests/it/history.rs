//! `runs` and `compare`: what past runs leave is found again and compared.

use serde_json::Value;

use crate::commands::chain;
use crate::project::Project;

#[test]
fn runs_are_listed_whatever_lies_in_the_folder() {
    let project = chain();
    assert_eq!(project.json(&["runs"])["runs"].as_array().unwrap().len(), 0);
    let first = project.run("m.toml", &[]);
    project.edit("wc -l", "false; wc -l < none; wc -l");
    project.edit("outputs/count/n", "outputs/count/n; exit 3");
    project.fails(&["run", "m.toml", "--set", "experiment.seed=7"], 1);
    // As a run that is killed leaves it: a request, whole events, half an event.
    let killed = project.path("runs/chain/20200101-000000-1");
    std::fs::create_dir_all(&killed).unwrap();
    let summary = project.path(first.folder()).join("run.json");
    let request = std::fs::read_to_string(summary).unwrap();
    let mut request: Value = serde_json::from_str(&request).unwrap();
    assert_eq!(request["fields"]["stages.counted.inputs.text"], "sorted");
    request["process"]["process_start"] = 1.into();
    std::fs::write(killed.join("run.json"), request.to_string()).unwrap();
    let events = "{\"event\":\"task_finished\",\"outcome\":\"executed\"}\n{\"event\":\"task_fin";
    std::fs::write(killed.join("events.ndjson"), events).unwrap();
    project.write("runs/chain/20200102-000000-1/summary.json", "{\"tasks\": 3");
    project.write("runs/chain/notes/readme.txt", "mine");
    project.write("runs/stray.txt", "mine");
    let report = project.json(&["runs", "chain"]);
    let runs = report["runs"].as_array().unwrap();
    let outcomes: Vec<&str> = runs.iter().map(|run| run["outcome"].as_str().unwrap()).collect();
    // The first two began within a second or two of each other.
    assert_eq!(outcomes, ["failed", "ok", "damaged", "incomplete"], "{report}");
    assert_eq!(
        (&runs[1]["executed"], &runs[1]["cached"], &runs[1]["manifest"]),
        (&2.into(), &1.into(), &"m.toml".into())
    );
    assert_eq!(runs[3]["executed"], 1);
    let shown = project.stdout(&["runs"]);
    assert!(shown.contains("m.toml") && shown.contains("incomplete"), "{shown}");
    project.fails(&["compare", "20200101", "latest"], 2);
}

#[test]
fn a_running_run_and_a_killed_one_are_distinguished() {
    let project = chain();
    let first = project.run("m.toml", &[]);
    let folder = project.path(first.folder());
    std::fs::remove_file(folder.join("summary.json")).unwrap();
    let outcome = |project: &Project| project.json(&["runs"])["runs"][0]["outcome"].clone();
    assert_eq!(outcome(&project), "incomplete");
    // The process of this test is alive.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start: u64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
    let mut request: Value =
        serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    request["process"]["pid"] = std::process::id().into();
    request["process"]["process_start"] = start.into();
    std::fs::write(folder.join("run.json"), request.to_string()).unwrap();
    assert_eq!(outcome(&project), "running");
}

#[test]
fn two_runs_are_compared_by_metrics_manifest_and_keys() {
    let project = Project::small();
    let first = project.run("m.toml", &["--only", "augment=none"]);
    let again = project.run("m.toml", &["--only", "augment=none"]);
    let id = |report: &crate::project::Report| report.folder().rsplit('/').next().unwrap().to_owned();
    let same = project.stdout(&["compare", &id(&first), &format!("small/{}", id(&again))]);
    assert!(same.contains("same metrics, manifest and keys"), "{same}");
    let other = project
        .run("m.toml", &["--only", "augment=none,bank=single", "--set", "stages.normal_bank.ratio=0.6"]);
    let report = project.json(&["compare", &format!("{}/", first.folder()), "latest"]);
    assert_eq!(report["runs"][1], format!("small/{}", id(&other)));
    let report = &report["differences"];
    assert_eq!(report["removed"], serde_json::json!(["bank=dual,augment=none"]));
    assert_eq!(report["manifest"][0]["path"], "stages.normal_bank.ratio");
    assert_eq!(
        (&report["manifest"][0]["old"], &report["manifest"][0]["new"]),
        (&"0.2".into(), &"0.6".into())
    );
    let tasks: Vec<&str> =
        report["keys"].as_array().unwrap().iter().map(|key| key["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["model", "normal_bank", "result"]);
    let metrics = report["metrics"].as_array().unwrap();
    assert!(!metrics.is_empty() && metrics.iter().all(|metric| metric["old"] != metric["new"]));
    let groups = &project.json(&["runs"])["runs"][0]["groups"];
    assert_eq!((&groups[0]["group"], &groups[0]["repeats"]), (&"bank=single,augment=none".into(), &1.into()));
    let unknown = project.fails(&["runs", "smal"], 2);
    assert!(unknown.contains("no experiment `smal` has run") && unknown.contains("`small`"), "{unknown}");
    // Three runs begin with `2`.
    project.fails(&["compare", "2", "latest"], 2);
    project.fails(&["compare", "nothing", "latest"], 2);
}

#[test]
fn a_profile_is_a_trace_without_overlaps() {
    let project = Project::small();
    let report = project.run("m.toml", &["--jobs", "2", "--threads", "2", "--profile", "trace.json"]);
    let trace: Value = serde_json::from_slice(&std::fs::read(project.path("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let number = |event: &Value, name: &str| event[name].as_f64().unwrap();
    let mut spans: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(spans.len() as u64, report.executed());
    spans.sort_by(|a, b| {
        (number(a, "tid"), number(a, "ts")).partial_cmp(&(number(b, "tid"), number(b, "ts"))).unwrap()
    });
    for pair in spans.windows(2).filter(|pair| pair[0]["tid"] == pair[1]["tid"]) {
        assert!(number(pair[0], "ts") + number(pair[0], "dur") <= number(pair[1], "ts"), "{pair:?}");
    }
    let total = report.last["seconds"].as_f64().unwrap() * 1e6;
    for span in &spans {
        assert!((1.0..=2.0).contains(&number(span, "tid")) && number(span, "ts") >= 0.0);
        let finished = report.events.iter().find(|event| {
            event["event"] == "task_finished"
                && event["key"] == span["args"]["key"]
                && event["outcome"] == "executed"
        });
        let finished = finished.unwrap();
        assert_eq!((&finished["name"], &finished["kind"]), (&span["name"], &span["cat"]));
        assert!(number(span, "dur") >= finished["seconds"].as_f64().unwrap() * 1e6);
    }
    let busy: f64 = spans.iter().map(|span| number(span, "dur")).sum();
    // A millisecond for what the run does before and after its own clock.
    assert!(busy > 0.0 && busy <= 2.0 * (total + 1e3), "{busy} of 2 × {total}");
    let hits = events.iter().filter(|event| event["ph"] == "i" && event["args"]["outcome"] == "hit").count();
    assert_eq!(hits as u64, report.last["hits"].as_u64().unwrap());
    project.fails(&["run", "m.toml", "--profile", "none/trace.json"], 1);
}

#[test]
fn a_run_that_fails_leaves_its_profile() {
    let project = chain();
    project.edit("wc -l", "exit 3; wc -l");
    project.fails(&["run", "m.toml", "--profile", "trace.json"], 1);
    let trace: Value = serde_json::from_slice(&std::fs::read(project.path("trace.json")).unwrap()).unwrap();
    let outcomes: Vec<&Value> = trace["traceEvents"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["ph"] == "X")
        .map(|event| &event["args"]["outcome"])
        .collect();
    assert_eq!(outcomes, ["executed", "failed"]);
}

#[test]
fn the_log_of_a_hit_is_shown() {
    let project = chain();
    project.edit("echo told;", "echo told; echo warned >&2; echo first; seq 100000;");
    project.fails(&["log", "m.toml", "sorted"], 1);
    project.run("m.toml", &[]);
    std::fs::remove_dir_all(project.path("runs")).unwrap();
    let shown = project.stdout(&["log", "m.toml", "sorted"]);
    assert!(shown.starts_with("== sorted: "), "{shown}");
    for line in ["\ntold\n", "\nwarned\n", "\nfirst\n", "\n100000\n", " bytes left out "] {
        assert!(shown.contains(line), "{line}");
    }
    assert!(shown.len() < 300_000);
    let replayed = project.call(&["run", "m.toml", "--replay-logs"]);
    let replayed = String::from_utf8_lossy(&replayed.stderr).into_owned();
    assert!(replayed.contains("== sorted: ") && replayed.contains("\nwarned\n"), "{replayed}");
    assert!(replayed.contains("== counted: "), "{replayed}");
    for object in project.objects() {
        if std::fs::read(&object).unwrap().starts_with(b"$ sh") {
            std::fs::remove_file(object).unwrap();
        }
    }
    assert!(project.stdout(&["log", "m.toml", "sorted"]).contains("gone from the cache"));
    assert_eq!(project.run("m.toml", &[]).executed(), 0, "a lost log is no miss");
}
