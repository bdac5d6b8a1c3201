//! The effect of each axis: differences between two of its values, paired over the repeats, with their t interval.
//!
//! A pair agrees on every other axis. If `exclude` leaves one side a single variant for some axis, because the axis
//! has no meaning there, that variant is paired with each of the other side.

use super::statistics::{MeanInterval, paired};
use super::table::{SHOWN, evaluations, value_of};
use super::text_table::{Column, TextTable};
use crate::artifacts::files::csv_field;
use crate::artifacts::scores::Metrics;
use crate::plan::Plan;

/// One comparison of two values of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct PairedDifference {
    /// Name of the axis.
    pub axis: String,
    /// The value that is subtracted.
    pub from: String,
    /// The value that it is subtracted from.
    pub to: String,
    /// The values of the other axes: `bank=dual, count=50`.
    pub at: String,
    /// The interval of each shown metric; `None` if no repeat has both values.
    pub intervals: Vec<Option<MeanInterval>>,
}

/// All comparisons of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences(pub Vec<PairedDifference>);

/// A row of the table: its axis values, and the name, task and metrics of each repeat.
struct Row {
    values: Vec<String>,
    repeats: Vec<(Vec<String>, usize, Option<Metrics>)>,
}

/// Compares every two values of every axis. `metrics` returns the metrics of a task of the plan. Empty without
/// repeats.
pub fn differences(plan: &Plan, metrics: &dyn Fn(usize) -> Option<Metrics>) -> Differences {
    if plan.repeats.is_empty() {
        return Differences::default();
    }
    let rows = rows(plan, metrics);
    let mut all = Vec::new();
    for (column, axis) in plan.axes.iter().enumerate() {
        let mut values: Vec<&String> = Vec::new();
        for row in &rows {
            if !values.contains(&&row.values[column]) {
                values.push(&row.values[column]);
            }
        }
        for (second, to) in values.iter().enumerate() {
            for from in &values[..second] {
                for row in rows.iter().filter(|row| row.values[column] == **to) {
                    let Some(partner) = partner(&rows, row, column, from) else { continue };
                    all.push(compare(plan, axis, column, partner, row));
                }
            }
        }
    }
    all.retain(|difference| difference.intervals.iter().any(Option::is_some));
    Differences(all)
}

fn rows(plan: &Plan, metrics: &dyn Fn(usize) -> Option<Metrics>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for variant in &plan.variants {
        let of = |names: &[String]| -> Vec<String> {
            let named = variant.values.iter().filter(|(axis, _)| names.contains(axis));
            named.map(|(_, value)| value.clone()).collect()
        };
        for task in evaluations(plan, variant) {
            let mut values = of(&plan.axes);
            values.push(plan.tasks[task].stage.clone());
            let repeat = (of(&plan.repeats), task, metrics(task));
            match rows.iter_mut().find(|row| row.values == values) {
                Some(row) => row.repeats.push(repeat),
                None => rows.push(Row { values, repeats: vec![repeat] }),
            }
        }
    }
    rows
}

/// The row that is paired with `row`: its value of the axis is `from`, and its other values agree if possible. `None`
/// if no row or several rows remain.
fn partner<'a>(rows: &'a [Row], row: &Row, column: usize, from: &str) -> Option<&'a Row> {
    let mut candidates: Vec<&Row> = rows.iter().filter(|other| other.values[column] == from).collect();
    for (other, value) in row.values.iter().enumerate().filter(|&(other, _)| other != column) {
        if candidates.iter().any(|candidate| candidate.values[other] == *value) {
            candidates.retain(|candidate| candidate.values[other] == *value);
        }
    }
    let is_one = candidates.len() == 1;
    candidates.pop().filter(|_| is_one)
}

fn compare(plan: &Plan, axis: &str, column: usize, from: &Row, to: &Row) -> PairedDifference {
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let mut metrics: Vec<(&Metrics, &Metrics)> = Vec::new();
    for (repeat, task, of_to) in &to.repeats {
        let Some((_, other, of_from)) = from.repeats.iter().find(|(known, ..)| known == repeat) else {
            continue;
        };
        // Repeats whose seed reaches no stage share one result, which counts once.
        if pairs.contains(&(*other, *task)) {
            continue;
        }
        pairs.push((*other, *task));
        if let (Some(of_from), Some(of_to)) = (of_from, of_to) {
            metrics.push((of_from, of_to));
        }
    }
    let interval = |&(_, name): &(&str, &str)| {
        let difference =
            |(from, to): &(&Metrics, &Metrics)| Some(value_of(to, name)? - value_of(from, name)?);
        paired(&metrics.iter().filter_map(difference).collect::<Vec<_>>())
    };
    let others = plan.axes.iter().zip(&to.values).enumerate().filter(|&(other, _)| other != column);
    let at: Vec<String> = others.map(|(_, (axis, value))| format!("{axis}={value}")).collect();
    PairedDifference {
        axis: axis.to_owned(),
        from: from.values[column].clone(),
        to: to.values[column].clone(),
        at: at.join(", "),
        intervals: SHOWN.iter().map(interval).collect(),
    }
}

/// Formats `+0.0123 ± 0.0045*`: the mean, half of the interval, and a star if the interval does not contain 0.
fn text(interval: Option<&MeanInterval>) -> String {
    match interval {
        None => String::new(),
        Some(MeanInterval { mean, half: None, .. }) => signed(*mean),
        Some(MeanInterval { mean, half: Some(half), .. }) => {
            format!("{} ± {half:.4}{}", signed(*mean), if mean.abs() > *half { "*" } else { "" })
        }
    }
}

/// Formats a difference with its sign; what is rounded to zero has a plus.
pub(super) fn signed(difference: f64) -> String {
    let text = format!("{difference:+.4}");
    if text == "-0.0000" { "+0.0000".to_owned() } else { text }
}

impl Differences {
    /// Returns the largest number of repeats in a comparison.
    pub fn repeats(&self) -> usize {
        self.0
            .iter()
            .flat_map(|one| one.intervals.iter().flatten().map(|interval| interval.n))
            .max()
            .unwrap_or(0)
    }

    /// Returns the caption that explains the columns.
    pub fn caption(&self) -> String {
        if self.repeats() == 1 {
            return "differences in one repeat, without an interval".to_owned();
        }
        format!(
            "differences, paired over {} repeats: mean ± half of the 95 % t interval,\n* if it does not contain 0 (not \
             corrected for multiple comparisons)",
            self.repeats()
        )
    }

    /// The indices in [`SHOWN`] of the metrics that some comparison has.
    fn measured(&self) -> Vec<usize> {
        let has_interval = |index: &usize| self.0.iter().any(|one| one.intervals[*index].is_some());
        (0..SHOWN.len()).filter(has_interval).collect()
    }

    fn titles(&self) -> impl Iterator<Item = String> {
        let shown = self.measured().into_iter().map(|index| SHOWN[index].0.to_owned());
        ["axis", "change", "at"].map(str::to_owned).into_iter().chain(shown)
    }

    fn texts(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        let measured = self.measured();
        self.0.iter().map(move |one| {
            let change = format!("{} → {}", one.from, one.to);
            let cells = measured.iter().map(|&index| text(one.intervals[index].as_ref()));
            [one.axis.clone(), change, one.at.clone()].into_iter().chain(cells).collect()
        })
    }

    /// Renders the table for a screen of this many columns.
    pub fn to_text(&self, width: usize) -> String {
        let column = |index: usize| if index < 3 { Column::Text } else { Column::Number };
        let titles = self.titles().enumerate().map(|(index, title)| (title, column(index)));
        let mut table = TextTable::new(titles);
        self.texts().for_each(|row| table.add(row));
        table.draw(width)
    }

    /// Renders the table as Markdown.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let titles: Vec<String> = self.titles().collect();
        let rule = |column| if column < 3 { "---" } else { "---:" }.to_owned();
        let rule: Vec<String> = (0..titles.len()).map(rule).collect();
        let rows: String = self.texts().map(|row| line(&row)).collect();
        format!("{}{}{rows}\n{}\n", line(&titles), line(&rule), self.caption())
    }

    /// Renders the table as CSV: mean, bounds and count of each metric, unrounded.
    pub fn to_csv(&self) -> String {
        let mut titles: Vec<String> = ["axis", "from", "to", "at"].map(str::to_owned).to_vec();
        for (_, name) in SHOWN {
            titles.extend(["", "_low", "_high", "_n"].map(|end| format!("{name}{end}")));
        }
        let mut text = titles.join(",") + "\n";
        for one in &self.0 {
            let mut row: Vec<String> =
                [&one.axis, &one.from, &one.to, &one.at].map(|cell| csv_field(cell).into_owned()).to_vec();
            for interval in &one.intervals {
                row.extend(match interval {
                    None => [String::new(), String::new(), String::new(), "0".to_owned()],
                    Some(MeanInterval { mean, half, n }) => {
                        let bound =
                            |sign: f64| half.map_or(String::new(), |half| (mean + sign * half).to_string());
                        [mean.to_string(), bound(-1.0), bound(1.0), n.to_string()]
                    }
                });
            }
            text += &(row.join(",") + "\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Row {
        Row { values: values.iter().map(|&value| value.to_owned()).collect(), repeats: Vec::new() }
    }

    #[test]
    fn a_variant_is_paired_with_the_one_that_agrees_or_stands_for_all() {
        let rows = [
            row(&["none", "25", "result"]),
            row(&["ddpm", "25", "result"]),
            row(&["ddpm", "50", "result"]),
            row(&["paste", "25", "result"]),
            row(&["paste", "50", "result"]),
        ];
        let found =
            |of: usize, from: &str| partner(&rows, &rows[of], 0, from).map(|row| row.values[1].clone());
        assert_eq!(found(2, "none").as_deref(), Some("25"), "without samples there is one count");
        assert_eq!(found(4, "ddpm").as_deref(), Some("50"));
        assert_eq!(found(0, "ddpm").as_deref(), Some("25"));
        let unclear = row(&["none", "75", "result"]);
        assert!(partner(&rows, &unclear, 0, "ddpm").is_none(), "two could be meant");
    }

    #[test]
    fn one_repeat_has_no_interval_and_zero_no_minus() {
        let one = Some(MeanInterval { mean: -1e-9, half: None, n: 1 });
        let all = Differences(vec![PairedDifference {
            axis: "ratio".to_owned(),
            from: "0.1".to_owned(),
            to: "0.2".to_owned(),
            at: String::new(),
            intervals: vec![one; 5],
        }]);
        let text = all.to_markdown();
        assert!(
            text.contains("| +0.0000 |") && text.ends_with("one repeat, without an interval\n"),
            "{text}"
        );
    }

    #[test]
    fn every_form_shows_the_same_comparison() {
        let interval = |mean, half, n| Some(MeanInterval { mean, half, n });
        let intervals = vec![interval(0.01234, Some(0.004), 5), interval(-0.002, Some(0.004), 5), None];
        let one = PairedDifference {
            axis: "augment".to_owned(),
            from: "none".to_owned(),
            to: "ddpm".to_owned(),
            at: "bank=dual, count=50".to_owned(),
            intervals: intervals.into_iter().chain([interval(0.5, None, 1), None]).collect(),
        };
        let all = Differences(vec![one]);
        insta::assert_snapshot!(all.to_markdown(), @r"
        | axis | change | at | image AUROC | image AP | pixel AP |
        | --- | --- | --- | ---: | ---: | ---: |
        | augment | none → ddpm | bank=dual, count=50 | +0.0123 ± 0.0040* | -0.0020 ± 0.0040 | +0.5000 |

        differences, paired over 5 repeats: mean ± half of the 95 % t interval,
        * if it does not contain 0 (not corrected for multiple comparisons)
        ");
        insta::assert_snapshot!(all.to_csv(), @r#"
        axis,from,to,at,image_auroc,image_auroc_low,image_auroc_high,image_auroc_n,image_ap,image_ap_low,image_ap_high,image_ap_n,pixel_auroc,pixel_auroc_low,pixel_auroc_high,pixel_auroc_n,pixel_ap,pixel_ap_low,pixel_ap_high,pixel_ap_n,aupro,aupro_low,aupro_high,aupro_n
        augment,none,ddpm,"bank=dual, count=50",0.01234,0.00834,0.01634,5,-0.002,-0.006,0.002,5,,,,0,0.5,,,1,,,,0
        "#);
    }
}
