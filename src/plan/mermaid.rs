//! The plan for Mermaid, which code forges draw inside Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Plan;
use crate::config::Origin;

impl Plan<'_> {
    /// The selected stages as a Mermaid flowchart (<https://mermaid.js.org/syntax/flowchart.html>).
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        let mut sources: BTreeMap<String, usize> = BTreeMap::new();
        for index in self.order() {
            let cell = self.stage(index);
            let label = escape(&format!("{}\n{}", cell.id, cell.kind.name));
            let _ = writeln!(text, "  s{index}(\"{label}\")");
            for input in &cell.inputs {
                if let Origin::Stage { id, port, .. } = &input.origin {
                    let from = self.position(id).expect("config resolved the reference");
                    let _ = writeln!(text, "  s{from} -->|\"{}\"| s{index}", escape(port));
                } else {
                    let name = self.origin(input);
                    let next = sources.len();
                    let source = *sources.entry(name.clone()).or_insert_with(|| {
                        let _ = writeln!(text, "  d{next}[(\"{}\")]", escape(&name));
                        next
                    });
                    let _ = writeln!(text, "  d{source} --> s{index}");
                }
            }
        }
        text
    }
}

/// Text for a quoted label.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('\n', "<br>")
}

#[cfg(test)]
mod tests {
    use super::super::dag::tests::pipeline;
    use super::*;

    #[test]
    fn stages_ports_and_sources() {
        let pipeline = pipeline(&["a < data.x", "m[b] < a data.x"]);
        let expected = "\
flowchart LR
  s0(\"a<br>command\")
  d0[(\"data.x\")]
  d0 --> s0
  s1(\"m[b]<br>command\")
  s0 -->|\"out\"| s1
  d0 --> s1
";
        assert_eq!(Plan::new(&pipeline).mermaid(), expected);
    }
}
