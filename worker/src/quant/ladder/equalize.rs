//! Cross-layer equalization (Nagel et al. 2019, section 4.1, <https://arxiv.org/abs/1906.04721>).
//!
//! Where `f(s x) = s f(x)` for `s > 0`, channel `i` between two layers may be divided by any `s_i` in the first and multiplied by it in the second:
//! the model computes the same. With `s_i = √(r1_i / r2_i)`, where `r1_i` is the largest weight that makes the channel and `r2_i` the largest that
//! reads it, both layers have the same range in each channel, which is what one scale for a whole weight wants. Pairs share layers (a depthwise
//! convolution is in two), so they are equalized in turn until nothing changes. Where it is asked for, high biases are absorbed then
//! ([`super::absorb`]).

use std::collections::HashMap;

use super::absorb::{Absorbed, Moments, absorb};
use super::layer_values::{LayerValues, constant_bias};
use super::weighted::Layout;
use crate::Result;
use crate::graph::{Graph, Model, Node};

/// What becomes of a Clip from 0 to some bound (ReLU6) between two layers: channels behind it cannot be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation6 {
    /// It stays, and the layers around it are not equalized.
    Keep,
    /// It becomes a Relu, as in the paper; the model computes something else where a value reaches the bound.
    Relu,
}

/// Two layers whose weights were equalized.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The layer that makes the channels.
    pub first: String,
    /// The layer that reads them.
    pub second: String,
    /// Least and greatest factor by which a channel was divided, other pairs of the two layers left aside.
    pub factors: (f64, f64),
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Equalized {
    /// In the order of the graph.
    pub pairs: Vec<Pair>,
    /// Activations that became a Relu.
    pub replaced: Vec<String>,
    /// Activations with a bound that stand between two layers and stayed.
    pub in_the_way: Vec<String>,
    /// What became of the biases of each pair, where they were to be absorbed.
    pub absorbed: Vec<Absorbed>,
}

/// Rounds after which equalization ends in any case. A chain of `n` layers needs a few times `n`.
const ROUNDS: usize = 400;

/// A round that changes no factor by more than this is the last.
const CHANGE: f64 = 1e-4;

/// Between layers, channels keep the order and are scaled by themselves.
const EQUIVARIANT: [&str; 8] = [
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Identity",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
];

/// Equalizes all pairs of layers of a prepared float model (BatchNormalization folded). With `moments`, those of the values that layers make in the
/// model as it comes, high biases are absorbed too. The model computes the same, but for [`Activation6::Relu`] and absorbed biases.
///
/// # Errors
/// A weight or bias that is not finite.
pub fn equalize(
    model: &mut Model,
    bounded: Activation6,
    moments: Option<&HashMap<String, Vec<Moments>>>,
) -> Result<Equalized> {
    let graph = &mut model.graph;
    let mut found = Equalized::default();
    let mut links = Vec::new();
    for index in 0..graph.nodes.len() {
        if let Some(link) = link(graph, index, bounded, &mut found)? {
            links.push(link);
        }
    }
    let mut layers: HashMap<usize, LayerValues> = HashMap::new();
    for link in &links {
        for index in [link.first, link.second] {
            if let std::collections::hash_map::Entry::Vacant(place) = layers.entry(index) {
                place.insert(LayerValues::read(graph, index)?);
            }
        }
    }
    for _ in 0..ROUNDS {
        let mut change = 0.0_f64;
        for link in &mut links {
            change = change.max(link.step(&mut layers));
        }
        if change < CHANGE {
            break;
        }
    }
    for link in &links {
        let ends = link.factors.iter().fold((f64::INFINITY, 0.0_f64), |ends, &factor| {
            (ends.0.min(factor), ends.1.max(factor))
        });
        let label = |index: usize| graph.nodes[index].label().to_owned();
        let (first, second) = (label(link.first), label(link.second));
        found.pairs.push(Pair { first, second, factors: ends });
        for &index in &link.bounded {
            found.replaced.push(label(index));
        }
    }
    for &index in links.iter().flat_map(|link| &link.bounded) {
        let node = &mut graph.nodes[index];
        "Relu".clone_into(&mut node.op_type);
        node.inputs.truncate(1);
        node.attributes.clear();
        node.attribute_notes.clear();
    }
    if let Some(moments) = moments {
        for link in &links {
            found.absorbed.push(absorb(graph, link, &mut layers, moments)?);
        }
    }
    let mut layers: Vec<LayerValues> = layers.into_values().collect();
    layers.sort_by_key(|layer| layer.index);
    layers.into_iter().for_each(|layer| layer.write(graph));
    crate::passes::remove_dead(model)?;
    Ok(found)
}

/// Two layers with channels between them that can be scaled.
pub(super) struct Link {
    /// The layer that makes them.
    pub first: usize,
    /// The layer that reads them.
    pub second: usize,
    /// Inputs of the second layer that a channel is: more than one behind a Flatten.
    pub repeat: usize,
    /// What stands in between, in order.
    pub between: Vec<usize>,
    /// Activations in between that become a Relu.
    bounded: Vec<usize>,
    /// By what each channel of the first layer was divided.
    pub factors: Vec<f64>,
}

impl Link {
    /// Brings the ranges of both layers together once; the largest change of a factor, relative to it.
    fn step(&mut self, layers: &mut HashMap<usize, LayerValues>) -> f64 {
        let channels = self.factors.len();
        let largest = |layer: &LayerValues, channel: &dyn Fn(usize) -> usize| {
            let mut largest = vec![0.0_f64; channels];
            for (element, value) in layer.weight.iter().enumerate() {
                let most = &mut largest[channel(element)];
                *most = most.max(value.abs());
            }
            largest
        };
        let (first, second) = (&layers[&self.first], &layers[&self.second]);
        let made = largest(first, &|element| first.layout.channels(element).0);
        let read = largest(second, &|element| second.layout.channels(element).1 / self.repeat);
        let factor = |(&made, &read): (&f64, &f64)| {
            let factor = (made / read).sqrt();
            // A channel that nothing makes or nothing reads says nothing.
            if factor.is_finite() && factor > 0.0 { factor } else { 1.0 }
        };
        let factors: Vec<f64> = made.iter().zip(&read).map(factor).collect();
        if let Some(first) = layers.get_mut(&self.first) {
            for (element, value) in first.weight.iter_mut().enumerate() {
                *value /= factors[first.layout.channels(element).0];
            }
            for (value, factor) in first.bias.iter_mut().flatten().zip(&factors) {
                *value /= factor;
            }
        }
        if let Some(second) = layers.get_mut(&self.second) {
            for (element, value) in second.weight.iter_mut().enumerate() {
                *value *= factors[second.layout.channels(element).1 / self.repeat];
            }
        }
        self.factors.iter_mut().zip(&factors).for_each(|(all, factor)| *all *= factor);
        factors.iter().map(|factor| (factor - 1.0).abs()).fold(0.0, f64::max)
    }
}

/// The pair whose first layer is node `index`, if its output goes to one other layer only.
fn link(
    graph: &Graph,
    index: usize,
    bounded: Activation6,
    found: &mut Equalized,
) -> Result<Option<Link>> {
    let node = &graph.nodes[index];
    let Some(layout) = Layout::of(graph, node)? else { return Ok(None) };
    let plain_bias = node.input(2).is_none() || constant_bias(graph, node, &layout).is_some();
    let own = |name: &str| readers(graph, name).len() == 1;
    if !plain_bias || !node.inputs.iter().skip(1).all(|name| name.is_empty() || own(name)) {
        return Ok(None);
    }
    let (mut replaced, mut kept, mut flattened) = (Vec::new(), Vec::new(), false);
    let mut between = Vec::new();
    let mut value = node.outputs[0].as_str();
    loop {
        let [reader] = readers(graph, value)[..] else { return Ok(None) };
        if graph.is_output(value) || graph.nodes[reader].input(0) != Some(value) {
            return Ok(None);
        }
        let next = &graph.nodes[reader];
        let constant = |name: &String| name.is_empty() || graph.initializers.contains_key(name);
        match next.op_type.as_str() {
            // Of what a product makes it would mix the channels, which are the last axis.
            op if op.ends_with("Pool") && !layout.is_convolution() => return Ok(None),
            op if EQUIVARIANT.contains(&op) && next.inputs.iter().skip(1).all(constant) => {}
            "Clip" if is_bounded_relu(graph, next) && bounded == Activation6::Relu => {
                replaced.push(reader);
            }
            "Clip" => kept.push(reader),
            "Flatten" if next.int("axis", 1)? == 1 => flattened = true,
            _ => {
                let Some(second) = Layout::of(graph, next)? else { return Ok(None) };
                let fits = second.inputs.is_multiple_of(layout.outputs)
                    && (flattened || second.inputs == layout.outputs)
                    && reads_channels(&layout, &second, flattened)
                    && own(&next.inputs[1]);
                if fits && !kept.is_empty() {
                    found
                        .in_the_way
                        .extend(kept.iter().map(|&i| graph.nodes[i].label().to_owned()));
                }
                return Ok((fits && kept.is_empty()).then(|| Link {
                    first: index,
                    second: reader,
                    repeat: second.inputs / layout.outputs,
                    between,
                    bounded: replaced,
                    factors: vec![1.0; layout.outputs],
                }));
            }
        }
        // A second output (indices of a MaxPool) that is read does not scale.
        if next.outputs.iter().skip(1).any(|name| !name.is_empty()) {
            return Ok(None);
        }
        between.push(reader);
        value = next.outputs[0].as_str();
    }
}

/// Whether the channels of the first layer are the input channels of the second. A convolution's are the second axis of what it makes, a product's the
/// last, which is the same in rows only: a convolution's channels, flattened, are columns side by side; those of a product come again for each of its
/// rows, unless there is one.
fn reads_channels(first: &Layout, second: &Layout, flattened: bool) -> bool {
    match (first.is_convolution(), second.is_convolution()) {
        (true, true) => true,
        (true, false) => flattened,
        (false, true) => false,
        (false, false) => second.inputs == first.outputs,
    }
}

/// A Clip from 0 to a constant above it.
fn is_bounded_relu(graph: &Graph, node: &Node) -> bool {
    let number = |index: usize| {
        let values = graph.initializers.get(node.input(index)?)?.to_f32().ok()?;
        (values.len() == 1).then(|| values[0])
    };
    number(1) == Some(0.0) && number(2).is_some_and(|high| high > 0.0)
}

/// Nodes that read a value, one for each reading.
pub(super) fn readers(graph: &Graph, name: &str) -> Vec<usize> {
    let nodes = graph.nodes.iter().enumerate();
    nodes
        .flat_map(|(index, node)| {
            node.inputs.iter().filter(|input| *input == name).map(move |_| index)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{TensorData, ValueInfo};

    /// Two layers behind each other with nodes in between; how many pairs are equalized.
    fn pairs(first: (&str, &[i64]), between: &[&str], second: (&str, &[i64])) -> usize {
        let mut graph = Graph {
            inputs: vec![ValueInfo::f32("x", Vec::new())],
            outputs: vec![ValueInfo::f32("y", Vec::new())],
            ..Graph::default()
        };
        let mut value = "x".to_owned();
        let mut add = |graph: &mut Graph, op: &str, weight: &[i64], output: &str| {
            let mut inputs = vec![value.clone()];
            if !weight.is_empty() {
                let count = weight.iter().product::<i64>();
                let values: Vec<f32> = (0..count).map(|at| 1.0 + at as f32).collect();
                graph.initializers.insert(format!("{output}_w"), TensorData::f32(weight, &values));
                inputs.push(format!("{output}_w"));
            }
            let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            graph.nodes.push(Node::new(output, op, &inputs, &[output]));
            output.clone_into(&mut value);
        };
        add(&mut graph, first.0, first.1, "first");
        for (index, op) in between.iter().enumerate() {
            add(&mut graph, op, &[], &format!("between_{index}"));
        }
        add(&mut graph, second.0, second.1, "y");
        let mut model = Model::new(graph, 17);
        equalize(&mut model, Activation6::Keep, None).unwrap().pairs.len()
    }

    #[test]
    fn channels_of_a_convolution_are_those_of_a_product_behind_a_flatten_only() {
        let (conv, product) = (("Conv", &[4, 1, 1, 1][..]), ("MatMul", &[4, 3][..]));
        assert_eq!(pairs(conv, &["Relu"], ("Conv", &[2, 4, 1, 1])), 1);
        assert_eq!(pairs(conv, &["Relu", "Flatten"], product), 1);
        assert_eq!(pairs(conv, &["Relu", "Flatten"], ("MatMul", &[16, 3])), 1);
        // A product of images multiplies along their rows.
        assert_eq!(pairs(conv, &["Relu"], product), 0);
    }

    #[test]
    fn channels_of_a_product_are_the_last_axis() {
        let (first, second) = (("MatMul", &[2, 4][..]), ("MatMul", &[4, 3][..]));
        assert_eq!(pairs(first, &["Relu"], second), 1);
        assert_eq!(pairs(first, &["MaxPool"], second), 0);
        assert_eq!(pairs(first, &["Flatten"], ("MatMul", &[8, 3])), 0);
        assert_eq!(pairs(first, &["Relu"], ("Conv", &[2, 4, 1, 1])), 0);
    }
}
