//! A difference for people.

use std::fmt::Write as _;

use super::difference::{Changed, Difference, TensorChange};

impl Difference {
    /// As text, a line end behind each line.
    pub fn text(&self) -> String {
        if self.same {
            return "no difference\n".to_owned();
        }
        let mut text = String::new();
        for changed in self.model.iter().chain(&self.interface) {
            let _ = writeln!(text, "{}", line(changed));
        }
        for node in &self.removed_nodes {
            let _ = writeln!(text, "- node {node}");
        }
        for node in &self.added_nodes {
            let _ = writeln!(text, "+ node {node}");
        }
        for (node, changes) in &self.changed_nodes {
            let _ = writeln!(text, "~ node {node}");
            for changed in changes {
                let _ = writeln!(text, "    {}", line(changed));
            }
        }
        if self.reordered {
            text.push_str("~ nodes that both have stand in another order\n");
        }
        for (name, kind) in &self.removed_initializers {
            let _ = writeln!(text, "- initializer {name} {kind}");
        }
        for (name, kind) in &self.added_initializers {
            let _ = writeln!(text, "+ initializer {name} {kind}");
        }
        for change in &self.changed_initializers {
            let _ = writeln!(text, "~ initializer {}", tensor(change));
        }
        text
    }
}

fn line(changed: &Changed) -> String {
    let what = &changed.what;
    match (&changed.old, &changed.new) {
        (None, Some(new)) => format!("+ {what}: {new}"),
        (Some(old), None) => format!("- {what}: {old}"),
        (old, new) => {
            let side = |side: &Option<String>| side.clone().unwrap_or_default();
            format!("~ {what}: {} → {}", side(old), side(new))
        }
    }
}

fn tensor(change: &TensorChange) -> String {
    let TensorChange { name, old, new, max_difference } = change;
    let kinds = if old == new { old.clone() } else { format!("{old} → {new}") };
    match max_difference {
        Some(difference) => format!("{name} {kinds}: differs by up to {difference:.3e}"),
        None if old == new => format!("{name} {kinds}: not comparable as numbers"),
        None => format!("{name} {kinds}"),
    }
}
