//! A folder of good and bad images, as most people have it: no masks, no split, `experiments/own_images.toml`.

use std::path::Path;

use patchflow::artifacts::image_set::{write_mask, write_rgb};
use serde_json::Value;

use crate::project::Project;

/// A grey surface with a bright bar if it is defective.
fn surface(number: u32, height: u32, width: u32, is_defect: bool) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let wave = 100 + ((x * 7 + y * 13 + number * 31) % 23) as u8;
        let is_bar = is_defect && y > height / 3 && y < height / 3 + 6 && x > 8 && x < width - 8;
        image::Rgb(if is_bar { [240; 3] } else { [wave; 3] })
    })
}

fn good_and_bad(project: &Project) {
    for number in 0..12 {
        write_rgb(&project.path(format!("parts/OK/{number}.png")), &surface(number, 64, 64, false)).unwrap();
    }
    for number in 20..24 {
        write_rgb(&project.path(format!("parts/NG/{number}.png")), &surface(number, 64, 64, true)).unwrap();
    }
    project.write("parts/OK/note.gif", "not read");
}

fn run(project: &Project, more: &[&str]) -> (String, String) {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/own_images.toml");
    let mut arguments = vec!["run", manifest.to_str().unwrap(), "--set", "stages.features.weights=seeded"];
    arguments.extend(["--set", "stages.dataset.path=parts", "--set", "stages.images.height=64"]);
    arguments.extend(["--set", "stages.images.width=64"]);
    arguments.extend(more);
    let output = project.call(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn json(project: &Project, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(project.path(name)).unwrap()).unwrap()
}

#[test]
fn good_and_bad_images_give_image_metrics_and_every_run_says_what_is_missing() {
    let project = Project::empty();
    good_and_bad(&project);
    let (table, messages) = run(&project, &[]);
    let titles = table.lines().find(|line| line.contains("AUROC")).unwrap_or_else(|| panic!("{table}"));
    assert_eq!(titles.trim(), "image AUROC  image AP", "{table}");
    assert_eq!(table.matches("pixel metrics are not measured").count(), 1, "{table}");
    for wanted in ["pixel metrics are not measured", "1 file `OK/*.gif`: kind not read"] {
        assert_eq!(messages.matches(wanted).count(), 1, "{wanted}: {messages}");
    }
    let metrics = json(&project, "runs/own_images/latest/variants/default/metrics.json");
    assert!(metrics["image_auroc"].as_f64().unwrap() > 0.5);
    for absent in ["pixel_auroc", "pixel_ap", "aupro"] {
        assert!(metrics.get(absent).is_none() && metrics["intervals"].get(absent).is_none(), "{metrics}");
    }
    assert_eq!(metrics["without_region"], 4);
    let (again, repeated) = run(&project, &[]);
    assert!(again.contains("0 executed"), "{again}");
    assert_eq!(repeated.matches("pixel metrics are not measured").count(), 1, "{repeated}");
    let summary = json(&project, "runs/own_images/latest/summary.json");
    let of_images =
        summary["ended"].as_array().unwrap().iter().find(|task| task["stage"] == "images").unwrap();
    let notices: Vec<&str> = of_images["notices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|notice| notice["text"].as_str().unwrap())
        .collect();
    let read = notices.iter().find(|line| line.starts_with("read:")).unwrap();
    assert!(read.contains("`test` with") && read.contains("4 defective images without a region"), "{read}");
    assert!(notices.contains(&"layout: folders"), "{notices:?}");
}

#[test]
fn a_worker_process_repeats_the_warnings_too() {
    let project = Project::empty();
    good_and_bad(&project);
    let (_, messages) = run(&project, &["--worker", env!("CARGO_BIN_EXE_patchflow")]);
    assert_eq!(messages.matches("pixel metrics are not measured").count(), 1, "{messages}");
}

#[test]
fn padding_is_in_no_count() {
    let project = Project::empty();
    for (folder, numbers, is_defect) in
        [("train/good", 0..6, false), ("test/good", 6..9, false), ("test/bar", 9..12, true)]
    {
        for number in numbers {
            let name = format!("parts/{folder}/{number}.png");
            write_rgb(&project.path(&name), &surface(number, 32, 64, is_defect)).unwrap();
            if is_defect {
                let mask = image::GrayImage::from_fn(64, 32, |x, y| {
                    image::Luma([if y > 10 && y < 16 && x > 8 && x < 56 { 255 } else { 0 }])
                });
                write_mask(&project.path(format!("parts/ground_truth/bar/{number}_mask.png")), &mask)
                    .unwrap();
            }
        }
    }
    let metrics = |more: &[&str]| {
        run(&project, more);
        json(&project, "runs/own_images/latest/variants/default/metrics.json")
    };
    let fit = metrics(&["--set", "stages.images.resize=fit"]);
    assert_eq!(fit["pixels"], 6 * 32 * 64, "half of each 64 × 64 image is padding");
    let exact = metrics(&["--set", "stages.images.height=32"]);
    assert_eq!(exact["pixels"], fit["pixels"]);
    assert_eq!(exact["defect_pixels"], fit["defect_pixels"]);
}
