//! Tests of the Rust side. A shell script replaces Python.

use std::os::unix::fs::PermissionsExt;

use image::{Rgb, RgbImage};

use super::super::super::context::testing::TestContext;
use super::super::super::fields::{Fields, Problem, Value};
use super::super::super::{PortUse, Reads, Role, Spec as AnySpec};
use super::super::tests::{read, set};
use super::*;
use crate::artifacts::Files;
use crate::artifacts::image_set::{labelled, pixels, read_mask, read_rgb};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn read_with(more: &[(&str, Value)]) -> (Augment, Vec<Problem>) {
    let mut pairs = vec![("method", "sdxl-inpaint".into()), ("count", Value::Integer(4))];
    pairs.extend_from_slice(more);
    read(&pairs)
}

fn codes(more: &[(&str, Value)]) -> Vec<&'static str> {
    read_with(more).1.iter().map(Problem::code).collect()
}

fn fields_with(more: &[(&str, Value)]) -> Fields {
    let (spec, problems) = read_with(more);
    assert!(problems.is_empty(), "{problems:?}");
    AnySpec::new(spec).key_fields().clone()
}

#[test]
fn the_defaults_are_those_of_the_reference_implementation() {
    let (spec, problems) = read_with(&[]);
    assert!(problems.is_empty(), "{problems:?}");
    let super::super::Method::SdxlInpaint(inpainting) = spec.method else { panic!("another method") };
    let expected = Inpainting {
        pipeline: Pipeline::Hub { model: MODEL.to_owned(), revision: REVISION.to_owned() },
        variant: None,
        prompts: PROMPTS.map(str::to_owned).to_vec(),
        negative_prompt: "smooth, plain, black, dark, shadow".to_owned(),
        sampling_steps: 30,
        guidance: 20.0,
        strength: 0.99,
        mask_crop_padding: 2,
        resolution: 1024,
        precision: Precision::F32,
        device: PaintDevice::Cpu,
    };
    assert_eq!(inpainting, expected);
}

#[test]
fn each_field_is_in_the_key() {
    let plain = fields_with(&[]);
    let changes: [&[(&str, Value)]; 11] = [
        &[("revision", COMMIT.into())],
        &[("model", "a/b".into()), ("revision", REVISION.into())],
        &[("variant", "fp16".into())],
        &[("prompts", "rust".into())],
        &[("negative_prompt", "".into())],
        &[("sampling_steps", Value::Integer(29))],
        &[("guidance", Value::Float(19.0))],
        &[("strength", Value::Float(0.9))],
        &[("mask_crop_padding", Value::Integer(3))],
        &[("resolution", Value::Integer(512))],
        &[("device", "cuda".into()), ("precision", "f32".into())],
    ];
    for change in changes {
        assert_ne!(fields_with(change), plain, "{change:?}");
    }
    let cuda = |number: &str, precision: &str| {
        fields_with(&[("device", number.into()), ("precision", precision.into())])
    };
    assert_eq!(cuda("cuda", "f16"), cuda("cuda:1", "f16"), "devices of a class are interchangeable");
    assert_ne!(cuda("cuda", "f16"), cuda("cuda", "f32"));
    assert_eq!(cuda("cuda", "f16"), fields_with(&[("device", "cuda".into())]), "half precision on a GPU");
}

#[test]
fn invalid_fields_are_refused() {
    let cases = [
        ("revision", "main".into(), "no_commit"),
        ("model", "a/b".into(), "missing_field"),
        ("prompts", Value::List(vec![]), "empty_list"),
        ("precision", "f16".into(), "unfit_precision"),
        ("device", "cuda:01".into(), "unknown_choice"),
        ("device", "gpu".into(), "unknown_choice"),
        ("resolution", Value::Integer(100), "unfit_resolution"),
        ("strength", Value::Float(0.01), "no_steps"),
        ("guidence", Value::Float(2.0), "unknown_field"),
    ];
    for (name, value, expected) in cases {
        assert_eq!(codes(&[(name, value)]), [expected], "{name}");
    }
    assert_eq!(codes(&[("model", "./folder/x".into()), ("revision", COMMIT.into())]), ["no_model"]);
    let (_, problems) = read_with(&[("revision", "main".into())]);
    assert!(problems[0].help().unwrap().contains("40 hexadecimal digits"));
}

#[test]
fn with_weights_neither_model_nor_revision_counts() {
    let weights = ("weights", "folder".into());
    let fields = fields_with(std::slice::from_ref(&weights));
    assert!(!fields.contains_key("model") && !fields.contains_key("revision"));
    assert_eq!(fields, fields_with(&[weights, ("model", "a/b".into())]));
    let (spec, _) = read_with(&[("weights", "folder".into())]);
    let spec = AnySpec::new(spec);
    assert_eq!((spec.kind().name(), spec.port("weights")), ("augment", PortUse::whole()));
    assert!(matches!(spec.port("images").reads, Reads::Images(_)));
}

/// The colours of the script's result.
fn painted(x: u32, y: u32) -> Rgb<u8> {
    Rgb([200 + x as u8, 5 * y as u8, 1])
}

/// Writes a shell script that is started instead of Python, and the image `painted.png` that it may use as its result.
fn fake(folder: &Path, text: &str) -> String {
    let file = folder.join("python");
    std::fs::write(&file, format!("#!/bin/sh\n{text}")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    RgbImage::from_fn(32, 24, painted).save(folder.join("painted.png")).unwrap();
    file.to_str().unwrap().to_owned()
}

/// A script that finishes all jobs. It relies on `jobs.json` having one field per line.
const PAINTS: &str = r#"
echo '{"event": "ready", "versions": {"torch": "1"}, "device": "cpu"}'
sed -n 's/^ *"id": "\(.*\)",/\1/p; s/^ *"output": "\(.*\)",/\1/p' "$3" | while read id; do
    read output
    cp "$(dirname "$0")/painted.png" "$output"
    echo "{\"event\": \"made\", \"id\": \"$id\"}"
done
"#;

fn run_fake(text: &str, weights: &Path) -> (TestContext, Result<Files, StageError>, tempfile::TempDir) {
    let (folder, set) = (tempfile::tempdir().unwrap(), set(3, 2));
    let context = TestContext::new()
        .with_variable("PATCHFLOW_PYTHON", &fake(folder.path(), text))
        .with_variable("PATH", "/usr/bin:/bin");
    let files = |path: &Path| Files::of_folder(path).unwrap();
    let inputs = [(Role::only("images"), files(set.path())), (Role::only("weights"), files(weights))];
    let (spec, problems) = read_with(&[
        ("weights", "folder".into()),
        ("prompts", Value::List(vec!["rust".into(), "a dent, deep".into(), "hole".into()])),
    ]);
    assert!(problems.is_empty(), "{problems:?}");
    let result = context.run(&AnySpec::new(spec), &Inputs(inputs.into()), 5, "images");
    (context, result, set)
}

fn weights() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("unet")).unwrap();
    std::fs::write(folder.path().join("model_index.json"), "{}").unwrap();
    std::fs::write(folder.path().join("unet/config.json"), "{}").unwrap();
    folder
}

#[test]
fn only_the_masks_pixels_are_painted() {
    let weights = weights();
    let (context, result, set) = run_fake(PAINTS, weights.path());
    let (files, surfaces) = (result.unwrap(), Files::of_folder(set.path()).unwrap());
    let table = String::from_utf8(files.get("provenance.csv").unwrap().read().unwrap()).unwrap();
    let all = labelled(&files);
    assert_eq!(all.len(), 4);
    for (index, (id, one)) in all.into_iter().enumerate() {
        let line = table.lines().nth(index + 1).unwrap();
        let cells: Vec<&str> = line.splitn(12, ',').collect();
        let prompt = ["rust", "a dent, deep", "hole", "rust"][index];
        let seed: u64 = cells[5].parse().unwrap();
        let settings = cells[11].trim_end_matches(',').trim_matches('"');
        assert_eq!(settings, format!("noise_seed={} prompt={prompt}", seed & (u64::MAX >> 1)));
        assert_eq!(&cells[..2], [id, "sdxl-inpaint"]);
        let normal = read_rgb(pixels(&surfaces)[cells[2]]).unwrap();
        let (image, mask) = (read_rgb(pixels(&files)[id]).unwrap(), read_mask(one.mask).unwrap());
        assert!(mask.contains(&255));
        for ((x, y, pixel), level) in image.enumerate_pixels().zip(mask.iter()) {
            let expected = if *level == 255 { painted(x, y) } else { *normal.get_pixel(x, y) };
            assert_eq!(*pixel, expected, "{id}");
        }
    }
    let work = context.work();
    assert!(
        work.join("weights/unet/config.json").is_file(),
        "the files of the port are linked under their names"
    );
    assert_eq!(std::fs::read_dir(work.join("jobs")).unwrap().count(), 0, "finished jobs are deleted");
    let jobs: serde_json::Value =
        serde_json::from_slice(&std::fs::read(work.join("jobs.json")).unwrap()).unwrap();
    assert_eq!((&jobs["local_only"], &jobs["revision"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(jobs["mask_crop_padding"], 2);
}

#[test]
fn failures_of_the_program_are_reported() {
    let weights = weights();
    let problem = r#"echo '{"event": "problem", "message": "no diffusers", "help": "install it"}'; exit 1"#;
    let error = run_fake(problem, weights.path()).1.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.help()), ("no diffusers", Some("install it")));
    let error = run_fake("echo Traceback >&2; exit 7", weights.path()).1.unwrap_err();
    assert!(error.to_string().contains("exit status: 7") && error.to_string().contains("Traceback"));
    let error = run_fake("exit 0", weights.path()).1.unwrap_err();
    assert!(error.to_string().contains("made no complete image `sdxl-inpaint/00000`"), "{error}");
    // An incomplete image.
    let halves = PAINTS.replace("cp ", "head -c 30 ").replace("painted.png\" ", "painted.png\" > ");
    let error = run_fake(&halves, weights.path()).1.unwrap_err();
    assert!(error.to_string().contains("made no complete image"), "{error}");
}

#[test]
fn a_folder_that_is_not_a_pipeline_is_refused_before_the_program_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("resnet.pth"), "x").unwrap();
    let error = run_fake("exit 7", folder.path()).1.unwrap_err();
    assert!(error.to_string().contains("no `model_index.json`; its first files are [\"resnet.pth\"]"));
    assert!(error.help().unwrap().contains("layout of diffusers"));
}
