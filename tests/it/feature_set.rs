//! Features that a program writes: a network of one's own in place of `extract`.

use std::path::Path;

use crate::project::{Project, SMALL, files};

/// Sides of a patch in pixels.
const PATCH: usize = 8;

/// A file of the documented form, byte by byte, and not by the writer of this program.
fn block(shape: [usize; 3], values: &[f32]) -> Vec<u8> {
    let header = format!(
        r#"{{"__metadata__":{{"format":"pt"}},"features":{{"dtype":"F32","shape":{shape:?},"data_offsets":[0,{}]}}}}"#,
        values.len() * 4
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The darkest and the brightest level of each channel in each patch.
fn features(image: &Path) -> Vec<u8> {
    let image = image::open(image).unwrap().into_rgb8();
    let (h, w) = (image.height() as usize / PATCH, image.width() as usize / PATCH);
    let mut values = Vec::new();
    for patch in 0..h * w {
        let (top, left) = (patch / w * PATCH, patch % w * PATCH);
        for channel in 0..3 {
            let levels = (0..PATCH * PATCH).map(|pixel| {
                let (x, y) = (left + pixel % PATCH, top + pixel / PATCH);
                f32::from(image.get_pixel(x as u32, y as u32).0[channel]) / 255.0
            });
            values.push(levels.clone().fold(1.0, f32::min));
            values.push(levels.fold(0.0, f32::max));
        }
    }
    block([h, w, 6], &values)
}

/// A small experiment whose features a script writes. Its "network" is a folder with the features of each image, so that
/// the script needs nothing but a shell: `net/<name of the image>.safetensors`.
fn own_network() -> Project {
    let project = Project::small();
    for image in files(&project.path("data")).iter().filter(|path| !path.to_string_lossy().contains("_GT")) {
        let name = image.file_stem().unwrap().to_string_lossy().into_owned();
        let bytes = features(&project.path("data").join(image));
        std::fs::create_dir_all(project.path("net")).unwrap();
        std::fs::write(project.path("net").join(name + ".safetensors"), bytes).unwrap();
    }
    let script = r#"
mkdir -p outputs/f/blocks
echo '{"backbone": "levels", "weights": "none"}' > outputs/f/features.json
(cd inputs/images/pixels/images && find . -name '*.png') | while read -r image; do
  name=${image%.png}
  mkdir -p "$(dirname "outputs/f/blocks/$name")"
  cp "inputs/net/$(basename "$name").safetensors" "outputs/f/blocks/$name.safetensors"
done
"#;
    project.write("net/extract.sh", script);
    let begin = SMALL.find("[stages.features]").unwrap();
    let end = SMALL.find("[stages.normal_bank]").unwrap();
    let stages = r#"[stages.net]
kind = "download"
path = "net"

[stages.features]
kind = "command"
run = ["sh", "inputs/net/extract.sh"]
inputs = { net = "net", images = "images" }
outputs = { f = "feature_set" }

"#;
    let manifest = format!("{}{stages}{}", &SMALL[..begin], &SMALL[end..]);
    let augment = manifest.find("[stages.augmented]").unwrap();
    let features = manifest.find("[stages.net]").unwrap();
    let manifest = format!("{}{}", &manifest[..augment], &manifest[features..]);
    project.write("m.toml", &manifest.replace("augment = [\"none\", \"cutpaste\"]\n", ""));
    project
}

#[test]
fn the_features_of_a_program_run_through_coreset_fit_and_evaluate() {
    let project = own_network();
    let report = project.run("m.toml", &[]);
    assert_eq!(report.kinds("executed").iter().filter(|kind| *kind == "evaluate").count(), 2);
    let variants = project.path(report.folder()).join("variants");
    for bank in ["single", "dual"] {
        let metrics = std::fs::read(variants.join(format!("bank={bank}/metrics.json"))).unwrap();
        let metrics: serde_json::Value = serde_json::from_slice(&metrics).unwrap();
        assert!(
            metrics["image_auroc"].as_f64().or(metrics["image_auroc"]["value"].as_f64()).unwrap() > 0.5,
            "{metrics}"
        );
    }
    assert_eq!(project.run("m.toml", &[]).executed(), 0);
    // Only the rows that a bank reads are in its key: a test image changes none.
    let test = files(&project.path("data/test"));
    let mut name = test.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned());
    let name = name.find(|name| !name.contains("_GT")).unwrap();
    let changed = project.path(format!("net/{name}.safetensors"));
    let mut bytes = std::fs::read(&changed).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&0.25_f32.to_le_bytes());
    std::fs::write(&changed, bytes).unwrap();
    let report = project.run("m.toml", &["--only", "bank=single"]);
    assert_eq!(report.kinds("executed"), ["command", "evaluate"]);
}

#[test]
fn what_the_program_leaves_out_of_the_description_is_completed() {
    let project = own_network();
    let report = project.run("m.toml", &["--target", "features"]);
    let written = files(&project.path(report.folder()));
    let description = written.iter().find(|path| path.ends_with("features.json")).unwrap();
    let description = std::fs::read(project.path(report.folder()).join(description)).unwrap();
    let description: serde_json::Value = serde_json::from_slice(&description).unwrap();
    assert_eq!(description["dimension"], 6);
    assert_eq!(description["storage"], "f32");
    assert_eq!(description["preprocessing"]["resize"], "native");
}

#[test]
fn a_wrong_feature_set_is_refused_with_file_and_reason() {
    let project = own_network();
    let first = files(&project.path("net")).into_iter().find(|path| !path.ends_with("extract.sh")).unwrap();
    let path = project.path("net").join(&first);
    let sound = std::fs::read(&path).unwrap();
    let json = "echo '{\"backbone\": \"levels\", \"weights\": \"none\"}' > outputs/f/features.json";
    let script = std::fs::read_to_string(project.path("net/extract.sh")).unwrap();
    let refused = |bytes: &[u8], from: &str, to: &str, wanted: &str| {
        std::fs::write(&path, bytes).unwrap();
        project.write("net/extract.sh", &script.replace(from, to));
        let text = project.fails(&["run", "m.toml", "--target", "features"], 1);
        assert!(text.contains(wanted) && text.contains("docs/artifacts.md"), "{wanted}: {text}");
    };
    let name = format!("{}.safetensors` ", first.file_stem().unwrap().to_string_lossy());
    let about = |problem: &str| name.clone() + problem;
    refused(b"not one", "-", "-", &about("is not a safetensors file"));
    refused(
        &block([1, 1, 6], &[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0]),
        "-",
        "-",
        &about("is not finite at row 0, column 0, channel 2"),
    );
    refused(&block([1, 1, 5], &[0.0; 5]), "-", "-", "5 numbers of f32");
    refused(&sound, json, "", "`outputs/f/features.json` is missing");
    refused(
        &sound,
        json,
        "echo '{\"backbone\": \"levels\"}' > outputs/f/features.json",
        "missing field `weights`",
    );
    refused(
        &sound,
        json,
        "echo '{\"backbone\": \"l\", \"weights\": \"n\", \"layer\": []}' > outputs/f/features.json",
        "unknown field `layer`",
    );
    refused(
        &sound,
        json,
        "echo '{\"backbone\": \"l\", \"weights\": \"n\", \"dimension\": 7}' > outputs/f/features.json",
        "says `dimension` 7, but the blocks have 6",
    );
    refused(
        &sound,
        "\ndone",
        "\ndone\nrm \"outputs/f/blocks/$(cd outputs/f/blocks && find . -type f | sort | head -1)\"",
        "images have no block",
    );
    refused(
        &sound,
        "\ndone",
        "\ndone\ncp inputs/net/*0.safetensors outputs/f/blocks/ 2>/dev/null || true",
        "is of no image of the inputs",
    );
}

#[test]
fn features_of_no_image_set_are_a_mistake_of_the_manifest() {
    let project = own_network();
    project.edit("inputs = { net = \"net\", images = \"images\" }", "inputs = { net = \"net\" }");
    let text = project.fails(&["plan", "m.toml"], 2);
    assert_eq!(text.matches("reads no image set").count(), 1, "five stages read them: {text}");
    assert!(text.contains("images = \"images\""), "{text}");
}
