//! What decides a result is said: a bound in place of `ratio`, and values of an axis that make no difference.

use std::path::Path;

use serde_json::Value;

use crate::project::{Project, Report, files};

const ONE: [&str; 2] = ["--only", "bank=single,augment=none"];

/// A small experiment with an axis `ratio`, whose bank has at least `min_size` of its 576 candidates (6 images of 12 × 8
/// patches).
fn with_ratios(min_size: usize) -> Project {
    let project = Project::small();
    project.edit("bank = [\"single\", \"dual\"]", "bank = [\"single\"]\nratio = [0.01, 0.02, 0.5]");
    project.edit("augment = [\"none\", \"cutpaste\"]", "augment = [\"none\"]");
    project.edit("when = { augment = \"cutpaste\" }", "when = { augment = [] }");
    project.edit("ratio = 0.2\nmin_size = 10", &format!("ratio = \"${{ratio}}\"\nmin_size = {min_size}"));
    project
}

fn read(project: &Project, report: &Report, file: &str) -> String {
    std::fs::read_to_string(project.path(report.folder()).join(file)).unwrap()
}

const BOUND: &str = "`normal_bank` (ratio=0.01): `min_size` = 20 decides the size of the bank, not `ratio` = 0.01: 20 of 576 \
                     rows are kept, 5 by the ratio alone";
const EQUAL: &str = "the values `0.01` and `0.02` of the axis `ratio` make no difference";

#[test]
fn a_bound_that_decides_is_in_plan_log_and_table_in_the_first_run_and_the_next() {
    let project = with_ratios(20);
    let make_images = project.run("m.toml", &["--target", "features"]);
    assert!(make_images.executed() > 0);
    let plan = project.json(&["plan", "m.toml"]);
    let warned =
        plan["tasks"].as_array().unwrap().iter().filter(|task| task["warnings"] != Value::Array(vec![]));
    assert_eq!(warned.count(), 2, "0.01 and 0.02: {plan}");
    assert_eq!(plan["equal_values"], serde_json::json!([{ "axis": "ratio", "values": ["0.01", "0.02"] }]));
    let (code, text) = project.ends(&["plan", "m.toml"]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains(&format!("warning: {BOUND}")) && text.contains(&format!("warning: {EQUAL}")),
        "{text}"
    );

    let warnings =
        |report: &Report| report.events.iter().filter(|event| event["event"] == "task_warning").count();
    let executed = project.run("m.toml", &[]);
    // Three banks; two of them are equal, and so are what is made of them.
    assert_eq!((executed.kinds("executed").len(), warnings(&executed)), (7, 2));
    let (code, text) = project.ends(&["run", "m.toml"]);
    assert_eq!(code, Some(0), "{text}");
    let table = text.split("AUPRO").nth(1).unwrap();
    assert!(table.contains(BOUND) && table.contains(EQUAL), "{text}");
    let cached = project.run("m.toml", &[]);
    assert_eq!((cached.executed(), warnings(&cached)), (0, 2));
    for report in [&executed, &cached] {
        let table = read(&project, report, "table.md");
        assert!(table.contains(BOUND) && table.contains(EQUAL), "{table}");
        let summary: Value = serde_json::from_str(&read(&project, report, "summary.json")).unwrap();
        assert_eq!(summary["equal_values"], plan["equal_values"]);
    }
    let log = project.stdout(&["log", "m.toml", "normal_bank"]);
    assert!(log.contains("warning: `min_size` = 20 decides"), "{log}");
}

#[test]
fn a_ratio_that_decides_warns_of_nothing_and_every_row_of_the_table_differs() {
    let project = with_ratios(0);
    let (code, text) = project.ends(&["run", "m.toml"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("decides the size") && !text.contains("no difference"), "{text}");
    let summary = project.path("runs/small/latest/summary.json");
    let summary: Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert!(summary.get("equal_values").is_none());
}

/// As README says of the quickstart.
#[test]
fn another_ratio_in_the_quickstart_runs_coresets_models_and_evaluations_alone() {
    let project = Project::empty();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/quickstart.toml");
    let manifest = manifest.to_str().unwrap();
    project.run(manifest, &[]);
    let report = project.run(manifest, &["--set", "stages.normal_bank.ratio=0.02"]);
    let mut kinds = report.kinds("executed");
    kinds.dedup();
    assert_eq!(kinds, ["coreset", "evaluate", "fit"]);
    let logs = project.path(report.folder()).join("logs");
    let log =
        files(&logs).into_iter().find(|path| path.to_string_lossy().starts_with("normal_bank")).unwrap();
    let log = std::fs::read_to_string(logs.join(log)).unwrap();
    let kept = log.lines().find_map(|line| line.strip_prefix("kept ")).unwrap();
    let numbers: Vec<usize> = kept.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert_eq!(numbers[0], numbers[1] / 50, "{kept}");
    assert!(!report.events.iter().any(|event| event["event"] == "task_warning"), "no bound decides");
}

#[test]
fn an_axis_over_a_field_that_is_switched_off_is_warned_of_before_anything_runs() {
    let project = Project::small();
    project.edit("augment = [", "share = [0.01, 0.2]\naugment = [");
    project.edit("bank = \"${bank}\"", "bank = \"${bank}\"\ntop_share = \"${share}\"");
    let equal = "the values `0.01` and `0.2` of the axis `share` make no difference";
    for command in ["plan", "run"] {
        let (_, text) =
            project.ends(&[&[command, "m.toml"][..], &["--only", "bank=single,augment=none"]].concat());
        assert!(text.contains(&format!("warning: {equal}")) && text.contains("${share}"), "{text}");
    }
    project.edit("bank = \"${bank}\"", "aggregation = \"top_mean\"\nbank = \"${bank}\"");
    let (_, text) = project.ends(&[&["plan", "m.toml"][..], &ONE].concat());
    assert!(!text.contains("no difference"), "{text}");
}
