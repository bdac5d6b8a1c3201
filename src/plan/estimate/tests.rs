use super::*;
use crate::cache::{Digest, Rehash, StatIndex};
use crate::manifest::{LoadOptions, load};
use crate::plan::{Earlier, History, Preimage, Provenance, Resolver, build, survey};

pub(super) const MANIFEST: &str = r#"
[experiment]
name = "sized"
[stages.surfaces]
kind = "download"
SOURCE
[stages.images]
kind = "preprocess"
input = "surfaces"
[stages.features]
kind = "extract"
images = "images"
backbone = "resnet18"
weights = "seeded"
[stages.bank]
kind = "coreset"
features = "features"
ratio = 0.1
min_size = 0
[stages.model]
kind = "fit"
normal = "bank"
features = "features"
[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "images"
"#;

/// `count` normal and 4 defective images for training and as many for testing.
fn surfaces(count: usize) -> String {
    format!(
        "synthetic = {{ train_normal = {count}, train_defect = 4, test_normal = {count}, test_defect = 4, \
         height = 160, width = 160 }}"
    )
}

/// An empty project.
pub(super) struct Here {
    folder: tempfile::TempDir,
    pub(super) cache: Cache,
}

impl Here {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), StatIndex::in_memory()).unwrap();
        Self { folder, cache }
    }

    fn plan(&self, source: &str) -> Plan {
        self.plan_of(&MANIFEST.replace("SOURCE", source))
    }

    pub(super) fn plan_of(&self, manifest: &str) -> Plan {
        let path = self.folder.path().join("m.toml");
        std::fs::write(&path, manifest).unwrap();
        let project = self.folder.path().to_owned();
        let options = LoadOptions { project, sets: Vec::new(), only: None, targets: Vec::new() };
        build(&load(&path, &options).unwrap_or_else(|error| panic!("{}", error.render(100, false)))).unwrap()
    }

    fn survey(&self, plan: &Plan) -> Vec<Status> {
        let mut resolver = Resolver::new(&self.cache, self.folder.path(), Rehash::Trust);
        survey(plan, &mut resolver, &self.cache).unwrap()
    }

    /// The records of a run of a plan on a machine that takes three seconds for a second of work.
    fn history(&self, plan: &Plan, edit: &dyn Fn(&mut Provenance)) -> History {
        let mut history = History::default();
        let mut sizes = Sizes::new(plan, &self.cache);
        for (index, task) in plan.tasks.iter().enumerate() {
            let work = sizes.workload(TaskId(index), &|_| None).work();
            let mut provenance = provenance(&task.stage, work);
            edit(&mut provenance);
            let preimage = Preimage {
                kind: task.spec.kind().name().to_owned(),
                version: task.spec.about().version,
                spec: task.spec.key_fields().clone(),
                seed: None,
                inputs: Vec::new(),
            };
            let record = Record::new(preimage, [].into(), provenance);
            history.add(Earlier { key: Digest::of_bytes(task.name.as_bytes()), record });
        }
        history
    }

    /// The costs of `source` after a run of `before`.
    fn costs(&self, before: &str, source: &str, edit: &dyn Fn(&mut Provenance)) -> Vec<Cost> {
        let history = self.history(&self.plan(before), edit);
        let plan = self.plan(source);
        estimate(&plan, &self.survey(&plan), &mut Models::new(history), &self.cache)
    }
}

fn provenance(stage: &str, work: Option<Work>) -> Provenance {
    Provenance {
        stage: stage.to_owned(),
        experiment: "sized".to_owned(),
        seconds: work.map_or(1.0, |work| 3.0 * work.seconds),
        cpu_seconds: None,
        peak_bytes: Some(1000),
        input_bytes: 10,
        output_bytes: 1000,
        fresh_share: 1.0,
        work,
        finished: "2026-11-28T10:00:00Z".to_owned(),
        host: host(),
        simd: String::new(),
        patchflow: env!("CARGO_PKG_VERSION").to_owned(),
        backbone: None,
        log: None,
        notices: Vec::new(),
    }
}

fn as_it_was(_: &mut Provenance) {}

/// The factor by which an estimate was scaled.
fn factor_of(estimate: &Estimate) -> f64 {
    match estimate.basis {
        Basis::Itself => 1.0,
        Basis::Scaled { factor, .. } | Basis::Guess { factor, .. } => factor,
    }
}

fn unknown(costs: &[Cost]) -> Vec<Option<Unknown>> {
    let why = |cost: &Cost| if let Cost::Unknown(why) = cost { Some(*why) } else { None };
    costs.iter().map(why).collect()
}

#[test]
fn sizes_are_carried_from_the_source_to_the_last_stage() {
    let here = Here::new();
    let plan = here.plan(&surfaces(16));
    let mut sizes = Sizes::new(&plan, &here.cache);
    let mut numbers = |task: usize| sizes.workload(TaskId(task), &|_| None).work().unwrap().numbers.unwrap();
    let names: Vec<&str> = plan.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["surfaces", "images", "features", "bank", "model", "result"]);
    // 40 images; 20 × 20 patches of 128 + 256 channels; a tenth of the patches of 16 normal images.
    let expected = [40 * 160 * 160 * 3, 40 * 160 * 160 * 3, 40 * 400 * 384, 640 * 384, 640 * 384, 40 * 400];
    for (task, expected) in expected.into_iter().enumerate() {
        assert!((numbers(task) - f64::from(expected)).abs() < 1e-6, "{}: {}", names[task], numbers(task));
    }
}

#[test]
fn a_task_is_estimated_by_the_ratio_of_works_up_to_ten_times() {
    let here = Here::new();
    let work = |source: &str| -> Vec<f64> {
        let plan = here.plan(source);
        let mut sizes = Sizes::new(&plan, &here.cache);
        (0..6).map(|task| sizes.workload(TaskId(task), &|_| None).work().unwrap().seconds).collect()
    };
    let (small, three_times) = (surfaces(40), surfaces(120));
    let costs = here.costs(&small, &three_times, &as_it_was);
    for (cost, work) in costs.iter().zip(work(&three_times)) {
        let estimate = cost.known().unwrap();
        assert!((estimate.seconds / (3.0 * work) - 1.0).abs() < 1e-9, "{estimate:?} for {work}");
        let bound = BOUND * (1.0 + FIXED_SECONDS / (estimate.seconds / factor_of(estimate)));
        assert!((estimate.bound / bound - 1.0).abs() < 1e-9, "{estimate:?}");
    }
    assert!(matches!(costs[0].known().unwrap().basis, Basis::Scaled { .. }), "a download reads nothing");
    assert!(matches!(&costs[2].known().unwrap().basis, Basis::Guess { stage, .. } if stage == "features"));

    let costs = here.costs(&small, &surfaces(40_000), &as_it_was);
    assert_eq!(unknown(&costs), [Some(Unknown::OtherSize); 6]);
}

#[test]
fn below_an_unknown_source_everything_is_unknown() {
    let here = Here::new();
    let digest = "0".repeat(64);
    let source = format!("url = \"https://example.org/set.zip\"\ndigest = \"sha256:{digest}\"");
    let costs = here.costs(&surfaces(40), &source, &as_it_was);
    let inputs = Some(Unknown::UnknownInputs);
    assert_eq!(unknown(&costs), [Some(Unknown::Network), inputs, inputs, inputs, inputs, inputs]);

    // Its authors publish how large KSDD2 is, but not how long the network takes.
    let costs = here.costs(&surfaces(1000), "dataset = \"ksdd2\"", &as_it_was);
    assert_eq!(unknown(&costs)[..3], [Some(Unknown::Network), None, None]);
}

#[test]
fn records_without_work_or_of_other_formulas_predict_nothing() {
    let here = Here::new();
    let (before, now) = (surfaces(40), surfaces(41));
    let is_unknown = |edit: &dyn Fn(&mut Provenance)| {
        assert_eq!(unknown(&here.costs(&before, &now, edit)), [Some(Unknown::NoRecord); 6]);
    };
    is_unknown(&|made| made.work = None);
    is_unknown(&|made| made.work = made.work.map(|work| Work { formulas: work.formulas - 1, ..work }));
    is_unknown(&|made| made.fresh_share = 0.0);
}

#[test]
fn another_machine_is_a_guess_with_a_wide_bound() {
    let here = Here::new();
    let costs = here.costs(&surfaces(40), &surfaces(40), &|made| made.host = "elsewhere".to_owned());
    for cost in &costs {
        let estimate = cost.known().unwrap();
        assert!(matches!(estimate.basis, Basis::Guess { .. }), "{estimate:?}");
        let bound = OTHER_MACHINE_BOUND * (1.0 + FIXED_SECONDS / (estimate.seconds / factor_of(estimate)));
        assert!((estimate.bound / bound - 1.0).abs() < 1e-9, "{estimate:?}");
    }
}

#[test]
fn a_short_task_is_not_scaled_down() {
    let here = Here::new();
    let costs = here.costs(&surfaces(60), &surfaces(20), &|made| made.seconds = 0.02);
    assert!(costs.iter().all(|cost| (cost.known().unwrap().seconds - 0.02).abs() < 1e-12), "{costs:?}");
}
