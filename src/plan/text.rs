//! The plan as a tree of text: each stage once, under the last of its producers.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::Plan;
use crate::config::{Origin, ResolvedInput};

/// Levels of a tree that are drawn.
const DEEPEST: usize = 24;

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
        // Without recursion: a chain may be as long as a pipeline. Of the stages on the way to the
        // next line: whether each is the last of its siblings.
        let mut path: Vec<bool> = Vec::new();
        let branch = |stages: &[usize], parent: Option<usize>, level: usize| {
            let last = stages.len().saturating_sub(1);
            let lines = stages.iter().enumerate();
            let lines = lines.map(|(place, &index)| (index, parent, level, place == last));
            lines.rev().collect::<Vec<_>>()
        };
        let mut open = branch(&roots, None, 0);
        while let Some((index, parent, level, last)) = open.pop() {
            path.truncate(level);
            path.push(last);
            indent(&path, &mut text);
            self.label(index, parent, &mut text);
            open.extend(branch(&children[index], Some(index), level + 1));
        }
        text
    }

    /// A stage, and what it takes besides its parent.
    fn label(&self, index: usize, parent: Option<usize>, text: &mut String) {
        let cell = self.stage(index);
        let parent = parent.map(|parent| self.stage(parent).id.as_str());
        let (mut seen, mut others) = (HashSet::new(), Vec::new());
        for input in &cell.inputs {
            let from_parent =
                matches!(&input.origin, Origin::Stage { id, .. } if Some(id.as_str()) == parent);
            let name = self.origin(input);
            if !from_parent && seen.insert(name.clone()) {
                others.push(name);
            }
        }
        let _ = write!(text, "{} ({})", cell.id, cell.kind.name);
        if !others.is_empty() {
            let _ = write!(text, " ← {}", others.join(", "));
        }
        text.push('\n');
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

/// What stands before a stage. Deep in a tree its level is given as a number.
fn indent(path: &[bool], text: &mut String) {
    let Some((last, above)) = path.split_last() else { return };
    if above.len() > DEEPEST {
        let _ = write!(text, "{}[{}] ", "│  ".repeat(DEEPEST), path.len());
    } else {
        above.iter().for_each(|last| text.push_str(if *last { "   " } else { "│  " }));
    }
    text.push_str(if *last { "└─ " } else { "├─ " });
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
