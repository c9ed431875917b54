//! The report for a terminal: aligned, at most 100 columns wide where the names allow it.

use super::Report;
use super::grid::Group;

/// Columns of text that a block may take.
const WIDTH: usize = 100;

impl Report {
    /// The table as aligned text. Groups of columns that do not fit side by side go into a block
    /// of their own below, the rows named again.
    pub fn text(&self) -> String {
        let titles = self.rows.iter().map(|row| row.title.as_str());
        let names: Vec<&str> = [self.rows_by.as_str()].into_iter().chain(titles).collect();
        let name_width = names.iter().map(|name| width(name)).max().unwrap_or(0);
        let mut blocks: Vec<Vec<Group>> = Vec::new();
        let mut room = 0;
        for group in self.groups() {
            let needed = 3 + group_width(&group);
            match blocks.last_mut() {
                Some(block) if needed <= room => block.push(group),
                _ => {
                    blocks.push(vec![group]);
                    room = WIDTH.saturating_sub(name_width);
                }
            }
            room = room.saturating_sub(needed);
        }
        let mut text = format!("{}\n", self.title);
        for block in &blocks {
            text.push('\n');
            draw(&names, name_width, block, &mut text);
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }
}

fn draw(names: &[&str], name_width: usize, block: &[Group], text: &mut String) {
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

fn width(text: &str) -> usize {
    text.chars().count()
}

fn pad_left(text: &str, to: usize) -> String {
    format!("{}{text}", " ".repeat(to.saturating_sub(width(text))))
}

fn pad_right(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}
