//! A residual block of a quantized model as a function of what it is given and of the weights of its layers.

use tch::{Kind, Tensor};

use super::adaround::Forward;
use super::dropping::Dropping;
use super::layer::Layer;
use super::region::{Region, constants};
use crate::graph::{Graph, Model, Node, ValueInfo};
use crate::interp::{Mode, Options, Program};
use crate::{Error, Result, passes, torch};

/// A block whose weights are given at each run; the rest is as it stands in the model, pairs of activations included.
pub(super) struct Block {
    program: Program,
    /// Shape of each activation that a pair rounds, as it was in the last run.
    shapes: Vec<Vec<i64>>,
    /// Rows of the last run.
    rows: i64,
}

impl Block {
    /// The block of a model; `learned` are those of its layers whose weights are given, in order.
    ///
    /// # Errors
    /// What a node refuses.
    pub fn of(model: &Model, region: &Region, learned: &[&Layer]) -> Result<Self> {
        let graph = &model.graph;
        let producers = graph.producers();
        let (mut inputs, mut watch) = (vec![region.entry.clone()], Vec::new());
        let mut nodes: Vec<Node> = Vec::new();
        let fixed = graph.nodes.iter().zip(constants(graph)).filter(|(_, is)| *is);
        nodes.extend(fixed.map(|(node, _)| node.clone()));
        for place in 0..learned.len() {
            inputs.push(graph.fresh_name(&format!("weight.{place}")));
        }
        for &index in &region.nodes {
            let mut node = graph.nodes[index].clone();
            if let Some(place) = learned.iter().position(|layer| layer.node == index) {
                node.inputs[1].clone_from(&inputs[1 + place]);
            }
            let rounded = node.input(0).and_then(|name| producers.get(name)).filter(|quantize| {
                node.op_type == "DequantizeLinear"
                    && region.nodes.binary_search(quantize).is_ok()
                    && graph.nodes[**quantize].op_type == "QuantizeLinear"
            });
            let Some(&quantize) = rounded else {
                nodes.push(node);
                continue;
            };
            // Where the mask is true, the value before the pair.
            let mask = graph.fresh_name(&format!("float.{}", watch.len()));
            let before = graph.nodes[quantize].inputs[0].clone();
            let after = graph.fresh_name(&format!("{}.rounded", node.outputs[0]));
            let made = std::mem::replace(&mut node.outputs[0], after.clone());
            nodes.push(node);
            nodes.push(Node::new("", "Where", &[&mask, &before, &after], &[&made]));
            watch.push((before, mask));
        }
        let (watch, masks): (Vec<String>, Vec<String>) = watch.into_iter().unzip();
        inputs.extend(masks);
        let info = |name: &String| ValueInfo {
            name: name.clone(),
            dtype: None,
            shape: None,
            opaque: None,
        };
        let mut model = Model {
            graph: Graph {
                nodes,
                inputs: inputs.iter().map(info).collect(),
                outputs: vec![info(&graph.nodes[region.exit].outputs[0])],
                initializers: graph.initializers.clone(),
                opaque_initializers: graph.opaque_initializers.clone(),
                ..Graph::default()
            },
            ..model.clone()
        };
        passes::remove_dead(&mut model)?;
        let shapes = vec![Vec::new(); watch.len()];
        // A value may be watched once: pairs that round the same one share a shape.
        let options = Options { watch, channels_last: false, ..Options::default() };
        let program = Program::compile(&model, &options)?;
        Ok(Self { program, shapes, rows: -1 })
    }

    fn forward(&mut self, input: &Tensor, weights: &[Tensor], masks: &[Tensor]) -> Result<Tensor> {
        let given = [input].into_iter().chain(weights).chain(masks);
        let given: Vec<Tensor> = given.map(Tensor::shallow_clone).collect();
        let shapes = &mut self.shapes;
        let made = self.program.forward(&given, Mode::Eval, &mut |index, value| {
            shapes[index] = value.size();
            Ok(())
        })?;
        self.rows = input.size().first().copied().unwrap_or(0);
        made.into_iter().next().ok_or_else(|| Error::bug("a block without output"))
    }
}

impl Forward for Block {
    fn run(
        &mut self,
        input: &Tensor,
        weights: &[Tensor],
        dropping: Option<&mut Dropping>,
    ) -> Result<Tensor> {
        let rounded = Tensor::f_zeros([1_i64; 0], (Kind::Bool, torch::device()))?;
        let all: Vec<Tensor> = self.shapes.iter().map(|_| rounded.shallow_clone()).collect();
        let Some(dropping) = dropping else { return self.forward(input, weights, &all) };
        if self.rows != input.size().first().copied().unwrap_or(0) {
            // Only to see the shapes.
            let _no_grad = tch::no_grad_guard();
            drop(self.forward(input, weights, &all)?);
        }
        let masks: Result<Vec<Tensor>> =
            self.shapes.iter().map(|shape| dropping.next(shape)).collect();
        self.forward(input, weights, &masks?)
    }
}
