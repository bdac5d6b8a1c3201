//! The table of a run: one row for each combination of axes, metrics as mean ± standard deviation over
//! repeats; the same rows as text, Markdown, CSV and LaTeX.

use std::fmt::Write as _;

use super::statistics::{Summary, summarise};
use super::text_table::{Column, PLUS_MINUS, TextTable};
use crate::artifacts::files::csv_field;
use crate::artifacts::scores::Metrics;
use crate::engine::{Outcome, Run};
use crate::plan::{Plan, PlanVariant};

/// The metrics that the table shows: title, and name in [`Metrics::NAMED`].
pub(super) const SHOWN: [(&str, &str); 5] = [
    ("image AUROC", "image_auroc"),
    ("image AP", "image_ap"),
    ("pixel AUROC", "pixel_auroc"),
    ("pixel AP", "pixel_ap"),
    ("AUPRO", "aupro"),
];

/// What a cell shows if the evaluations have no such metric.
const NOT_MEASURED: &str = "-";

/// One metric of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum ResultCell {
    /// Statistics over the repeats that have a value.
    Value(Summary),
    /// No repeat has a value: `failed`, `blocked`, or `-` if the metric is not defined on the data.
    Missing(&'static str),
}

/// The results of a run as a table.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultTable {
    /// Titles of the leading columns: the axes.
    pub axes: Vec<String>,
    /// The rows: axis values, a cell for each shown metric, and the number of repeats without metrics.
    pub rows: Vec<(Vec<String>, Vec<ResultCell>, usize)>,
}

/// The axis values of a row, the metrics of each repeat, and the word shown if all are missing.
type Repeats = (Vec<String>, Vec<Option<Metrics>>, &'static str);

/// Builds the table of a run. `metrics` returns the metrics of a task of the plan.
pub fn variant_table(plan: &Plan, run: &Run, metrics: &dyn Fn(usize) -> Option<Metrics>) -> ResultTable {
    let mut rows: Vec<Repeats> = Vec::new();
    let has_several = plan.variants.iter().any(|variant| evaluations(plan, variant).len() > 1);
    let mut counted = std::collections::BTreeSet::new();
    for variant in &plan.variants {
        for task in evaluations(plan, variant) {
            let mut values: Vec<String> = (variant.values.iter())
                .filter(|(axis, _)| plan.axes.contains(axis))
                .map(|(_, value)| value.clone())
                .collect();
            if has_several {
                values.push(plan.tasks[task].stage.clone());
            }
            let why = if run.tasks[task].outcome == Outcome::Failed { "failed" } else { "blocked" };
            // Repeats whose seed reaches no stage share one result, which counts once.
            if !counted.insert((values.clone(), task)) {
                continue;
            }
            let found = metrics(task);
            match rows.iter_mut().find(|row| row.0 == values) {
                Some(row) => {
                    row.1.push(found);
                    row.2 = why;
                }
                None => rows.push((values, vec![found], why)),
            }
        }
    }
    let mut axes = plan.axes.clone();
    if has_several {
        axes.push("stage".to_owned());
    }
    let row = |(values, repeats, why): Repeats| {
        let missing = repeats.iter().filter(|metrics| metrics.is_none()).count();
        let cells = SHOWN.iter().map(|&(_, name)| cell(&repeats, name, why)).collect();
        (values, cells, missing)
    };
    ResultTable { axes, rows: rows.into_iter().map(row).collect() }
}

/// Returns the tasks that evaluate a variant.
pub(super) fn evaluations(plan: &Plan, variant: &PlanVariant) -> Vec<usize> {
    let tasks = variant.shown.iter().map(|id| id.0);
    tasks.filter(|&task| plan.tasks[task].spec.about().is_target).collect()
}

/// Returns the metric with this name in `metrics.json`.
pub(super) fn value_of(metrics: &Metrics, name: &str) -> Option<f64> {
    metrics.named().iter().find(|(known, _)| *known == name).map(|&(_, value)| value)
}

fn cell(repeats: &[Option<Metrics>], name: &str, why: &'static str) -> ResultCell {
    let values: Vec<f64> = repeats.iter().flatten().filter_map(|metrics| value_of(metrics, name)).collect();
    let why = if repeats.iter().any(Option::is_some) { NOT_MEASURED } else { why };
    summarise(&values).map_or(ResultCell::Missing(why), ResultCell::Value)
}

impl ResultCell {
    fn text(&self, plus_minus: &str) -> String {
        match self {
            Self::Missing(why) => (*why).to_owned(),
            Self::Value(Summary { mean, deviation: None, .. }) => format!("{mean:.4}"),
            Self::Value(Summary { mean, deviation: Some(sd), .. }) => format!("{mean:.4}{plus_minus}{sd:.4}"),
        }
    }
}

impl ResultTable {
    /// The indices in [`SHOWN`] of the metrics that tables for readers show. A metric that every evaluation lacks is left
    /// out: those of pixels, if no defect has a mask. The evaluations warn of that, and the warning stands below the table.
    fn measured(&self) -> Vec<usize> {
        let has_value = |index: &usize| {
            let mut cells = self.rows.iter().map(|(_, cells, _)| &cells[*index]);
            let is_absent = |cell: &ResultCell| *cell == ResultCell::Missing(NOT_MEASURED);
            cells.clone().any(|cell| matches!(cell, ResultCell::Value(_))) || !cells.any(is_absent)
        };
        (0..SHOWN.len()).filter(has_value).collect()
    }

    fn titles(&self) -> Vec<String> {
        let shown = self.measured().into_iter().map(|index| SHOWN[index].0.to_owned());
        self.axes.iter().cloned().chain(shown).collect()
    }

    fn texts<'a>(&'a self, plus_minus: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
        let measured = self.measured();
        self.rows.iter().map(move |(values, cells, _)| {
            let shown = measured.iter().map(|&index| cells[index].text(plus_minus));
            values.iter().cloned().chain(shown).collect()
        })
    }

    /// Returns the largest number of repeats in a row, for the caption; 0 without rows.
    pub fn repeats(&self) -> usize {
        let n = |cell: &ResultCell| if let ResultCell::Value(summary) = cell { summary.n } else { 0 };
        self.rows.iter().flat_map(|(_, cells, _)| cells.iter().map(n)).max().unwrap_or(0)
    }

    /// Whether any cell has a value.
    pub fn has_values(&self) -> bool {
        self.rows.iter().any(|(_, cells, _)| cells.iter().any(|cell| matches!(cell, ResultCell::Value(_))))
    }

    /// Returns the number of repeats without metrics, over all rows.
    pub fn missing(&self) -> usize {
        self.rows.iter().map(|(_, _, missing)| missing).sum()
    }

    /// Renders the table for a screen of this many columns.
    pub fn to_text(&self, width: usize) -> String {
        let column = |index: usize| if index < self.axes.len() { Column::Text } else { Column::Number };
        let titles = self.titles().into_iter().enumerate().map(|(index, title)| (title, column(index)));
        let mut table = TextTable::new(titles);
        self.texts(PLUS_MINUS).for_each(|row| table.add(row));
        table.draw(width)
    }

    /// Renders the table as Markdown.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let titles = self.titles();
        let rule: Vec<String> = (0..titles.len())
            .map(|column| if column < self.axes.len() { "---" } else { "---:" }.to_owned())
            .collect();
        let rows: String = self.texts(PLUS_MINUS).map(|row| line(&row)).collect();
        line(&titles) + &line(&rule) + &rows
    }

    /// Renders the table as CSV: mean, standard deviation and count of each metric, unrounded. Every metric has its
    /// columns, also if no row has it.
    pub fn to_csv(&self) -> String {
        let mut titles = self.axes.clone();
        for (_, name) in SHOWN {
            titles.extend([name.to_owned(), format!("{name}_sd"), format!("{name}_n")]);
        }
        let mut text = titles.join(",") + "\n";
        for (values, cells, _) in &self.rows {
            let mut row: Vec<String> = values.iter().map(|value| csv_field(value).into_owned()).collect();
            for cell in cells {
                row.extend(match cell {
                    ResultCell::Value(Summary { mean, deviation, n }) => [
                        mean.to_string(),
                        deviation.map_or(String::new(), |sd| sd.to_string()),
                        n.to_string(),
                    ],
                    ResultCell::Missing(_) => [String::new(), String::new(), "0".to_owned()],
                });
            }
            text += &(row.join(",") + "\n");
        }
        text
    }

    /// Renders the table as LaTeX (`booktabs`).
    pub fn to_latex(&self) -> String {
        let measured = self.measured();
        let columns = "l".repeat(self.axes.len()) + &"r".repeat(measured.len());
        let escape = |text: &String| {
            let mut escaped = String::new();
            for letter in text.chars() {
                if "&%$#_{}".contains(letter) {
                    escaped.push('\\');
                }
                escaped.push(letter);
            }
            escaped
        };
        let mut text = format!("\\begin{{tabular}}{{{columns}}}\n\\toprule\n");
        let line = |cells: &[String]| cells.join(" & ") + " \\\\\n";
        text += &line(&self.titles().iter().map(escape).collect::<Vec<_>>());
        text += "\\midrule\n";
        for (values, cells, _) in &self.rows {
            let cells = measured.iter().map(|&index| match &cells[index] {
                ResultCell::Missing(NOT_MEASURED) => "--".to_owned(),
                ResultCell::Missing(why) => format!("\\textit{{{why}}}"),
                cell @ ResultCell::Value(_) => format!("${}$", cell.text(" \\pm ")),
            });
            let row: Vec<String> = values.iter().map(escape).chain(cells).collect();
            let _ = write!(text, "{}", line(&row));
        }
        text + "\\bottomrule\n\\end{tabular}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ResultTable {
        let summary = |mean, deviation, n| ResultCell::Value(Summary { mean, deviation, n });
        let cells = vec![summary(0.5, Some(0.01), 3), summary(0.25, None, 1)];
        let rest =
            [ResultCell::Missing("failed"), ResultCell::Missing("failed"), ResultCell::Missing("blocked")];
        let row = (vec!["wide_resnet50_2".to_owned()], cells.into_iter().chain(rest).collect(), 2);
        ResultTable { axes: vec!["backbone".to_owned()], rows: vec![row] }
    }

    /// A metric of another name would have no value, and its cells would read `blocked`.
    #[test]
    fn every_shown_metric_has_a_value() {
        for (title, name) in SHOWN {
            assert!(Metrics::NAMED.iter().any(|(known, _)| *known == name), "`{title}` shows `{name}`");
        }
    }

    #[test]
    fn every_form_shows_the_same_row() {
        insta::assert_snapshot!(table().to_markdown(), @r"
        | backbone | image AUROC | image AP | pixel AUROC | pixel AP | AUPRO |
        | --- | ---: | ---: | ---: | ---: | ---: |
        | wide_resnet50_2 | 0.5000 ± 0.0100 | 0.2500 | failed | failed | blocked |
        ");
        insta::assert_snapshot!(table().to_latex(), @r"
        \begin{tabular}{lrrrrr}
        \toprule
        backbone & image AUROC & image AP & pixel AUROC & pixel AP & AUPRO \\
        \midrule
        wide\_resnet50\_2 & $0.5000 \pm 0.0100$ & $0.2500$ & \textit{failed} & \textit{failed} & \textit{blocked} \\
        \bottomrule
        \end{tabular}
        ");
        assert!(table().to_csv().ends_with("wide_resnet50_2,0.5,0.01,3,0.25,,1,,,0,,,0,,,0\n"));
    }

    /// Two evaluations without masks, and one that failed.
    fn without_masks() -> ResultTable {
        let value = |mean| ResultCell::Value(Summary { mean, deviation: None, n: 1 });
        let absent = || ResultCell::Missing(NOT_MEASURED);
        let row = |name: &str, mean| {
            (vec![name.to_owned()], vec![value(mean), value(mean), absent(), absent(), absent()], 0)
        };
        let failed = (vec!["c".to_owned()], vec![ResultCell::Missing("failed"); 5], 1);
        ResultTable { axes: vec!["bank".to_owned()], rows: vec![row("a", 0.5), row("b", 0.75), failed] }
    }

    #[test]
    fn metrics_that_no_evaluation_has_are_left_out() {
        insta::assert_snapshot!(without_masks().to_markdown(), @r"
        | bank | image AUROC | image AP |
        | --- | ---: | ---: |
        | a | 0.5000 | 0.5000 |
        | b | 0.7500 | 0.7500 |
        | c | failed | failed |
        ");
        let text = without_masks().to_text(80);
        assert!(!text.contains("pixel") && !text.contains(" -"), "{text}");
        let latex = without_masks().to_latex();
        assert!(latex.starts_with("\\begin{tabular}{lrr}\n") && !latex.contains("--"), "{latex}");
        assert!(without_masks().to_csv().contains("aupro_n\n"), "columns for programs are always there");
    }

    #[test]
    fn a_metric_that_one_evaluation_has_stays() {
        let mut table = without_masks();
        table.rows[1].1[4] = ResultCell::Value(Summary { mean: 0.25, deviation: None, n: 1 });
        assert_eq!(table.titles(), ["bank", "image AUROC", "image AP", "AUPRO"]);
        let mut failed = without_masks();
        failed.rows.drain(..2);
        assert_eq!(failed.titles().len(), 6, "a failure says nothing of masks");
    }
}
