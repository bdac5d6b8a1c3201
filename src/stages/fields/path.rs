//! A path or an address where the name of a stage belongs: how it is recognised, and which stages provide its files.

use crate::artifacts::Artifact;

/// Endings of the files that users have: weights, images, tables and lists, archives, scripts.
const ENDINGS: [&str; 26] = [
    "pth",
    "pt",
    "ckpt",
    "onnx",
    "safetensors",
    "npy",
    "npz",
    "png",
    "jpg",
    "jpeg",
    "bmp",
    "tif",
    "tiff",
    "webp",
    "csv",
    "tsv",
    "json",
    "txt",
    "toml",
    "zip",
    "tar",
    "gz",
    "tgz",
    "7z",
    "py",
    "sh",
];

/// Whether a reference is a path or an address rather than `stage` or `stage.output`: it has a slash, starts with a dot or
/// `~`, or ends like a file.
pub fn is_path(reference: &str) -> bool {
    let ending = reference.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    reference.contains(['/', '\\'])
        || reference.starts_with(['.', '~'])
        || ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Returns the stages to add so that the port `field`, which takes `expects`, reads the files at `path`, and the name to
/// write there. The new stages have none of the names in `taken`.
pub fn stages_for(field: &str, path: &str, expects: Artifact, taken: &[impl AsRef<str>]) -> String {
    let port = field.rsplit('.').next().unwrap_or(field);
    let files = free_name(&format!("{port}_files"), taken);
    let source = format!("[stages.{files}]\nkind = \"download\"\n{}", source_fields(path));
    let by_kind = |kind| {
        format!("write the name of a stage that gives {expects}: one of kind `{kind}`, or a `command`")
    };
    match expects {
        Artifact::Files | Artifact::Any => {
            format!("a stage of kind `download` provides files. Write `\"{files}\"` here, and add\n{source}")
        }
        Artifact::ImageSet => {
            let images = free_name("prepared_images", taken);
            format!(
                "a stage of kind `download` provides files, and one of kind `preprocess` reads them as images. Write \
                 `\"{images}\"` here, and add\n{source}\n[stages.{images}]\nkind = \"preprocess\"\ninput = \"{files}\""
            )
        }
        Artifact::FeatureSet => by_kind("extract"),
        Artifact::Bank => by_kind("coreset"),
        Artifact::Model => by_kind("fit"),
        Artifact::Scores => by_kind("evaluate"),
    }
}

/// The fields of a download, as they are typed.
fn source_fields(path: &str) -> String {
    // A string of JSON is one of TOML.
    let quoted = serde_json::Value::from(path);
    if path.starts_with("http://") || path.starts_with("https://") {
        format!("url = {quoted}\ndigest = \"sha256:…\"")
    } else {
        format!("path = {quoted}")
    }
}

/// Returns `name`, with a number if it is taken.
fn free_name(name: &str, taken: &[impl AsRef<str>]) -> String {
    let is_free = |name: &String| taken.iter().all(|taken| taken.as_ref() != name);
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_addresses_differ_from_names_of_stages() {
        let paths = [
            "/data/x",
            "./folder",
            "../folder",
            ".hidden",
            "~/parts",
            "data/parts",
            r"C:\parts",
            "https://example.org/parts.zip",
            "resnet18.pth",
            "RESNET18.PTH",
            "score.py",
            "labels.csv",
        ];
        for path in paths {
            assert!(is_path(path), "{path}");
        }
        for name in ["images", "images.crops", "a-b_c", "pth", "images.", ""] {
            assert!(!is_path(name), "{name}");
        }
    }

    #[test]
    fn the_new_stages_have_free_names() {
        let taken = ["weights_files", "weights_files_2", "prepared_images"];
        let help = stages_for("weights", "a \"b\".pth", Artifact::Files, &taken);
        assert!(help.contains("Write `\"weights_files_3\"` here"), "{help}");
        assert!(
            help.ends_with("[stages.weights_files_3]\nkind = \"download\"\npath = \"a \\\"b\\\".pth\""),
            "{help}"
        );
        let help = stages_for("select.set", "/data", Artifact::ImageSet, &taken);
        assert!(help.contains("[stages.set_files]") && help.contains("[stages.prepared_images_2]"), "{help}");
    }
}
