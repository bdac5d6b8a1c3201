//! `lock`, `run --locked` and `verify`.

use serde_json::Value;

use crate::commands::chain;
use crate::project::{Project, files, report_of};

fn lock(project: &Project) -> String {
    let (code, said) = project.ends(&["lock", "m.toml"]);
    assert_eq!(code, Some(0), "{said}");
    std::fs::read_to_string(project.path("m.lock")).unwrap()
}

#[test]
fn a_table_is_locked_once_it_is_whole() {
    let project = Project::small();
    let (missing, said) = project.ends(&["lock", "m.toml"]);
    assert_eq!(missing, Some(4), "{said}");
    assert!(said.contains("images (no record of this key)") && !project.path("m.lock").exists(), "{said}");
    assert_eq!(project.ends(&["run", "m.toml", "--locked"]).0, Some(4), "there is no lock");
    let first = project.run("m.toml", &[]);
    let text = lock(&project);
    assert_eq!(text, lock(&project), "equal tables are equal bytes");
    let locked: toml::Table = text.parse().unwrap();
    assert_eq!(locked["variants"].as_table().unwrap().len(), 4);
    let metrics = project.path(first.folder()).join("variants/bank=dual,augment=none/metrics.json");
    let metrics: Value = serde_json::from_slice(&std::fs::read(metrics).unwrap()).unwrap();
    let of = |name: &str| locked["variants"]["bank=dual,augment=none"][name].as_float().unwrap();
    assert_eq!(of("image_auroc").to_bits(), metrics["image_auroc"].as_f64().unwrap().to_bits());
    let tasks = text.lines().filter(|line| line.contains(" key = ")).count();
    let planned = first.events.iter().filter(|event| event["event"] == "task_finished").count();
    assert_eq!(tasks, planned);

    assert_eq!(project.run("m.toml", &["--locked"]).executed(), 0);
    assert_eq!(project.run("m.toml", &["--locked", "--only", "bank=dual"]).executed(), 0);
    // Another machine: nothing is known beforehand, all comes out as locked.
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    assert!(project.run("m.toml", &["--locked"]).executed() > 0);
    assert_eq!(text, lock(&project));
}

#[test]
fn a_locked_run_refuses_whatever_is_not_locked() {
    let project = Project::small();
    project.run("m.toml", &[]);
    lock(&project);
    let runs = files(&project.path("runs")).len();
    project.edit("ratio = 0.2", "ratio = 0.3");
    let (refused, said) = project.ends(&["run", "m.toml", "--locked"]);
    assert_eq!(refused, Some(4), "{said}");
    assert!(said.contains("normal_bank: differs from the lock in\n    ratio: 0.2 -> 0.3"), "{said}");
    // The other ratio is cached, too: it is refused all the same.
    project.run("m.toml", &[]);
    let (refused, said) = project.ends(&["run", "m.toml", "--locked"]);
    assert!(refused == Some(4) && said.contains("ratio: 0.2 -> 0.3"), "{said}");
    project.edit("ratio = 0.3", "ratio = 0.2");
    project.edit("[\"none\", \"cutpaste\"]", "[\"cutpaste\"]");
    let (refused, said) = project.ends(&["run", "m.toml", "--locked"]);
    assert!(refused == Some(4) && said.contains("the variant `bank=dual,augment=none` is gone"), "{said}");
    project.edit("[\"cutpaste\"]", "[\"none\", \"cutpaste\"]");
    project.edit("bank = [\"single\", \"dual\"]", "bank = [\"single\", \"dual\"]\nquantile = [0.9]");
    project.edit(
        "features = \"features\"\n\n[stages.result]",
        "features = \"features\"\nthreshold_quantile = \"${quantile}\"\n\n[stages.result]",
    );
    let (refused, said) = project.ends(&["run", "m.toml", "--locked"]);
    assert!(refused == Some(4) && said.contains("is new"), "{said}");
    assert!(files(&project.path("runs")).len() > runs, "the run without a lock");
}

#[test]
fn what_only_the_run_can_know_is_refused_there() {
    let project = chain();
    project.edit("wc -l < inputs/text/a.txt >", "date +%N >");
    project.run("m.toml", &[]);
    let text = lock(&project);
    // An output that was evicted is made again, with other bytes.
    for object in project.objects() {
        std::fs::remove_file(object).unwrap();
    }
    let output = project.call(&["run", "m.toml", "--locked", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let ran = report_of(&output);
    let failed = ran.events.iter().find(|event| event["outcome"] == "failed").unwrap();
    assert_eq!(failed["error"], "`counted` gave other bytes than the lock says: `count`, first `n`");
    let (refused, said) = project.ends(&["run", "m.toml", "--locked"]);
    assert!(refused == Some(4) && said.contains("counted: the cache holds another `count`"), "{said}");
    let (relocked, said) = project.ends(&["lock", "m.toml"]);
    assert!(relocked == Some(0) && said.contains("counted has given other bytes"), "{said}");
    project.write("m.lock", &text);
    // Keys below what is not cached are known as the run comes to them.
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    project.edit("date +%N >", "date >");
    let output = project.call(&["run", "m.toml", "--locked", "--json"]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(report_of(&output).kinds("executed"), ["command"]);
    assert_eq!(text, std::fs::read_to_string(project.path("m.lock")).unwrap());
}

#[test]
fn tasks_that_no_axis_tells_apart_are_locked_by_their_variants() {
    let project = chain();
    project.edit("[stages.source]", "[grid.axes]\na = [1, 11]\nb = [1, 11]\n[stages.source]");
    project.edit("wc -l < inputs/text/a.txt", "echo ${a}${b}");
    project.run("m.toml", &[]);
    let text = lock(&project);
    assert!(text.contains("variants = [\"a=1,b=11\", \"a=11,b=1\"]"), "{text}");
    assert_eq!(project.run("m.toml", &["--locked"]).executed(), 0);
    assert_eq!(project.run("m.toml", &["--locked", "--only", "a=11"]).executed(), 0);
}

#[test]
fn what_is_made_again_is_the_same_and_leaves_the_cache_alone() {
    let project = Project::small();
    assert_eq!(project.ends(&["verify", "m.toml"]).0, Some(1), "nothing is cached");
    project.run("m.toml", &[]);
    let cache = || {
        let mut listed = files(&project.path("cache"));
        listed.retain(|path| !path.to_string_lossy().contains("leases"));
        listed
    };
    let before = cache();
    let output = project.call(&["verify", "m.toml", "--all", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(cache(), before);
    let verdicts: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kinds = verdicts["kinds"].as_object().unwrap();
    assert_eq!(
        kinds.keys().collect::<Vec<_>>(),
        ["augment", "coreset", "evaluate", "extract", "fit", "preprocess"]
    );
    for (kind, of) in kinds {
        assert!(of["cached"].as_u64() > Some(0) && of["same"] == of["cached"], "{kind}: {of}");
    }
    let one = project.call(&["verify", "m.toml", "--sample", "2", "--json"]);
    let again = project.call(&["verify", "m.toml", "--sample", "2", "--json"]);
    let drawn = |output: &std::process::Output| {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let keys: Vec<String> =
            report["tasks"].as_array().unwrap().iter().map(|task| task["key"].to_string()).collect();
        keys
    };
    assert_eq!((drawn(&one).len(), drawn(&one)), (2, drawn(&again)));
    let verdict = files(&project.path("runs/small/verify"));
    assert_eq!(verdict.iter().filter(|path| path.ends_with("verdict.json")).count(), 3);
    let (_, said) = project.ends(&["runs", "--json"]);
    let runs: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "a verification is no run");
}

#[test]
fn other_bytes_are_reported_with_the_first_file() {
    let project = chain();
    project.edit(
        "wc -l < inputs/text/a.txt > outputs/count/n",
        "date +%N > outputs/count/n; echo same > outputs/count/m",
    );
    project.run("m.toml", &[]);
    let (differs, said) = project.ends(&["verify", "m.toml", "--all"]);
    assert_eq!(differs, Some(3), "{said}");
    assert!(said.contains("counted: `count/n` has other bytes"), "{said}");
    assert_eq!(project.ends(&["verify", "m.toml", "--stage", "sorted"]).0, Some(0));
    // A task whose inputs are gone cannot be made again, and says so.
    for object in project.objects() {
        std::fs::remove_file(object).unwrap();
    }
    let (unchecked, said) = project.ends(&["verify", "m.toml", "--stage", "counted"]);
    assert!(said.contains("its input `a.txt` is gone from the cache"), "{said}");
    assert_eq!(unchecked, Some(1));
}
