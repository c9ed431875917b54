//! The plan as a tree of text: each stage once, under the last of its producers.

use std::fmt::Write as _;

use super::Plan;
use crate::config::{Origin, ResolvedInput};

impl Plan<'_> {
    /// The selected stages as a tree. Behind `←` stands what a stage takes besides its parent.
    pub fn text(&self) -> String {
        let mut children = vec![Vec::new(); self.pipeline.stages.len()];
        let mut roots = Vec::new();
        let mut place = vec![0; self.pipeline.stages.len()];
        for (position, index) in self.order().enumerate() {
            place[index] = position;
            match self.producers(index).into_iter().max_by_key(|&producer| place[producer]) {
                Some(parent) => children[parent].push(index),
                None => roots.push(index),
            }
        }
        let mut text = format!("{}\n", self.pipeline.name);
        self.branch(&roots, None, "", &children, &mut text);
        text
    }

    fn branch(
        &self,
        stages: &[usize],
        parent: Option<usize>,
        indent: &str,
        children: &[Vec<usize>],
        text: &mut String,
    ) {
        for (position, &index) in stages.iter().enumerate() {
            let last = position + 1 == stages.len();
            let (tee, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let cell = self.stage(index);
            let parent = parent.map(|parent| self.stage(parent).id.as_str());
            let mut others: Vec<String> = Vec::new();
            for input in &cell.inputs {
                let from_parent = matches!(&input.origin, Origin::Stage { id, .. } if Some(id.as_str()) == parent);
                let name = self.origin(input);
                if !from_parent && !others.contains(&name) {
                    others.push(name);
                }
            }
            let _ = write!(text, "{indent}{tee}{} ({})", cell.id, cell.kind.name);
            if !others.is_empty() {
                let _ = write!(text, " ← {}", others.join(", "));
            }
            text.push('\n');
            let below = format!("{indent}{below}");
            self.branch(&children[index], Some(index), &below, children, text);
        }
    }

    /// How an input's origin is written: `fp32.model`, `data.train`, `weights.pth`.
    pub(super) fn origin(&self, input: &ResolvedInput) -> String {
        match &input.origin {
            Origin::Stage { id, port, .. } => format!("{id}.{port}"),
            Origin::Data(name) => format!("data.{name}"),
            Origin::Path(path) => {
                path.strip_prefix(&self.pipeline.folder).unwrap_or(path).display().to_string()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dag::tests::pipeline;
    use super::*;

    #[test]
    fn each_stage_stands_once_under_its_last_producer() {
        let pipeline = pipeline(&[
            "fp32 < data.train data.valid",
            "ranges < fp32 data.train",
            "ptq < fp32 ranges",
            "m[a] < fp32",
            "m[b] < ptq",
            "end < m[a] m[b] /p/notes.txt",
        ]);
        let expected = "\
test
└─ fp32 (command) ← data.train, data.valid
   ├─ ranges (command) ← data.train
   │  └─ ptq (command) ← fp32.out
   │     └─ m[b] (command)
   │        └─ end (command) ← m[a].out, notes.txt
   └─ m[a] (command)
";
        assert_eq!(Plan::new(&pipeline).text(), expected);
    }
}
