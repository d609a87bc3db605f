//! Tables that go out in pages, so that one of a hundred million rows takes no more memory than one of five hundred.

use std::io;

use comfy_table::{Cell, CellAlignment, Color, Table, presets};

use super::{Sink, is_coloured};

/// Rows that are aligned with each other.
const PAGE_ROWS: usize = 500;

/// A column and how it is set.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Column {
    /// Numbers: to the right.
    Number(&'static str),
    /// Words: to the left.
    Text(&'static str),
}

/// A table under way.
pub(crate) struct Pages {
    columns: Vec<Column>,
    rows: Vec<Vec<(String, bool)>>,
}

impl Pages {
    pub(crate) fn new(columns: &[Column]) -> Pages {
        Pages { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, as many cells as there are columns.
    pub(crate) fn row(&mut self, sink: &mut Sink, cells: Vec<String>) -> io::Result<()> {
        self.row_with_alarms(sink, cells.into_iter().map(|cell| (cell, false)).collect())
    }

    /// The same, each cell with whether it should alarm whoever looks: then it is red, where there are colours.
    pub(crate) fn row_with_alarms(&mut self, sink: &mut Sink, cells: Vec<(String, bool)>) -> io::Result<()> {
        self.rows.push(cells);
        if self.rows.len() == PAGE_ROWS { self.flush(sink) } else { Ok(()) }
    }

    /// Prints what has gathered.
    pub(crate) fn flush(&mut self, sink: &mut Sink) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(self.columns.iter().map(|column| match column {
            Column::Number(name) | Column::Text(name) => *name,
        }));
        for (n, column) in self.columns.iter().enumerate() {
            if let (Column::Number(_), Some(set)) = (column, table.column_mut(n)) {
                set.set_cell_alignment(CellAlignment::Right);
            }
        }
        let has_colours = is_coloured();
        let cell = |(text, is_alarming): (String, bool)| match is_alarming && has_colours {
            true => Cell::new(text).fg(Color::Red),
            false => Cell::new(text),
        };
        table.add_rows(self.rows.drain(..).map(|cells| cells.into_iter().map(cell).collect::<Vec<_>>()));
        sink.line(&table.trim_fmt())
    }
}
