//! Mistakes of a stage's fields, with the values of axes for which they hold.

use super::*;

#[test]
fn wrong_and_missing_fields_are_shown_in_every_kind_of_table() {
    insta::assert_snapshot!(said(&with(r#"hieght = 3
when2 = 1
[stages.features]
kind = "extract"
images = "images"
backbone = "resnet18"
[stages.bank]
kind = "coreset"
features = "features"
ratio = 2
projection = "all"
select = { label = "good" }
[stages.bank2]
kind = "coreset"
features = "features"
[stages.bank2.select]
lable = "normal"
"#)), @r#"
    patchflow::stage::unknown_field

      × `preprocess` has no field `hieght`
       ╭─[test.toml:7:1]
     6 │ input = "dataset"
     7 │ hieght = 3
       · ───┬──
       ·    ╰── unknown field
     8 │ when2 = 1
       ╰────
      help: did you mean `height`?

    patchflow::stage::unknown_field

      × `preprocess` has no field `when2`
       ╭─[test.toml:8:1]
     7 │ hieght = 3
     8 │ when2 = 1
       · ──┬──
       ·   ╰── unknown field
     9 │ [stages.features]
       ╰────
      help: did you mean `when`?

    patchflow::stage::out_of_range

      × `ratio` is out of range: 2
        ╭─[test.toml:16:9]
     15 │ features = "features"
     16 │ ratio = 2
        ·         ┬
        ·         ╰── out of range
     17 │ projection = "all"
        ╰────
      help: use a value from 0.000001 to 1

    patchflow::stage::wrong_type

      × `projection` must be an integer, not a string (`all`)
        ╭─[test.toml:17:14]
     16 │ ratio = 2
     17 │ projection = "all"
        ·              ──┬──
        ·                ╰── of the wrong type
     18 │ select = { label = "good" }
        ╰────
      help: write `projection = …` with an integer

    patchflow::stage::unknown_choice

      × `label` has no choice `good`
        ╭─[test.toml:18:20]
     17 │ projection = "all"
     18 │ select = { label = "good" }
        ·                    ───┬──
        ·                       ╰── not a choice
     19 │ [stages.bank2]
        ╰────
      help: known here: `normal`, `defect`, `any`

    patchflow::stage::unknown_field

      × no field `lable` here
        ╭─[test.toml:23:1]
     22 │ [stages.bank2.select]
     23 │ lable = "normal"
        · ──┬──
        ·   ╰── unknown field
        ╰────
      help: did you mean `label`?
    "#);
}

#[test]
fn a_value_of_an_axis_that_does_not_fit_is_named() {
    insta::assert_snapshot!(said(&with(r#"[stages.features]
kind = "extract"
images = "images"
backbone = "${backbone}"
[stages.bank]
kind = "coreset"
features = "features"
ratio = 0.1
[stages.model]
kind = "fit"
bank = "${bank}"
normal = "bank"
[grid.axes]
backbone = ["resnet18", "resnet5O"]
bank = ["single", "dual"]
"#)), @r#"
    patchflow::stage::unknown_choice

      × `backbone` has no choice `resnet5O` (axis `backbone` is `resnet5O`)
        ╭─[test.toml:10:12]
      9 │ images = "images"
     10 │ backbone = "${backbone}"
        ·            ──────┬──────
        ·                  ╰── not a choice
     11 │ [stages.bank]
        ╰────
      help: did you mean `resnet50`?

    Advice: 
      ☞ this value of `backbone`
        ╭─[test.toml:20:25]
     19 │ [grid.axes]
     20 │ backbone = ["resnet18", "resnet5O"]
        ·                         ──────────
     21 │ bank = ["single", "dual"]
        ╰────

    patchflow::stage::missing_field

      × `defect` is missing (axis `bank` is `dual`)
        ╭─[test.toml:15:9]
     14 │ ratio = 0.1
     15 │ [stages.model]
        ·         ──┬──
        ·           ╰── missing in here
     16 │ kind = "fit"
     17 │ bank = "${bank}"
     18 │ normal = "bank"
     19 │ [grid.axes]
     20 │ backbone = ["resnet18", "resnet5O"]
     21 │ bank = ["single", "dual"]
        ·                   ───┬──
        ·                      ╰── this value of `bank`
        ╰────
      help: add `defect = …` (a stage that gives a Bank)
    "#);
}

#[test]
fn a_mistake_that_a_grid_repeats_is_said_once() {
    let text = DUAL.replace("ratio = 0.01", "ratio = 3");
    let error = load_text(&text).unwrap_err();
    assert_eq!(error.diagnostics().len(), 1, "{error:?}");
    assert_eq!(error.diagnostics()[0].message, "`ratio` is out of range: 3");
}

#[test]
fn a_broken_reference_to_an_axis_hides_what_follows_from_it() {
    let text = DUAL.replace("ratio = 0.01", "ratio = \"${rato}\"");
    let codes: Vec<String> =
        load_text(&text).unwrap_err().diagnostics().iter().map(|one| one.code.clone()).collect();
    assert_eq!(codes, ["patchflow::grid::unknown_axis"]);
}
