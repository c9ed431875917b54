//! Where the channels of a source go: every reader must be able to take a factor in, or to hand it on.

use std::collections::HashMap;

use super::channels::{Channels, Values};
use super::source::Source;
use crate::Result;
use crate::graph::{DType, Graph, Node};
use crate::quant::ladder::weighted::Layout;

/// A layer whose weight takes factors in.
pub(super) struct Reader {
    /// Its index.
    pub node: usize,
    /// Of each input channel of the weight, the channel of the source.
    pub channels: Vec<usize>,
}

/// A constant that is added on the way, and is divided as the source is.
pub(super) struct Added {
    /// The node that adds it, and at which input.
    pub at: (usize, usize),
    /// Extents of its channels, to be broadcast with its own, and the channel of each element.
    pub channels: (Vec<i64>, Vec<usize>),
}

/// All that reads a source's channels.
#[derive(Default)]
pub(super) struct Followed {
    /// Layers that multiply.
    pub readers: Vec<Reader>,
    /// Constants that are divided.
    pub added: Vec<Added>,
}

/// What becomes of channels at a node.
enum Step {
    /// The node takes them in.
    Taken,
    /// Its outputs have them.
    Handed(Vec<Channels>),
    /// It cannot be.
    Refused(String),
}

/// Elements stay where they are, and `f(x / s) = f(x) / s` for `s > 0`.
const HOMOGENEOUS: [&str; 7] = ["Relu", "LeakyRelu", "PRelu", "Abs", "Neg", "Identity", "Dropout"];
/// Elements of the first input are only moved.
const MOVING: [&str; 13] = [
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Split",
    "Slice",
    "Gather",
    "Expand",
    "Tile",
    "DepthToSpace",
    "SpaceToDepth",
    "ReverseSequence",
];
/// Windows over the axes behind the second, the channels'.
const POOLING: [&str; 4] = ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"];
/// Linear in a factor that all elements of a result share.
const REDUCING: [&str; 3] = ["ReduceMean", "ReduceMax", "ReduceMin"];

/// Inputs of a node through which channels may come, for the way back; none: it is no such node.
pub(super) fn ways(graph: &Graph, node: &Node) -> Vec<usize> {
    let op = node.op_type.as_str();
    let computed =
        |index: &usize| node.input(*index).is_some_and(|name| !graph.is_initializer(name));
    let any: &[usize] = match op {
        _ if !node.domain.is_empty() => &[],
        "Mul" | "Add" | "Sub" => &[0, 1],
        // The values of an attention block are its second input.
        "MatMul" => &[1, 0],
        "Div" => &[0],
        _ if [&HOMOGENEOUS[..], &MOVING, &POOLING, &REDUCING].iter().any(|t| t.contains(&op)) => {
            &[0]
        }
        _ => &[],
    };
    let any: Vec<usize> = any.iter().copied().filter(computed).collect();
    // A sum of two computed values scales only as a whole.
    if ["Add", "Sub"].contains(&op) && any.len() > 1 { Vec::new() } else { any }
}

/// All readers of what a source makes, or why it cannot be divided.
///
/// # Errors
/// What a node refuses.
pub(super) fn follow(
    graph: &Graph,
    values: &Values,
    source: &Source,
) -> Result<Result<Followed, String>> {
    let output = graph.nodes[source.node].outputs[0].as_str();
    let Some(shape) = values.shape(output) else {
        return Ok(Err(format!("\"{output}\" is not made at inference")));
    };
    let own = source.extents(shape.len());
    let known =
        own.iter().rev().zip(shape.iter().rev()).all(|(own, extent)| [1, *extent].contains(own));
    if own.is_empty() || shape.len() < own.len() || !known {
        return Ok(Err(format!("constants of {own:?} for what it makes, {shape:?}")));
    }
    let mut known = HashMap::from([(output, Channels::along(&own, &shape)?)]);
    let mut found = Followed::default();
    if graph.is_output(output) {
        return Ok(Err("it makes an output of the model".to_owned()));
    }
    for (index, node) in graph.nodes.iter().enumerate().skip(source.node + 1) {
        let read: Vec<usize> = (0..node.inputs.len())
            .filter(|&i| known.contains_key(node.inputs[i].as_str()))
            .collect();
        let &[input] = &read[..] else {
            if read.is_empty() {
                continue;
            }
            return Ok(Err(format!("{} reads it twice", node.place())));
        };
        let channels = &known[node.inputs[input].as_str()];
        match step(graph, values, (index, input), channels, &mut found)? {
            Step::Taken => {}
            Step::Refused(why) => return Ok(Err(why)),
            Step::Handed(made) => {
                let outputs = node.outputs.iter().filter(|name| !name.is_empty());
                for (output, channels) in outputs.zip(made) {
                    if graph.is_output(output) {
                        return Ok(Err("it goes to an output of the model".to_owned()));
                    }
                    known.insert(output, channels);
                }
            }
        }
    }
    Ok(if found.readers.is_empty() { Err("no layer reads it".to_owned()) } else { Ok(found) })
}

fn step(
    graph: &Graph,
    values: &Values,
    (index, input): (usize, usize),
    channels: &Channels,
    found: &mut Followed,
) -> Result<Step> {
    let node = &graph.nodes[index];
    let op = node.op_type.as_str();
    let refused = |why: &str| Ok(Step::Refused(format!("{} {why}", node.place())));
    let output = node.outputs.first().and_then(|name| values.shape(name)).unwrap_or_default();
    if !node.domain.is_empty() {
        return refused("reads it too");
    }
    if let (0, Some(layout)) = (input, Layout::of(graph, node)?) {
        let convolution = op.starts_with("Conv");
        let on_axis = channels.on_axis(if convolution { 1 } else { -1 })?;
        let Some(on_axis) = on_axis.filter(|channels| channels.len() == layout.inputs) else {
            return refused("reads it, but not channel by channel");
        };
        if readings(graph, &node.inputs[1]) > 1 {
            return refused("reads it with a weight that others read too");
        }
        found.readers.push(Reader { node: index, channels: on_axis });
        return Ok(Step::Taken);
    }
    match op {
        "Shape" | "Size" => Ok(Step::Taken),
        _ if input == 0 && HOMOGENEOUS.contains(&op) => {
            Ok(Step::Handed(vec![channels.broadcast(&output)?]))
        }
        _ if input == 0 && MOVING.contains(&op) => {
            Ok(Step::Handed(values.moved(graph, node, channels)?))
        }
        _ if input == 0 && POOLING.contains(&op) => {
            match channels.summed(2..channels.rank(), &output)? {
                Some(made) => Ok(Step::Handed(vec![made])),
                None => refused("pools over channels"),
            }
        }
        _ if input == 0 && REDUCING.contains(&op) => match values.reduced(graph, node, channels)? {
            Some(made) => Ok(Step::Handed(vec![made])),
            None => refused("sums over channels"),
        },
        "Div" if input == 0 => Ok(Step::Handed(vec![channels.broadcast(&output)?])),
        "Mul" => Ok(Step::Handed(vec![channels.broadcast(&output)?])),
        "Add" | "Sub" => {
            let other = &node.inputs[1 - input];
            let data = graph.initializers.get(other);
            if data.is_none_or(|data| data.dtype != DType::F32) {
                return refused("adds it to something else, as a residual does");
            }
            found.added.push(Added { at: (index, 1 - input), channels: channels.compact()? });
            Ok(Step::Handed(vec![channels.broadcast(&output)?]))
        }
        "MatMul" if channels.rank() > 1 => {
            // The axis that is summed over.
            let axis = channels.rank() - 1 - input as i64;
            match channels.summed(axis..axis + 1, &output) {
                Ok(Some(made)) => Ok(Step::Handed(vec![made])),
                _ => refused("sums over its channels"),
            }
        }
        _ => refused("reads it too, and scaling does not pass it"),
    }
}

/// How often nodes read a value.
pub(super) fn readings(graph: &Graph, name: &str) -> usize {
    graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| *input == name).count()
}
