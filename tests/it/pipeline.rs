//! What the cache promises, on synthetic surfaces through every stage.

use crate::project::Project;

#[test]
fn only_what_changed_runs_again() {
    let project = Project::small();
    let first = project.run("m.toml", &[]);
    // images, augmented, 2 × extract, normal bank, 2 × defect bank, 3 × fit (single is shared), 3 × evaluate.
    assert_eq!(first.last["failed"], 0);
    let bytes = project.results(&first);
    assert_eq!(bytes.keys().filter(|path| path.ends_with("metrics.json")).count(), 4);

    let again = project.run("m.toml", &[]);
    assert_eq!(again.executed(), 0, "{:?}", again.kinds("executed"));
    assert_eq!(project.results(&again), bytes);

    project.edit("ratio = 0.2", "ratio = 0.3");
    let ratio = project.run("m.toml", &[]);
    let mut kinds = ratio.kinds("executed");
    kinds.dedup();
    assert_eq!(kinds, ["coreset", "evaluate", "fit"]);
    project.edit("ratio = 0.3", "ratio = 0.2");

    project.edit("[stages.model]", "# a comment\n[stages.the_model]");
    project.edit("model = \"model\"", "model = \"the_model\"");
    project.edit("[stages.images]", "[stages.pictures]");
    project.edit("\"images\"", "\"pictures\"");
    let renamed = project.run("m.toml", &[]);
    assert_eq!(renamed.executed(), 0, "{:?}", renamed.kinds("executed"));
    assert_eq!(project.results(&renamed), bytes);
}

#[test]
fn threads_and_folders_change_no_byte() {
    let one = Project::small();
    let report = one.run("m.toml", &["--jobs", "1", "--threads", "1"]);
    let names = |project: &Project| {
        let mut names: Vec<_> =
            project.objects().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    for [jobs, threads] in [["3", "2"], ["1", "4"]] {
        let other = Project::small();
        let others = other.run("m.toml", &["--jobs", jobs, "--threads", threads]);
        assert_eq!(one.results(&report), other.results(&others));
        assert_eq!(names(&one), names(&other), "every artifact has the same bytes");
    }
}

#[test]
fn a_new_axis_value_runs_its_own_tasks_alone() {
    let project = Project::small();
    project.edit("augment = [\"none\", \"cutpaste\"]", "augment = [\"none\"]");
    project.edit("when = { augment = \"cutpaste\" }", "when = { augment = \"other\" }");
    // `other` is no value of the axis.
    project.fails(&["plan", "m.toml"], 2);
    project.edit("when = { augment = \"other\" }", "when = { bank = \"dual\" }");
    project.edit("augment = [\"none\"]", "threshold = [0.9]");
    project.edit(
        "features = \"features\"\n\n[stages.result]",
        "features = \"features\"\nthreshold_quantile = \"${threshold}\"\n\n[stages.result]",
    );
    project.run("m.toml", &[]);
    project.edit("threshold = [0.9]", "threshold = [0.9, 0.8]");
    let more = project.run("m.toml", &[]);
    assert_eq!(more.kinds("executed"), ["evaluate", "evaluate", "fit", "fit"]);
}

#[test]
fn one_changed_image_is_the_only_one_made_again() {
    let project = Project::small();
    project.run("m.toml", &[]);
    let before = project.objects().len();
    // A test image: the banks are not touched, and the model neither.
    let image = project.path("data/test");
    let name = crate::project::files(&image)
        .into_iter()
        .find(|path| !path.to_string_lossy().contains("_GT"))
        .unwrap();
    let path = image.join(&name);
    let mut pixels = image::open(&path).unwrap().into_rgb8();
    pixels.get_pixel_mut(3, 4).0 = [255, 0, 0];
    pixels.save(&path).unwrap();
    let why = project.stdout(&["explain", "m.toml", "result"]);
    assert!(why.contains(&*name.to_string_lossy()), "{why}");
    let report = project.run("m.toml", &[]);
    let mut kinds = report.kinds("executed");
    kinds.dedup();
    assert_eq!(kinds, ["evaluate", "extract", "preprocess"]);
    // One image, one block; beside them metrics, scores, maps … of the variants.
    let blocks = project.objects().len() - before;
    assert!(blocks < 2 + 4 * 6, "{blocks} new objects");
}

#[test]
fn new_masks_rerun_no_forward_pass() {
    let project = Project::small();
    project.run("m.toml", &[]);
    let folder = project.path("data/test");
    let masks: Vec<_> = (crate::project::files(&folder).into_iter())
        .filter(|path| path.to_string_lossy().contains("_GT"))
        .map(|path| folder.join(path))
        .filter(|path| image::open(path).unwrap().into_luma8().pixels().any(|pixel| pixel[0] > 0))
        .collect();
    std::fs::copy(&masks[0], &masks[1]).unwrap();
    let report = project.run("m.toml", &[]);
    assert!(!report.kinds("executed").contains(&"extract".to_owned()), "{:?}", report.kinds("executed"));
    assert!(report.kinds("executed").contains(&"evaluate".to_owned()));
}

#[test]
fn objects_are_missed_only_by_who_reads_them() {
    let project = Project::small();
    let first = project.run("m.toml", &[]);
    let bytes = project.results(&first);
    let shown: Vec<Vec<u8>> = bytes.values().cloned().collect();
    let mut gone = 0;
    for object in project.objects() {
        if !shown.contains(&std::fs::read(&object).unwrap()) {
            std::fs::remove_file(object).unwrap();
            gone += 1;
        }
    }
    assert!(gone > 20);
    let report = project.run("m.toml", &[]);
    assert_eq!(report.executed(), 0, "the table needs no features");
    // A reader of the features makes them again, and all comes out as before.
    let report = project.run("m.toml", &["--force", "result"]);
    assert!(report.last["remade"].as_u64().unwrap() > 0);
    assert_eq!(project.results(&report), bytes);
}

#[test]
fn damaged_objects_are_never_served() {
    let project = Project::small();
    let first = project.run("m.toml", &[]);
    let bytes = project.results(&first);
    for object in project.objects() {
        let mut content = std::fs::read(&object).unwrap();
        if let Some(middle) = content.len().checked_sub(1) {
            content[middle / 2] ^= 1;
        }
        std::fs::remove_file(&object).unwrap();
        std::fs::write(&object, content).unwrap();
    }
    project.fails(&["cache", "verify"], 3);
    let report = project.run("m.toml", &[]);
    assert_eq!(project.results(&report), bytes);
    project.succeeds(&["cache", "verify"]);
}

#[test]
fn processes_share_the_work() {
    let project = Project::small();
    let runs: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(|| project.run("m.toml", &[]))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let total: u64 = runs.iter().map(crate::project::Report::executed).sum();
    let alone = Project::small().run("m.toml", &[]).executed();
    assert_eq!(total, alone, "every task ran once");
    let first = project.results(&runs[0]);
    assert!(runs.iter().all(|report| project.results(report) == first));
}

#[test]
fn a_killed_run_leaves_nothing_wrong() {
    let project = Project::small();
    let mut rounds = 0;
    for milliseconds in [5, 20, 60, 150, 400] {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("patchflow"))
            .args(["run", "m.toml", "--json"])
            .current_dir(project.path(""))
            .env("XDG_CACHE_HOME", project.path(".user-cache"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(milliseconds);
        while std::time::Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        rounds += 1;
    }
    assert_eq!(rounds, 5);
    let report = project.run("m.toml", &[]);
    let other = Project::small();
    let fresh = other.run("m.toml", &[]);
    assert_eq!(project.results(&report), other.results(&fresh));
    project.succeeds(&["cache", "verify"]);
}

#[test]
fn planning_writes_nothing_and_tells_the_truth() {
    let project = Project::small();
    let listed = || {
        let mut files = crate::project::files(&project.path(""));
        files.retain(|path| !path.starts_with(".user-cache"));
        files
    };
    let before = listed();
    let plan = project.json(&["plan", "m.toml"]);
    assert_eq!(listed(), before);
    let tasks = plan["tasks"].as_array().unwrap();
    let states: Vec<&str> = tasks.iter().map(|task| task["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|&&state| state == "hit").count(), 1, "the local source");
    let report = project.run("m.toml", &[]);
    let planned =
        report.executed() + report.last["hits"].as_u64().unwrap() + report.last["merged"].as_u64().unwrap();
    assert_eq!(planned, tasks.len() as u64);
    let plan = project.json(&["plan", "m.toml"]);
    assert!(plan["tasks"].as_array().unwrap().iter().all(|task| task["state"] == "hit"));
}
