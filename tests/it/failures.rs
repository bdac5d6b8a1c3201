//! The messages of failures, and what a failure leaves intact.

use crate::project::{Project, SMALL};

#[test]
fn five_mistakes_are_five_diagnostics() {
    let project = Project::empty();
    let broken = SMALL
        .replace("kind = \"extract\"", "kind = \"extrct\"")
        .replace("ratio = 0.2", "ratio = 7.0")
        .replace("model = \"model\"", "model = \"modell\"")
        .replace("layout =", "layuot =")
        .replace("normal = \"normal_bank\"", "normal = \"images\"");
    project.write("m.toml", &broken);
    let text = project.fails(&["plan", "m.toml"], 2);
    for word in ["extrct", "`extract`", "7", "modell", "layuot", "`layout`"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.matches("patchflow::").count() >= 5, "{text}");
}

#[test]
fn a_truncated_image_is_named_and_the_rest_is_kept() {
    let project = Project::small();
    let folder = project.path("data/train");
    let image = folder.join(&crate::project::files(&folder)[0]);
    let whole = std::fs::read(&image).unwrap();
    std::fs::write(&image, &whole[..whole.len() / 2]).unwrap();
    let text = project.fails(&["run", "m.toml"], 1);
    assert!(text.contains(image.file_name().unwrap().to_str().unwrap()) && text.contains("log: "), "{text}");
    std::fs::write(&image, whole).unwrap();
    project.run("m.toml", &[]);
}

#[test]
fn a_missing_mask_is_named() {
    let project = Project::small();
    let folder = project.path("data/train");
    let mask = crate::project::files(&folder)
        .into_iter()
        .find(|path| path.to_string_lossy().contains("_GT"))
        .unwrap();
    std::fs::remove_file(folder.join(&mask)).unwrap();
    let text = project.fails(&["run", "m.toml"], 1);
    assert!(text.contains(mask.to_str().unwrap()), "{text}");
}

#[test]
fn a_missing_source_is_named_with_its_remedy() {
    let project = Project::empty();
    project.write("m.toml", SMALL);
    let text = project.fails(&["run", "m.toml"], 1);
    assert!(text.contains("data") && text.contains("help:"), "{text}");
}

#[test]
fn a_search_device_that_is_not_there_is_refused_unless_all_is_cached() {
    let project = Project::small();
    project.write("patchflow.toml", "search_device = \"cuda:99\"\n");
    let text = project.fails(&["run", "m.toml"], 1);
    for word in ["cuda:99", "help:", "LIBTORCH_USE_PYTORCH", "search_device = \"cpu\""] {
        assert!(text.contains(word), "{word}: {text}");
    }
    project.write("patchflow.toml", "");
    assert!(project.run("m.toml", &[]).executed() > 0);
    project.write("patchflow.toml", "search_device = \"cuda:99\"\n");
    assert_eq!(project.run("m.toml", &[]).executed(), 0);
}

#[test]
fn a_failing_program_shows_its_last_words_and_keep_going_runs_the_rest() {
    let project = Project::empty();
    project.write(
        "m.toml",
        r#"
        [stages.bad]
        kind = "command"
        run = ["sh", "-c", "echo the reason >&2; exit 3"]
        outputs = { x = "files" }
        [stages.after]
        kind = "command"
        run = ["cp", "inputs/x/f", "outputs/y/"]
        inputs = { x = "bad" }
        outputs = { y = "files" }
        [stages.zgood]
        kind = "command"
        run = ["touch", "outputs/z/f"]
        outputs = { z = "files" }
        "#,
    );
    let text = project.fails(&["run", "m.toml", "--keep-going"], 1);
    assert!(
        text.contains("last lines on stderr:\n    the reason") && text.contains("exit status: 3"),
        "{text}"
    );
    let report = crate::project::report_of(&project.call(&["run", "m.toml", "--json", "--keep-going"]));
    assert_eq!((report.last["failed"].as_u64(), report.last["blocked"].as_u64()), (Some(1), Some(1)));
    assert_eq!(report.last["hits"].as_u64(), Some(1), "the independent stage was kept");
}

#[test]
fn a_program_that_writes_nothing_is_refused() {
    let project = Project::empty();
    project
        .write("m.toml", "[stages.a]\nkind = \"command\"\nrun = [\"true\"]\noutputs = { x = \"files\" }\n");
    let text = project.fails(&["run", "m.toml"], 1);
    assert!(text.contains("wrote nothing into `outputs/x`"), "{text}");
}

#[test]
fn an_unknown_stage_is_refused_with_the_nearest() {
    let project = Project::small();
    let text = project.fails(&["explain", "m.toml", "featurs"], 2);
    assert!(text.contains("did you mean `features`?"), "{text}");
}

#[test]
fn a_split_of_one_class_has_no_metric() {
    let project = Project::small();
    let folder = project.path("data/test");
    for path in crate::project::files(&folder) {
        let path = folder.join(path);
        if path.to_string_lossy().contains("_GT") {
            let size = image::open(&path).unwrap().into_luma8();
            image::GrayImage::new(size.width(), size.height()).save(&path).unwrap();
        }
    }
    let text = project.fails(&["run", "m.toml"], 1);
    assert!(text.contains("no metric is defined on one class"), "{text}");
}

#[test]
fn a_tool_that_is_not_there_fails_its_task_alone() {
    let project = Project::empty();
    project.write(
        "m.toml",
        r#"
        [stages.bad]
        kind = "command"
        run = ["true"]
        tools = ["no-such-tool-anywhere --version"]
        outputs = { x = "files" }
        [stages.good]
        kind = "command"
        run = ["touch", "outputs/z/f"]
        outputs = { z = "files" }
        "#,
    );
    let output = project.call(&["run", "m.toml", "--json", "--keep-going"]);
    assert_eq!(output.status.code(), Some(1));
    let report = crate::project::report_of(&output);
    assert_eq!((report.last["failed"].as_u64(), report.executed()), (Some(1), 1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-tool-anywhere"));
}

#[test]
fn a_split_that_is_not_there_is_named() {
    let project = Project::small();
    project.edit("bootstrap = 20", "bootstrap = 20\nsplit = \"tset\"");
    let text = project.fails(&["run", "m.toml", "--only", "bank=single,augment=none"], 1);
    assert!(text.contains("the images have no split `tset`"), "{text}");
}
