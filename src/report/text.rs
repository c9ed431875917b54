//! The report for a terminal: aligned, and no wider than it.

use console::{measure_text_width as width, truncate_str};

use super::Report;
use super::grid::Group;

/// Columns that names keep at least, however narrow the terminal.
const NAME: usize = 8;

impl Report {
    /// The table as aligned text, in lines of at most `columns`. What does not fit side by side goes
    /// into a block of its own below, the rows named again; long names are cut, notes are wrapped.
    pub fn text(&self, columns: usize) -> String {
        let heading = self.heading();
        let titles = self.rows.iter().map(|row| row.title.as_str());
        let names = [heading.as_str()].into_iter().chain(titles);
        let longest = (columns / 2).max(NAME);
        let names: Vec<String> = names.map(|name| cut(name, longest)).collect();
        let name_width = names.iter().map(|name| width(name)).max().unwrap_or(0);
        let all = columns.saturating_sub(name_width);
        let mut blocks: Vec<Vec<Group>> = Vec::new();
        let mut room = 0;
        for group in self.groups().into_iter().flat_map(|group| narrowed(group, all)) {
            let needed = 3 + group_width(&group);
            match blocks.last_mut() {
                Some(block) if needed <= room => block.push(group),
                _ => {
                    blocks.push(vec![group]);
                    room = all;
                }
            }
            room = room.saturating_sub(needed);
        }
        let mut text = format!("{}\n", self.title);
        for block in &blocks {
            text.push('\n');
            draw(&names, name_width, block, &mut text);
        }
        let failures: Vec<String> =
            self.failures.iter().map(|failure| format!("FAILED: {failure}")).collect();
        if !(failures.is_empty() && self.notes.is_empty()) {
            text.push('\n');
        }
        for note in failures.iter().chain(&self.notes) {
            // A file's note stays a line, for programs that search it.
            for wrapped in textwrap::wrap(note, if columns < 100 { columns } else { usize::MAX }) {
                line(&wrapped, &mut text);
            }
        }
        text
    }
}

/// A group in parts that fit into so many columns, each with its heading.
fn narrowed(mut group: Group, room: usize) -> Vec<Group> {
    let room = room.saturating_sub(3);
    for column in &mut group.columns {
        for cell in column.cells.iter_mut().chain([&mut column.title]) {
            *cell = cut(cell, room);
        }
    }
    let title = cut(&group.title, room);
    let mut parts: Vec<Group> = Vec::new();
    for column in group.columns {
        if let Some(part) = parts.last_mut() {
            part.columns.push(column);
            if group_width(part) <= room {
                continue;
            }
            let Some(column) = part.columns.pop() else { continue };
            parts.push(Group { title: title.clone(), columns: vec![column] });
        } else {
            parts.push(Group { title: title.clone(), columns: vec![column] });
        }
    }
    parts
}

fn cut(text: &str, to: usize) -> String {
    truncate_str(text, to.max(1), "…").into_owned()
}

fn draw(names: &[String], name_width: usize, block: &[Group], text: &mut String) {
    let mut heading = " ".repeat(name_width);
    for group in block {
        heading.push_str("   ");
        heading.push_str(&pad_right(&group.title, group_width(group)));
    }
    line(&heading, text);
    for (index, name) in names.iter().enumerate() {
        let mut row = pad_right(name, name_width);
        for group in block {
            row.push(' ');
            let widths = column_widths(group);
            for (column, width) in group.columns.iter().zip(widths) {
                let cell = if index == 0 { &column.title } else { &column.cells[index - 1] };
                row.push_str("  ");
                row.push_str(&pad_left(cell, width));
            }
        }
        line(&row, text);
        if index == 0 {
            let inner: usize = block.iter().map(|group| 3 + group_width(group)).sum();
            line(&"─".repeat(name_width + inner), text);
        }
    }
}

fn line(content: &str, text: &mut String) {
    text.push_str(content.trim_end());
    text.push('\n');
}

/// Width of each column; the last one grows where the group's title is wider than all.
fn column_widths(group: &Group) -> Vec<usize> {
    let column = |column: &super::grid::Column| {
        let cells = column.cells.iter().map(|cell| width(cell));
        cells.chain([width(&column.title)]).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = group.columns.iter().map(column).collect();
    let sum: usize = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    if let Some(last) = widths.last_mut() {
        *last += width(&group.title).saturating_sub(sum);
    }
    widths
}

fn group_width(group: &Group) -> usize {
    let widths = column_widths(group);
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

fn pad_left(text: &str, to: usize) -> String {
    format!("{}{text}", " ".repeat(to.saturating_sub(width(text))))
}

fn pad_right(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}
