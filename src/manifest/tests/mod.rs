//! Manifests as a whole, from text to experiment: what the language means, and how mistakes are shown (every
//! one of a text at once, on its place, with a remedy).

mod axes;
mod fields;
mod language;
mod overrides;
mod paths;
mod syntax;
mod wiring;

use std::path::Path;

use super::*;

/// The manifest of the documentation.
pub(super) const DUAL: &str = r#"
[experiment]
name = "dual_aug"
question = "Does a diffusion-augmented defect bank help?"
seed = 42

[grid.axes]
backbone = ["resnet50", "wide_resnet50_2"]
bank = ["single", "dual"]
augment = ["none", "cutpaste"]
[grid.repeats]
seed = [0, 1, 2]
[[grid.exclude]]
bank = "single"
augment = "cutpaste"

[stages.dataset]
kind = "download"
dataset = "ksdd2"

[stages.images]
kind = "preprocess"
input = "dataset"
height = 316
width = 112

[stages.augmented]
kind = "augment"
images = "images"
method = "cutpaste"
count = 100
when = { augment = "cutpaste" }

[stages.features]
kind = "extract"
images = ["images", "augmented"]
backbone = "${backbone}"

[stages.normal_bank]
kind = "coreset"
features = "features"
select = { set = "images", split = "train", label = "normal" }
ratio = 0.01

[stages.defect_bank]
kind = "coreset"
features = "features"
select = { split = "train", label = "defect", min_overlap = 0.1 }
ratio = 0.10

[stages.model]
kind = "fit"
bank = "${bank}"
normal = "normal_bank"
defect = "defect_bank"

[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "images"
"#;

/// The head that most small manifests of the tests share.
pub(super) const HEAD: &str = r#"[stages.dataset]
kind = "download"
dataset = "ksdd2"
[stages.images]
kind = "preprocess"
input = "dataset"
"#;

/// Loads a project of these files, the first being the manifest.
pub(super) fn load_files(files: &[(&str, &str)], options: LoadOptions) -> Result<Experiment, ManifestError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let options = LoadOptions { project: folder.path().to_owned(), ..options };
    load(&folder.path().join(files[0].0), &options)
}

/// Loads one text.
pub(super) fn load_text(text: &str) -> Result<Experiment, ManifestError> {
    load_files(&[("test.toml", text)], LoadOptions::default())
}

/// The small head with more stages or tables.
pub(super) fn with(more: &str) -> String {
    format!("{HEAD}{more}")
}

/// What is said about a text, on 100 columns.
pub(super) fn said(text: &str) -> String {
    load_text(text).unwrap_err().render(100, false)
}

/// The options of `--set` alone.
pub(super) fn sets(sets: &[&str]) -> LoadOptions {
    LoadOptions { sets: sets.iter().map(|&set| set.to_owned()).collect(), ..LoadOptions::default() }
}

/// Names of the stages that the variant's stage is connected to.
pub(super) fn wired(experiment: &Experiment, variant: usize, stage: &str) -> Vec<String> {
    let resolved = experiment.stage(variant, experiment.find(stage).unwrap()).unwrap();
    let name = |port: &ResolvedPort| {
        let index = port.index.map(|index| format!("[{index}]")).unwrap_or_default();
        let mark = if port.is_read() { "" } else { " (not read)" };
        let stage = &experiment.stages[port.stage.0].name;
        format!("{}{index} = {stage}.{}{mark}", port.field, port.output)
    };
    resolved.ports.iter().map(name).collect()
}

/// The names of the variants.
pub(super) fn ids(experiment: &Experiment) -> Vec<&str> {
    experiment.variants.iter().map(|variant| variant.id.as_str()).collect()
}

#[test]
fn a_missing_manifest_is_said_plainly() {
    let error = load(Path::new("/nowhere/at_all.toml"), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "`/nowhere/at_all.toml` has 1 error");
    assert_eq!(error.diagnostics()[0].code, "patchflow::manifest::unreadable");
}
