//! A comparison of two runs as text.

use std::fmt::Write as _;

use super::{Comparison, FieldChange, KeyChange, MetricChange, TimeChange, UnpairedGroup};
use crate::report::differences::signed;
use crate::text::counted;

impl Comparison {
    /// Renders the comparison as text; `old` and `new` are the runs' names.
    pub fn to_text(&self, old: &str, new: &str) -> String {
        let mut text = format!("{old} -> {new}  (from the first run to the second)\n");
        if self.equal {
            text += "same metrics, manifest and keys\n";
        }
        for (word, variants) in [("only in the first", &self.removed), ("only in the second", &self.added)] {
            if !variants.is_empty() {
                section(&mut text, &format!("variants {word}"), variants.iter().cloned());
            }
        }
        section(
            &mut text,
            "repeats, none of them in both runs",
            self.unpaired.iter().map(UnpairedGroup::line),
        );
        section(&mut text, "manifest", self.manifest.iter().map(FieldChange::line));
        section(&mut text, "keys", self.keys.iter().map(KeyChange::line));
        section(&mut text, self.metrics_title(), metric_lines(&self.metrics));
        section(&mut text, "seconds", self.seconds.iter().map(TimeChange::line));
        text
    }

    /// The title of the metrics: with repeats, it explains them.
    fn metrics_title(&self) -> &'static str {
        if self.metrics.iter().any(|change| change.repeats > 1) {
            "metrics, mean ± deviation over the repeats of both runs (second minus first)"
        } else if !self.unpaired.is_empty() {
            "metrics, mean ± deviation over the repeats of each run (second minus first)"
        } else {
            "metrics (second minus first)"
        }
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "{title}:");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

fn metric_lines(metrics: &[MetricChange]) -> impl Iterator<Item = String> + '_ {
    let mut last = "";
    metrics.iter().map(move |change| {
        let is_new = change.group != last;
        last = &change.group;
        let head = if is_new { format!("{}\n    ", change.group) } else { "  ".to_owned() };
        let shown = |value: Option<f64>, deviation: Option<f64>| match (value, deviation) {
            (None, _) => "absent".to_owned(),
            (Some(mean), None) => format!("{mean:.4}"),
            (Some(mean), Some(deviation)) => format!("{mean:.4} ± {deviation:.4}"),
        };
        let difference = change.difference.map(|difference| format!("  ({})", signed(difference)));
        let old = shown(change.values.old, change.deviations.old);
        let new = shown(change.values.new, change.deviations.new);
        format!("{head}{:<13} {old} -> {new}{}", change.metric, difference.unwrap_or_default())
    })
}

impl UnpairedGroup {
    fn line(&self) -> String {
        format!("{}: {} -> {}", self.group, self.old, self.new)
    }
}

impl FieldChange {
    fn line(&self) -> String {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
        format!("{}: {} -> {}", self.path, shown(&self.values.old), shown(&self.values.new))
    }
}

impl KeyChange {
    fn line(&self) -> String {
        format!("{}: differs in {} of {}", self.task, self.variants.len(), counted(self.of, "variant"))
    }
}

impl TimeChange {
    fn line(&self) -> String {
        let Self { stage, old, new } = self;
        format!(
            "{stage:<16} {:.2} ({} executed) -> {:.2} ({} executed)",
            old.seconds, old.executed, new.seconds, new.executed
        )
    }
}
