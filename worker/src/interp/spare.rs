//! Steps that may write over an input: a value whose memory nobody else reads, now or in the backward pass.
//!
//! An activation behind a convolution so costs neither memory nor the pages that the system would have to clear for it.

use std::collections::{HashMap, HashSet};

use super::program::{Program, Source};
use crate::graph::Node;

/// Operators whose first output has memory of its own, which their backward pass does not look at.
const FRESH: [&str; 3] = ["Add", "BatchNormalization", "Conv"];

/// Operators whose kernels take spare memory.
const TAKERS: [&str; 3] = ["Add", "Clip", "Relu"];

/// What compiling finds out about its nodes.
#[derive(Default)]
pub(super) struct Spare {
    /// Slots of fresh values.
    fresh: HashSet<usize>,
    /// Indices of the steps that take spare memory.
    takers: Vec<usize>,
}

impl Spare {
    /// Notes a node, whose step was just added.
    pub fn note(&mut self, node: &Node, program: &Program) {
        let Some(step) = program.steps.last().filter(|_| node.domain.is_empty()) else { return };
        if FRESH.contains(&node.op_type.as_str()) {
            self.fresh.extend(step.outputs.first().copied().flatten());
        }
        if TAKERS.contains(&node.op_type.as_str()) {
            self.takers.push(program.steps.len() - 1);
        }
    }

    /// Marks the inputs that are spare. Last uses are known by now.
    ///
    /// A second reader forbids it, even an earlier one: what it made may be a view of the same memory. So does a
    /// watcher, who may have kept the value.
    pub fn mark(&self, program: &mut Program) {
        let mut readers: HashMap<usize, usize> = HashMap::new();
        for source in program.steps.iter().flat_map(|step| &step.inputs) {
            if let Source::Slot(slot) = source {
                *readers.entry(*slot).or_default() += 1;
            }
        }
        let watched = program.steps.iter().flat_map(|step| &step.watched);
        let watched: HashSet<usize> = watched.map(|&(_, slot)| slot).collect();
        for &index in &self.takers {
            let step = &mut program.steps[index];
            let spare = |source: &Source| match source {
                Source::Slot(slot) => {
                    self.fresh.contains(slot)
                        && step.last_use.contains(slot)
                        && readers[slot] == 1
                        && !watched.contains(slot)
                }
                _ => false,
            };
            step.spare = step.inputs.iter().position(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Dim, Graph, Model, TensorData, ValueInfo};
    use crate::interp::{Options, Program};

    use super::*;

    fn spare(nodes: &[Node], watch: &[&str]) -> Vec<Option<usize>> {
        let value = |name| ValueInfo::f32(name, vec![Dim::Unknown; 4]);
        let weight = TensorData::f32(&[1, 1, 1, 1], &[2.0]);
        let graph = Graph {
            nodes: nodes.to_vec(),
            inputs: vec![value("x")],
            outputs: vec![value("y")],
            initializers: [("w".to_owned(), weight)].into_iter().collect(),
            ..Graph::default()
        };
        let watch = watch.iter().map(|name| (*name).to_owned()).collect();
        let options = Options { watch, ..Options::default() };
        let program = Program::compile(&Model::new(graph, 17), &options).unwrap();
        program.steps.iter().map(|step| step.spare).collect()
    }

    #[test]
    fn only_what_nobody_else_reads_is_written_over() {
        let conv = Node::new("", "Conv", &["x", "w"], &["a"]);
        let relu = |from, to| Node::new("", "Relu", &[from], &[to]);
        assert_eq!(spare(&[conv.clone(), relu("a", "y")], &[]), [None, Some(0)]);
        // The caller's own tensor, and one that its maker's backward pass looks at.
        assert_eq!(spare(&[relu("x", "b"), relu("b", "y")], &[]), [None, None]);
        assert_eq!(spare(&[conv.clone(), relu("a", "y")], &["a"]), [None, None]);
        let view = Node::new("", "Identity", &["a"], &["v"]);
        let add = |inputs: [&str; 2]| Node::new("", "Add", &inputs, &["y"]);
        let viewed = [conv.clone(), view, relu("a", "r"), add(["v", "r"])];
        assert_eq!(spare(&viewed, &[]), [None; 4]);
        let own = Node::new("", "Conv", &["x", "w"], &["r"]);
        assert_eq!(spare(&[conv.clone(), add(["x", "a"])], &[]), [None, Some(1)]);
        assert_eq!(spare(&[conv.clone(), own, add(["a", "r"])], &[]), [None, None, Some(0)]);
        assert_eq!(spare(&[conv, add(["a", "a"])], &[]), [None, None]);
    }
}
