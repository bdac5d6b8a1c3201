//! What commands print fits the screen, with every number whole.

use serde_json::Value;

use crate::project::Project;

/// The small project, with two values of every axis and two seeds.
fn with_repeats() -> Project {
    let project = Project::small();
    project.edit("[stages.surfaces]", "[grid.repeats]\nseed = [1, 2]\n\n[stages.surfaces]");
    project.run("m.toml", &[]);
    project
}

fn at(project: &Project, columns: &str, arguments: &[&str]) -> String {
    let output = project.call_with(arguments, &[("COLUMNS", columns)]);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn metrics_of_table(project: &Project) -> Vec<String> {
    let csv = std::fs::read_to_string(project.path("runs/small/latest/table.csv")).unwrap();
    let numbers = csv.lines().skip(1).flat_map(|line| line.split(',').skip(2).collect::<Vec<_>>());
    let numbers = numbers.filter(|number| number.contains('.')).map(|number| number.parse::<f64>().unwrap());
    numbers.map(|number| format!("{number:.4}")).collect()
}

#[test]
fn tables_fit_the_screen_and_lose_no_number() {
    let project = with_repeats();
    let metrics = metrics_of_table(&project);
    assert!(metrics.len() >= 4 * 5, "{metrics:?}");
    for columns in ["60", "80", "100", "140"] {
        let width: usize = columns.parse().unwrap();
        for arguments in [
            &["run", "m.toml"][..],
            &["plan", "m.toml"],
            &["runs"],
            &["runs", "small"],
            &["cache", "gc", "--dry-run"],
            &["cache", "info"],
        ] {
            let text = at(&project, columns, arguments);
            let tables =
                text.lines().filter(|line| !line.starts_with("files: ") && !line.contains(" on disk"));
            for line in tables {
                assert!(line.chars().count() <= width, "{arguments:?} at {columns}: {line}\n{text}");
            }
            // A rule is above and below a table and under its titles, and nowhere else.
            let rules = text.lines().filter(|line| line.starts_with(['─', '═'])).count();
            assert!(rules.is_multiple_of(3), "{text}");
        }
        let table = at(&project, columns, &["run", "m.toml"]);
        for metric in &metrics {
            assert!(table.contains(metric), "{metric} at {columns}: {table}");
        }
    }
    // A pipe has 80 columns.
    let piped = project.stdout(&["run", "m.toml"]);
    assert!(piped.lines().all(|line| line.chars().count() <= 80), "{piped}");
}

#[test]
fn runs_and_compare_show_groups_and_not_the_best_seed() {
    let project = with_repeats();
    let runs = project.json(&["runs", "small"]);
    let groups = runs["runs"][0]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4);
    let summary = std::fs::read(project.path("runs/small/latest/summary.json")).unwrap();
    let summary: Value = serde_json::from_slice(&summary).unwrap();
    for group in groups {
        let name = group["group"].as_str().unwrap();
        let of_group = summary["variants"].as_array().unwrap().iter();
        let of_group = of_group.filter(|variant| variant["id"].as_str().unwrap().starts_with(name));
        let values: Vec<f64> =
            of_group.map(|variant| variant["metrics"]["image_auroc"].as_f64().unwrap()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((group["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{name}");
    }
    let means: Vec<f64> = groups.iter().map(|group| group["mean"].as_f64().unwrap()).collect();
    assert!(means.is_sorted_by(|a, b| a >= b), "{means:?}");
    project.run("m.toml", &["--set", "stages.normal_bank.ratio=0.6"]);
    let runs = project.json(&["runs", "small"]);
    let ids: Vec<&str> = [1, 0].map(|run: usize| runs["runs"][run]["id"].as_str().unwrap()).to_vec();
    let compared = project.json(&["compare", ids[0], ids[1], "--all"]);
    let metrics = compared["differences"]["metrics"].as_array().unwrap();
    let of_auroc: Vec<&Value> = metrics.iter().filter(|metric| metric["metric"] == "image_auroc").collect();
    assert_eq!(of_auroc.len(), 4, "one for each group, in the order of the manifest");
    let names: Vec<&str> = of_auroc.iter().map(|metric| metric["group"].as_str().unwrap()).collect();
    assert_eq!(names[0], "bank=single,augment=none");
    assert_eq!(names[3], "bank=dual,augment=cutpaste");
    let text = project.stdout(&["compare", ids[0], ids[1]]);
    assert!(text.contains("second minus first"), "{text}");
}

#[test]
fn a_run_that_fails_ends_with_its_error_and_prints_no_empty_table() {
    let project = Project::small();
    project.edit("layout = \"ksdd2\"", "layout = \"mvtec\"");
    let output = project.call(&["run", "m.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!stdout.contains("AUROC") && stdout.contains("1 failed"), "{stdout}");
    let last = stderr.lines().skip_while(|line| !line.starts_with("error in `images`")).count();
    assert!(last >= 2 && !stderr.lines().last().unwrap().contains("INFO"), "{stderr}");
}

#[test]
fn quiet_shows_results_alone_and_log_lines_name_the_variant() {
    let project = Project::small();
    let output = project.call(&["run", "m.toml"]);
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("`images`: read: `test` with 3 normal and 3 defective images"), "{log}");
    assert!(log.contains("/16] fit `model` (bank=dual,augment=cutpaste) done in"), "{log}");
    assert!(
        log.contains("[0/16] download `surfaces`") || log.contains("[1/16] preprocess `images`"),
        "{log}"
    );
    let quiet = project.call(&["run", "m.toml", "-q", "--force", "result"]);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", String::from_utf8_lossy(&quiet.stderr));
    assert!(String::from_utf8(quiet.stdout).unwrap().contains("image AUROC"));
    project.fails(&["run", "m.toml", "-q", "-v"], 2);
}
