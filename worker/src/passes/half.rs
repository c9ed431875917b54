//! Float32 to float16, for runtimes that take all types from the file.
//!
//! Inputs and outputs of the graph stay float32, with a Cast behind and before them. Names of values stay, those of nodes too.

use std::collections::{HashMap, HashSet};

use crate::graph::{Attribute, DType, Graph, Model, Node, TensorData};
use crate::{Error, Result, torch};

/// The opset whose QuantizeLinear and DequantizeLinear take float16.
const OPSET: i64 = 19;
/// The least normal number of float16: below it, digits of a scale are lost. And the greatest.
const LEAST: f32 = 6.103_515_6e-5;
const GREATEST: f32 = 65504.0;

/// Operators that the standard gives float32 alone, or whose result has a type of its own.
const FLOAT32_ONLY: [&str; 10] = [
    "Bernoulli",
    "DynamicQuantizeLinear",
    "EyeLike",
    "Multinomial",
    "NonMaxSuppression",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Range",
];
/// Inputs that are float32 beside a float16 one.
const FLOAT32_INPUTS: [(&str, usize); 3] = [("Resize", 1), ("Resize", 2), ("Upsample", 1)];
/// Operators that make no floats of floats.
const NO_FLOATS: [&str; 17] = [
    "And",
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonMaxSuppression",
    "NonZero",
    "Not",
    "Or",
    "QuantizeLinear",
    "Shape",
    "Size",
];
/// Operators of whose outputs only the first has the type of the input.
const FIRST_OUTPUT: [&str; 4] = ["Dropout", "LayerNormalization", "MaxPool", "TopK"];

/// Casts what computes in float32 to float16; how many nodes were changed. A pair whose scale float16 cannot hold stays float32 with casts round it;
/// constants beyond its range become its greatest number.
///
/// # Errors
/// A node with a graph inside; an operator that means something else in opset 19, where there are Q/DQ pairs.
pub fn to_half(model: &mut Model) -> Result<usize> {
    if model.graph.nodes.iter().any(|node| node.op_type == "QuantizeLinear") {
        super::raise_opset(model, OPSET)?;
    }
    constants_to_initializers(&mut model.graph)?;
    let mut pass = Pass::new(&model.graph);
    let mut nodes = Vec::with_capacity(model.graph.nodes.len());
    let mut changed = 0;
    for node in std::mem::take(&mut model.graph.nodes) {
        let place = node.place();
        changed += usize::from(
            pass.node(node, &model.graph, &mut nodes).map_err(|error| error.at(place))?,
        );
    }
    model.graph.nodes = nodes;
    pass.outputs(&mut model.graph);
    pass.constants(&mut model.graph)?;
    for info in &mut model.graph.value_infos {
        if info.dtype == Some(DType::F32) && pass.floats.contains(&info.name) {
            info.dtype = Some(DType::F16);
            info.opaque = None;
        }
    }
    Ok(changed)
}

fn constants_to_initializers(graph: &mut Graph) -> Result<()> {
    let outputs: HashSet<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes) {
        if node.is_constant() && !outputs.contains(&node.outputs[0]) {
            let data = node.constant().map_err(|error| error.at(node.place()))?;
            graph.initializers.insert(node.outputs[0].clone(), data);
        } else {
            kept.push(node);
        }
    }
    graph.nodes = kept;
    Ok(())
}

struct Pass {
    /// Values that were float32.
    floats: HashSet<String>,
    /// Inputs of the graph among them.
    inputs: HashSet<String>,
    /// Constants that are read as float16.
    halves: HashSet<String>,
    /// The float32 form of a value that is read so.
    wide: HashMap<String, String>,
    /// The float16 form of an input.
    narrow: HashMap<String, String>,
    names: HashSet<String>,
}

impl Pass {
    fn new(graph: &Graph) -> Self {
        let floats = |info: &&crate::graph::ValueInfo| {
            info.dtype == Some(DType::F32) && !graph.initializers.contains_key(&info.name)
        };
        let inputs: HashSet<String> =
            graph.inputs.iter().filter(floats).map(|input| input.name.clone()).collect();
        let constants = graph.initializers.iter().filter(|(_, data)| data.dtype == DType::F32);
        let constants = constants.map(|(name, _)| name.clone());
        let made = graph.nodes.iter().flat_map(|node| node.outputs.iter().chain(&node.inputs));
        Self {
            floats: inputs.iter().cloned().chain(constants).collect(),
            names: made.cloned().chain(graph.initializers.keys().cloned()).collect(),
            inputs,
            halves: HashSet::new(),
            wide: HashMap::new(),
            narrow: HashMap::new(),
        }
    }

    fn fresh(&mut self, name: &str, suffix: &str) -> String {
        let mut fresh = format!("{name}_{suffix}");
        while !self.names.insert(fresh.clone()) {
            fresh.push('_');
        }
        fresh
    }

    /// The name of a float value as float16.
    fn half(&mut self, name: &str, graph: &Graph, nodes: &mut Vec<Node>) -> String {
        if self.inputs.contains(name) {
            if let Some(narrow) = self.narrow.get(name) {
                return narrow.clone();
            }
            let narrow = self.fresh(name, "float16");
            nodes.push(cast(name, &narrow, DType::F16));
            self.narrow.insert(name.to_owned(), narrow.clone());
            return narrow;
        }
        if graph.initializers.contains_key(name) {
            self.halves.insert(name.to_owned());
        }
        name.to_owned()
    }

    /// The name of a float value as float32.
    fn float(&mut self, name: &str, graph: &Graph, nodes: &mut Vec<Node>) -> String {
        if self.inputs.contains(name) {
            return name.to_owned();
        }
        if let Some(wide) = self.wide.get(name) {
            return wide.clone();
        }
        let wide = self.fresh(name, "float32");
        if !graph.initializers.contains_key(name) {
            nodes.push(cast(name, &wide, DType::F32));
        }
        self.wide.insert(name.to_owned(), wide.clone());
        wide
    }

    /// Adds a node in its new form; whether it now computes with float16.
    fn node(&mut self, mut node: Node, graph: &Graph, nodes: &mut Vec<Node>) -> Result<bool> {
        if node.attributes.values().any(|value| matches!(value, Attribute::Opaque(_))) {
            return Err(Error::user("a node with a graph inside cannot be cast to float16"));
        }
        let op = node.op_type.clone();
        let made = self.floats_of(&node)?;
        let wide = !node.domain.is_empty()
            || FLOAT32_ONLY.contains(&op.as_str())
            || (matches!(op.as_str(), "QuantizeLinear" | "DequantizeLinear")
                && self.is_wide_pair(&node, graph));
        let mut changed = !made.is_empty() && !wide;
        for index in 0..node.inputs.len() {
            let name = node.inputs[index].clone();
            if !self.floats.contains(&name) {
                continue;
            }
            let float = wide || FLOAT32_INPUTS.contains(&(op.as_str(), index));
            changed |= !float;
            node.inputs[index] = if float {
                self.float(&name, graph, nodes)
            } else {
                self.half(&name, graph, nodes)
            };
        }
        match op.as_str() {
            "Cast" if !made.is_empty() => {
                node.attributes
                    .insert("to".to_owned(), Attribute::Int(i64::from(DType::F16.onnx())));
            }
            "ConstantOfShape" if !made.is_empty() => {
                let value = node.tensor("value")?.cloned();
                let value = value.unwrap_or_else(|| TensorData::f32(&[1], &[0.0]));
                node.attributes.insert("value".to_owned(), Attribute::Tensor(narrowed(&value)?));
            }
            _ => {}
        }
        let mut casts = Vec::new();
        for &index in &made {
            let name = node.outputs[index].clone();
            if wide {
                let float = self.fresh(&name, "float32");
                casts.push(cast(&float, &name, DType::F16));
                self.wide.insert(name.clone(), float.clone());
                node.outputs[index] = float;
            }
            self.floats.insert(name);
        }
        nodes.push(node);
        nodes.extend(casts);
        Ok(changed)
    }

    /// Which outputs of a node are float32.
    fn floats_of(&self, node: &Node) -> Result<Vec<usize>> {
        let float = |index: usize| node.input(index).is_some_and(|name| self.floats.contains(name));
        let op = node.op_type.as_str();
        let makes = match op {
            "Cast" => node.int("to", 0)? == i64::from(DType::F32.onnx()),
            "CastLike" | "DequantizeLinear" | "Where" => float(1),
            "ConstantOfShape" => {
                node.tensor("value")?.is_none_or(|value| value.dtype == DType::F32)
            }
            "OneHot" => float(2),
            "DynamicQuantizeLinear" => return Ok(vec![1]),
            op if NO_FLOATS.contains(&op) => false,
            op if op.starts_with("Random") || op == "EyeLike" => {
                let dtype = node.int("dtype", 0)?;
                dtype == i64::from(DType::F32.onnx())
                    || (dtype == 0 && (node.inputs.is_empty() || float(0)))
            }
            _ => float(0),
        };
        let count = if FIRST_OUTPUT.contains(&op) { 1 } else { node.outputs.len() };
        let named = |&index: &usize| node.outputs.get(index).is_some_and(|name| !name.is_empty());
        Ok((0..if makes { count } else { 0 }).filter(named).collect())
    }

    /// Whether a quantization or dequantization stays float32: of a constant, whose integers shall stay the same, or with a scale that float16
    /// does not hold.
    fn is_wide_pair(&self, node: &Node, graph: &Graph) -> bool {
        let constant =
            |index: usize| node.input(index).and_then(|name| graph.initializers.get(name));
        let of_constant = node.op_type == "QuantizeLinear" && constant(0).is_some();
        let scales = constant(1).filter(|scale| scale.dtype == DType::F32);
        let held = scales.is_some_and(|scales| {
            scales
                .to_f32()
                .is_ok_and(|all| all.iter().all(|scale| (LEAST..=GREATEST).contains(scale)))
        });
        of_constant || !held
    }

    /// Gives the graph's float outputs back as float32.
    fn outputs(&mut self, graph: &mut Graph) {
        let outputs: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
        for name in outputs {
            let made = self.floats.contains(&name)
                && !self.inputs.contains(&name)
                && !graph.initializers.contains_key(&name);
            if !made {
                continue;
            }
            let half = self.fresh(&name, "float16");
            for node in &mut graph.nodes {
                let renamed = node.inputs.iter_mut().chain(&mut node.outputs);
                renamed.filter(|used| **used == name).for_each(|used| used.clone_from(&half));
            }
            graph.nodes.push(cast(&half, &name, DType::F32));
            self.floats.remove(&name);
        }
    }

    /// Writes constants in the types that they are read in.
    fn constants(&self, graph: &mut Graph) -> Result<()> {
        for (name, wide) in &self.wide {
            if let Some(data) = graph.initializers.get(name).cloned() {
                graph.initializers.insert(wide.clone(), data);
            }
        }
        for name in &self.halves {
            if graph.is_output(name) {
                return Err(Error::user(format!("the graph's output `{name}` is a constant")));
            }
            if let Some(data) = graph.initializers.get_mut(name) {
                *data = narrowed(data)?;
            }
        }
        let only_wide = |name: &String| self.wide.contains_key(name) && !self.halves.contains(name);
        let outputs: HashSet<&String> = graph.outputs.iter().map(|output| &output.name).collect();
        graph.initializers.retain(|name, _| !only_wide(name) || outputs.contains(name));
        Ok(())
    }
}

fn cast(from: &str, to: &str, dtype: DType) -> Node {
    Node::new(&format!("{to}_cast"), "Cast", &[from], &[to])
        .with("to", Attribute::Int(i64::from(dtype.onnx())))
}

fn narrowed(data: &TensorData) -> Result<TensorData> {
    if data.dtype != DType::F32 {
        return Ok(data.clone());
    }
    let tensor = torch::to_tensor(data, tch::Device::Cpu)?;
    let greatest = f64::from(GREATEST);
    torch::tensor_data(&tensor.f_clamp(-greatest, greatest)?.f_to_kind(tch::Kind::Half)?)
}

#[cfg(test)]
mod tests;
