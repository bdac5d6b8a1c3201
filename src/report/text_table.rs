//! Tables for a screen of a given width: for the terminal, and for every file and pipe that a person reads.
//!
//! A table that does not fit is made narrower in steps, each only if needed: titles and names are wrapped, columns
//! that the caller can spare are left out (and named below the table), the `± deviation` of a number is put under its
//! mean, and what is still too wide is divided into several tables. No number is ever cut. A column without a single entry
//! is not drawn.

mod arrangement;
mod wrapping;

use self::arrangement::{Arrangement, Contents};
use crate::text::on_one_line;

pub use wrapping::filled;

/// Width of a screen that does not say its own, in columns.
pub const DEFAULT_WIDTH: usize = 80;

/// The narrowest screen that a table is made for, in columns.
const NARROWEST: usize = 30;
/// The width below which a column of text is not wrapped until columns that can be spared are left out (chosen).
const READABLE: usize = 14;
/// The least width of a column of text (chosen).
const LEAST: usize = 8;
/// What separates a mean from its deviation.
pub(super) const PLUS_MINUS: &str = " ± ";

/// What a column holds, and so how it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Text that may be wrapped.
    Text,
    /// A word that is never wrapped.
    Word,
    /// A word that is left out of a narrow screen; the first such column goes first.
    Spare,
    /// A number, which is never cut.
    Number,
}

/// A table for a screen.
#[derive(Clone, Debug)]
pub struct TextTable {
    titles: Vec<(String, Column)>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Makes a table without rows from the title and content of each column.
    pub fn new<T: Into<String>>(titles: impl IntoIterator<Item = (T, Column)>) -> Self {
        let titles = titles.into_iter().map(|(title, column)| (title.into(), column)).collect();
        Self { titles, rows: Vec::new() }
    }

    /// Adds a row with a cell for each column. A line feed in a cell begins a new line.
    ///
    /// # Panics
    /// If the number of cells is not that of columns.
    pub fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| cell.split('\n').map(on_one_line).collect::<Vec<_>>().join("\n");
        let row: Vec<String> = cells.into_iter().map(shown).collect();
        assert_eq!(row.len(), self.titles.len(), "a cell for each column");
        self.rows.push(row);
    }

    /// Whether the table has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Draws the table on at most `width` columns, or on as many as the names need in columns of 8; the text does not end in
    /// a line feed.
    pub fn draw(&self, width: usize) -> String {
        let width = width.max(NARROWEST);
        let is_used =
            |column: &usize| self.is_empty() || self.rows.iter().any(|row| !row[*column].is_empty());
        let all: Vec<usize> = (0..self.titles.len()).filter(is_used).collect();
        let contents = Contents::of(self);
        let mut shown = all.clone();
        let mut left_out = Vec::new();
        for spare in all.iter().copied().filter(|&column| self.titles[column].1 == Column::Spare) {
            if Arrangement::of(self, &contents, &shown).fits(width, READABLE) {
                break;
            }
            shown.retain(|&column| column != spare);
            left_out.push(self.titles[spare].0.as_str());
        }
        let mut text = self.draw_columns(&shown, &contents, width);
        if !left_out.is_empty() {
            text = format!("{text}\nnot shown for lack of width: {}", left_out.join(", "));
        }
        text
    }

    /// Draws some columns, in several tables if one would be too wide.
    fn draw_columns(&self, shown: &[usize], contents: &Contents, width: usize) -> String {
        let plain = Arrangement::of(self, contents, shown);
        let stacked = plain.stacked();
        for (arrangement, least) in [(plain, READABLE), (stacked, READABLE), (stacked, LEAST)] {
            if arrangement.fits(width, least) {
                return arrangement.draw(width);
            }
        }
        let is_number = |column: &usize| self.titles[*column].1 == Column::Number;
        let (numbers, names): (Vec<usize>, Vec<usize>) = shown.iter().partition(|column| is_number(column));
        let mut tables = Vec::new();
        let mut rest = numbers.as_slice();
        while let [_, ..] = rest {
            let with = |count: usize| -> Vec<usize> { [names.as_slice(), &rest[..count]].concat() };
            let fits =
                |count: &usize| Arrangement::of(self, contents, &with(*count)).stacked().fits(width, LEAST);
            let count = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
            tables.push(Arrangement::of(self, contents, &with(count)).stacked().draw(width));
            rest = &rest[count..];
        }
        if tables.is_empty() {
            tables.push(plain.draw(width));
        }
        tables.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn results() -> TextTable {
        let metrics = ["image AUROC", "image AP", "pixel AUROC", "pixel AP", "AUPRO"];
        let titles = ["backbone", "bank", "augment", "ratio"].map(|title| (title, Column::Text));
        let mut table = TextTable::new(titles.into_iter().chain(metrics.map(|m| (m, Column::Number))));
        for (bank, mean) in [("single", 0.9414), ("dual", 0.9528)] {
            let names = ["wide_resnet50_2", bank, "cutpaste", "0.001"].map(str::to_owned);
            table.add(names.into_iter().chain((0..5).map(|metric| format!("{mean:.4} ± 0.012{metric}"))));
        }
        table
    }

    fn widest(text: &str) -> usize {
        text.lines().map(UnicodeWidthStr::width).max().unwrap()
    }

    #[test]
    fn every_width_shows_every_number_whole_and_fits() {
        for width in 46..=160 {
            let text = results().draw(width);
            assert!(widest(&text) <= width, "{width}:\n{text}");
            for number in ["0.9414", "0.9528", "0.0120", "0.0121", "0.0122", "0.0123", "0.0124"] {
                let times = if number.starts_with("0.9") { 5 } else { 2 };
                assert_eq!(text.matches(number).count(), times, "{number} at {width}:\n{text}");
            }
        }
    }

    #[test]
    fn a_wide_screen_has_one_line_for_a_row_and_no_rule_between_rows() {
        insta::assert_snapshot!(results().draw(140), @"
        ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        backbone         bank    augment   ratio      image AUROC         image AP      pixel AUROC         pixel AP            AUPRO
        ═════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════════
        wide_resnet50_2  single  cutpaste  0.001  0.9414 ± 0.0120  0.9414 ± 0.0121  0.9414 ± 0.0122  0.9414 ± 0.0123  0.9414 ± 0.0124
        wide_resnet50_2  dual    cutpaste  0.001  0.9528 ± 0.0120  0.9528 ± 0.0121  0.9528 ± 0.0122  0.9528 ± 0.0123  0.9528 ± 0.0124
        ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
        ");
    }

    #[test]
    fn a_screen_of_80_columns_has_the_deviations_below() {
        insta::assert_snapshot!(results().draw(80), @"
        ────────────────────────────────────────────────────────────────────────────────
        backbone    bank    augment   ratio    image    image    pixel    pixel    AUPRO
                                               AUROC       AP    AUROC       AP
        ════════════════════════════════════════════════════════════════════════════════
        wide_       single  cutpaste  0.001   0.9414   0.9414   0.9414   0.9414   0.9414
        resnet50_2                           ±0.0120  ±0.0121  ±0.0122  ±0.0123  ±0.0124
        wide_       dual    cutpaste  0.001   0.9528   0.9528   0.9528   0.9528   0.9528
        resnet50_2                           ±0.0120  ±0.0121  ±0.0122  ±0.0123  ±0.0124
        ────────────────────────────────────────────────────────────────────────────────
        ");
    }

    #[test]
    fn columns_that_can_be_spared_are_left_out_in_order_and_named() {
        let titles = [("task", Column::Text), ("kind", Column::Spare), ("key", Column::Spare)];
        let mut table = TextTable::new(titles.into_iter().chain([("takes", Column::Number)]));
        let row = ["features[augmented]", "preprocess", "27bc0d56a724", "6.00-24 s"];
        table.add(row.map(str::to_owned));
        assert!(!table.draw(60).contains("not shown"));
        assert!(table.draw(50).ends_with("not shown for lack of width: kind"), "{}", table.draw(50));
        assert!(table.draw(30).ends_with("not shown for lack of width: kind, key"), "{}", table.draw(30));
        assert!(table.draw(30).contains("6.00-24 s"));
    }

    #[test]
    fn a_table_without_numbers_or_rows_is_drawn() {
        let mut table = TextTable::new([("a name", Column::Text), ("another", Column::Text)]);
        assert!(widest(&table.draw(30)) <= 30);
        table.add(["x".repeat(100), "y\u{1b}".to_owned()]);
        let text = table.draw(30);
        assert!(widest(&text) <= 30 && !text.contains('\u{1b}'), "{text}");
        assert_eq!(text.matches('x').count(), 100);
    }
}
