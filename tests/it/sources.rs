//! A local source that is edited while a stage reads it: nothing is recorded under either content.

use crate::project::Project;

/// A stage that copies `data.txt` and edits the project's own copy once, which makes the moment of the edit certain.
fn edited(edit: &str) -> Project {
    let project = Project::empty();
    project.write("src/data.txt", "one\n");
    let (folder, done) = (project.path("src"), project.path("done"));
    let edit = edit.replace("DATA", &folder.join("data.txt").display().to_string());
    let script = format!(
        "cat inputs/s/data.txt > outputs/o/x; if [ ! -e {0} ]; then touch {0}; {edit}; fi",
        done.display()
    );
    project.write(
        "m.toml",
        &format!(
            "[experiment]\nname = \"b\"\n[stages.s]\nkind = \"download\"\npath = \"src\"\n[stages.work]\nkind = \"command\"\n\
             run = [\"sh\", \"-c\", \"{script}\"]\ninputs = {{ s = \"s\" }}\noutputs = {{ o = \"files\" }}\n"
        ),
    );
    project
}

#[test]
fn an_edit_during_a_stage_is_named_and_recorded_for_neither_content() {
    let edits = [
        "echo two > DATA",
        // Of equal size, with the old time of modification.
        "cp -p DATA DATA.old; echo two > DATA; touch -r DATA.old DATA; rm DATA.old",
        // Replaced by another file, as editors save.
        "echo two > DATA.new; mv DATA.new DATA",
        "echo longer than before >> DATA",
    ];
    for edit in edits {
        let project = edited(edit);
        let text = project.fails(&["run", "m.toml"], 1);
        assert!(text.contains("data.txt` changed while"), "{edit}: {text}");
        let now = std::fs::read_to_string(project.path("src/data.txt")).unwrap();
        let report = project.run("m.toml", &[]);
        assert_eq!(report.executed(), 1, "{edit}");
        let shown = project.path(report.folder()).join("variants/default/work/x");
        assert_eq!(std::fs::read_to_string(shown).unwrap(), now, "{edit}");
        // The content of before: its stage was not recorded either, so it runs again.
        project.write("src/data.txt", "one\n");
        let report = project.run("m.toml", &[]);
        assert_eq!(report.executed(), 1, "{edit}");
    }
}

#[test]
fn a_source_that_disappears_during_a_stage_is_named() {
    let project = edited("rm DATA");
    let text = project.fails(&["run", "m.toml"], 1);
    assert!(text.contains("data.txt"), "{text}");
    project.write("src/data.txt", "one\n");
    assert_eq!(project.run("m.toml", &[]).executed(), 1);
}
