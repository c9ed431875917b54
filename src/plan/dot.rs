//! The plan for Graphviz.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Plan;
use crate::config::Origin;

impl Plan<'_> {
    /// The selected stages in Graphviz's language (<https://graphviz.org/doc/info/lang.html>).
    pub fn dot(&self) -> String {
        let mut text = format!("digraph {} {{\n", quote(&self.pipeline.name));
        text.push_str("  rankdir=LR;\n  node [shape=box, style=rounded];\n");
        let mut sources = BTreeSet::new();
        for index in self.order() {
            let cell = self.stage(index);
            let label = format!("{}\n{}", cell.id, cell.kind.name);
            let _ = writeln!(text, "  {} [label={}];", quote(&cell.id), quote(&label));
            for input in &cell.inputs {
                let (from, label) = match &input.origin {
                    Origin::Stage { id, port, .. } => (id.clone(), port.clone()),
                    Origin::Data(_) | Origin::Path(_) => (self.origin(input), String::new()),
                };
                if !matches!(input.origin, Origin::Stage { .. }) && sources.insert(from.clone()) {
                    let _ = writeln!(text, "  {} [shape=cylinder, style=solid];", quote(&from));
                }
                let _ = write!(text, "  {} -> {}", quote(&from), quote(&cell.id));
                if !label.is_empty() {
                    let _ = write!(text, " [label={}]", quote(&label));
                }
                text.push_str(";\n");
            }
        }
        text.push_str("}\n");
        text
    }
}

/// A quoted identifier.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::super::dag::tests::pipeline;
    use super::*;

    #[test]
    fn stages_ports_and_sources() {
        let pipeline = pipeline(&["a < data.x", "m[b] < a"]);
        let expected = "\
digraph \"test\" {
  rankdir=LR;
  node [shape=box, style=rounded];
  \"a\" [label=\"a\\ncommand\"];
  \"data.x\" [shape=cylinder, style=solid];
  \"data.x\" -> \"a\";
  \"m[b]\" [label=\"m[b]\\ncommand\"];
  \"a\" -> \"m[b]\" [label=\"out\"];
}
";
        assert_eq!(Plan::new(&pipeline).dot(), expected);
    }

    #[test]
    fn quotes_are_escaped() {
        assert_eq!(quote("a\"b\\c"), r#""a\"b\\c""#);
    }
}
