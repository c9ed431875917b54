//! The table of guards for people.

use console::measure_text_width;

use crate::exec::event::Event;
use crate::exec::guards::{HEADINGS, Verdict};

/// The table, what there is to say of its rows, and how many are broken.
pub(super) fn text(event: &Event) -> String {
    let Event::Guards { against, broken, accepted, outcomes, .. } = event else {
        return String::new();
    };
    if outcomes.is_empty() {
        return "\nthe pipeline has no [guards.NAME] to hold to\n".to_owned();
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(outcomes.iter().map(crate::exec::Outcome::cells));
    let mut text = format!("\nguards, against {against}\n\n");
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| measure_text_width(&row[column])).max().unwrap_or(0);
            let pad = " ".repeat(width - measure_text_width(cell) + 2);
            line.push_str(&format!("{cell}{pad}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
    for outcome in *outcomes {
        if let Some(note) = &outcome.note {
            text.push_str(&format!("{}: {note}\n", outcome.guard));
        }
    }
    if *broken > 0 {
        let names = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Broken);
        let names: Vec<&str> = names.map(|outcome| outcome.guard.as_str()).collect();
        let end = if *accepted { ", accepted all the same" } else { "" };
        text.push_str(&format!("{} ({}){end}\n", count(*broken), names.join(", ")));
        if !accepted {
            text.push_str("  help: --accept takes the new figures as they are\n");
        }
    }
    text
}

/// `1 guard broken`.
pub(super) fn count(broken: usize) -> String {
    format!("{broken} guard{} broken", if broken == 1 { "" } else { "s" })
}
