//! What the language means.

use std::fmt::Write;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

#[test]
fn the_documented_manifest_expands_as_documented() {
    let experiment = load_text(DUAL).unwrap();
    assert_eq!(experiment.name, "dual_aug");
    assert_eq!(experiment.variants.len(), 2 * 3 * 3);
    assert_eq!(ids(&experiment)[0], "backbone=resnet50,bank=single,augment=none,seed=0");
    assert_eq!(ids(&experiment)[17], "backbone=wide_resnet50_2,bank=dual,augment=cutpaste,seed=2");
    assert_eq!(experiment.variants[2].seed, 2);
    assert!(experiment.axes[3].is_repeat && !experiment.axes[2].is_repeat);
    assert_eq!(experiment.targets_of(0), [experiment.find("result").unwrap()]);
}

#[test]
fn absent_members_drop_out_of_a_list_and_unread_ports_are_marked() {
    let experiment = load_text(DUAL).unwrap();
    let augmented = experiment.find("augmented").unwrap();
    assert!(experiment.stage(0, augmented).is_none());
    assert_eq!(wired(&experiment, 0, "features"), ["images[0] = images.images"]);
    assert_eq!(
        wired(&experiment, 6, "features"),
        ["images[0] = images.images", "images[1] = augmented.images"]
    );
    assert_eq!(
        wired(&experiment, 0, "model"),
        ["normal = normal_bank.bank", "defect = defect_bank.bank (not read)"]
    );
    let bank = experiment.stage(0, experiment.find("normal_bank").unwrap()).unwrap();
    assert_eq!(bank.wired("select.set"), Some((experiment.find("images").unwrap(), "images")));
}

#[test]
fn the_example_of_the_reference_loads() {
    let text = include_str!("../../../docs/manifest.md");
    let (_, rest) = text.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(load_text(example).unwrap().variants.len(), 9);
}

#[test]
fn an_empty_when_of_an_including_file_takes_a_condition_away() {
    let base = DUAL.replace("[stages.features]", "[stages.features]\nwhen = { bank = 'dual' }");
    let files = [
        ("test.toml", "include = ['base.toml']\n[stages.features]\nwhen = {}\n"),
        ("base.toml", base.as_str()),
    ];
    let experiment = load_files(&files, LoadOptions::default()).unwrap();
    assert!(experiment.stage(0, experiment.find("features").unwrap()).is_some());
}

#[test]
fn the_seed_can_be_used_with_and_without_an_axis() {
    let path = |text: &str| load_text(text).unwrap().stage(0, StageIndex(0)).unwrap().spec.clone();
    let stage = "[stages.a]\nkind = 'download'\npath = 'data/${seed}'\n";
    let plain = path("[stages.a]\nkind = 'download'\npath = 'data/5'\n");
    assert_eq!(path(&format!("[experiment]\nseed = 5\n{stage}")), plain);
    let text = format!("[experiment]\nseed = '${{seed}}'\n[grid.repeats]\nseed = [5, 6]\n{stage}");
    assert_eq!(path(&text), plain);
    assert_eq!(load_text(&text).unwrap().variants[1].seed, 6);
}

#[test]
fn variants_that_agree_share_one_case() {
    let experiment = load_text(DUAL).unwrap();
    let features = experiment.find("features").unwrap();
    let case = |variant| std::ptr::from_ref(experiment.stage(variant, features).unwrap());
    assert_eq!(case(0), case(5));
    assert_ne!(case(0), case(6));
    assert_ne!(case(0), case(9));
}

#[test]
fn a_manifest_without_a_grid_has_one_variant_with_its_seed() {
    let experiment = load_text(&format!("[experiment]\nseed = 7\n{HEAD}")).unwrap();
    assert_eq!(ids(&experiment), ["default"]);
    assert_eq!(experiment.variants[0].seed, 7);
    assert_eq!(experiment.name, "test");
    assert_eq!(experiment.targets_of(0), [StageIndex(1)]);
}

#[test]
fn include_of_the_grid_brings_back_what_exclude_took_out() {
    let text = DUAL.replace(
        "[stages.dataset]",
        "[[grid.include]]\naugment = \"cutpaste\"\nbackbone = \"resnet50\"\n[stages.dataset]",
    );
    let experiment = load_text(&text).unwrap();
    assert_eq!(experiment.variants.len(), 18 + 3);
    assert_eq!(ids(&experiment)[3], "backbone=resnet50,bank=single,augment=cutpaste,seed=0");
}

#[test]
fn only_filters_and_takes_a_variants_name() {
    let count = |only: &str| {
        let options = LoadOptions { only: Some(only.to_owned()), ..LoadOptions::default() };
        load_files(&[("test.toml", DUAL)], options).unwrap().variants.len()
    };
    assert_eq!(count("bank=dual,augment=none"), 6);
    assert_eq!(count("seed=0,seed=2"), 12);
    assert_eq!(count("backbone=wide_resnet50_2,bank=dual,augment=cutpaste,seed=2"), 1);
}

#[test]
fn targets_of_the_command_line_replace_the_default() {
    let options = LoadOptions { targets: vec!["augmented".to_owned()], ..LoadOptions::default() };
    let experiment = load_files(&[("test.toml", DUAL)], options).unwrap();
    assert_eq!(experiment.targets_of(0), []);
    assert_eq!(experiment.targets_of(6), [StageIndex(2)]);
}

#[test]
fn a_stage_that_its_variant_does_not_need_may_lack_an_input() {
    let text =
        DUAL.replace("select = { split = \"train\", label = \"defect\"", "select = { set = \"augmented\"");
    let text = text.replace(
        "[[grid.exclude]]",
        "[[grid.exclude]]\nbank = \"dual\"\naugment = \"none\"\n[[grid.exclude]]",
    );
    let experiment = load_text(&text).unwrap();
    assert_eq!(experiment.variants.len(), 2 * 2 * 3);
}

#[test]
fn a_stage_may_name_an_output_and_values_keep_their_type() {
    let text = format!(
        "{HEAD}crops = {{ padding = 1, size = 128 }}
        [stages.features]\nkind = 'extract'\nimages = 'images.crops'\nbackbone = 'resnet18'\nlayers = '${{layers}}'
        [stages.bank]\nkind = 'coreset'\nfeatures = 'features'\nratio = '${{ratio}}'\n[stages.bank.select]
        set = 'images.crops'
        [grid.axes]\nlayers = [['layer2'], ['layer2', 'layer3']]\nratio = [0.5, 1]
        [[grid.exclude]]\nlayers = ['layer2']\nratio = 1.0"
    );
    let experiment = load_text(&text).unwrap();
    assert_eq!(
        ids(&experiment),
        ["layers=layer2,ratio=0.5", "layers=layer2+layer3,ratio=0.5", "layers=layer2+layer3,ratio=1"]
    );
    assert_eq!(wired(&experiment, 0, "features"), ["images[0] = images.crops"]);
    assert_eq!(
        experiment.stage(0, StageIndex(3)).unwrap().wired("select.set"),
        Some((StageIndex(1), "crops"))
    );
}

#[test]
fn included_files_come_first_and_later_keys_win() {
    let base = format!(
        "[grid.axes]\nsize = [100, 200, 300]\n{HEAD}height = '${{size}}'\nwhen = {{ size = [100, 300] }}\n"
    );
    let files = [
        (
            "experiments/test.toml",
            "include = [\"base.toml\"]\n[grid.axes]\nsize = [200, 300]\n[stages.images]\nwidth = 150\n",
        ),
        ("experiments/base.toml", base.as_str()),
    ];
    let experiment = load_files(&files, LoadOptions::default()).unwrap();
    assert_eq!(ids(&experiment), ["size=200", "size=300"]);
    assert!(experiment.stage(0, StageIndex(1)).is_none() && experiment.stage(1, StageIndex(1)).is_some());
    let names: Vec<&str> = experiment.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["experiments/test.toml", "experiments/base.toml"]);
}

#[test]
fn an_include_may_be_relative_to_the_project_and_change_a_kind() {
    let files = [
        (
            "experiments/deep/test.toml",
            "include = ['shared/base.toml']\n[stages.images]\nkind = 'download'\npath = 'd'\n",
        ),
        ("shared/base.toml", HEAD),
    ];
    let experiment = load_files(&files, LoadOptions::default()).unwrap();
    assert_eq!(experiment.stages[1].kind.name(), "download");
}

#[test]
fn names_of_variants_are_safe_unique_and_short() {
    let long = "x".repeat(300);
    let mut text = "[grid.axes]\n".to_owned();
    for axis in ["one", "two", "three", "four"] {
        writeln!(text, "{axis} = [\"a/b\", \"a_b\", \"{long}\"]").unwrap();
    }
    text += "[stages.a]\nkind = 'download'\npath = '${one}${two}${three}${four}'\n";
    let experiment = load_text(&text).unwrap();
    let mut names = ids(&experiment);
    assert!(names.iter().all(|name| name.len() < 200 && !name.contains('/')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 81);
}

#[test]
fn ten_stages_and_ten_thousand_variants_load_in_well_under_a_second() {
    let text = DUAL
        .replace(
            "bank = [\"single\", \"dual\"]",
            "bank = ['single', 'dual']\nratio = [RATIOS]\nsize = [SIZES]",
        )
        .replace("seed = [0, 1, 2]", "seed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]")
        .replace("ratio = 0.01", "ratio = '${ratio}'")
        .replace("height = 316", "height = '${size}'");
    let list = |of: &dyn Fn(usize) -> String| (1..=13).map(of).collect::<Vec<_>>().join(", ");
    let text = text
        .replace("RATIOS", &list(&|index| format!("0.{index:03}")))
        .replace("SIZES", &list(&|index| (200 + index).to_string()));
    let text = format!(
        "{text}[stages.again]\nkind = 'evaluate'\nmodel = 'model'\nfeatures = 'features'\nimages = 'images'\n[stages.more]\nkind = 'fit'\nnormal = 'normal_bank'\n"
    );
    let start = Instant::now();
    let experiment = load_text(&text).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!((experiment.stages.len(), experiment.variants.len()), (10, 10_140));
    assert!(seconds < 2.0, "{seconds} s; 0.1 s in development, the rest is for a busy machine");
}

/// One grid: lengths of the axes, and patterns of (axis, values) for `exclude` and `include`.
type Chosen = (Vec<usize>, Vec<Vec<(usize, Vec<usize>)>>, Vec<Vec<(usize, Vec<usize>)>>);

fn patterns() -> impl Strategy<Value = Vec<Vec<(usize, Vec<usize>)>>> {
    let clause = (0..4_usize, prop::collection::vec(0..3_usize, 1..3));
    prop::collection::vec(prop::collection::vec(clause, 1..3), 0..3)
}

fn grids() -> impl Strategy<Value = Chosen> {
    (prop::collection::vec(1..4_usize, 4), patterns(), patterns())
}

fn text_of((lengths, exclude, include): &Chosen) -> String {
    let mut text = "[grid.axes]\n".to_owned();
    for (axis, length) in lengths.iter().enumerate() {
        writeln!(text, "a{axis} = {:?}", (0..*length).collect::<Vec<_>>()).unwrap();
    }
    for (name, patterns) in [("exclude", exclude), ("include", include)] {
        for pattern in patterns {
            writeln!(text, "[[grid.{name}]]").unwrap();
            for (axis, values) in pattern {
                writeln!(text, "a{axis} = {values:?}").unwrap();
            }
        }
    }
    text + "[stages.a]\nkind = 'download'\npath = '${a0}${a1}${a2}${a3}'\n"
}

/// Nested loops, and a combination is kept unless a pattern takes it out.
fn naive((lengths, exclude, include): &Chosen) -> Vec<String> {
    let mut names = Vec::new();
    for a in 0..lengths[0] {
        for b in 0..lengths[1] {
            for c in 0..lengths[2] {
                for d in 0..lengths[3] {
                    let row = [a, b, c, d];
                    let hits = |patterns: &[Vec<(usize, Vec<usize>)>]| {
                        patterns
                            .iter()
                            .any(|pattern| pattern.iter().all(|(axis, values)| values.contains(&row[*axis])))
                    };
                    if !hits(exclude) || hits(include) {
                        names.push(format!("a0={a},a1={b},a2={c},a3={d}"));
                    }
                }
            }
        }
    }
    names
}

/// Patterns may only name values that exist, and an axis once; `include` needs an `exclude`.
fn tidy((lengths, mut exclude, mut include): Chosen) -> Chosen {
    for pattern in exclude.iter_mut().chain(&mut include) {
        pattern.sort();
        pattern.dedup_by_key(|(axis, _)| *axis);
        for (axis, values) in pattern {
            for value in values {
                *value %= lengths[*axis];
            }
        }
    }
    if exclude.is_empty() {
        include.clear();
    }
    (lengths, exclude, include)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_damage_to_a_manifest_ends_in_a_panic(
        damage in prop::collection::vec((0..1700_usize, 0..8_usize, "[a-z${}\\[\\]=\"'.é\n]{0,3}"), 1..4),
    ) {
        let mut text: Vec<char> = DUAL.chars().collect();
        for (start, length, other) in damage {
            let start = start.min(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, other.chars());
        }
        if let Err(error) = load_text(&text.into_iter().collect::<String>()) {
            prop_assert!(!error.diagnostics().is_empty() && !error.render(80, true).is_empty());
        }
    }

    #[test]
    fn a_grid_is_the_naive_product_without_what_is_excluded(chosen in grids()) {
        let chosen = tidy(chosen);
        let wanted = naive(&chosen);
        match load_text(&text_of(&chosen)) {
            Ok(experiment) => prop_assert_eq!(ids(&experiment), wanted),
            Err(error) => {
                prop_assert!(wanted.is_empty(), "{}", error.render(100, false));
                prop_assert_eq!(&error.diagnostics()[0].code, "patchflow::grid::empty");
            }
        }
    }
}
