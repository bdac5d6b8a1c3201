//! Targets: of the manifest and of the command line; stages that none of them needs; the table and `latest` of a part.

use crate::project::Project;

/// A small experiment with a command after its evaluation.
fn with_notes() -> Project {
    let project = Project::small();
    let manifest = std::fs::read_to_string(project.path("m.toml")).unwrap();
    let notes = "\n[stages.notes]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"cp inputs/scores/metrics.json outputs/o/\"]\n\
                 inputs = { scores = \"result\" }\noutputs = { o = \"files\" }\n";
    project.write("m.toml", &(manifest + notes));
    project
}

#[test]
fn a_stage_that_no_target_needs_is_warned_of_once() {
    let project = with_notes();
    for command in ["plan", "run"] {
        let (code, text) = project.ends(&[command, "m.toml", "--only", "bank=single,augment=none"]);
        assert_eq!(code, Some(0), "{text}");
        let warning = "warning: no target needs `notes`, so it does not run";
        assert_eq!(text.matches(warning).count(), 1, "{text}");
        assert!(text.contains("targets = [\"result\", \"notes\"]"), "{text}");
        // The defect bank is wired, and unread with a single bank: that is no mistake.
        assert!(!text.contains("defect_bank`"), "{text}");
    }
    let plan = project.json(&["plan", "m.toml"]);
    assert_eq!(plan["unneeded"], serde_json::json!(["notes"]));
    for arguments in [&["plan", "m.toml", "--target", "notes"][..], &["plan", "m.toml", "--target", "images"]]
    {
        let (_, text) = project.ends(arguments);
        assert!(!text.contains("no target needs"), "{text}");
    }
    project.edit("seed = 1", "seed = 1\ntargets = [\"images\"]");
    let (_, text) = project.ends(&["plan", "m.toml"]);
    assert!(text.contains("no target needs `augmented`, `features`, "), "{text}");
}

#[test]
fn the_manifest_names_its_targets_and_the_table_stays() {
    let project = with_notes();
    project.edit("seed = 1", "seed = 1\ntargets = [\"notes\"]");
    let only = ["--only", "bank=single,augment=none"];
    let (code, text) = project.ends(&[&["run", "m.toml"][..], &only].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("image AUROC") && !text.contains("no target needs"), "{text}");
    let latest = project.path("runs/small/latest/variants/bank=single,augment=none");
    assert!(latest.join("notes/metrics.json").is_file() && latest.join("result/metrics.json").is_file());
    let summary = std::fs::read(project.path("runs/small/latest/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    assert!(summary["variants"][0]["metrics"]["image_auroc"].is_number());
}

#[test]
fn a_run_of_a_target_prints_its_table_and_moves_latest() {
    let project = with_notes();
    let only = ["--only", "bank=single,augment=none"];
    let whole = project.run("m.toml", &only);
    let latest = || std::fs::read_link(project.path("runs/small/latest")).unwrap();
    assert!(whole.folder().ends_with(latest().to_str().unwrap()));
    let part = project.run("m.toml", &[&only[..], &["--target", "notes"]].concat());
    assert!(part.folder().ends_with(latest().to_str().unwrap()));
    let text = project.stdout(&[&["run", "m.toml", "--target", "notes"][..], &only].concat());
    assert!(text.contains("image AUROC"), "{text}");
    assert!(
        !project.stdout(&[&["run", "m.toml", "--target", "images"][..], &only].concat()).contains("AUROC")
    );
}

#[test]
fn targets_that_are_no_stages_are_mistakes() {
    let project = with_notes();
    project.edit("seed = 1", "seed = 1\ntargets = [\"resullt\", \"notes\", \"notes\"]");
    let text = project.fails(&["plan", "m.toml"], 2);
    assert!(text.contains("no stage `resullt`") && text.contains("`result`"), "{text}");
    assert!(text.contains("`targets` names `notes` twice"), "{text}");
    for wrong in ["targets = []", "targets = \"notes\"", "targets = [1]"] {
        let manifest = std::fs::read_to_string(project.path("m.toml")).unwrap();
        let line = manifest.lines().find(|line| line.starts_with("targets")).unwrap().to_owned();
        project.edit(&line, wrong);
        let text = project.fails(&["plan", "m.toml"], 2);
        assert!(text.contains("targets"), "{wrong}: {text}");
    }
    project.edit("targets = [1]", "targets = [\"notes\"]");
    project.succeeds(&["plan", "m.toml", "--set", "experiment.targets=[\"result\"]"]);
}

/// The results of an experiment are its evaluations as well, if a target reads them.
#[test]
fn equal_targets_of_different_evaluations_are_no_equal_values() {
    let project = with_notes();
    project.edit("cp inputs/scores/metrics.json outputs/o/", "echo the same > outputs/o/notes");
    project.edit("seed = 1", "seed = 1\ntargets = [\"notes\"]");
    let (code, text) = project.ends(&["run", "m.toml", "--only", "augment=none"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("image AUROC") && !text.contains("make no difference"), "{text}");
}
