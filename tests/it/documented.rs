//! Every command line of README, docs/ and the shipped manifests is run as it is written, or is named here with the
//! reason why it is not.

use std::collections::BTreeSet;
use std::path::Path;

use crate::project::{Project, files};

/// Subcommands with which a documented command line begins.
const SUBCOMMANDS: [&str; 13] = [
    "run",
    "plan",
    "explain",
    "graph",
    "runs",
    "compare",
    "log",
    "lock",
    "verify",
    "cache",
    "doctor",
    "completions",
    "worker",
];

/// What stands for something of the reader's, and what stands for it here.
const STANDS_FOR: [(&str, &str); 10] = [
    ("M", "m.toml"),
    ("paper.toml", "m.toml"),
    ("experiments/x.toml", "m.toml"),
    ("STAGE", "model"),
    ("RUN", "latest"),
    ("[EXPERIMENT]", "small"),
    ("SHELL", "bash"),
    ("stages.dataset.path=/data/ksdd", "stages.dataset.path=ksdd"),
    ("stages.dataset.path=/where/it/is", "stages.dataset.path=parts"),
    ("'stages.dataset.path=/where/mvtec/${category}'", "stages.dataset.path=data/mvtec/${category}"),
];

/// Manifests whose data or weights are downloads: `run` is tried as `plan`, which reads the same arguments.
const DOWNLOADS: [&str; 5] = ["dual_aug", "ablation", "exdd", "mvtec", "augmentation_study"];

/// Command lines that are not run, each with the reason.
const NOT_RUN: [(&str, &str); 8] = [
    ("patchflow worker -", "reads a sealed unit, which tests/it/worker.rs makes"),
    ("patchflow cache verify --repair experiments/dual_aug.toml", "would download"),
    ("cargo test --release", "this is it"),
    ("cargo install --path .", "builds the program again"),
    ("mkdir /mnt/team/patchflow-cache", "a folder of the reader's machine"),
    ("chgrp team /mnt/team/patchflow-cache", "a folder of the reader's machine"),
    ("chmod 2770 /mnt/team/patchflow-cache", "a folder of the reader's machine"),
    ("umask 007", "a setting of the reader's shell"),
];

/// What is added to command lines on the folder of good and bad images: the published weights would be a download, and
/// large images take long.
const SMALLER: [&str; 3] =
    ["stages.features.weights=seeded", "stages.images.height=64", "stages.images.width=64"];

fn smaller() -> impl Iterator<Item = &'static str> {
    SMALLER.into_iter().flat_map(|set| ["--set", set])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command line at the beginning of a text, without a comment behind it.
fn without_comment(text: &str) -> String {
    text.split(" #").next().unwrap_or_default().trim().to_owned()
}

fn is_command(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words.next() == Some("patchflow") && words.next().is_some_and(|word| SUBCOMMANDS.contains(&word))
}

/// The command lines of a page: those after `$ ` in blocks, those in back quotes, and those of a table of commands.
fn of_page(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let (mut prose, mut is_block, mut is_table) = (String::new(), false, false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
            prose.push('\n');
        } else if is_block {
            found.extend(line.strip_prefix("$ ").map(without_comment));
        } else {
            is_table = line.starts_with("| command |") || is_table && line.starts_with('|');
            let first = line.split('|').nth(1).filter(|_| is_table).unwrap_or_default();
            let names = first.split('`').skip(1).step_by(2);
            found.extend(names.map(|name| format!("patchflow {name}")).filter(|name| is_command(name)));
            prose.push_str(line);
            prose.push(' ');
        }
    }
    found.extend(prose.split('`').skip(1).step_by(2).filter(|code| is_command(code)).map(str::to_owned));
    found
}

/// The command lines in the comments of a manifest.
fn of_manifest(text: &str) -> Vec<String> {
    let comments = text.lines().filter_map(|line| line.split_once('#').map(|(_, comment)| comment));
    let commands = comments.filter_map(|comment| {
        let command = &comment[comment.find("patchflow ")?..];
        Some(without_comment(command.split('`').next()?))
    });
    commands.filter(|command| is_command(command)).collect()
}

fn documented() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    found.extend(of_page(&read(&root().join("README.md"))));
    for path in files(&root().join("docs")) {
        if path.extension().is_some_and(|end| end == "md") {
            found.extend(of_page(&read(&root().join("docs").join(path))));
        }
    }
    for path in files(&root().join("experiments")) {
        found.extend(of_manifest(&read(&root().join("experiments").join(path))));
    }
    found
}

/// The arguments of a command line here, or the reason why it is not run.
fn arguments(command: &str) -> Result<Vec<String>, &'static str> {
    let command = command.replacen("cargo run --release --", "patchflow", 1);
    let stands_for = |word: &str| {
        STANDS_FOR.iter().find(|(of_reader, _)| *of_reader == word).map_or(word, |(_, here)| *here).to_owned()
    };
    let words: Vec<String> = command.split_whitespace().map(stands_for).collect();
    if let Some((_, reason)) =
        NOT_RUN.iter().find(|(known, _)| *known == command || *known == words.join(" "))
    {
        return Err(reason);
    }
    let mut arguments = words[1..].to_vec();
    assert_eq!(words[0], "patchflow", "`{command}` is neither run nor named in NOT_RUN");
    let of = |name: &str| arguments.iter().any(|word| *word == format!("experiments/{name}.toml"));
    if arguments[0] == "run" && DOWNLOADS.iter().any(|name| of(name)) {
        "plan".clone_into(&mut arguments[0]);
    } else if of("own_images") || arguments.iter().any(|word| word == "parts.toml") {
        arguments.extend(smaller().map(str::to_owned));
    }
    Ok(arguments)
}

/// A file for each category of the data set that a reader must fetch by hand; enough for a plan.
fn write_categories(project: &Project) {
    let text = std::fs::read_to_string(root().join("experiments/mvtec.toml")).unwrap();
    let list = text.split("category = [").nth(1).unwrap().split(']').next().unwrap();
    for category in list.split('"').skip(1).step_by(2) {
        project.write(&format!("data/mvtec/{category}/train/good/000.png"), "");
    }
}

/// A folder with good and bad images, of which nothing else is known.
fn write_parts(project: &Project) {
    for (folder, count) in [("good", 20), ("bad", 4)] {
        for index in 0..count {
            let level = |x: u32, y: u32| ((x * 7 + y * 13 + index * 31) % 251) as u8;
            let image = image::RgbImage::from_fn(64, 64, |x, y| {
                let is_defect = folder == "bad" && (20..40).contains(&x) && (20..40).contains(&y);
                image::Rgb(if is_defect { [255; 3] } else { [level(x, y); 3] })
            });
            let path = project.path(format!("parts/{folder}/{index}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            image.save(path).unwrap();
        }
    }
}

/// The first block of a page in this language.
fn block(page: &str, language: &str) -> String {
    let path = root().join("docs").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let begin = format!("```{language}\n");
    text.split(&begin).nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[test]
fn every_command_line_of_the_docs_runs() {
    let project = Project::small();
    // `data/` is where the shipped manifests look for what is fetched by hand.
    std::fs::rename(project.path("data"), project.path("ksdd")).unwrap();
    project.edit("path = \"data\"", "path = \"ksdd\"");
    write_parts(&project);
    for path in files(&root().join("experiments")) {
        let text = std::fs::read_to_string(root().join("experiments").join(&path)).unwrap();
        project.write(&format!("experiments/{}", path.display()), &text);
    }
    project.write("parts.toml", &block("own-data.md", "toml"));
    let smaller: Vec<&str> = smaller().collect();
    project.run("parts.toml", &smaller);
    let of_parts = ["--set", "stages.dataset.path=parts"];
    project.run("experiments/own_images.toml", &[&of_parts[..], &smaller].concat());
    project.write("patchflow.toml", "remote = \"remote\"\n");
    project.run("m.toml", &[]);
    project.succeeds(&["lock", "m.toml"]);
    write_categories(&project);
    let commands = documented();
    assert!(commands.len() > 40, "only {} command lines were found: the test misses them", commands.len());
    let (mut done, mut failed) = (BTreeSet::new(), Vec::new());
    for command in &commands {
        match arguments(command) {
            Err(_) => {}
            Ok(arguments) if !done.insert(arguments.clone()) => {}
            Ok(arguments) => {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                let (code, text) = project.ends(&arguments);
                if code != Some(0) {
                    failed.push(format!("`{command}` as {arguments:?} ended with {code:?}: {text}"));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The page is true as it is written, from a folder of good and bad images to the decision.
#[test]
fn the_way_from_a_folder_to_a_decision_is_as_the_page_says() {
    let project = Project::empty();
    write_parts(&project);
    let manifest = block("own-data.md", "toml");
    assert!(manifest.lines().count() <= 20, "{} lines", manifest.lines().count());
    project.write("parts.toml", &manifest);
    let arguments: Vec<&str> = ["run", "parts.toml"].into_iter().chain(smaller()).collect();
    let table = project.stdout(&arguments);
    assert!(table.contains("over 3 repeats") && table.contains("paired over 3 repeats"), "{table}");
    let variants = project.path("runs/parts/latest/variants");
    let variants: Vec<_> = std::fs::read_dir(variants).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(variants.len(), 6);
    for variant in &variants {
        let scores = std::fs::read_to_string(variant.join("scores.csv")).unwrap();
        let metrics = std::fs::read(variant.join("metrics.json")).unwrap();
        let metrics: serde_json::Value = serde_json::from_slice(&metrics).unwrap();
        let threshold = metrics["at_threshold"]["threshold"].as_f64().unwrap() as f32;
        let mut expected: Vec<String> = Vec::new();
        for line in scores.lines().skip(1) {
            let [id, _, label, _, score, prediction] = line.split(',').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let is_over = score.parse::<f32>().unwrap() >= threshold;
            assert_eq!(prediction, if is_over { "defect" } else { "normal" }, "{line}");
            let judgement = match (label, prediction) {
                ("defect", "normal") => "missed",
                ("normal", "defect") => "false_alarm",
                ("defect", _) => "found",
                _ => "passed",
            };
            expected.push(format!("{judgement} {}", id.replace('/', "_")));
        }
        // Fewer images than pictures: each is drawn, under its judgement.
        let mut drawn: Vec<String> = files(&variant.join("pictures"))
            .iter()
            .map(|name| {
                let name = name.file_stem().unwrap().to_str().unwrap();
                let digits = name.find("_000_").or(name.find("_00")).unwrap();
                format!("{} {}", &name[..digits], &name[digits + 5..])
            })
            .collect();
        expected.sort();
        drawn.sort();
        assert_eq!(drawn, expected);
    }
    let runs = project.json(&["runs", "parts"]);
    let groups = runs["runs"][0]["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &groups[0]["repeats"]), (2, &3.into()));
}

/// An entry that no page has any more is outdated.
#[test]
fn what_is_not_run_is_documented() {
    let commands = documented();
    for (command, _) in NOT_RUN {
        assert!(commands.contains(command), "no page has `{command}`: {commands:#?}");
    }
}

/// The file at the root of the repository marks its project, and says nothing.
#[test]
fn the_shipped_configuration_sets_nothing() {
    let text = std::fs::read_to_string(root().join("patchflow.toml")).unwrap();
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    // Every field that it shows is one.
    let project = Project::empty();
    let fields = text.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| line.contains(" = "));
    let fields: Vec<&str> = fields.collect();
    assert!(fields.len() >= 6, "{fields:?}");
    project.write("patchflow.toml", &fields.join("\n").replace("/mnt/share/patchflow", "remote"));
    project.succeeds(&["runs"]);
}
