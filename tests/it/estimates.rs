//! What `plan` says a run takes, and what `--budget` refuses: an unknown cost is never taken for a small one.

use std::path::Path;

use serde_json::Value;

use crate::project::Project;

fn experiment(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments").join(name).to_str().unwrap().to_owned()
}

/// A project in which the quickstart has run, and a folder `local` of KSDD2's layout with many images.
fn after_quickstart() -> Project {
    let project = Project::empty();
    project.succeeds(&["run", &experiment("quickstart.toml")]);
    std::fs::create_dir_all(project.path("local/train")).unwrap();
    image::GrayImage::new(230, 630).save(project.path("local/train/0.png")).unwrap();
    for number in 0..600 {
        for end in ["", "_GT"] {
            let path = project.path(format!("local/train/1{number:04}{end}.png"));
            std::fs::copy(project.path("local/train/0.png"), path).unwrap();
        }
    }
    std::fs::remove_file(project.path("local/train/0.png")).unwrap();
    project
}

/// Why the tasks of this name are unknown; `null` for one that is not.
fn unknown(plan: &Value, name: &str) -> Vec<Value> {
    let tasks = plan["tasks"].as_array().unwrap().iter();
    tasks.filter(|task| task["name"] == name).map(|task| task["no_estimate"].clone()).collect()
}

#[test]
fn after_the_quickstart_the_time_of_a_real_experiment_is_unknown() {
    let project = after_quickstart();
    let manifest = experiment("dual_aug.toml");
    let local = ["--set", "stages.dataset.path=local"];
    for more in [&[][..], &local] {
        let plan = project.json(&[&["plan", &manifest], more].concat());
        assert_eq!(unknown(&plan, "features[images]"), ["other_size", "other_size"], "{plan}");
        let total = &plan["totals"]["estimate"];
        assert!(total["seconds"].is_null() && total["unestimated"].as_u64().unwrap() > 10, "{total}");
        let text = project.stdout(&[&["plan", &manifest], more].concat());
        assert!(text.contains("tasks cannot be estimated: ") && !text.contains("\nabout "), "{text}");

        let budget = [&["plan", &manifest, "--budget", "5m"], more].concat();
        let refused = project.fails(&budget, 4);
        assert!(refused.contains("cannot say whether") && refused.contains("--budget-guess"), "{refused}");
        let passed = project.succeeds(&[&budget[..], &["--budget-guess"]].concat());
        let warned = String::from_utf8(passed.stderr).unwrap();
        assert!(warned.contains("the budget does not count all tasks"), "{warned}");
    }
    let run = [&["run", &manifest, "--budget", "5m"], &local[..]].concat();
    assert!(project.fails(&run, 4).contains("nothing was run"));
    assert!(!project.path("runs/dual_aug").exists());
    project.fails(&["plan", &manifest, "--budget-guess"], 2);
}

#[test]
fn after_the_quickstart_one_of_its_size_is_estimated() {
    let project = Project::empty();
    let text = std::fs::read_to_string(experiment("quickstart.toml")).unwrap();
    project.write("m.toml", &text);
    project.run("m.toml", &[]);
    project.edit("seed = 7", "seed = 8, train_normal = 60");
    let plan = project.json(&["plan", "m.toml"]);
    let total = &plan["totals"]["estimate"];
    assert_eq!((&total["unestimated"], total["no_estimate"].as_object().unwrap().len()), (&0.into(), 0));
    let [seconds, most] = ["seconds", "seconds_at_most"].map(|name| total[name].as_f64().unwrap());
    assert!(0.0 < seconds && seconds < most, "{total}");
    let text = project.stdout(&["plan", "m.toml"]);
    assert!(text.contains("\nabout ") && text.contains(" are guesses (`~`)"), "{text}");
    project.succeeds(&["plan", "m.toml", "--budget", "10h"]);
    let refused = project.fails(&["plan", "m.toml", "--budget", "1ms"], 4);
    assert!(refused.contains("the run would take up to "), "{refused}");
}
