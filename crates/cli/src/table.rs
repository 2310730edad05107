//! Aligned columns for people: words to the left, numbers to the right, two spaces between.

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heading: [&str; N]) -> Table {
        Table { rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    /// Cells of one row; an empty cell is shown as `-`.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(clean).to_vec());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// One line a row, without spaces at its end.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let numeric: Vec<bool> = (0..columns).map(|column| self.is_numeric(column)).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths.get(column).copied().unwrap_or(0);
                match numeric.get(column) {
                    Some(true) => line.push_str(&format!("{cell:>width$}  ")),
                    Some(false) | None => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn is_numeric(&self, column: usize) -> bool {
        let mut cells =
            self.rows.iter().skip(1).filter_map(|row| row.get(column)).filter(|cell| *cell != "-").peekable();
        cells.peek().is_some() && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// What a node sends must not move the cursor.
fn clean(cell: String) -> String {
    if cell.is_empty() {
        return "-".into();
    }
    if cell.contains(char::is_control) { cell.replace(char::is_control, " ") } else { cell }
}

/// `95 s` as people read it: the two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        86_400.. => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Milliseconds, in seconds from ten seconds on.
pub(crate) fn millis(millis: u64) -> String {
    if millis < 10_000 { format!("{millis}ms") } else { duration(millis / 1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right() {
        let mut table = Table::new(["NAME", "COUNT", "NOTE"]);
        table.row(["a".into(), "7".into(), "x".into()]);
        table.row(["longer".into(), "1000000".into(), String::new()]);
        assert_eq!(table.render(), "NAME      COUNT  NOTE\na             7  x\nlonger  1000000  -\n");
    }

    #[test]
    fn what_a_node_sends_cannot_move_the_cursor() {
        let mut table = Table::new(["A"]);
        table.row(["x\u{1b}[2Jy\nz".into()]);
        assert_eq!(table.render(), "A\nx [2Jy z\n");
    }

    #[test]
    fn durations_have_two_units() {
        let shown = [0, 59, 60, 3599, 3600, 90_061].map(duration);
        assert_eq!(shown, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 1h"]);
        assert_eq!([millis(9_999), millis(65_000)], ["9999ms", "1m 5s"]);
    }
}
