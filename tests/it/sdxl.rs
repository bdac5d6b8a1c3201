//! `augment` with `sdxl-inpaint`, by a shell script instead of Python; and by diffusers itself, with a tiny pipeline of
//! random weights, where `PATCHFLOW_PYTHON` names a Python that has it (CI has none):
//! `PATCHFLOW_PYTHON=/path/to/python cargo test --test it -- sdxl --ignored`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{Project, files, report_of};

const MANIFEST: &str = r#"
[experiment]
name = "sdxl"
seed = 4

[stages.surfaces]
kind = "download"
path = "data"

[stages.pipeline]
kind = "download"
path = "pipeline"

[stages.images]
kind = "preprocess"
input = "surfaces"
layout = "ksdd2"

[stages.augmented]
kind = "augment"
images = "images"
method = "sdxl-inpaint"
weights = "pipeline"
count = 3
resolution = 64
sampling_steps = 2
"#;

/// Paints each job as the file of its name in `bin`, or else as `any.png`, and writes the ids into `made`; where `hangs` is
/// there, it waits after the first until its input ends, as the real one does.
const FAKE: &str = r#"#!/bin/sh
here="$(dirname "$0")"
sed -n 's/^ *"id": "\(.*\)",/\1/p; s/^ *"image": "\(.*\)",/\1/p; s/^ *"output": "\(.*\)",/\1/p' "$3" > "$here/list"
exec 4< "$here/list"
while read -r id <&4; do
    read -r image <&4; read -r output <&4
    painted="$here/$(basename "$id").png"
    [ -e "$painted" ] || painted="$here/any.png"
    [ -s "$painted" ] || painted="$image"
    cp "$painted" "$output"
    echo "$id" >> "$here/made"
    echo "{\"event\": \"made\", \"id\": \"$id\"}"
    if [ -e "$here/hangs" ]; then cat > /dev/null; touch "$here/ended"; exit 3; fi
done
"#;

fn project() -> Project {
    let project = Project::small();
    project.write("m.toml", MANIFEST);
    project.write("pipeline/model_index.json", "{}");
    project.write("bin/python", FAKE);
    std::fs::set_permissions(project.path("bin/python"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let painted = |x: u32, y: u32| image::Rgb([(3 * x) as u8, (2 * y) as u8, 90]);
    image::RgbImage::from_fn(64, 96, painted).save(project.path("bin/any.png")).unwrap();
    project
}

fn run_with(project: &Project, python: &str, more: &[&str]) -> std::process::Output {
    let mut all = vec!["run", "m.toml", "--json"];
    all.extend(more);
    project.call_with(&all, &[("PATCHFLOW_PYTHON", python)])
}

/// The files that `augmented` made in a run that must have ended well.
fn made(project: &Project, output: &std::process::Output) -> Vec<(String, Vec<u8>)> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = project.path(report_of(output).folder()).join("variants/default/augmented");
    assert!(folder.is_dir(), "{}", folder.display());
    let name = |path: &Path| path.to_str().unwrap().to_owned();
    files(&folder).iter().map(|path| (name(path), std::fs::read(folder.join(path)).unwrap())).collect()
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_mins(3);
    while !is_there() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a run and kills it, as `kill -9` does, when `is_time`.
fn kill_when(project: &Project, python: &str, is_time: impl Fn() -> bool) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("patchflow"))
        .args(["run", "m.toml"])
        .current_dir(project.path(""))
        .env("PATCHFLOW_PYTHON", python)
        .env("XDG_CACHE_HOME", project.path(".user-cache"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the first image", is_time);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn after_a_kill_only_the_rest_is_made() {
    let project = project();
    let python = project.path("bin/python");
    let python = python.to_str().unwrap();
    project.write("bin/hangs", "");
    kill_when(&project, python, || project.path("bin/made").exists());
    wait_for("the program's end", || project.path("bin/ended").exists());
    std::fs::remove_file(project.path("bin/hangs")).unwrap();
    made(&project, &run_with(&project, python, &[]));
    let ids = std::fs::read_to_string(project.path("bin/made")).unwrap();
    assert_eq!(ids.lines().collect::<Vec<_>>(), [0, 1, 2].map(|index| format!("sdxl-inpaint/0000{index}")));
    // More of them: the first are those of few.
    project.edit("count = 3", "count = 5");
    made(&project, &run_with(&project, python, &[]));
    assert_eq!(std::fs::read_to_string(project.path("bin/made")).unwrap().lines().count(), 5);
    // And nothing is started for what is there.
    let output = run_with(&project, "/bin/false", &[]);
    assert_eq!(report_of(&output).executed(), 0);
}

#[test]
fn samples_that_show_no_defect_are_left_out() {
    let project = project();
    let python = project.path("bin/python");
    let python = python.to_str().unwrap();
    image::RgbImage::new(64, 96).save(project.path("bin/00000.png")).unwrap();
    // An empty file: the painter gives the image as it got it.
    project.write("bin/00001.png", "");
    let output = run_with(&project, python, &[]);
    let files = made(&project, &output);
    let table = files.iter().find(|(name, _)| name == "provenance.csv").unwrap();
    let table = String::from_utf8(table.1.clone()).unwrap();
    let faults: Vec<&str> = table.lines().map(|line| line.rsplit(',').next().unwrap()).collect();
    assert_eq!(faults, ["fault", "black", "unchanged", ""]);
    let images: Vec<&str> =
        files.iter().map(|(name, _)| name.as_str()).filter(|name| name.contains("0000")).collect();
    assert!(!images.is_empty() && images.iter().all(|name| name.contains("00002")), "{images:?}");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("1 unchanged (`sdxl-inpaint/00001`), 1 black (`sdxl-inpaint/00000`)"), "{log}");
    // If none is left, that is an error.
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    project.write("bin/any.png", "");
    let output = run_with(&project, python, &[]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("none of 3 samples is a defect"), "{text}");
}

#[test]
fn without_a_python_nothing_runs() {
    let project = project();
    for (python, path) in [("/nowhere/python", "/usr/bin:/bin"), ("", "/nowhere")] {
        let output = project.call_with(&["run", "m.toml"], &[("PATCHFLOW_PYTHON", python), ("PATH", path)]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains("PATCHFLOW_PYTHON"), "{text}");
        assert!(text.contains("diffusers") && text.contains("uv"), "{text}");
        assert!(
            !project.path("cache/v1/records").exists() || files(&project.path("cache/v1/records")).is_empty()
        );
    }
}

#[test]
fn planning_needs_no_python() {
    let project = project();
    let output = project.call_with(&["plan", "m.toml"], &[("PATCHFLOW_PYTHON", "/nowhere/python")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The Python with diffusers, and a project with a tiny pipeline that it wrote.
fn real() -> (Project, String) {
    let python =
        std::env::var("PATCHFLOW_PYTHON").expect("set PATCHFLOW_PYTHON to a Python that has diffusers");
    let project = project();
    std::fs::remove_dir_all(project.path("pipeline")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/tiny_sdxl.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(project.path("pipeline"))
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (project, python)
}

#[test]
#[ignore = "needs PATCHFLOW_PYTHON, a Python with torch and diffusers"]
fn diffusers_paints_the_same_after_a_kill_and_in_another_cache() {
    let (project, python) = real();
    let jobs = || {
        let cache = project.path("cache");
        let names = if cache.exists() { files(&cache) } else { Vec::new() };
        names.iter().filter(|name| name.to_string_lossy().ends_with("image.png")).count()
    };
    let started = std::cell::Cell::new(false);
    kill_when(&project, &python, || {
        // Its inputs are taken away when an image is kept.
        started.set(started.get() || jobs() == 3);
        started.get() && jobs() < 3
    });
    let left = jobs();
    assert!((1..3).contains(&left), "{left} images were left to be made");
    let output = run_with(&project, &python, &[]);
    let first = made(&project, &output);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        first.iter().filter(|(name, _)| Path::new(name).extension().is_some_and(|end| end == "png")).count(),
        6,
        "{log}"
    );
    let table = first.iter().find(|(name, _)| name == "provenance.csv").unwrap();
    let table = String::from_utf8(table.1.clone()).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("copper metal scratches") && table.contains("white marks on the wall"), "{table}");

    std::fs::remove_dir_all(project.path("cache")).unwrap();
    assert!(first == made(&project, &run_with(&project, &python, &["--offline"])), "other bytes");
    assert_eq!(report_of(&run_with(&project, &python, &[])).executed(), 0);
}

#[test]
#[ignore = "needs PATCHFLOW_PYTHON, a Python with torch and diffusers"]
fn diffusers_refuses_what_it_cannot_load() {
    let (project, python) = real();
    std::fs::remove_dir_all(project.path("pipeline/unet")).unwrap();
    let output = run_with(&project, &python, &[]);
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("cannot load the pipeline `weights`"), "{text}");
    assert!(text.contains("layout of diffusers"), "{text}");
}
