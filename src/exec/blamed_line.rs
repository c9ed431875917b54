//! The line of the pipeline file that a stage's failure or warning is about.

use std::path::Path;

use crate::config::StageCell;
use crate::task::Failure;

/// Puts file and line in front of a failure that names a key of the stage's table.
pub fn with_line(cell: &StageCell, failure: Failure) -> Failure {
    let Some(key) = &failure.key else { return failure };
    Failure { message: format!("{}: {}", place(cell, key), failure.message), ..failure }
}

/// File and line of a key of the stage's table, such as `p.toml:12`; of the table where the key stands elsewhere.
pub fn place(cell: &StageCell, key: &str) -> String {
    // What was read is no longer kept; a file that changed meanwhile may say something else by now.
    let text = std::fs::read_to_string(&cell.file).unwrap_or_default();
    let line = line_of(&text, cell.line, key).unwrap_or(cell.line);
    let file = cell.file.file_name().map_or(&*cell.file, Path::new);
    format!("{}:{line}", file.display())
}

/// The line of `key = …` in the table whose header stands in line `table`; nothing where it stands elsewhere, such as
/// in a table of its own.
fn line_of(text: &str, table: usize, key: &str) -> Option<usize> {
    let lines = text.lines().enumerate().skip(table);
    let mut own = lines.take_while(|(_, line)| !line.starts_with('['));
    let found = own.find(|(_, line)| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    found.map(|(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn the_line_of_a_key_is_that_of_its_own_table() {
        let text = "[stages.a]\nexclude = []\n\n[stages.b]\nkind = \"x\"\nexcluded = 1\n  exclude= [\n  \"op:Conv\",\n]\n[stages.c]\nmethod = 1\n";
        assert_eq!(line_of(text, 4, "exclude"), Some(7));
        assert_eq!(line_of(text, 1, "exclude"), Some(2));
        assert_eq!(line_of(text, 4, "method"), None, "the next table's");
        assert_eq!(line_of("", 4, "method"), None);
    }
}
