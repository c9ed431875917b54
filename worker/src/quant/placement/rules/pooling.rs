//! Poolings that compute means.

use super::{ONNXRUNTIME_SELECTORS, TENSORRT_GUIDE, integer};
use crate::graph::Node;
use crate::quant::placement::View;
use crate::quant::placement::rule::{Order, Rule, Verdict};

pub(in super::super) const GLOBAL: Rule = Rule {
    name: "global-pool",
    operators: &["GlobalAveragePool", "GlobalMaxPool", "ReduceMean"],
    about: "The input of a global pooling is quantized. A ReduceMean is one where it is over two axes or more and not over the batch; the means of a normalization stay float: those along one axis, of squares, and those that are taken off what they are the mean of or whose root or quotient is taken.",
    reason: "It reads the largest value behind the last convolution: as integers a quarter of the bytes, and that convolution writes integers.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, sites| {
        if let Some(reason) = no_pooling(scene.view, index) {
            return Verdict::Float(reason);
        }
        input(scene.view, index, |input| sites.read(input, (index, 0)))
    },
};

pub(in super::super) const AVERAGE: Rule = Rule {
    name: "average-pool",
    operators: &["AveragePool"],
    about: "The input is quantized.",
    reason: "A mean does not commute with rounding, so TensorRT cannot move the next layer's quantization in front of it: without a pair of its own it reads and writes floats. With one, DQ, pooling and the next layer's Q are one kernel.",
    source: TENSORRT_GUIDE,
    order: Order::Forward,
    apply: |scene, index, sites| input(scene.view, index, |input| sites.read(input, (index, 0))),
};

pub(in super::super) const INTEGER: Rule = Rule {
    name: "average-pool",
    operators: &["AveragePool", "GlobalAveragePool", "ReduceMean"],
    about: "Input and output are quantized (QLinearAveragePool, QLinearGlobalAveragePool). A ReduceMean counts where it is over the two axes or more behind the channels, `[N, C, …]`: the export makes a GlobalAveragePool of it, since it has no integer kernel itself. Others, such as the means of a normalization, stay float: those along one axis, of squares, and those that are taken off what they are the mean of or whose root or quotient is taken.",
    reason: "Its integer kernels take and give integers only.",
    source: ONNXRUNTIME_SELECTORS,
    order: Order::Forward,
    apply: |scene, index, sites| {
        if let Some(reason) =
            no_pooling(scene.view, index).or_else(|| no_positions(scene.view, index))
        {
            return Verdict::Float(reason);
        }
        let verdict = input(scene.view, index, |input| sites.read(input, (index, 0)));
        if verdict == Verdict::Quantized {
            integer::output(scene.view, sites, index);
        }
        verdict
    },
};

fn input(view: &View, index: usize, read: impl FnOnce(&str)) -> Verdict {
    match view.activation(index, 0) {
        Some(input) => {
            read(input);
            Verdict::Quantized
        }
        None => Verdict::Float("its input is a constant".to_owned()),
    }
}

/// Why a mean over whole axes is no pooling; other operators are.
fn no_pooling(view: &View, index: usize) -> Option<String> {
    let node = &view.graph.nodes[index];
    match node.op_type.as_str() {
        "GlobalAveragePool" => return statistic(view, node),
        "ReduceMean" => {}
        _ => return None,
    }
    if let Some(reason) = statistic(view, node) {
        return Some(reason);
    }
    match axes(view, node) {
        Some(axes) if axes.len() > 1 && !axes.contains(&0) => None,
        Some(axes) if axes.len() == 1 => Some(
            "it is a mean along one axis, as normalizations compute it, and no pooling".to_owned(),
        ),
        _ => Some("it is no pooling: its axes are all, the batch's, or computed".to_owned()),
    }
}

/// Why a mean is part of a normalization or a deviation, over whatever axes. Squares of 8 bits are 0 for all small values, and a mean that is taken
/// off again, or that others are divided by, puts its rounding into each of them.
fn statistic(view: &View, node: &Node) -> Option<String> {
    let (input, mean) = (view.origin(node.input(0)?), node.outputs.first()?);
    if view.producer(input).is_some_and(|node| view.is_even_power(node)) {
        return Some("it is a mean of squares, as in variances, and no pooling".to_owned());
    }
    let mut open = vec![mean.as_str()];
    while let Some(value) = open.pop() {
        for (reader, at) in view.readers(value) {
            let node = &view.graph.nodes[reader];
            let other = node.input(1 - at.min(1)).unwrap_or_default();
            let with_number = view.constant(other).is_some_and(|data| data.len() == 1);
            match node.op_type.as_str() {
                "Sub" if view.origin(other) == input => {
                    return Some(format!(
                        "\"{}\" takes it off what it is the mean of: it is no pooling",
                        node.label()
                    ));
                }
                "Sqrt" | "Reciprocal" => {
                    return Some(format!(
                        "\"{}\" behind it makes a deviation of it: it is no pooling",
                        node.label()
                    ));
                }
                "Div" if at == 1 => {
                    return Some(format!("\"{}\" divides by it: it is no pooling", node.label()));
                }
                // ε, or n / (n − 1) for n.
                "Add" | "Mul" | "Div" | "Max" if with_number => {}
                "Clip" => {}
                _ if view.moves(reader) && at == 0 => {}
                _ => continue,
            }
            open.extend(node.outputs.iter().map(String::as_str));
        }
    }
    None
}

/// Why a ReduceMean is no global pooling of `[N, C, …]`; other operators are.
fn no_positions(view: &View, index: usize) -> Option<String> {
    let node = &view.graph.nodes[index];
    let axes = (node.op_type == "ReduceMean").then(|| axes(view, node))??;
    let positions = |axis: i64| !(0..2).contains(&axis);
    (!axes.into_iter().all(positions)).then(|| {
        "its integer kernel is that of a global pooling of [N, C, …], and this is a mean over channels too".to_owned()
    })
}

/// The axes of a reduction: an attribute until opset 18, then an input.
fn axes(view: &View, node: &Node) -> Option<Vec<i64>> {
    let given = node.ints("axes").ok().flatten().map(<[i64]>::to_vec);
    given.or_else(|| view.constant(node.input(1)?)?.whole_numbers())
}
