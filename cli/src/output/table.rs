//! Tables without borders.

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, TableStyle};

/// How a row looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// Something is under way.
    Busy,
    /// Something is wrong.
    Bad,
    /// Over and done.
    Past,
}

impl Look {
    /// Of a job's, task's or node's state.
    pub(super) fn of(state: &str) -> Self {
        match state {
            "pending" | "starting" | "stopping" | "updating" | "waiting" | "suspect" | "unknown"
            | "paused" => Look::Busy,
            "failed" | "lost" | "blocked" | "halted" | "gone" => Look::Bad,
            "succeeded" | "stopped" => Look::Past,
            _ => Look::Plain,
        }
    }

    fn style(self) -> Style {
        match self {
            Look::Plain => Style::new(),
            Look::Busy => AnsiColor::Yellow.on_default(),
            Look::Bad => AnsiColor::Red.on_default(),
            Look::Past => Style::new().dimmed(),
        }
    }
}

/// Rows under a head. A column whose name begins with `>` is aligned to the right.
pub(super) struct Table {
    inner: comfy_table::Table,
    looks: Vec<Look>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
        inner.set_header(head.iter().map(|name| name.trim_start_matches('>')));
        for (column, name) in inner.column_iter_mut().zip(head) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Table { inner, looks: Vec::new() }
    }

    pub(super) fn row(&mut self, look: Look, cells: impl IntoIterator<Item = String>) {
        self.inner.add_row(cells.into_iter().collect::<Vec<_>>());
        self.looks.push(look);
    }

    /// The lines; `none` instead if there is no row.
    pub(super) fn render(&self, none: &str) -> String {
        if self.looks.is_empty() {
            return format!("{none}\n");
        }
        let mut text = String::new();
        let bold = Style::new().bold();
        let styles = std::iter::once(bold).chain(self.looks.iter().map(|look| look.style()));
        for (line, style) in self.inner.lines().zip(styles) {
            let line = line.trim_end();
            text.push_str(&format!("{style}{line}{style:#}\n"));
        }
        text
    }
}
