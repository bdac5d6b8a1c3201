//! `--set`, `--only` and `--target`: what they change and how their mistakes are shown.

use super::*;

fn said_of(options: LoadOptions) -> String {
    load_files(&[("test.toml", DUAL)], options).unwrap_err().render(100, false)
}

#[test]
fn set_changes_adds_and_narrows() {
    let options = sets(&[
        "stages.normal_bank.projection=64",
        "stages.normal_bank.select.split=test",
        "grid.axes.backbone=resnet18",
        "grid.axes.augment=[none]",
        "grid.repeats.seed=[0, 1]",
        "experiment.name=quick",
    ]);
    let experiment = load_files(&[("test.toml", DUAL)], options).unwrap();
    assert_eq!(experiment.name, "quick");
    assert_eq!(experiment.variants.len(), 4);
    assert_eq!(ids(&experiment)[0], "backbone=resnet18,bank=single,augment=none,seed=0");
    assert_eq!(&*experiment.sources[1].text, "--set stages.normal_bank.projection=64");
}

#[test]
fn a_path_that_leads_nowhere_is_shown_on_the_command_line() {
    insta::assert_snapshot!(said_of(sets(&["stages.nomral_bank.ratio=0.02", "grid.axes.bakbone=x", "ratio=1", "stages.model"])), @r#"
    patchflow::set::unknown_path

      × no stage `nomral_bank`
       ╭─[command line:1:14]
     1 │ --set stages.nomral_bank.ratio=0.02
       ·              ─────┬─────
       ·                   ╰── not in the manifest
       ╰────
      help: did you mean `normal_bank`?

    patchflow::set::unknown_path

      × no axis `bakbone` in `grid.axes`
       ╭─[command line:1:17]
     1 │ --set grid.axes.bakbone=x
       ·                 ───┬───
       ·                    ╰── not in the manifest
       ╰────
      help: did you mean `backbone`?

    patchflow::set::unknown_path

      × a manifest has no `ratio`
       ╭─[command line:1:7]
     1 │ --set ratio=1
       ·       ──┬──
       ·         ╰── not in the manifest
       ╰────
      help: known here: `experiment`, `grid`, `stages`

    patchflow::set::no_value

      × `--set` needs a path and a value
       ╭─[command line:1:7]
     1 │ --set stages.model
       ·       ──────┬─────
       ·             ╰── no `=` here
       ╰────
      help: write `--set stages.normal_bank.ratio=0.02`
    "#);
}

#[test]
fn a_bad_value_is_shown_on_the_command_line() {
    insta::assert_snapshot!(said_of(sets(&["stages.normal_bank.ratio=2", "grid.axes.backbone=resnt50"])), @r#"
    patchflow::stage::unknown_choice

      × `backbone` has no choice `resnt50` (axis `backbone` is `resnt50`)
        ╭─[test.toml:37:12]
     36 │ images = ["images", "augmented"]
     37 │ backbone = "${backbone}"
        ·            ──────┬──────
        ·                  ╰── not a choice
     38 │ 
        ╰────
      help: did you mean `resnet50`?

    Advice: 
      ☞ this value of `backbone`
       ╭─[command line:1:26]
     1 │ --set grid.axes.backbone=resnt50
       ·                          ───────
       ╰────

    patchflow::stage::out_of_range

      × `ratio` is out of range: 2
       ╭─[command line:1:32]
     1 │ --set stages.normal_bank.ratio=2
       ·                                ┬
       ·                                ╰── out of range
       ╰────
      help: use a value from 0.000001 to 1
    "#);
}

#[test]
fn a_field_that_is_set_instead_of_its_axis_names_the_axis() {
    let said = said_of(sets(&["stages.features.backbone=resnet18"]));
    assert!(said.contains("axis `backbone` is used by no stage"), "{said}");
    assert!(said.contains("set the axis instead of the field: `--set grid.axes.backbone=…`"), "{said}");
}

#[test]
fn mistakes_of_only_and_target_are_shown_on_the_command_line() {
    let only = |only: &str| LoadOptions {
        only: Some(only.to_owned()),
        targets: vec!["results".to_owned()],
        ..LoadOptions::default()
    };
    insta::assert_snapshot!(said_of(only("bank=daul,agument=none")), @r#"
    patchflow::stage::unknown_stage

      × no stage `results`
       ╭─[command line:1:10]
     1 │ --target results
       ·          ───┬───
       ·             ╰── not a stage
       ╰────
      help: did you mean `result`?

    patchflow::grid::unknown_value

      × axis `bank` has no value `daul`
       ╭─[command line:1:13]
     1 │ --only bank=daul,agument=none
       ·             ──┬─
       ·               ╰── not a value of the axis
       ╰────
      help: did you mean `dual`?

    patchflow::grid::unknown_axis

      × no axis `agument`
       ╭─[command line:1:18]
     1 │ --only bank=daul,agument=none
       ·                  ───┬───
       ·                     ╰── not an axis
       ╰────
      help: did you mean `augment`?
    "#);
    let options =
        LoadOptions { only: Some("bank=single,augment=cutpaste".to_owned()), ..LoadOptions::default() };
    insta::assert_snapshot!(said_of(options), @r#"
    patchflow::only::empty

      × `--only` leaves no variant
       ╭─[command line:1:8]
     1 │ --only bank=single,augment=cutpaste
       ·        ──────────────┬─────────────
       ·                      ╰── excluded by the grid
       ╰────
      help: ask for fewer axes, or look at `grid.exclude`
    "#);
}
