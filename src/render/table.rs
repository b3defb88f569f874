//! A table without lines: aligned columns, two spaces between, one row a line.

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};

/// A table that is being filled.
pub struct Table {
    table: comfy_table::Table,
    right: Vec<bool>,
    /// What is said instead of a table without rows.
    nothing: &'static str,
}

impl Table {
    /// A table with these columns; `>` before a heading aligns its column to the right.
    pub fn new(columns: &[&str], nothing: &'static str) -> Table {
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let mut table = Table { table, right: Vec::new(), nothing };
        table.right = columns.iter().map(|column| column.starts_with('>')).collect();
        let headings = columns.iter().map(|column| column.trim_start_matches('>').to_owned());
        let header = table.cells(headings);
        table.table.set_header(header);
        for column in table.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }

    /// Adds a row: a cell for each column, in their order.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = self.cells(cells);
        self.table.add_row(cells);
    }

    /// The finished text.
    pub fn text(&self) -> String {
        if self.table.is_empty() {
            return format!("{}\n", self.nothing);
        }
        self.table.trim_fmt() + "\n"
    }

    fn cells(&self, cells: impl IntoIterator<Item = String>) -> Vec<Cell> {
        let cells = cells.into_iter().zip(&self.right).map(|(text, right)| {
            let text = if text.is_empty() { "-".to_owned() } else { plain(&text) };
            let alignment = if *right { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(alignment)
        });
        cells.collect()
    }
}

/// A text without what would move the cursor or begin a new line on a terminal.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_end_where_text_does() {
        let mut table = Table::new(&["NAME", ">FRAMES", "REASON"], "no port");
        let mut row = |cells: [&str; 3]| table.row(cells.map(str::to_owned));
        row(["größe", "1", ""]);
        row(["b", "12.3k", "a b"]);
        assert_eq!(
            table.text(),
            "NAME   FRAMES  REASON\n\
             größe       1  -\n\
             b       12.3k  a b\n"
        );
    }

    #[test]
    fn without_rows_there_is_a_sentence() {
        assert_eq!(Table::new(&["NAME"], "no port").text(), "no port\n");
    }

    #[test]
    fn no_text_moves_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\\nc\\u{9b}d");
    }
}
