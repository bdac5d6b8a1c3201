//! `command` stages, and the commands of the command line, on tiny files.

use crate::project::Project;

const CHAIN: &str = r#"
[experiment]
name = "chain"
[stages.source]
kind = "download"
path = "in"
[stages.sorted]
kind = "command"
run = ["sh", "-c", "echo told; sort inputs/text/a.txt > outputs/text/a.txt"]
inputs = { text = "source" }
outputs = { text = "files" }
[stages.counted]
kind = "command"
run = ["sh", "-c", "wc -l < inputs/text/a.txt > outputs/count/n"]
inputs = { text = "sorted" }
outputs = { count = "files" }
"#;

/// Two commands over a local file.
pub(crate) fn chain() -> Project {
    let project = Project::empty();
    project.write("in/a.txt", "b\na\n");
    project.write("m.toml", CHAIN);
    project
}

#[test]
fn equal_output_cuts_a_rerun_off() {
    let project = chain();
    let report = project.run("m.toml", &[]);
    assert_eq!((report.executed(), report.kinds("hit")), (2, vec!["download".to_owned()]));
    let shown = project.path(report.folder()).join("variants/default/counted/n");
    assert_eq!(std::fs::read_to_string(shown).unwrap().trim(), "2");
    project.write("in/a.txt", "a\nb\n");
    let report = project.run("m.toml", &[]);
    assert_eq!(report.executed(), 1, "the sorted text is the same, so that nothing is counted again");
}

#[test]
fn a_run_folder_holds_logs_events_and_summary() {
    let project = chain();
    let report = project.run("m.toml", &[]);
    let folder = project.path(report.folder());
    assert_eq!(
        std::fs::read_link(folder.parent().unwrap().join("latest")).unwrap(),
        folder.file_name().unwrap()
    );
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["tasks"]["executed"], 2);
    let events = std::fs::read_to_string(folder.join("events.ndjson")).unwrap();
    assert_eq!(events.lines().count(), report.events.len());
    let logs = crate::project::files(&folder.join("logs"));
    assert_eq!(logs.len(), 2);
    let log = std::fs::read_to_string(folder.join("logs").join(&logs[1])).unwrap();
    assert!(log.contains("told") && log.contains("done in"), "{log}");
}

#[test]
fn explain_names_the_field_and_the_file() {
    let project = chain();
    project.run("m.toml", &[]);
    project.edit("echo told", "echo other");
    project.write("in/b.txt", "new\n");
    let text = project.stdout(&["explain", "m.toml", "counted"]);
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"of \d{4}-\d\d-\d\dT[\d:]+", "of [time]");
    settings.bind(|| {
        insta::assert_snapshot!(text, @r"
        counted: waits for sorted
        sorted: would run: differs from `sorted` of [time] in
            run: [sh, -c, echo told; sort inputs/text/a.txt > outputs/text/a.txt] -> [sh, -c, echo other; sort inputs/text/a.txt > outputs/text/a.txt]
            input `inputs.text`: 1 file differs
              added b.txt
        ");
    });
}

#[test]
fn a_graph_is_drawn_in_both_languages() {
    let project = chain();
    let mermaid = project.stdout(&["graph", "m.toml", "--format", "mermaid"]);
    insta::assert_snapshot!(mermaid, @r#"
    flowchart LR
      t0["source"]
      t1["sorted"]
      t2["counted"]
      t0 --> t1
      t1 --> t2
    "#);
    assert!(project.stdout(&["graph", "m.toml"]).starts_with("digraph {"));
}

#[test]
fn two_equal_stages_run_once() {
    let project = chain();
    project.edit("[stages.counted]", "[stages.twin]\nkind = \"command\"\nrun = [\"sh\", \"-c\", \"echo told; sort inputs/text/a.txt > outputs/text/a.txt\"]\ninputs = { text = \"source\" }\noutputs = { text = \"files\" }\n[stages.counted]");
    let report = project.run("m.toml", &[]);
    assert_eq!((report.executed(), report.kinds("merged").len()), (2, 1));
    let again = project.run("m.toml", &[]);
    assert_eq!((again.executed(), again.kinds("merged").len()), (0, 0));
}

#[test]
fn a_command_sees_its_inputs_and_nothing_else() {
    let project = chain();
    project.edit("sort inputs/text/a.txt >", "test ! -e ../m.toml && test -z $SECRET && ls >");
    let report = project.run("m.toml", &[]);
    assert_eq!(report.executed(), 2);
}

#[test]
fn a_tool_version_joins_the_key() {
    let project = chain();
    project.write("tool.sh", "echo version 1\n");
    project.edit("run = [\"sh\", \"-c\", \"wc", "tools = [\"sh tool.sh\"]\nrun = [\"sh\", \"-c\", \"wc");
    project.run("m.toml", &[]);
    assert_eq!(project.run("m.toml", &[]).executed(), 0);
    project.write("tool.sh", "echo version 2\n");
    assert_eq!(project.run("m.toml", &[]).executed(), 1);
}

#[test]
fn a_plan_tells_what_it_takes_and_a_budget_refuses_it() {
    let project = chain();
    let before = project.stdout(&["plan", "m.toml"]);
    assert!(before.contains("cannot tell how long it takes: 2 of 2 tasks cannot be estimated"), "{before}");
    project.edit("echo told;", "sleep 0.2; head -c 300000 /dev/zero > outputs/text/big;");
    project.run("m.toml", &[]);
    project.write("in/a.txt", "c\nb\na\n");
    let plan = project.json(&["plan", "m.toml"]);
    let estimate = |task: usize| plan["tasks"][task]["estimate"].clone();
    assert!(estimate(0).is_null(), "a local source takes nothing");
    assert_eq!((&estimate(1)["basis"], &estimate(2)["basis"]), (&"scaled".into(), &"guess".into()));
    assert!(estimate(1)["seconds"].as_f64().unwrap() > 0.2 && estimate(1)["peak_bytes"].is_u64());
    assert!(estimate(1)["output_bytes"].as_u64().unwrap() > 300_000);
    assert!(plan["totals"]["estimate"]["free_bytes"].as_u64().unwrap() > 0);

    let said = project.fails(&["run", "m.toml", "--budget", "100kB"], 4);
    assert!(said.contains(", the budget is 100.00 kB; nothing was run"), "{said}");
    project.fails(&["plan", "m.toml", "--budget", "1h", "--budget", "0.1s"], 4);
    project.fails(&["plan", "m.toml", "--budget", "soon"], 2);
    project.run("m.toml", &["--budget", "1h"]);

    project.edit("sleep 0.2", "sleep 0.21");
    let plan = project.json(&["plan", "m.toml"]);
    assert_eq!(plan["tasks"][1]["no_estimate"], "no_record", "another program may take any time");
    project.fails(&["run", "m.toml", "--budget", "1h"], 4);
    assert_eq!(project.run("m.toml", &["--budget", "1h", "--budget-guess"]).executed(), 1);
}

#[test]
fn a_failing_command_is_tried_again_in_a_fresh_folder() {
    let project = chain();
    let script = "test ! -e left && touch left && echo x >> $MARK && test $(wc -l < $MARK) = 3 && ";
    project.edit("echo told; ", script);
    project.edit(
        "inputs = { text = \"source\" }",
        "inputs = { text = \"source\" }\nretries = 1\nenv = [\"MARK\"]",
    );
    let mark = project.path("mark");
    let run = || project.call_with(&["run", "m.toml"], &[("MARK", mark.to_str().unwrap())]);
    assert_eq!(run().status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&mark).unwrap().lines().count(), 2, "once, and once again");
    assert!(run().status.success(), "the third time it works");
}

#[test]
fn completions_are_printed() {
    assert!(Project::empty().stdout(&["completions", "bash"]).contains("_patchflow"));
}

#[test]
fn what_a_program_leaves_running_ends_with_it() {
    let project = chain();
    project.edit("echo told; sort", "sleep 600 & echo told; sort");
    let started = std::time::Instant::now();
    project.run("m.toml", &[]);
    assert!(started.elapsed() < std::time::Duration::from_mins(1));
}

#[test]
fn a_script_keeps_its_mode_and_a_feature_group_is_laid_out() {
    use std::os::unix::fs::PermissionsExt;
    let project = Project::small();
    project
        .write("tool/list.sh", "#!/bin/sh\nfind inputs/f -name features.json | sort > outputs/list/names\n");
    let script = project.path("tool/list.sh");
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let stages = r#"
[stages.tool]
kind = "download"
path = "tool"
[stages.listed]
kind = "command"
run = ["inputs/tool/list.sh"]
inputs = { tool = "tool", f = "features" }
outputs = { list = "files" }
"#;
    let manifest = std::fs::read_to_string(project.path("m.toml")).unwrap();
    project.write("m.toml", &(manifest + stages));
    let report = project.run("m.toml", &["--target", "listed", "--only", "bank=dual"]);
    let folder = project.path(report.folder()).join("variants");
    let names = |augment: &str| {
        std::fs::read_to_string(folder.join(format!("bank=dual,augment={augment}/listed/names"))).unwrap()
    };
    assert_eq!(names("none"), "inputs/f/features.json\n");
    assert_eq!(names("cutpaste"), "inputs/f/augmented/features.json\ninputs/f/images/features.json\n");
}

#[test]
fn force_makes_single_items_anew() {
    let project = Project::small();
    project.run("m.toml", &["--target", "images"]);
    let report = project.run("m.toml", &["--target", "images", "--force", "images"]);
    assert_eq!(report.kinds("executed"), ["preprocess"]);
    assert!(!report.events.iter().any(|event| event["event"] == "nondeterministic"));
}
