//! Products with several constant matrices.

use super::integer;
use crate::quant::placement::rule::{Order, Rule, Scene, Verdict};
use crate::quant::placement::stack::{is_stack, one_scale_serves};
use crate::quant::placement::{Sites, View};

pub(in super::super) const ONE_SCALE: Rule = Rule {
    name: "matrix-stack",
    operators: &["MatMul"],
    about: "The input and a constant second factor of several matrices, [B, K, N] or more dimensions, are quantized, the factor with one scale for all of them (MatMulIntegerToFloat, QLinearMatMul); the output only where a quantized layer reads it. It stays float where the matrices' largest magnitudes differ by a factor over 4, and where the types asked for have no such kernel: blocks, weights of int4 or float8, activations of float8 or floats.",
    reason: "The integer kernels are 1.3 to 4.0 times as fast as float. They take one scale: with one for each column the kernel is there, and fails at its first run. What one scale costs depends on the smallest matrix: its product has 37 dB where all magnitudes are alike (38 with a scale for each column), 27 where they differ by a factor of 4, 22 at 8.",
    source: "measured with ONNX Runtime 1.32, AVX2 without VNNI ([Stacks of matrices](#stacks-of-matrices-on-onnx-runtime))",
    order: Order::Forward,
    apply: stack,
};

fn stack(scene: &Scene, index: usize, sites: &mut Sites) -> Verdict {
    let view = scene.view;
    let (node, input) = (scene.node(index), view.activation(index, 0));
    let weight = node.input(1).and_then(|name| view.constant(name));
    let (Some(input), Some(weight)) = (input, weight) else { return Verdict::Pass };
    if !is_stack(node, &weight.shape) {
        return Verdict::Pass;
    }
    match one_scale_serves(weight) {
        Ok(true) => {}
        Ok(false) => return Verdict::Pass,
        Err(spread) => {
            return Verdict::Float(format!(
                "the largest magnitudes of its {} matrices differ by a factor of {spread:.1}: the runtime's kernel takes one scale for all, and the smallest would have few steps",
                weight.shape[..weight.shape.len() - 2].iter().product::<i64>()
            ));
        }
    }
    sites.read(input, (index, 0));
    sites.weights.push(((index, 1), weight.shape.len() as i64 - 1));
    if integer::feeds_layer(scene, index) {
        integer::output(view, sites, index);
    }
    Verdict::Quantized
}

/// Whether a node is a product with a stack that one scale serves.
pub(super) fn is_quantized(view: &View, index: usize) -> bool {
    let node = &view.graph.nodes[index];
    let weight = node.input(1).and_then(|name| view.constant(name));
    view.activation(index, 0).is_some()
        && weight.is_some_and(|weight| {
            is_stack(node, &weight.shape) && one_scale_serves(weight) == Ok(true)
        })
}
