//! Seconds of tasks of six kinds in twenty runs, against the formulas of their works.
//!
//! Measured 2026-11-29 with one thread of two cores (Intel Xeon with AVX-512), in memory (tmpfs), the least of
//! three runs.

use super::tests::{Here, MANIFEST};
use super::*;

/// Seconds below which the start of a task counts as much as its work.
const LEAST_SECONDS: f64 = 0.02;
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
    /// Seconds of the tasks of [`STAGES`].
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
    run(20, 8, 64, "resnet18", 0.1, 1000, [0.021, 0.006, 0.130, 0.007, 0.004, 0.014]),
    run(20, 40, 64, "resnet18", 0.1, 1000, [0.056, 0.013, 0.190, 0.007, 0.004, 0.056]),
    run(20, 8, 128, "resnet18", 0.1, 1000, [0.083, 0.011, 0.206, 0.020, 0.030, 0.047]),
    run(20, 40, 128, "resnet18", 0.1, 1000, [0.244, 0.029, 0.404, 0.021, 0.034, 0.157]),
    run(20, 8, 256, "resnet18", 0.1, 1000, [0.371, 0.026, 0.559, 0.109, 0.152, 0.182]),
    run(20, 40, 256, "resnet18", 0.1, 1000, [0.863, 0.060, 1.120, 0.101, 0.143, 0.723]),
    run(20, 120, 128, "resnet18", 0.1, 1000, [0.561, 0.053, 0.802, 0.019, 0.030, 0.407]),
    run(20, 40, 128, "resnet18", 0.1, 0, [0.219, 0.026, 0.372, 0.019, 0.030, 0.090]),
    run(20, 120, 128, "resnet18", 0.1, 0, [0.560, 0.054, 0.739, 0.019, 0.030, 0.262]),
    run(20, 40, 256, "resnet18", 0.1, 0, [0.875, 0.058, 1.082, 0.097, 0.138, 0.559]),
    run(10, 8, 384, "resnet18", 0.1, 1000, [0.559, 0.031, 0.758, 0.093, 0.201, 0.393]),
    run(40, 8, 128, "resnet18", 0.01, 0, [0.125, 0.015, 0.277, 0.034, 0.037, 0.013]),
    run(40, 8, 128, "resnet18", 0.5, 0, [0.123, 0.015, 0.269, 0.081, 0.148, 0.080]),
    run(160, 8, 128, "resnet18", 0.01, 0, [0.356, 0.037, 0.594, 0.099, 0.149, 0.030]),
    run(160, 8, 128, "resnet18", 0.1, 0, [0.358, 0.037, 0.577, 0.165, 0.341, 0.072]),
    run(160, 8, 128, "resnet18", 0.3, 0, [0.359, 0.040, 0.582, 0.320, 0.746, 0.155]),
    run(80, 8, 192, "resnet18", 0.1, 0, [0.443, 0.037, 0.714, 0.207, 0.446, 0.120]),
    run(20, 8, 96, "resnet50", 0.1, 1000, [0.051, 0.008, 0.466, 0.039, 0.032, 0.035]),
    run(80, 8, 128, "resnet50", 0.1, 1000, [0.202, 0.023, 1.123, 0.191, 0.753, 0.481]),
    run(10, 8, 96, "wide_resnet50_2", 0.1, 1000, [0.038, 0.006, 1.200, 0.018, 0.014, 0.031]),
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
