//! Some columns of a table on a screen: how wide each is, and how they are drawn.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table};
use unicode_width::UnicodeWidthStr;

use super::wrapping::wrapped;
use super::{Column, LEAST, PLUS_MINUS, TextTable};

/// Columns between two columns of a table.
const GAP: usize = 2;

/// Some columns of a table, and whether deviations stand under their means.
pub(super) struct Arrangement {
    columns: Vec<Column>,
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The widest line of each column, without its title.
    contents: Vec<usize>,
}

impl Arrangement {
    pub(super) fn of(table: &TextTable, shown: &[usize]) -> Self {
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
    pub(super) fn stacked(mut self) -> Self {
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

    pub(super) fn fits(&self, width: usize, readable: usize) -> bool {
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

    pub(super) fn draw(&self, width: usize) -> String {
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
