//! Mistakes of the grid.

use super::*;

#[test]
fn axes_that_are_unused_or_named_twice() {
    insta::assert_snapshot!(said(&with(r#"[grid.axes]
unused = [1, 2]
"a b" = [1]
[grid.repeats]
unused = [1]
seed = [-1]
"#)), @r#"
    patchflow::grid::unused_axis

      × axis `unused` is used by no stage
       ╭─[test.toml:8:1]
     7 │ [grid.axes]
     8 │ unused = [1, 2]
       · ───┬──
       ·    ╰── every value would give the same results
     9 │ "a b" = [1]
       ╰────
      help: use `"${unused}"` or `when = { unused = … }` in a stage, or remove it

    patchflow::grid::bad_name

      × `a b` cannot name an axis
        ╭─[test.toml:9:1]
      8 │ unused = [1, 2]
      9 │ "a b" = [1]
        · ──┬──
        ·   ╰── only letters, digits, `_` and `-`
     10 │ [grid.repeats]
        ╰────
      help: write `a_b`

    patchflow::grid::repeated_axis

      × axis `unused` stands below both `axes` and `repeats`
        ╭─[test.toml:8:1]
      7 │ [grid.axes]
      8 │ unused = [1, 2]
        · ───┬──
        ·    ╰── first here
      9 │ "a b" = [1]
     10 │ [grid.repeats]
     11 │ unused = [1]
        · ───┬──
        ·    ╰── again here
     12 │ seed = [-1]
        ╰────
      help: remove one of them

    patchflow::grid::unused_axis

      × axis `seed` is used by no stage, none of which is random
        ╭─[test.toml:12:1]
     11 │ unused = [1]
     12 │ seed = [-1]
        · ──┬─
        ·   ╰── every value would give the same results
        ╰────
      help: use `"${seed}"` or `when = { seed = … }` in a stage, or remove it

    patchflow::grid::bad_seed

      × a seed is a whole number from 0, not an integer (`-1`)
        ╭─[test.toml:12:9]
     11 │ unused = [1]
     12 │ seed = [-1]
        ·         ─┬
        ·          ╰── this value
        ╰────
      help: write `seed = [0, 1, 2]`
    "#);
}

#[test]
fn axes_without_values_or_with_equal_ones() {
    insta::assert_snapshot!(said(&with("[grid.axes]
empty = []
same = [1, 1.0]
plain = 3
")), @r#"
    patchflow::grid::empty_axis

      × axis `empty` has no values
       ╭─[test.toml:8:9]
     7 │ [grid.axes]
     8 │ empty = []
       ·         ─┬
       ·          ╰── empty
     9 │ same = [1, 1.0]
       ╰────
      help: write `empty = ["…"]`, or remove the axis

    patchflow::grid::unused_axis

      × axis `same` is used by no stage
        ╭─[test.toml:9:1]
      8 │ empty = []
      9 │ same = [1, 1.0]
        · ──┬─
        ·   ╰── every value would give the same results
     10 │ plain = 3
        ╰────
      help: use `"${same}"` or `when = { same = … }` in a stage, or remove it

    patchflow::grid::repeated_value

      × axis `same` has `1` twice
        ╭─[test.toml:9:9]
      8 │ empty = []
      9 │ same = [1, 1.0]
        ·         ┬  ─┬─
        ·         │   ╰── again here
        ·         ╰── first here
     10 │ plain = 3
        ╰────
      help: remove one of them

    patchflow::grid::wrong_type

      × `plain` must be an array of values, not an integer
        ╭─[test.toml:10:9]
      9 │ same = [1, 1.0]
     10 │ plain = 3
        ·         ┬
        ·         ╰── here
        ╰────
      help: write `plain = [3]`
    "#);
}

#[test]
fn choices_of_axes_and_values_are_checked() {
    insta::assert_snapshot!(said(&with(r#"height = "${sizes}"
width = "${wdth"
when = { size = [1, 4], siez = 1 }
[grid]
exclude = [{ sise = 1 }, {}]
[grid.axes]
size = [1, 2]
"#)), @r#"
    patchflow::grid::unknown_axis

      × no axis `sizes`
       ╭─[test.toml:7:11]
     6 │ input = "dataset"
     7 │ height = "${sizes}"
       ·           ────┬───
       ·               ╰── not an axis
     8 │ width = "${wdth"
       ╰────
      help: did you mean `size`?

    patchflow::axis::unclosed

      × `${` without `}`
       ╭─[test.toml:8:10]
     7 │ height = "${sizes}"
     8 │ width = "${wdth"
       ·          ─┬
       ·           ╰── opened here
     9 │ when = { size = [1, 4], siez = 1 }
       ╰────
      help: write `${axis}`, or `$${` for a plain `${`

    patchflow::grid::unknown_value

      × axis `size` has no value `4`
        ╭─[test.toml:9:21]
      8 │ width = "${wdth"
      9 │ when = { size = [1, 4], siez = 1 }
        ·                     ┬
        ·                     ╰── not a value of the axis
     10 │ [grid]
        ╰────
      help: known here: `1`, `2`

    patchflow::grid::unknown_axis

      × no axis `siez`
        ╭─[test.toml:9:25]
      8 │ width = "${wdth"
      9 │ when = { size = [1, 4], siez = 1 }
        ·                         ──┬─
        ·                           ╰── not an axis
     10 │ [grid]
        ╰────
      help: did you mean `size`?

    patchflow::grid::unknown_axis

      × no axis `sise`
        ╭─[test.toml:11:14]
     10 │ [grid]
     11 │ exclude = [{ sise = 1 }, {}]
        ·              ──┬─
        ·                ╰── not an axis
     12 │ [grid.axes]
        ╰────
      help: did you mean `size`?

    patchflow::grid::empty_pattern

      × this `grid.exclude` names no axis
        ╭─[test.toml:11:26]
     10 │ [grid]
     11 │ exclude = [{ sise = 1 }, {}]
        ·                          ─┬
        ·                           ╰── it would match every combination
     12 │ [grid.axes]
        ╰────
      help: write `axis = "value"` in it, or remove it
    "#);
}

#[test]
fn a_grid_of_nothing_is_refused_and_its_stages_are_checked() {
    insta::assert_snapshot!(said(&with(r#"hieght = 4
[stages.features]
kind = "extract"
images = "images"
backbone = "resnet18"
[stages.bank]
kind = "coreset"
features = "features"
ratio = "${ratio}"
[grid.axes]
ratio = [1, 0]
[[grid.exclude]]
ratio = [1, 0]
"#)), @r#"
    patchflow::stage::unknown_field

      × `preprocess` has no field `hieght`
       ╭─[test.toml:7:1]
     6 │ input = "dataset"
     7 │ hieght = 4
       · ───┬──
       ·    ╰── unknown field
     8 │ [stages.features]
       ╰────
      help: did you mean `height`?

    patchflow::stage::out_of_range

      × `ratio` is out of range: 0 (axis `ratio` is `0`)
        ╭─[test.toml:15:9]
     14 │ features = "features"
     15 │ ratio = "${ratio}"
        ·         ─────┬────
        ·              ╰── out of range
     16 │ [grid.axes]
     17 │ ratio = [1, 0]
        ·             ┬
        ·             ╰── this value of `ratio`
     18 │ [[grid.exclude]]
        ╰────
      help: use a value from 0.000001 to 1

    patchflow::grid::empty

      × `grid.exclude` takes out every combination
        ╭─[test.toml:18:8]
     17 │ ratio = [1, 0]
     18 │ [[grid.exclude]]
        ·        ───┬───
        ·           ╰── nothing is left
     19 │ ratio = [1, 0]
        ╰────
      help: narrow one of the exclusions by a further axis
    "#);
}

#[test]
fn include_without_exclude_would_do_nothing() {
    insta::assert_snapshot!(said(&with(r#"mask_threshold = "${size}"
[grid.axes]
size = [1, 2]
[[grid.include]]
size = 1
"#)), @r#"
    patchflow::grid::idle_include

      × `grid.include` changes nothing: it brings back what `grid.exclude` took out
        ╭─[test.toml:10:8]
      9 │ size = [1, 2]
     10 │ [[grid.include]]
        ·        ───┬───
        ·           ╰── nothing is excluded
     11 │ size = 1
        ╰────
      help: remove it, or add `[[grid.exclude]]`
    "#);
}
