//! Mistakes of ports: what does not fit, is not there, was not extracted, or goes round.

use super::*;

#[test]
fn ports_that_do_not_fit_show_both_ends() {
    insta::assert_snapshot!(said(&with(r#"[stages.features]
kind = "extract"
images = ["imags", "dataset", "images.crops"]
backbone = "resnet18"
[stages.bank]
kind = "coreset"
features = "images"
ratio = 0.1
"#)), @r#"
    patchflow::stage::unknown_stage

      × no stage `imags`
        ╭─[test.toml:9:11]
      8 │ kind = "extract"
      9 │ images = ["imags", "dataset", "images.crops"]
        ·           ───┬───
        ·              ╰── not a stage
     10 │ backbone = "resnet18"
        ╰────
      help: did you mean `images`?

    patchflow::stage::wrong_artifact

      × `images` needs an ImageSet, but `dataset` gives Files
        ╭─[test.toml:9:20]
      8 │ kind = "extract"
      9 │ images = ["imags", "dataset", "images.crops"]
        ·                    ────┬────
        ·                        ╰── this needs an ImageSet
     10 │ backbone = "resnet18"
        ╰────
      help: write `images`

    Advice: 
      ☞ this gives Files
       ╭─[test.toml:1:9]
     1 │ [stages.dataset]
       ·         ───────
     2 │ kind = "download"
       ╰────

    patchflow::stage::unknown_output

      × stage `images` has no output `crops`
        ╭─[test.toml:4:9]
      3 │ dataset = "ksdd2"
      4 │ [stages.images]
        ·         ───┬──
        ·            ╰── of this stage
      5 │ kind = "preprocess"
      6 │ input = "dataset"
      7 │ [stages.features]
      8 │ kind = "extract"
      9 │ images = ["imags", "dataset", "images.crops"]
        ·                               ───────┬──────
        ·                                      ╰── not an output
     10 │ backbone = "resnet18"
        ╰────
      help: known here: `images`

    patchflow::stage::wrong_artifact

      × `features` needs a FeatureSet, but `images` gives an ImageSet
        ╭─[test.toml:13:12]
     12 │ kind = "coreset"
     13 │ features = "images"
        ·            ────┬───
        ·                ╰── this needs a FeatureSet
     14 │ ratio = 0.1
        ╰────
      help: write `features`

    Advice: 
      ☞ this gives an ImageSet
       ╭─[test.toml:4:9]
     3 │ dataset = "ksdd2"
     4 │ [stages.images]
       ·         ──────
     5 │ kind = "preprocess"
       ╰────
    "#);
}

#[test]
fn a_stage_that_when_keeps_out_cannot_be_needed() {
    let text = DUAL.replace("images = [\"images\", \"augmented\"]", "images = \"augmented\"");
    insta::assert_snapshot!(said(&text), @r#"
    patchflow::stage::absent_stage

      × `features` needs `augmented`, which is not in the variant
      │ `backbone=resnet50,bank=single,augment=none,seed=0` and 11 more
        ╭─[test.toml:32:8]
     31 │ count = 100
     32 │ when = { augment = "cutpaste" }
        ·        ────────────┬───────────
        ·                    ╰── `augmented` is only in these variants
     33 │ 
     34 │ [stages.features]
     35 │ kind = "extract"
     36 │ images = "augmented"
        ·          ─────┬─────
        ·               ╰── needed here
     37 │ backbone = "${backbone}"
        ╰────
      help: give `features` the same `when`, or widen that of `augmented`

    patchflow::stage::set_not_extracted

      × `features` does not extract features of `images`
        ╭─[test.toml:36:10]
     35 │ kind = "extract"
     36 │ images = "augmented"
        ·          ─────┬─────
        ·               ╰── the images of `features`
     37 │ backbone = "${backbone}"
     38 │ 
     39 │ [stages.normal_bank]
     40 │ kind = "coreset"
     41 │ features = "features"
     42 │ select = { set = "images", split = "train", label = "normal" }
        ·                  ────┬───
        ·                      ╰── not among its images
     43 │ ratio = 0.01
        ╰────
      help: write `augmented`, or add `images` to its images

    patchflow::stage::set_not_extracted

      × `features` does not extract features of `images`
        ╭─[test.toml:61:10]
     60 │ features = "features"
     61 │ images = "images"
        ·          ────┬───
        ·              ╰── not among its images
        ╰────
      help: write `augmented`, or add `images` to its images

    Advice: 
      ☞ the images of `features`
        ╭─[test.toml:36:10]
     35 │ kind = "extract"
     36 │ images = "augmented"
        ·          ───────────
     37 │ backbone = "${backbone}"
        ╰────
    "#);
}

#[test]
fn a_set_must_be_among_the_extracted_images() {
    insta::assert_snapshot!(said(&with(r#"[stages.other]
kind = "preprocess"
input = "dataset"
[stages.features]
kind = "extract"
images = ["images"]
backbone = "resnet18"
[stages.bank]
kind = "coreset"
features = "features"
ratio = 0.1
select = { set = "other" }
[stages.bank2]
kind = "coreset"
features = "features"
ratio = 0.1
select.set = "imges"
[stages.model]
kind = "fit"
normal = "bank"
[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "other"
"#)), @r#"
    patchflow::stage::set_not_extracted

      × `features` does not extract features of `other`
        ╭─[test.toml:12:10]
     11 │ kind = "extract"
     12 │ images = ["images"]
        ·          ─────┬────
        ·               ╰── the images of `features`
     13 │ backbone = "resnet18"
     14 │ [stages.bank]
     15 │ kind = "coreset"
     16 │ features = "features"
     17 │ ratio = 0.1
     18 │ select = { set = "other" }
        ·                  ───┬───
        ·                     ╰── not among its images
     19 │ [stages.bank2]
        ╰────
      help: write `images`, or add `other` to its images

    patchflow::stage::unknown_stage

      × no stage `imges`
        ╭─[test.toml:23:14]
     22 │ ratio = 0.1
     23 │ select.set = "imges"
        ·              ───┬───
        ·                 ╰── not a stage
     24 │ [stages.model]
        ╰────
      help: did you mean `images`?

    patchflow::stage::set_not_extracted

      × `features` does not extract features of `other`
        ╭─[test.toml:31:10]
     30 │ features = "features"
     31 │ images = "other"
        ·          ───┬───
        ·             ╰── not among its images
        ╰────
      help: write `images`, or add `other` to its images

    Advice: 
      ☞ the images of `features`
        ╭─[test.toml:12:10]
     11 │ kind = "extract"
     12 │ images = ["images"]
        ·          ──────────
     13 │ backbone = "resnet18"
        ╰────
    "#);
}

#[test]
fn a_cycle_is_printed_round() {
    insta::assert_snapshot!(said(r#"[stages.a]
kind = "command"
run = ["x"]
inputs = { one = "b" }
outputs = { o = "files" }
[stages.b]
kind = "command"
run = ["x"]
inputs.two = "a"
outputs = { o = "files" }
"#), @r#"
    patchflow::stage::cycle

      × stages wait for each other: a -> b -> a
        ╭─[test.toml:4:18]
      3 │ run = ["x"]
      4 │ inputs = { one = "b" }
        ·                  ─┬─
        ·                   ╰── `a` reads `b`
      5 │ outputs = { o = "files" }
      6 │ [stages.b]
      7 │ kind = "command"
      8 │ run = ["x"]
      9 │ inputs.two = "a"
        ·              ─┬─
        ·               ╰── `b` reads `a`
     10 │ outputs = { o = "files" }
        ╰────
      help: remove one of these inputs
    "#);
}

#[test]
fn two_stages_that_read_each_other_in_different_variants_are_no_cycle() {
    let command = "kind = 'command'\nrun = ['x']\noutputs = { o = 'files' }";
    let text = format!(
        "[grid.axes]\nx = ['first', 'last']\ny = ['last', 'first']\n[[grid.exclude]]\nx = 'first'\ny = 'first'\n[[grid.exclude]]\nx = 'last'\ny = 'last'\n[stages.first]\n{command}\n[stages.a]\n{command}\ninputs = {{ i = '${{x}}' }}\n[stages.last]\n{command}\ninputs = {{ i = '${{y}}' }}\n"
    );
    let error = load_text(&text).unwrap_err();
    assert_eq!(error.diagnostics().len(), 1, "{error:?}");
    assert!(error.diagnostics()[0].message.ends_with("last -> last"), "{error:?}");
    load_text(&text.replace("y = ['last', 'first']", "y = ['a', 'first']").replace("y = 'last'", "y = 'a'"))
        .unwrap();
}

#[test]
fn a_mistake_in_a_port_upstream_is_the_only_one() {
    let text = with(
        "[stages.features]\nkind = 'extract'\nimages = 'images'\nbackbone = 'resnet18'\n[stages.bank]\n\
         kind = 'coreset'\nfeatures = 'features'\n",
    );
    load_text(&text).unwrap();
    for (right, wrong) in [
        ("kind = \"preprocess\"", "kind = \"prepare\""),
        ("images = 'images'", "images = 'images.crops'"),
        ("images = 'images'", "images = '/data/images'"),
    ] {
        let error = load_text(&text.replace(right, wrong)).unwrap_err();
        assert_eq!(error.diagnostics().len(), 1, "{wrong}: {error:?}");
    }
}
