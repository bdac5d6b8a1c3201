//! Processor seconds of tasks of six kinds in twenty runs, against the formulas of their works.
//!
//! Measured 2026-11-29 with one thread of two shared cores (Intel Xeon, other load), the lesser of two runs where there were two.
//! The load of the machine alone changes such seconds by a third.

use super::tests::{Here, MANIFEST};
use super::*;

/// Seconds below which the system's clock of 10 ms says too little.
const LEAST_SECONDS: f64 = 0.05;
/// The share of pairs of tasks that must predict each other within [`BOUND`], and the factor within which all do.
const LEAST_SHARE: f64 = 0.95;
const FARTHEST: f64 = 2.5;

/// The stages whose tasks were measured.
const STAGES: [&str; 6] = ["surfaces", "images", "features", "bank", "model", "result"];

/// One run: normal images for training, images of each class for testing, their side in pixels.
struct Measured {
    train: usize,
    test: usize,
    side: usize,
    network: &'static str,
    ratio: f64,
    bootstrap: usize,
    /// Processor seconds of the tasks of [`STAGES`].
    seconds: [f64; 6],
}

const fn run(
    train: usize,
    test: usize,
    side: usize,
    network: &'static str,
    ratio: f64,
    bootstrap: usize,
    seconds: [f64; 6],
) -> Measured {
    Measured { train, test, side, network, ratio, bootstrap, seconds }
}

const RUNS: [Measured; 20] = [
    run(20, 8, 64, "resnet18", 0.1, 1000, [0.03, 0.01, 0.27, 0.02, 0.01, 0.03]),
    run(20, 40, 64, "resnet18", 0.1, 1000, [0.08, 0.06, 0.54, 0.02, 0.01, 0.12]),
    run(20, 8, 128, "resnet18", 0.1, 1000, [0.10, 0.04, 0.64, 0.06, 0.06, 0.10]),
    run(20, 40, 128, "resnet18", 0.1, 1000, [0.34, 0.12, 1.52, 0.05, 0.05, 0.28]),
    run(20, 8, 256, "resnet18", 0.1, 1000, [0.44, 0.07, 1.77, 0.30, 0.29, 0.32]),
    run(20, 40, 256, "resnet18", 0.1, 1000, [1.10, 0.19, 4.29, 0.35, 0.38, 1.90]),
    run(20, 120, 128, "resnet18", 0.1, 1000, [0.73, 0.19, 2.78, 0.05, 0.06, 0.86]),
    run(20, 40, 128, "resnet18", 0.1, 0, [0.28, 0.07, 1.22, 0.05, 0.05, 0.19]),
    run(20, 120, 128, "resnet18", 0.1, 0, [0.74, 0.15, 2.95, 0.04, 0.06, 0.52]),
    run(20, 40, 256, "resnet18", 0.1, 0, [1.07, 0.17, 3.85, 0.24, 0.30, 1.17]),
    run(10, 8, 384, "resnet18", 0.1, 1000, [0.71, 0.08, 2.57, 0.31, 0.45, 0.89]),
    run(40, 8, 128, "resnet18", 0.01, 0, [0.16, 0.04, 0.68, 0.06, 0.06, 0.03]),
    run(40, 8, 128, "resnet18", 0.5, 0, [0.15, 0.04, 0.66, 0.14, 0.28, 0.15]),
    run(160, 8, 128, "resnet18", 0.01, 0, [0.44, 0.10, 1.92, 0.24, 0.26, 0.05]),
    run(160, 8, 128, "resnet18", 0.1, 0, [0.46, 0.11, 1.89, 0.47, 0.91, 0.13]),
    run(160, 8, 128, "resnet18", 0.3, 0, [0.47, 0.13, 2.04, 0.85, 2.06, 0.31]),
    run(80, 8, 192, "resnet18", 0.1, 0, [0.58, 0.10, 2.30, 0.49, 0.96, 0.27]),
    run(20, 8, 96, "resnet50", 0.1, 1000, [0.05, 0.02, 1.07, 0.05, 0.05, 0.06]),
    run(80, 8, 128, "resnet50", 0.1, 1000, [0.24, 0.05, 3.26, 0.38, 1.57, 0.67]),
    run(10, 8, 96, "wide_resnet50_2", 0.1, 1000, [0.06, 0.04, 1.90, 0.03, 0.02, 0.07]),
];

/// The works of the tasks of a run.
fn works(here: &Here, run: &Measured) -> [f64; 6] {
    let Measured { train, test, side, network, ratio, bootstrap, .. } = run;
    let source = format!(
        "synthetic = {{ train_normal = {train}, train_defect = 4, test_normal = {test}, test_defect = {test}, \
         height = {side}, width = {side} }}"
    );
    let manifest = MANIFEST.replace("SOURCE", &source).replace("resnet18", network);
    let manifest = manifest.replace("ratio = 0.1", &format!("ratio = {ratio}"));
    let plan = here.plan_of(&format!("{manifest}bootstrap = {bootstrap}\n"));
    let mut sizes = Sizes::new(&plan, &here.cache);
    STAGES.map(|stage| {
        let task = plan.tasks.iter().position(|task| task.stage == stage).unwrap();
        sizes.workload(TaskId(task), &|_| None).work().unwrap().seconds
    })
}

#[test]
fn the_formulas_of_every_kind_scale_as_its_tasks_do() {
    let here = Here::new();
    let works: Vec<[f64; 6]> = RUNS.iter().map(|run| works(&here, run)).collect();
    for (kind, stage) in STAGES.iter().enumerate() {
        let known = || (0..RUNS.len()).filter(|&run| RUNS[run].seconds[kind] >= LEAST_SECONDS);
        let mut errors = Vec::new();
        for (then, now) in known().flat_map(|then| known().map(move |now| (then, now))) {
            let factor = works[now][kind] / works[then][kind];
            if then != now && (0.1..=10.0).contains(&factor) {
                errors.push(RUNS[then].seconds[kind] * factor / RUNS[now].seconds[kind]);
            }
        }
        let within =
            |bound: f64| errors.iter().filter(|&&error| (1.0 / bound..=bound).contains(&error)).count();
        assert!(errors.len() > 100, "`{stage}`: {} pairs", errors.len());
        assert!(within(BOUND) as f64 >= LEAST_SHARE * errors.len() as f64, "`{stage}`: {}", within(BOUND));
        assert_eq!(within(FARTHEST), errors.len(), "`{stage}`");
    }
}

/// Every term of `evaluate` by itself.
#[test]
fn resamples_pixels_and_searches_of_an_evaluation_add_up() {
    let here = Here::new();
    let of = |test: usize, side: usize, ratio: f64, bootstrap: usize| {
        works(&here, &run(20, test, side, "resnet18", ratio, bootstrap, [0.0; 6]))[5]
    };
    let resamples = |test: usize, side: usize| of(test, side, 0.1, 2000) - of(test, side, 0.1, 1000);
    assert!((resamples(40, 64) / resamples(40, 256) - 1.0).abs() < 1e-9, "pixels do not matter to resamples");
    assert!(resamples(80, 64) > 1.5 * resamples(40, 64), "but images do");
    let images = |test: usize| of(test + 40, 128, 0.1, 0) - of(test, 128, 0.1, 0);
    assert!((images(80) / images(40) - 1.0).abs() < 1e-9, "each image takes as long as the last");
    // Sixteen times the pixels and the patches, more rows, and a wider blur.
    assert!(of(40, 256, 0.1, 0) > 16.0 * of(40, 64, 0.1, 0));
}
