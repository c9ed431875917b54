//! The report in Markdown.

use super::Report;

impl Report {
    /// A heading, one table (GitHub's dialect), what failed, the notes.
    pub fn markdown(&self) -> String {
        let groups = self.groups();
        let mut headings = vec![escape(&self.heading())];
        for group in &groups {
            for column in &group.columns {
                let heading = format!("{} {}", group.title, column.title);
                headings.push(escape(heading.trim()));
            }
        }
        let columns: Vec<_> = groups.iter().flat_map(|group| &group.columns).collect();
        let mut text = format!("# {}\n\n| {} |\n", escape(&self.title), headings.join(" | "));
        text.push_str("| :--- |");
        text.push_str(&" ---: |".repeat(columns.len()));
        text.push('\n');
        for (index, row) in self.rows.iter().enumerate() {
            let cells = columns.iter().map(|column| escape(&column.cells[index]));
            let cells: Vec<String> = [escape(&row.title)].into_iter().chain(cells).collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        for failure in &self.failures {
            text.push_str(&format!("\n**Failed:** {}\n", escape(failure)));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{}\n", escape(note)));
        }
        text
    }
}

/// Text in which nothing is markup.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '<' | '\\' => escaped.extend(['\\', c]),
            '\n' | '\r' => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
