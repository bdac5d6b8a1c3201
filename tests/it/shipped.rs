//! The manifests that ship are checked and planned; the quickstart runs.

use std::path::Path;

use patchflow::manifest::{LoadOptions, load};
use patchflow::plan::build;

use crate::project::Project;

fn shipped(name: &str) -> patchflow::plan::Plan {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).to_owned();
    let options = LoadOptions { project: project.clone(), sets: vec![], only: None, targets: vec![] };
    let experiment = load(&project.join("experiments").join(name), &options)
        .unwrap_or_else(|error| panic!("{name}: {}", error.render(100, false)));
    build(&experiment).unwrap()
}

#[test]
fn every_manifest_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "toml"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "ablation.toml",
            "augmentation_study.toml",
            "dual_aug.toml",
            "exdd.toml",
            "mvtec.toml",
            "own_images.toml",
            "quickstart.toml"
        ]
    );
    for name in names {
        let plan = shipped(&name);
        assert!(!plan.variants.is_empty() && plan.tasks.len() <= plan.unshared, "{name}");
    }
}

#[test]
fn the_grid_shares_its_tasks() {
    let plan = shipped("ablation.toml");
    let kinds = |kind: &str| plan.tasks.iter().filter(|task| task.spec.kind().name() == kind).count();
    // One preprocess; each backbone extracts the images once, and the made ones once for each seed.
    assert_eq!((kinds("preprocess"), kinds("extract")), (1, 3 + 3 * 5));
    assert!(plan.tasks.len() * 2 < plan.unshared, "{} of {}", plan.tasks.len(), plan.unshared);
}

#[test]
fn the_quickstart_prints_its_table() {
    let project = Project::empty();
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/quickstart.toml");
    let text = project.stdout(&["run", manifest.to_str().unwrap()]);
    assert!(text.contains("image AUROC") && text.contains("for 3 variants"), "{text}");
}
