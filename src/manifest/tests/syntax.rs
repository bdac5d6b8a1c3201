//! Mistakes of the text, of names, and of includes.

use super::*;

#[test]
fn several_errors_of_syntax_are_shown_at_once() {
    insta::assert_snapshot!(said(r#"[stages.a]
kind = download
height = = 3
kind = "fit"
"#), @r#"
    patchflow::syntax::toml

      × string values must be quoted, expected literal string
       ╭─[test.toml:2:8]
     1 │ [stages.a]
     2 │ kind = download
       ·        ────┬───
       ·            ╰── here
     3 │ height = = 3
       ╰────
      help: write "download"

    patchflow::syntax::toml

      × extra `=`, expected nothing
       ╭─[test.toml:3:10]
     2 │ kind = download
     3 │ height = = 3
       ·          ┬
       ·          ╰── here
     4 │ kind = "fit"
       ╰────
      help: write `name = value`: strings in " ", lists in [ ], tables in { } or below a [header]

    patchflow::syntax::toml

      × unexpected key or value, expected newline, `#`
       ╭─[test.toml:3:12]
     2 │ kind = download
     3 │ height = = 3
       ·            ▲
       ·            ╰── here
     4 │ kind = "fit"
       ╰────
      help: write `name = value`: strings in " ", lists in [ ], tables in { } or below a [header]

    patchflow::syntax::toml

      × duplicate key
       ╭─[test.toml:4:1]
     3 │ height = = 3
     4 │ kind = "fit"
       · ──┬─
       ·   ╰── here
       ╰────
      help: remove or rename one `kind`
    "#);
}

#[test]
fn values_that_no_field_takes_are_refused() {
    insta::assert_snapshot!(said(r#"[stages.a]
kind = "coreset"
ratio = nan
from = 2020-01-01
"#), @r#"
    patchflow::syntax::value

      × the value is not a finite number
       ╭─[test.toml:3:9]
     2 │ kind = "coreset"
     3 │ ratio = nan
       ·         ─┬─
       ·          ╰── this value
     4 │ from = 2020-01-01
       ╰────
      help: write a finite number

    patchflow::syntax::value

      × the value is a date, which no field takes
       ╭─[test.toml:4:8]
     3 │ ratio = nan
     4 │ from = 2020-01-01
       ·        ─────┬────
       ·             ╰── this value
       ╰────
      help: write it in quotes
    "#);
}

#[test]
fn unknown_tables_fields_and_kinds_name_the_nearest() {
    insta::assert_snapshot!(said(r#"[experimnet]
name = "x"
[grid.axis]
a = [1]
[stages.a]
kind = "downlaod"
[stages.b]
kid = "fit"
[stages.c]
path = "d"
"#), @r#"
    patchflow::manifest::unknown_table

      × a manifest has no `experimnet`
       ╭─[test.toml:1:2]
     1 │ [experimnet]
       ·  ─────┬────
       ·       ╰── unknown
     2 │ name = "x"
       ╰────
      help: did you mean `experiment`?

    patchflow::grid::unknown_field

      × `grid` has no `axis`
       ╭─[test.toml:3:7]
     2 │ name = "x"
     3 │ [grid.axis]
       ·       ──┬─
       ·         ╰── unknown
     4 │ a = [1]
       ╰────
      help: did you mean `axes`?

    patchflow::stage::unknown_kind

      × no kind `downlaod`
       ╭─[test.toml:6:8]
     5 │ [stages.a]
     6 │ kind = "downlaod"
       ·        ─────┬────
       ·             ╰── not a kind
     7 │ [stages.b]
       ╰────
      help: did you mean `download`?

    patchflow::stage::missing_kind

      × stage `b` has no `kind`
       ╭─[test.toml:7:9]
     6 │ kind = "downlaod"
     7 │ [stages.b]
       ·         ┬
       ·         ╰── missing in here
     8 │ kid = "fit"
       ╰────
      help: rename `kid` to `kind`

    patchflow::stage::missing_kind

      × stage `c` has no `kind`
        ╭─[test.toml:9:9]
      8 │ kid = "fit"
      9 │ [stages.c]
        ·         ┬
        ·         ╰── missing in here
     10 │ path = "d"
        ╰────
      help: add `kind = "…"`, one of download, preprocess, augment, extract, coreset, fit, evaluate,
            command, toy
    "#);
}

#[test]
fn no_stages_and_bad_names() {
    insta::assert_snapshot!(said(r#"[experiment]
name = "a/b"
seed = -1
qestion = "?"
"#), @r#"
    patchflow::manifest::no_stages

      × the manifest has no stages
       ╭─[test.toml:1:1]
     1 │ [experiment]
       · ▲
     2 │ name = "a/b"
       ╰────
      help: add `[stages.dataset]` and below it `kind = "download"`

    patchflow::experiment::bad_name

      × `a/b` cannot name a folder
       ╭─[test.toml:2:8]
     1 │ [experiment]
     2 │ name = "a/b"
       ·        ──┬──
       ·          ╰── letters, digits, `_`, `-` and `.`, at most 100 bytes, no dot at either end
     3 │ seed = -1
       ╰────
      help: write `name = "a_b"`

    patchflow::experiment::out_of_range

      × `seed` is out of range: -1
       ╭─[test.toml:3:8]
     2 │ name = "a/b"
     3 │ seed = -1
       ·        ─┬
       ·         ╰── out of range
     4 │ qestion = "?"
       ╰────
      help: use a value from 0 to 9223372036854775807

    patchflow::experiment::unknown_field

      × no field `qestion` here
       ╭─[test.toml:4:1]
     3 │ seed = -1
     4 │ qestion = "?"
       · ───┬───
       ·    ╰── unknown field
       ╰────
      help: did you mean `question`?
    "#);
    insta::assert_snapshot!(said(""), @r#"
    patchflow::manifest::no_stages

      × the manifest has no stages
       ╭─[test.toml:1:1]
       ╰────
      help: add `[stages.dataset]` and below it `kind = "download"`
    "#);
    insta::assert_snapshot!(said(r#"[stages."a b"]
kind = "download"
path = "d"
"#), @r#"
    patchflow::stage::bad_name

      × `a b` cannot name a stage
       ╭─[test.toml:1:9]
     1 │ [stages."a b"]
       ·         ──┬──
       ·           ╰── only letters, digits, `_` and `-`
     2 │ kind = "download"
       ╰────
      help: write `a_b`
    "#);
}

#[test]
fn includes_that_are_missing_or_go_round() {
    let files = [
        (
            "test.toml",
            r#"include = ["base.toml", "bse.toml"]
"#,
        ),
        (
            "base.toml",
            r#"include = ["test.toml", 3]
"#,
        ),
    ];
    let error = load_files(&files, LoadOptions::default()).unwrap_err();
    insta::assert_snapshot!(error.render(100, false), @r#"
    patchflow::include::unreadable

      × cannot read `bse.toml`: there is no such file
       ╭─[test.toml:1:25]
     1 │ include = ["base.toml", "bse.toml"]
       ·                         ─────┬────
       ·                              ╰── included here
       ╰────
      help: write the path relative to this file or to the project's root

    patchflow::include::cycle

      × the files include each other: test.toml -> base.toml -> test.toml
       ╭─[base.toml:1:12]
     1 │ include = ["test.toml", 3]
       ·            ─────┬─────
       ·                 ╰── `test.toml` is already being read
       ╰────
      help: remove this include

    patchflow::include::wrong_type

      × `include` must be an array of files, not an integer
       ╭─[base.toml:1:25]
     1 │ include = ["test.toml", 3]
       ·                         ┬
       ·                         ╰── here
       ╰────
      help: write `include = ["base.toml"]`
    "#);
}

#[test]
fn a_mistake_across_files_shows_both() {
    let files = [
        (
            "test.toml",
            r#"include = ["base.toml"]
[stages.bank]
kind = "coreset"
features = "images"
ratio = 0.1
"#,
        ),
        ("base.toml", HEAD),
    ];
    let error = load_files(&files, LoadOptions::default()).unwrap_err();
    insta::assert_snapshot!(error.render(100, false), @r#"
    patchflow::stage::wrong_artifact

      × `features` needs a FeatureSet, but `images` gives an ImageSet
       ╭─[test.toml:4:12]
     3 │ kind = "coreset"
     4 │ features = "images"
       ·            ────┬───
       ·                ╰── this needs a FeatureSet
     5 │ ratio = 0.1
       ╰────
      help: add a stage that gives a FeatureSet

    Advice: 
      ☞ this gives an ImageSet
       ╭─[base.toml:4:9]
     3 │ dataset = "ksdd2"
     4 │ [stages.images]
       ·         ──────
     5 │ kind = "preprocess"
       ╰────
    "#);
}
