//! Some columns of a table on a screen: how wide each is, and how they are drawn.

use std::borrow::Cow;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table};
use unicode_width::UnicodeWidthStr;

use super::wrapping::wrapped;
use super::{Column, LEAST, PLUS_MINUS, TextTable};

/// Columns between two columns of a table.
const GAP: usize = 2;

/// The widest line of each column of a table, without its title: of its cells as they are, and with every deviation under
/// its mean.
pub(super) struct Contents {
    plain: Vec<usize>,
    stacked: Vec<usize>,
}

impl Contents {
    pub(super) fn of(table: &TextTable) -> Self {
        let widest = |width: &dyn Fn(&[String], usize) -> usize| -> Vec<usize> {
            let of_column = |column| table.rows.iter().map(|row| width(row, column)).max().unwrap_or(0);
            (0..table.titles.len()).map(of_column).collect()
        };
        Self {
            plain: widest(&|row, column| width_of(&row[column])),
            stacked: widest(&|row, column| width_of(&stacked(table, row, column))),
        }
    }
}

/// Returns a cell with the deviation under the mean.
fn stacked<'a>(table: &TextTable, row: &'a [String], column: usize) -> Cow<'a, str> {
    let cell = &row[column];
    if table.titles[column].1 == Column::Number && cell.contains(PLUS_MINUS) {
        cell.replace(PLUS_MINUS, "\n±").into()
    } else {
        cell.into()
    }
}

/// Some columns of a table, and whether deviations stand under their means.
#[derive(Clone, Copy)]
pub(super) struct Arrangement<'a> {
    table: &'a TextTable,
    contents: &'a Contents,
    /// The indices of the columns.
    shown: &'a [usize],
    is_stacked: bool,
}

impl<'a> Arrangement<'a> {
    pub(super) fn of(table: &'a TextTable, contents: &'a Contents, shown: &'a [usize]) -> Self {
        Self { table, contents, shown, is_stacked: false }
    }

    /// The same with every deviation under its mean.
    pub(super) fn stacked(self) -> Self {
        Self { is_stacked: true, ..self }
    }

    fn column(&self, column: usize) -> (&'a str, Column) {
        let (title, column) = &self.table.titles[column];
        (title, *column)
    }

    /// The widest line of a column, without its title.
    fn content(&self, column: usize) -> usize {
        if self.is_stacked { self.contents.stacked[column] } else { self.contents.plain[column] }
    }

    /// The width of a column whose title is wrapped at every space.
    fn least(&self, column: usize, readable: usize) -> usize {
        let (title, kind) = self.column(column);
        let title = title.split(' ').map(UnicodeWidthStr::width).max().unwrap_or(0);
        match kind {
            Column::Text => self.content(column).min(readable).max(title),
            Column::Word | Column::Spare | Column::Number => self.content(column).max(title),
        }
    }

    /// The width of a column that is wrapped nowhere.
    fn natural(&self, column: usize) -> usize {
        self.content(column).max(self.column(column).0.width())
    }

    fn gaps(&self) -> usize {
        GAP * self.shown.len().saturating_sub(1)
    }

    pub(super) fn fits(&self, width: usize, readable: usize) -> bool {
        let columns = self.shown.iter();
        columns.map(|&column| self.least(column, readable)).sum::<usize>() + self.gaps() <= width
    }

    /// The width of each column: as wide as it wants to be if all fit. Else the titles of numbers are wrapped, and the
    /// columns of text that want more than a common limit have that limit.
    fn widths(&self, width: usize) -> Vec<usize> {
        let natural: Vec<usize> = self.shown.iter().map(|&column| self.natural(column)).collect();
        let at = |limit: usize| -> Vec<usize> {
            let width = |(&column, &natural): (&usize, &usize)| {
                let wanted = if self.column(column).1 == Column::Text { natural } else { 0 };
                wanted.min(limit).max(self.least(column, LEAST))
            };
            self.shown.iter().zip(&natural).map(width).collect()
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
            .set_header(self.cells(&widths, |column| self.column(column).0.into()));
        for row in &self.table.rows {
            let text = |column: usize| {
                if self.is_stacked { stacked(self.table, row, column) } else { Cow::from(&row[column]) }
            };
            table.add_row(self.cells(&widths, text));
        }
        let last = self.shown.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            // The style has a column between two paddings.
            column.set_padding((0, if index == last { 0 } else { GAP as u16 - 1 }));
        }
        table.trim_fmt()
    }

    fn cells<'t>(&self, widths: &[usize], text: impl Fn(usize) -> Cow<'t, str>) -> Vec<Cell> {
        let cell = |(&column, &width): (&usize, &usize)| {
            let is_number = self.column(column).1 == Column::Number;
            let align = if is_number { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(wrapped(&text(column), width).join("\n")).set_alignment(align)
        };
        self.shown.iter().zip(widths).map(cell).collect()
    }
}

/// The width of the widest line of a text.
fn width_of(text: &str) -> usize {
    text.split('\n').map(UnicodeWidthStr::width).max().unwrap_or(0)
}
