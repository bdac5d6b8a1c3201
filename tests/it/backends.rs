//! `backend`, `device` and `precision` of an extract stage, and `doctor`.

use serde_json::Value;

use crate::project::{Project, files};

/// A record of an extract task.
fn record(project: &Project) -> Value {
    let folder = project.path("cache/v1/records");
    let mut records = files(&folder).into_iter().filter_map(|path| {
        let text = std::fs::read_to_string(folder.join(path)).unwrap();
        let record: Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
        (record["provenance"]["backbone"].is_object()).then_some(record)
    });
    records.next().unwrap()
}

#[test]
fn a_record_names_what_the_network_ran_on() {
    let project = Project::small();
    project.run("m.toml", &["--target", "features"]);
    let backbone = &record(&project)["provenance"]["backbone"];
    assert_eq!((&backbone["backend"], &backbone["device"]), (&"rust".into(), &"cpu".into()));
}

#[test]
#[cfg(not(feature = "torch"))]
fn a_backend_that_is_not_built_is_refused_with_the_remedy() {
    let project = Project::small();
    project.edit("weights = \"seeded\"", "weights = \"seeded\"\nbackend = \"torch\"");
    let text = project.fails(&["run", "m.toml", "--target", "features"], 1);
    assert!(text.contains("no backend `torch`") && text.contains("--features torch"), "{text}");
}

#[test]
#[cfg(feature = "torch")]
fn torch_has_a_key_of_its_own_and_a_missing_device_is_an_error() {
    let project = Project::small();
    project.run("m.toml", &["--target", "features"]);
    project.edit("weights = \"seeded\"", "weights = \"seeded\"\nbackend = \"torch\"\nprecision = \"bf16\"");
    let report = project.run("m.toml", &["--target", "features"]);
    assert_eq!(report.kinds("executed"), ["extract", "extract"]);
    assert_eq!(project.run("m.toml", &["--target", "features"]).executed(), 0);
    project.edit("precision = \"bf16\"", "device = \"cuda:99\"");
    let text = project.fails(&["run", "m.toml", "--target", "features"], 1);
    assert!(text.contains("no device `cuda:99`") && text.contains("help:"), "{text}");
}

#[test]
fn doctor_says_what_a_build_has_and_writes_nothing() {
    let project = Project::empty();
    let report = project.json(&["doctor"]);
    let backends: &[&str] = if cfg!(feature = "torch") { &["rust", "torch"] } else { &["rust"] };
    assert_eq!(report["backends"], Value::from(backends));
    assert_eq!(report["libtorch"].is_string(), cfg!(feature = "torch"));
    assert_eq!((&report["devices"][0]["name"], &report["cache"]["exists"]), (&"cpu".into(), &false.into()));
    assert!(!project.path("cache").exists());
    assert!(project.stdout(&["doctor"]).contains("backends    rust"));
}
