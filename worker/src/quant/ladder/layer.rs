//! The quantized layers of a model with Q/DQ pairs, as they stand.

use tch::Tensor;

use super::adaround::Forward;
use super::dropping::Dropping;
use super::region::ACTIVATIONS;
use super::weighted::Layout;
use crate::graph::{DType, Graph, Model, Node, TensorData, ValueInfo};
use crate::interp::{Mode, Options, Program};
use crate::ops::quantization::{Grouping, range};
use crate::quant::scheme::is_zero;
use crate::{Error, Result, torch};

/// A layer whose weight is a float constant behind a Q/DQ pair.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    /// Its index in the graph.
    pub node: usize,
    /// Name of the float weight.
    pub weight: String,
    /// Name of the pair's scale.
    pub scale: String,
    /// Which elements of the weight share a scale.
    pub grouping: Grouping,
    /// Least and greatest integer.
    pub range: (f64, f64),
    /// Output channels.
    pub channels: usize,
    /// Axis of the output channels in what the layer makes; -1: the last.
    pub output_axis: i64,
}

/// All such layers, in the order of the graph.
///
/// # Errors
/// An attribute of another type than the standard's.
pub(super) fn layers(graph: &Graph) -> Result<Vec<Layer>> {
    let producers = graph.producers();
    let made_by = |name: &str, op: &str| {
        let node = &graph.nodes[*producers.get(name)?];
        (node.op_type == op).then_some(node)
    };
    let mut found = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let pair = node.input(1).and_then(|name| made_by(name, "DequantizeLinear"));
        let quantize = pair.and_then(|pair| made_by(pair.input(0)?, "QuantizeLinear"));
        let Some(quantize) = quantize else { continue };
        let [Some(weight), Some(scale), Some(zero_point)] = [0, 1, 2].map(|i| quantize.input(i))
        else {
            continue;
        };
        let constant =
            |name: &str, dtype| graph.initializers.get(name).filter(|data| data.dtype == dtype);
        let integers = |name: &str| {
            let zero = graph.initializers.get(name).filter(|zero| is_zero(zero))?;
            matches!(zero.dtype, DType::I8 | DType::I7 | DType::I4).then(|| range(zero.dtype))?
        };
        let (Some(data), Some(_), Some((low, high))) =
            (constant(weight, DType::F32), constant(scale, DType::F32), integers(zero_point))
        else {
            continue;
        };
        let Some(layout) = Layout::of_shape(node, &data.shape)? else { continue };
        found.push(Layer {
            node: index,
            weight: weight.to_owned(),
            scale: scale.to_owned(),
            grouping: Grouping::new(quantize.int("axis", 1)?, quantize.int("block_size", 0)?),
            range: (low as f64, high as f64),
            channels: layout.outputs,
            output_axis: if node.op_type.starts_with("Conv") { 1 } else { -1 },
        });
    }
    Ok(found)
}

/// The same model without quantization, node for node: what a pair makes is what it is given.
pub(super) fn without_pairs(model: &Model) -> Model {
    let mut float = model.clone();
    let producers = model.graph.producers();
    for node in &mut float.graph.nodes {
        let quantize =
            node.input(0).and_then(|name| producers.get(name)).map(|&i| &model.graph.nodes[i]);
        if node.op_type == "DequantizeLinear"
            && let Some(quantize) = quantize.filter(|quantize| quantize.op_type == "QuantizeLinear")
        {
            *node = Node::new(&node.name, "Identity", &[&quantize.inputs[0]], &[&node.outputs[0]]);
        }
    }
    float
}

/// A layer as a function of its input, weight and bias, with the activation behind it where that is all that reads it.
pub(super) struct Function {
    layer: Program,
    activation: Option<Program>,
    bias: Option<Tensor>,
}

impl Function {
    /// Of a layer of a graph.
    ///
    /// # Errors
    /// What the layer refuses.
    pub fn of(model: &Model, layer: &Layer) -> Result<Self> {
        let graph = &model.graph;
        let node = &graph.nodes[layer.node];
        let bias = node.input(2).map(|name| {
            let data = graph.initializers.get(name);
            data.ok_or_else(|| {
                Error::user(format!("its bias \"{name}\" is not a constant")).at(node.place())
            })
        });
        let bias =
            bias.transpose()?.map(|data| torch::to_tensor(data, torch::device())).transpose()?;
        let names = ["x", "w", "b"];
        let names = &names[..if bias.is_some() { 3 } else { 2 }];
        let own = Node {
            inputs: names.iter().map(|&name| name.to_owned()).collect(),
            outputs: vec!["y".to_owned()],
            ..node.clone()
        };
        let compile = |node: Node, inputs: &[&str]| {
            let info = |name: &&str| ValueInfo {
                name: (*name).to_owned(),
                dtype: None,
                shape: None,
                opaque: None,
            };
            let graph = Graph {
                nodes: vec![node],
                inputs: inputs.iter().map(info).collect(),
                outputs: vec![info(&"y")],
                initializers: graph.initializers.clone(),
                ..Graph::default()
            };
            let options = Options { channels_last: false, ..Options::default() };
            Program::compile(&Model { graph, ..model.clone() }, &options)
        };
        let made = &node.outputs[0];
        let mut readers = graph.nodes.iter().filter(|reader| reader.inputs.contains(made));
        let reader = readers.next().filter(|_| readers.next().is_none() && !graph.is_output(made));
        let reader = reader.filter(|reader| {
            let constant = |name: &String| graph.initializers.contains_key(name) || name.is_empty();
            ACTIVATIONS.contains(&reader.op_type.as_str())
                && reader.inputs.iter().skip(1).all(constant)
        });
        let activation = reader.map(|reader| {
            let mut reader = Node { outputs: vec!["y".to_owned()], ..reader.clone() };
            "x".clone_into(&mut reader.inputs[0]);
            compile(reader, &["x"])
        });
        Ok(Self { layer: compile(own, names)?, activation: activation.transpose()?, bias })
    }

    /// The activation of what a layer made.
    ///
    /// # Errors
    /// What the activation refuses.
    pub fn activated(&mut self, output: Tensor) -> Result<Tensor> {
        match &mut self.activation {
            Some(activation) => {
                only(activation.forward(&[output], Mode::Eval, &mut |_, _| Ok(()))?)
            }
            None => Ok(output),
        }
    }
}

impl Forward for Function {
    fn run(
        &mut self,
        input: &Tensor,
        weights: &[Tensor],
        _: Option<&mut Dropping>,
    ) -> Result<Tensor> {
        // Nothing inside is quantized but the weight.
        let mut inputs = vec![input.shallow_clone()];
        inputs.extend(weights.iter().chain(&self.bias).map(Tensor::shallow_clone));
        let output = only(self.layer.forward(&inputs, Mode::Eval, &mut |_, _| Ok(()))?)?;
        self.activated(output)
    }
}

fn only(outputs: Vec<Tensor>) -> Result<Tensor> {
    outputs.into_iter().next().ok_or_else(|| Error::bug("a layer without output"))
}

/// A constant bias that can be shifted.
#[derive(Debug)]
pub(super) struct Bias {
    /// A name that nothing else reads.
    pub name: String,
    /// Whether the node behind the layer adds it, as exporters write a Linear of more than two dimensions.
    pub behind: bool,
}

/// The bias of a layer that can be shifted. A convolution or Gemm without one gets zeros.
/// `None`: the layer has no such input, or a bias of another form.
///
/// # Errors
/// An attribute of another type than the standard's.
pub(super) fn own_bias(graph: &mut Graph, layer: &Layer) -> Result<Option<Bias>> {
    let node = &graph.nodes[layer.node];
    if node.op_type == "MatMul" {
        return Ok(added_bias(graph, layer).map(|name| Bias { name, behind: true }));
    }
    let plain = match node.op_type.as_str() {
        "Conv" | "ConvTranspose" => true,
        "Gemm" => (node.float("beta", 1.0)? - 1.0).abs() < f32::EPSILON,
        _ => false,
    };
    if !plain {
        return Ok(None);
    }
    let channels = layer.channels as i64;
    let (data, name) = match node.input(2) {
        None => {
            let zeros = TensorData::f32(&[channels], &vec![0.0; layer.channels]);
            (zeros, graph.fresh_name(&format!("{}.bias", node.label())))
        }
        Some(name) => {
            let known = graph.initializers.get(name);
            let Some(data) =
                known.filter(|data| data.dtype == DType::F32 && data.len() == layer.channels)
            else {
                return Ok(None);
            };
            let readers =
                graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| *input == name);
            let shared = readers.count() > 1;
            (data.clone(), if shared { graph.fresh_name(name) } else { name.to_owned() })
        }
    };
    graph.initializers.insert(name.clone(), data);
    let inputs = &mut graph.nodes[layer.node].inputs;
    inputs.truncate(2);
    inputs.push(name.clone());
    Ok(Some(Bias { name, behind: false }))
}

/// The constant that is added to all that a matrix product makes, a number a channel.
fn added_bias(graph: &mut Graph, layer: &Layer) -> Option<String> {
    let output = graph.nodes[layer.node].outputs[0].as_str();
    let seen = graph.outputs.iter().any(|value| value.name == output);
    let reads = |node: &Node| node.inputs.iter().filter(|name| *name == output).count();
    let mut readers = (0..graph.nodes.len()).filter(|&index| reads(&graph.nodes[index]) > 0);
    let (add, None, false) = (readers.next()?, readers.next(), seen) else { return None };
    let node = &graph.nodes[add];
    if node.op_type != "Add" || reads(node) != 1 {
        return None;
    }
    let place = usize::from(node.inputs[0] == output);
    let name = node.inputs[place].clone();
    let data = graph.initializers.get(&name).filter(|data| {
        data.dtype == DType::F32
            && data.len() == layer.channels
            && data.shape.last() == Some(&(layer.channels as i64))
    })?;
    let data = data.clone();
    let shared = graph.nodes.iter().flat_map(|node| &node.inputs).filter(|input| **input == name);
    if shared.count() < 2 {
        return Some(name);
    }
    let own = graph.fresh_name(&name);
    graph.initializers.insert(own.clone(), data);
    graph.nodes[add].inputs[place].clone_from(&own);
    Some(own)
}
