//! What a reader of a run's table has to know: the warnings of the stages that it rests on, and axis values that make no
//! difference. They stand below the table, on the terminal and in `table.md`.

use std::collections::BTreeMap;

use super::summary::RunSummary;

/// The most lines below a table on the terminal; `table.md` has all.
const SHOWN_LINES: usize = 12;

/// The warnings below a run's table, each once.
#[derive(Clone, Debug, PartialEq)]
pub struct TableWarnings(Vec<String>);

impl TableWarnings {
    /// Collects the warnings of a run.
    pub fn new(summary: &RunSummary) -> Self {
        let mut lines: Vec<String> = summary.equal_values.iter().map(ToString::to_string).collect();
        let mut tasks: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let mut order = Vec::new();
        for task in &summary.ended {
            for notice in task.notices.iter().filter(|notice| notice.is_warning) {
                let of_notice = tasks.entry((&task.task, &notice.text)).or_insert_with(|| {
                    order.push((task.task.as_str(), notice.text.as_str()));
                    Vec::new()
                });
                of_notice.push(&task.values);
            }
        }
        for (task, text) in order {
            let of = match tasks[&(task, text)][..] {
                [""] => String::new(),
                [values] => format!(" ({values})"),
                ref several => format!(" ({} tasks)", several.len()),
            };
            lines.push(format!("`{task}`{of}: {text}"));
        }
        Self(lines)
    }

    /// Returns the lines for the terminal.
    pub fn lines(&self) -> Vec<String> {
        let left_out = self.0.len().saturating_sub(SHOWN_LINES);
        let mut lines: Vec<String> =
            self.0.iter().take(SHOWN_LINES).map(|line| format!("warning: {line}")).collect();
        if left_out > 0 {
            lines.push(format!("{left_out} more warnings: table.md"));
        }
        lines
    }

    /// Renders the lines as Markdown, to follow the table; empty without any.
    pub fn to_markdown(&self) -> String {
        let lines: Vec<String> = self.0.iter().map(|line| format!("- warning: {line}\n")).collect();
        if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Outcome;
    use crate::plan::{EqualValues, Notice};
    use crate::report::TaskSummary;

    #[test]
    fn each_warning_is_shown_once_with_the_tasks_that_have_it() {
        let task = |values: &str, is_warning: bool, text: &str| TaskSummary {
            task: "bank".to_owned(),
            values: values.to_owned(),
            notices: vec![Notice { is_warning, text: text.to_owned() }],
            stage: "bank".to_owned(),
            kind: "coreset".to_owned(),
            key: None,
            outcome: Outcome::Executed,
            seconds: 0.0,
        };
        let mut summary = RunSummary {
            ended: vec![
                task("k=1", true, "few"),
                task("k=2", true, "none"),
                task("k=3", true, "few"),
                task("", false, "a note"),
            ],
            equal_values: vec![EqualValues {
                axis: "k".to_owned(),
                values: vec!["1".to_owned(), "3".to_owned()],
            }],
            ..RunSummary::default()
        };
        let warnings = TableWarnings::new(&summary);
        insta::assert_snapshot!(warnings.to_markdown(), @r"
        - warning: the values `1` and `3` of the axis `k` make no difference
        - warning: `bank` (2 tasks): few
        - warning: `bank` (k=2): none
        ");
        assert_eq!(warnings.lines().len(), 3);
        summary.ended = (0..20).map(|text| task("", true, &text.to_string())).collect();
        let lines = TableWarnings::new(&summary).lines();
        assert_eq!((lines.len(), lines[12].as_str()), (13, "9 more warnings: table.md"));
        assert_eq!(TableWarnings::new(&RunSummary::default()).to_markdown(), "");
    }
}
