//! Tables that fit a width: where it is too small, whole columns are left out, the least important first.

/// A column: its head, its cells, and how soon it is left out.
pub(super) struct Column {
    head: String,
    /// The larger the sooner.
    spare: u8,
    right: bool,
    cells: Vec<String>,
}

impl Column {
    /// A head that begins with `>` is aligned to the right.
    pub(super) fn new(spare: u8, head: &str, cells: impl Iterator<Item = String>) -> Column {
        let (right, head) = (head.starts_with('>'), head.trim_start_matches('>').to_owned());
        Column { head, spare, right, cells: cells.collect() }
    }

    fn width(&self) -> usize {
        self.cells.iter().chain([&self.head]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    fn cell(&self, row: Option<usize>) -> String {
        let (text, width) = (row.map_or(&self.head, |row| &self.cells[row]), self.width());
        if self.right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    }
}

/// Between two columns.
const GAP: &str = "  ";

/// The head, and the first `rows` rows.
pub(super) fn grid(mut columns: Vec<Column>, width: usize, rows: usize) -> (String, Vec<String>) {
    let needs = |columns: &[Column]| {
        columns.iter().map(Column::width).sum::<usize>() + GAP.len() * columns.len().saturating_sub(1)
    };
    while columns.len() > 1 && needs(&columns) > width {
        let least = columns.iter().enumerate().max_by_key(|(n, column)| (column.spare, *n));
        let Some((least, _)) = least else { break };
        columns.remove(least);
    }
    let line = |row: Option<usize>| {
        let cells: Vec<String> = columns.iter().map(|column| column.cell(row)).collect();
        cut(cells.join(GAP).trim_end(), width)
    };
    let count = columns.first().map_or(0, |column| column.cells.len()).min(rows);
    (line(None), (0..count).map(|row| line(Some(row))).collect())
}

/// No more than fits on a line.
pub(super) fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(width: usize, rows: usize) -> Vec<String> {
        let cells = |texts: [&'static str; 2]| texts.into_iter().map(str::to_owned);
        let columns = vec![
            Column::new(0, "NAME", cells(["n1", "a-longer-one"])),
            Column::new(2, ">A", cells(["1", "100"])),
            Column::new(1, ">BB", cells(["2", "3"])),
        ];
        let (head, lines) = grid(columns, width, rows);
        [vec![head], lines].concat()
    }

    #[test]
    fn columns_go_where_the_width_is_too_small() {
        assert_eq!(shown(80, 9), ["NAME            A  BB", "n1              1   2", "a-longer-one  100   3"]);
        assert_eq!(shown(20, 9), ["NAME          BB", "n1             2", "a-longer-one   3"]);
        assert_eq!(shown(15, 1), ["NAME", "n1"]);
        assert_eq!(shown(5, 9), ["NAME", "n1", "a-lon"]);
    }
}
