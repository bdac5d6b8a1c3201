//! Tables for a screen of a given width: for the terminal, and for every file and pipe that a person reads.
//!
//! A table that does not fit is made narrower in steps, each only if needed: titles and names are wrapped, columns
//! that the caller can spare are left out (and named below the table), the `± deviation` of a number is put under its
//! mean, and what is still too wide is divided into several tables. No number is ever cut. A column without a single entry
//! is not drawn.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table};
use unicode_width::UnicodeWidthStr;

use crate::text::on_one_line;

/// Width of a screen that does not say its own, in columns.
pub const DEFAULT_WIDTH: usize = 80;

/// The narrowest screen that a table is made for, in columns.
const NARROWEST: usize = 30;
/// The width below which a column of text is not wrapped until columns that can be spared are left out (chosen).
const READABLE: usize = 14;
/// The least width of a column of text (chosen).
const LEAST: usize = 8;
/// Columns between two columns of a table.
const GAP: usize = 2;
/// Where a text is wrapped, after the character.
const ENDS_OF_PARTS: &str = " ,;/";
/// Where a text is wrapped if its parts are too long.
const MARKS: &str = "_-=:.[";
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
        let is_used = |column: &usize| self.is_empty() || self.rows.iter().any(|row| !row[*column].is_empty());
        let all: Vec<usize> = (0..self.titles.len()).filter(is_used).collect();
        let mut shown = all.clone();
        let mut left_out = Vec::new();
        for spare in all.iter().copied().filter(|&column| self.titles[column].1 == Column::Spare) {
            if Arrangement::of(self, &shown).fits(width, READABLE) {
                break;
            }
            shown.retain(|&column| column != spare);
            left_out.push(self.titles[spare].0.as_str());
        }
        let mut text = self.draw_columns(&shown, width);
        if !left_out.is_empty() {
            text = format!("{text}\nnot shown for lack of width: {}", left_out.join(", "));
        }
        text
    }

    /// Draws some columns, in several tables if one would be too wide.
    fn draw_columns(&self, shown: &[usize], width: usize) -> String {
        let (plain, stacked) = (Arrangement::of(self, shown), Arrangement::of(self, shown).stacked());
        for (arrangement, least) in [(&plain, READABLE), (&stacked, READABLE), (&stacked, LEAST)] {
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
            let fits = |count: &usize| Arrangement::of(self, &with(*count)).stacked().fits(width, LEAST);
            let count = (1..=rest.len()).take_while(fits).last().unwrap_or(1);
            tables.push(Arrangement::of(self, &with(count)).stacked().draw(width));
            rest = &rest[count..];
        }
        if tables.is_empty() {
            tables.push(Arrangement::of(self, shown).draw(width));
        }
        tables.join("\n")
    }
}

/// Some columns of a table, and whether deviations stand under their means.
struct Arrangement {
    columns: Vec<Column>,
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The widest line of each column, without its title.
    contents: Vec<usize>,
}

impl Arrangement {
    fn of(table: &TextTable, shown: &[usize]) -> Self {
        let titles = shown.iter().map(|&column| table.titles[column].0.clone()).collect();
        let row = |row: &Vec<String>| shown.iter().map(|&column| row[column].clone()).collect();
        let columns = shown.iter().map(|&column| table.titles[column].1).collect();
        Self { columns, titles, rows: table.rows.iter().map(row).collect(), contents: Vec::new() }.measured()
    }

    fn measured(mut self) -> Self {
        let content = |column: usize| self.rows.iter().map(|row| width_of(&row[column])).max().unwrap_or(0);
        self.contents = (0..self.columns.len()).map(content).collect();
        self
    }

    /// The same with every deviation under its mean.
    fn stacked(mut self) -> Self {
        for row in &mut self.rows {
            for (cell, column) in row.iter_mut().zip(&self.columns) {
                if *column == Column::Number {
                    *cell = cell.replace(PLUS_MINUS, "\n±");
                }
            }
        }
        self.measured()
    }

    /// The width of a column whose title is wrapped at every space.
    fn least(&self, column: usize, readable: usize) -> usize {
        let title = self.titles[column].split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0);
        match self.columns[column] {
            Column::Text => self.contents[column].min(readable).max(title),
            Column::Word | Column::Spare | Column::Number => self.contents[column].max(title),
        }
    }

    /// The width of a column that is wrapped nowhere.
    fn natural(&self, column: usize) -> usize {
        self.contents[column].max(self.titles[column].width())
    }

    fn gaps(&self) -> usize {
        GAP * self.columns.len().saturating_sub(1)
    }

    fn fits(&self, width: usize, readable: usize) -> bool {
        let columns = 0..self.columns.len();
        columns.map(|column| self.least(column, readable)).sum::<usize>() + self.gaps() <= width
    }

    /// The width of each column: as wide as it wants to be if all fit. Else the titles of numbers are wrapped, and the
    /// columns of text that want more than a common limit have that limit.
    fn widths(&self, width: usize) -> Vec<usize> {
        let columns = 0..self.columns.len();
        let natural: Vec<usize> = columns.clone().map(|column| self.natural(column)).collect();
        let at = |limit: usize| -> Vec<usize> {
            let wanted =
                |column: usize| if self.columns[column] == Column::Text { natural[column] } else { 0 };
            columns.clone().map(|column| wanted(column).min(limit).max(self.least(column, LEAST))).collect()
        };
        let fits = |widths: &Vec<usize>| widths.iter().sum::<usize>() + self.gaps() <= width;
        if fits(&natural) {
            return natural;
        }
        (1..=width).rev().map(at).find(fits).unwrap_or_else(|| at(1))
    }

    fn draw(&self, width: usize) -> String {
        let widths = self.widths(width);
        let mut table = Table::new();
        table
            .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(self.cells(&self.titles, &widths));
        for row in &self.rows {
            table.add_row(self.cells(row, &widths));
        }
        let last = self.columns.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            // The style has a column between two paddings.
            column.set_padding((0, if index == last { 0 } else { GAP as u16 - 1 }));
        }
        table.trim_fmt()
    }

    fn cells(&self, texts: &[String], widths: &[usize]) -> Vec<Cell> {
        let cell = |((text, column), width): ((&String, &Column), &usize)| {
            let is_number = *column == Column::Number;
            let align = if is_number { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(wrapped(text, *width).join("\n")).set_alignment(align)
        };
        texts.iter().zip(&self.columns).zip(widths).map(cell).collect()
    }
}

/// The width of the widest line of a text.
fn width_of(text: &str) -> usize {
    text.split('\n').map(UnicodeWidthStr::width).max().unwrap_or(0)
}

/// Wraps a text to lines of at most `width` columns: after a space, a comma or a slash; what is too long for that after
/// another mark of punctuation, and else anywhere.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    text.split('\n').flat_map(|line| wrapped_at(line, width, &[ENDS_OF_PARTS, MARKS])).collect()
}

/// Wraps a line after the marks of the first group, and pieces that are too long after those of the next one.
fn wrapped_at(line: &str, width: usize, marks: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    let pieces: Vec<&str> = match marks {
        [first, ..] => line.split_inclusive(|letter| first.contains(letter)).collect(),
        [] => line.split_inclusive(|_| true).collect(),
    };
    for piece in pieces {
        let begun = lines.last().map_or(0, |line| line.width());
        let length = piece.trim_end().width();
        if begun + length <= width {
            lines.last_mut().into_iter().for_each(|line| line.push_str(piece));
        } else if length <= width || marks.is_empty() {
            lines.push(piece.to_owned());
        } else {
            lines.extend(wrapped_at(piece, width, &marks[1..]));
        }
    }
    let is_first_empty = lines.len() > 1 && lines[0].is_empty();
    lines.into_iter().skip(usize::from(is_first_empty)).map(|line| line.trim_end().to_owned()).collect()
}

/// Wraps every line of a text that is longer than `width` at its spaces. What follows is indented by `indent` more than
/// the line. A word that is too long stays whole, so that paths and commands can be copied.
pub fn filled(text: &str, width: usize, indent: usize) -> String {
    let fill = |line: &str| {
        let margin = line.len() - line.trim_start().len();
        let (mut lines, mut begun) = (Vec::new(), String::new());
        for piece in line.split_inclusive(' ') {
            if begun.width() + piece.trim_end().width() > width && !begun.trim().is_empty() {
                lines.push(std::mem::replace(&mut begun, " ".repeat(margin + indent)).trim_end().to_owned());
            }
            begun.push_str(piece);
        }
        lines.push(begun);
        lines.join("\n")
    };
    text.split('\n').map(fill).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
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
    fn text_is_wrapped_after_punctuation_if_it_can_be() {
        let cases = [
            ("bank=single,augment=none", 13, vec!["bank=single,", "augment=none"]),
            ("wide_resnet50_2", 10, vec!["wide_", "resnet50_2"]),
            ("bank=dual,augment=cutpaste", 16, vec!["bank=dual,", "augment=cutpaste"]),
            ("features[augmented]", 14, vec!["features[", "augmented]"]),
            ("quickstart/20261129-021649-29876", 17, vec!["quickstart/", "20261129-021649-", "29876"]),
            ("waits for `images`", 10, vec!["waits for", "`images`"]),
            ("abcdefgh", 3, vec!["abc", "def", "gh"]),
            ("fits", 4, vec!["fits"]),
            ("漢字漢字", 5, vec!["漢字", "漢字"]),
            ("", 5, vec![""]),
        ];
        for (text, width, lines) in cases {
            assert_eq!(wrapped(text, width), lines, "{text} at {width}");
        }
    }

    #[test]
    fn prose_is_wrapped_at_spaces_alone() {
        let text = "  4 variants, 16 tasks: all cached\nshort\n/a/path/that/is/too/long for it";
        let shown = "  4 variants,\n    16 tasks:\n    all cached\nshort\n/a/path/that/is/too/long\n  for it";
        assert_eq!(filled(text, 15, 2), shown);
        assert_eq!(filled(text, 80, 2), text);
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
