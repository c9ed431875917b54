//! What makes channels that can be divided without a new node: normalizations, products with a constant vector, layers with a weight.

use std::collections::HashSet;

use super::follow::{readings, ways};
use crate::graph::{DType, Graph, Node, TensorData};
use crate::quant::ladder::weighted::Layout;
use crate::{Error, Result};

/// A node whose output is divided by dividing constants of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Its index.
    pub node: usize,
    /// Inputs that are divided.
    pub inputs: Vec<usize>,
    kind: Kind,
    /// Its channels.
    pub count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Constants of that shape, which broadcast with the output.
    Constants(Vec<i64>),
    /// Constants of one value a channel, the second axis of the output.
    SecondAxis,
    /// A weight, and perhaps a bias.
    Layer(Layout),
}

/// Normalizations that end with a scale and a shift: operator, inputs that are divided, whether channels are the second axis.
const NORMALIZATIONS: [(&str, &[usize], bool); 5] = [
    ("LayerNormalization", &[1, 2], false),
    ("RMSNormalization", &[1], false),
    ("BatchNormalization", &[1, 2], true),
    ("InstanceNormalization", &[1, 2], true),
    ("GroupNormalization", &[1, 2], true),
];

impl Source {
    /// The node as a source; `None`: it is none.
    ///
    /// # Errors
    /// An attribute of another type than the standard's.
    pub fn of(graph: &Graph, index: usize) -> Result<Option<Self>> {
        let node = &graph.nodes[index];
        if !node.domain.is_empty() {
            return Ok(None);
        }
        let constant =
            |&input: &usize| node.input(input).and_then(|name| graph.initializers.get(name));
        let float = |input: &usize| constant(input).filter(|data| data.dtype == DType::F32);
        if let Some((_, inputs, second)) =
            NORMALIZATIONS.iter().find(|(op, ..)| *op == node.op_type)
        {
            let given: Vec<usize> =
                inputs.iter().copied().filter(|&input| node.input(input).is_some()).collect();
            let shapes: Vec<&TensorData> = given.iter().filter_map(float).collect();
            let Some(scale) = shapes.first().filter(|_| shapes.len() == given.len()) else {
                return Ok(None);
            };
            if shapes.iter().any(|data| data.shape != scale.shape) || scale.len() < 2 {
                return Ok(None);
            }
            let count = scale.len();
            let kind =
                if *second { Kind::SecondAxis } else { Kind::Constants(scale.shape.clone()) };
            return Ok(Some(Self { node: index, inputs: given, kind, count }));
        }
        if node.op_type == "Mul" {
            let vector = |input: &usize| float(input).filter(|data| data.len() > 1);
            let found = [0, 1].into_iter().find_map(|input| Some((input, vector(&input)?)));
            return Ok(found.map(|(input, data)| Self {
                node: index,
                inputs: vec![input],
                kind: Kind::Constants(data.shape.clone()),
                count: data.len(),
            }));
        }
        let Some(layout) = Layout::of(graph, node)? else { return Ok(None) };
        let mut inputs = vec![1];
        if node.input(2).is_some() {
            // One value a channel; a bias that broadcasts otherwise is rare enough to leave the layer as it is.
            if float(&2).is_none_or(|bias| bias.len() != layout.outputs) {
                return Ok(None);
            }
            inputs.push(2);
        }
        let count = layout.outputs;
        Ok(Some(Self { node: index, inputs, kind: Kind::Layer(layout), count }))
    }

    /// Extents along which the channels of an output of that rank are numbered, counted from the right.
    pub fn extents(&self, rank: usize) -> Vec<i64> {
        let count = self.count as i64;
        let second = || {
            let mut extents = vec![count];
            extents.resize(rank.saturating_sub(1), 1);
            extents
        };
        match &self.kind {
            Kind::Constants(shape) => shape.clone(),
            Kind::SecondAxis => second(),
            Kind::Layer(layout) if layout.is_convolution() => second(),
            Kind::Layer(_) => vec![count],
        }
    }

    /// Divides what the node makes, channel by channel.
    ///
    /// # Errors
    /// A constant of another type than float32.
    pub fn divide(&self, graph: &mut Graph, factors: &[f64]) -> Result<()> {
        for &input in &self.inputs {
            change(graph, (self.node, input), |element, value| {
                let channel = match &self.kind {
                    Kind::Layer(layout) if input == 1 => layout.channels(element).0,
                    _ => element,
                };
                value / factors[channel]
            })?;
        }
        Ok(())
    }
}

/// Sources of a value, the nearest first, and what is at the end of the way back where there is none.
///
/// # Errors
/// An attribute of another type than the standard's.
pub(super) fn sources(graph: &Graph, value: &str) -> Result<(Vec<Source>, String)> {
    let producers = graph.producers();
    let (mut found, mut end) = (Vec::new(), String::new());
    let (mut next, mut seen) = (vec![value], HashSet::new());
    while let Some(value) = next.pop() {
        if !seen.insert(value) {
            continue;
        }
        let Some(&index) = producers.get(value) else {
            if end.is_empty() {
                end = format!("\"{value}\" is an input of the model");
            }
            continue;
        };
        let node = &graph.nodes[index];
        let source = Source::of(graph, index)?;
        // A product may be one, or hand on what another makes.
        let ends = source.is_some() && node.op_type != "Mul";
        found.extend(source);
        if ends {
            continue;
        }
        let ways = ways(graph, node);
        if ways.is_empty() && end.is_empty() {
            end = format!("{} makes it, which scaling does not pass", node.place());
        }
        next.extend(ways.into_iter().rev().map(|input| node.inputs[input].as_str()));
    }
    Ok((found, end))
}

/// Changes a float32 constant that a node reads, element by element; one that others read too stays as it is for them.
///
/// # Errors
/// A constant of another type, or values that are not finite.
pub(super) fn change(
    graph: &mut Graph,
    (node, input): (usize, usize),
    mut new: impl FnMut(usize, f64) -> f64,
) -> Result<()> {
    let name = graph.nodes[node].inputs[input].clone();
    let place = |node: &Node| format!("{}, constant \"{name}\"", node.place());
    let data = &graph.initializers[&name];
    let values = data.to_f32().map_err(|error| error.at(place(&graph.nodes[node])))?;
    let mut changed = Vec::with_capacity(values.len());
    for (element, value) in values.into_iter().enumerate() {
        if !value.is_finite() {
            return Err(
                Error::user(format!("element {element} is {value}")).at(place(&graph.nodes[node]))
            );
        }
        changed.push(new(element, f64::from(value)) as f32);
    }
    let data = TensorData::f32(&data.shape.clone(), &changed);
    put(graph, (node, input), data);
    Ok(())
}

/// Gives a node another constant; other readers of the one it had keep that.
pub(super) fn put(graph: &mut Graph, (node, input): (usize, usize), data: TensorData) {
    let name = graph.nodes[node].inputs[input].clone();
    let shared = readings(graph, &name) > 1 || graph.is_output(&name);
    let name = if shared { graph.fresh_name(&name) } else { name };
    graph.nodes[node].inputs[input].clone_from(&name);
    graph.initializers.insert(name, data);
}
